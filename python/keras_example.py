"""Two small Keras networks pruned and cut, to be copied from: a plain one by its kernels, a residual one by its gammas.

On the 3,500 digits of mnist_5k, in some minutes: each is trained dense, and with GuidedSparsity at three strengths; the
strongest of these that loses at most 1.5 points on the validation images is cut, and trained on without it.
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

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
    penalty = GuidedSparsity(group_lasso=strength, group_variance=1e-4) if strength else None
    return keras.Sequential([
        keras.Input((28, 28, 1)), layers.Conv2D(16, 5, strides=2, activation='relu', kernel_regularizer=penalty),
        layers.Conv2D(32, 5, strides=2, activation='relu', kernel_regularizer=penalty), layers.Flatten(),
        layers.Dense(128, activation='relu', kernel_regularizer=penalty), layers.Dense(10)])


def residual(strength):
    """An L1 norm of the gammas, since behind a BatchNormalization a kernel's own size means nothing."""
    def convolution(x, strides=1):  # momentum: at Keras's 0.99 the statistics lag behind so short a training
        x = layers.Conv2D(16, 3, strides, padding='same', use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9, gamma_regularizer=GuidedSparsity(strength, 0))(x)

    images = keras.Input((28, 28, 1))
    x = layers.ReLU()(convolution(images, strides=2))
    for _ in range(3):
        x = layers.ReLU()(layers.Add()([x, convolution(layers.ReLU()(convolution(x)))]))
    return keras.Model(images, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def trained(model, data, rate, epochs=14):
    """At a rate that falls to 0: Adam moves a gamma by at most the rate a step, and 1 has to become 0."""
    falling = keras.optimizers.schedules.CosineDecay(rate, epochs * len(data.train.images) // 100)
    model.compile(keras.optimizers.Adam(falling), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data.train, batch_size=100, epochs=epochs, verbose=0)
    return model


def accuracy(model, data):
    return np.mean(np.argmax(model.predict(data.images, batch_size=500, verbose=0), axis=1) == data.labels)


def show(title, model, data):
    """Prints a row of the table; the milliseconds are the median of 21 calls of LiteRT."""
    with tempfile.TemporaryDirectory() as folder:
        export.write(model, pathlib.Path(folder), 'net')
        path = pathlib.Path(folder, 'net.tflite')
        run, size = export.load(path), export.size(path)
    seconds = statistics.median(timing.timed(run, data.test.images[:100]) for _ in range(21))
    print(f'{title:24}{accuracy(model, data.test):10.1%}{keras_applications.macs(model):12,}{size:14,}'
          f'{1e3 * seconds:12.2f}', flush=True)


def main():
    data = input_data.read_data_sets(dataset='mnist_5k')
    print(f'{"network":24}{"accuracy":>10}{"MACs":>12}{"TFLite bytes":>14}{"ms for 100":>12}')
    for build, strengths, rate in ((plain, (0.02, 0.01, 0.005), 3e-3), (residual, (0.1, 0.05, 0.02), 1e-2)):
        keras.utils.set_random_seed(0)
        dense = trained(build(0), data, rate)
        for strength in strengths:
            small = keras_pruning.cut(trained(build(strength), data, rate), threshold=1e-2)
            if accuracy(small, data.validation) >= accuracy(dense, data.validation) - 0.015:
                break
        show(f'{build.__name__}, dense', dense, data)
        show(f'{build.__name__}, cut at {strength}', small, data)
        show(f'{build.__name__}, trained on', trained(small, data, rate / 10), data)


if __name__ == '__main__':
    program.run(main, __doc__, [])
