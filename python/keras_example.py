"""Two small Keras networks pruned and cut, to be copied from: a plain one by its kernels, a residual one by its gammas.

    python keras_example.py

On the 3,500 digits of mnist_5k, in some minutes: each is trained dense, and with GuidedSparsity at three strengths; of
these the strongest that loses at most 1.5 points on the validation images is cut, and the rest trained on without it.
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

import functools
import pathlib
import statistics
import tempfile

import keras
import numpy as np
from keras import layers

import export
import input_data
import keras_applications
import keras_pruning
import program
import surroundings
import timing
from keras_pruning import GuidedSparsity


def plain(strength):
    """The paper's way: the group lasso and the inverse variance of each hidden kernel."""
    def penalty():
        return GuidedSparsity(group_lasso=strength, group_variance=1e-4) if strength else None

    return keras.Sequential([
        keras.Input((28, 28, 1)), layers.Conv2D(16, 5, strides=2, activation='relu', kernel_regularizer=penalty()),
        layers.Conv2D(32, 5, strides=2, activation='relu', kernel_regularizer=penalty()), layers.Flatten(),
        layers.Dense(128, activation='relu', kernel_regularizer=penalty()), layers.Dense(10)])


def residual(strength):
    """An L1 norm of the gammas, since behind a BatchNormalization a kernel's own size means nothing."""
    def normalised(x):  # momentum: at Keras's 0.99 the statistics lag behind so short a training
        return layers.BatchNormalization(momentum=0.9, gamma_regularizer=GuidedSparsity(strength, 0))(x)

    def convolution(x, strides=1):
        return normalised(layers.Conv2D(16, 3, strides, padding='same', use_bias=False)(x))

    images = keras.Input((28, 28, 1))
    x = layers.ReLU()(convolution(images, strides=2))
    for _ in range(3):
        x = layers.ReLU()(layers.Add()([x, convolution(layers.ReLU()(convolution(x)))]))
    return keras.Model(images, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def trained(model, data, rate, epochs=14):
    """At a rate that falls to 0: Adam moves a gamma by at most the rate a step, and 1 has to become 0."""
    steps = epochs * -(-len(data.train.images) // 100)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data.train, batch_size=100, epochs=epochs, verbose=0)
    return model


def accuracy(model, images, labels):
    return np.mean(np.argmax(model.predict(images, batch_size=500, verbose=0), axis=1) == labels)


def main():
    data = input_data.read_data_sets(dataset='mnist_5k')
    print(f'{"network":22}{"test accuracy":>14}{"MACs":>11}{"TFLite bytes":>14}{"ms for 100":>12}')
    for build, strengths, rate in ((plain, (0.02, 0.01, 0.005), 3e-3), (residual, (0.1, 0.05, 0.02), 1e-2)):
        keras.utils.set_random_seed(0)
        dense = trained(build(0), data, rate)
        for strength in strengths:
            small = keras_pruning.cut(trained(build(strength), data, rate), threshold=1e-2)
            if accuracy(small, *data.validation) >= accuracy(dense, *data.validation) - 0.015:
                break
        accuracies = [accuracy(dense, *data.test), accuracy(small, *data.test)]
        accuracies.append(accuracy(trained(small, data, rate / 10), *data.test))
        with tempfile.TemporaryDirectory() as folder:
            files = [pathlib.Path(folder, f'{name}.tflite') for name in ('dense', 'small')]
            for net, path in zip((dense, small), files, strict=True):
                export.write(net, path.parent, path.stem)
            batch = data.test.images[:100]
            taken = timing.in_turn({path: functools.partial(timing.timed, export.load(path), batch) for path in files},
                                   rounds=20)
            sizes = [export.size(path) for path in files]
        milliseconds = [1e3 * statistics.median(taken[path]) for path in files]
        for name, net, share, which in zip(('dense', f'cut, {strength}', 'trained on'), (dense, small, small),
                                           accuracies, (0, 1, 1), strict=True):
            print(f'{build.__name__ + ", " + name:22}{share:14.1%}{keras_applications.macs(net):11,}{sizes[which]:14,}'
                  f'{milliseconds[which]:12.2f}')


if __name__ == '__main__':
    program.run(main, __doc__, [])
