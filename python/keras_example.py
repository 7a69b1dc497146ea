"""Two small Keras networks pruned, cut and trained further: a plain one by its kernels, a residual one by its gammas.

On mnist_5k, three minutes on two cores; of three cuts the table has the deepest that loses at most 1.5 points on the
validation images. The residual one, 16 channels wide, gains no milliseconds: 9 channels take LiteRT as long as 16.
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

import argparse
import functools
import pathlib
import tempfile

import keras
import numpy as np
from keras import layers

import export
import input_data
import keras_applications
import timing
from keras_pruning import GuidedSparsity, cut


def plain(strength):
    """The paper's way: the group lasso and the inverse variance of each hidden kernel."""
    penalty = GuidedSparsity(group_lasso=strength, group_variance=1e-4) if strength else None
    return keras.Sequential([
        keras.Input((28, 28, 1)), layers.Conv2D(16, 5, strides=2, activation='relu', kernel_regularizer=penalty),
        layers.Conv2D(32, 5, strides=2, activation='relu', kernel_regularizer=penalty), layers.Flatten(),
        layers.Dense(128, activation='relu', kernel_regularizer=penalty), layers.Dense(10)])


def residual(strength):
    """An L1 norm of the gammas, for behind a BatchNormalization a kernel's own size means nothing: network slimming."""
    def convolution(x, strides=1):  # momentum: at Keras's 0.99 the statistics lag behind so short a training
        x = layers.Conv2D(16, 3, strides, padding='same', use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9, gamma_regularizer=GuidedSparsity(strength, 0))(x)

    x = layers.ReLU()(convolution(images := keras.Input((28, 28, 1)), strides=2))
    for _ in range(3):
        x = layers.ReLU()(layers.Add()([x, convolution(layers.ReLU()(convolution(x)))]))
    return keras.Model(images, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def slimmed(model, share):
    """It without the smallest of its gammas, a share of all: they shrink together, so no threshold tells them apart."""
    weights, model = model.get_weights(), residual(0)  # the model itself stays, for another share
    model.set_weights(weights)
    found = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    limit = np.quantile(np.abs(np.concatenate([layer.gamma.numpy() for layer in found])), share)
    for layer in found:
        for variable in (layer.beta, layer.gamma):  # a beta that stays would be a constant for `cut` to carry on
            variable.assign(variable * (np.abs(layer.gamma.numpy()) > limit))
    return cut(model, threshold=0)


def trained(model, data):
    epochs = 14
    falling = keras.optimizers.schedules.CosineDecay(5e-3, epochs * len(data.train.images) // 100)
    model.compile(keras.optimizers.Adam(falling), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=['accuracy'])
    model.fit(*data.train, batch_size=100, epochs=epochs, verbose=0)
    return model


def show(title, model, data):
    """Prints a row of the table; the milliseconds are the median of 21 calls of LiteRT."""
    with tempfile.TemporaryDirectory() as folder:
        export.write(model, path := pathlib.Path(folder), 'net')
        run, size = export.load(path / 'net.tflite'), export.size(path / 'net.tflite')
    seconds = np.median([timing.timed(run, data.test.images[:100]) for _ in range(21)])
    print(f'{title:28}{model.evaluate(*data.test, verbose=0)[1]:9.1%}{keras_applications.macs(model):12,}{size:14,}'
          f'{1e3 * seconds:12.2f}', flush=True)


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    data = input_data.read_data_sets(dataset='mnist_5k')
    print(f'{"network":28}{"accuracy":>9}{"MACs":>12}{"TFLite bytes":>14}{"ms for 100":>12}')
    sparse = functools.cache(lambda: trained(residual(0.003), data))
    for build, cuts in (
            (plain, {f'lasso {s}': lambda s=s: cut(trained(plain(s), data), 1e-2) for s in (0.02, 0.01, 0.005)}),
            (residual, {f'without {s:.0%}': lambda s=s: slimmed(sparse(), s) for s in (0.4, 0.3, 0.2)})):
        keras.utils.set_random_seed(0)
        show(f'{build.__name__}, dense', dense := trained(build(0), data), data)
        for title, make in cuts.items():
            small = trained(make(), data)
            if small.evaluate(*data.validation, verbose=0)[1] >= dense.evaluate(*data.validation, verbose=0)[1] - 0.015:
                show(f'{build.__name__}, {title}', small, data)
                break
        else:
            print(f'{build.__name__}: no cut loses so little')


if __name__ == '__main__':
    main()
