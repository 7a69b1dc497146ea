"""GuidedSparsity against main's losses, and cut: the same function, without anything that no chain of weights needs."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pruning
import main
from keras_pruning import ConstantMap, GuidedSparsity, cut

pytestmark = pytest.mark.filterwarnings(
    'ignore:kept whole', 'ignore:__array__ implementation:DeprecationWarning')  # the latter is Keras's own, in saving

# ----------------------------------------------------------------------------------------------------- the regularizer

SHAPES = {'vector': (5,), 'dense': (7, 5), 'conv1d': (3, 4, 6), 'conv2d': (3, 2, 4, 5), 'conv3d': (2, 3, 2, 4, 3)}

# The penalty and its gradient of the weights in a file, on whatever backend the environment names.
OTHER_BACKEND = """
import sys, keras, numpy as np
from keras_pruning import GuidedSparsity
weights, regularizer = np.load(sys.argv[1]), GuidedSparsity(0.3, 0.7)
assert 'tensorflow' not in sys.modules and 'main' not in sys.modules
if keras.backend.backend() == 'torch':
    x = keras.Variable(weights)
    value = regularizer(x)
    value.backward()
    value, gradient = value.detach(), x.value.grad
else:
    import jax
    value, gradient = jax.value_and_grad(regularizer)(keras.ops.convert_to_tensor(weights))
np.savez(sys.argv[2], value=value, gradient=gradient)
"""


def weights(shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    array[..., 1] = 0  # a group that is gone
    return array


def value_and_gradient(penalty, array):
    variable = tf.Variable(array)
    with tf.GradientTape() as tape:
        value = penalty(variable)
    return value, tape.gradient(value, variable).numpy()


def mains(lambda_g, lambda_v):
    return lambda x: tf.add_n([tf.zeros([]), *main.penalties([x], lambda_g, lambda_v).values()])


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('coefficients', [(0.3, 0.7), (0.3, 0), (0, 0.7)], ids=['both', 'lasso', 'variance'])
def test_it_equals_the_losses_of_main(shape, coefficients):
    value, gradient = value_and_gradient(GuidedSparsity(*coefficients), weights(shape))
    expected_value, expected_gradient = value_and_gradient(mains(*coefficients), weights(shape))
    assert value.dtype == tf.float32 and value.shape == ()
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)
    assert (gradient[..., 1] == 0).all() and (gradient[..., 0] != 0).all()


@pytest.mark.parametrize('backend', ['torch', 'jax'])
def test_it_is_the_same_on_other_backends(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f'{backend} is not installed')
    np.save(tmp_path / 'weights.npy', weights((3, 2, 4, 5)))
    environment = {**os.environ, 'KERAS_BACKEND': backend,
                   'PYTHONPATH': str(pathlib.Path(keras_pruning.__file__).parent)}
    subprocess.run([sys.executable, '-c', OTHER_BACKEND, tmp_path / 'weights.npy', tmp_path / 'out.npz'], check=True,
                   env=environment)
    found = np.load(tmp_path / 'out.npz')
    value, gradient = value_and_gradient(mains(0.3, 0.7), weights((3, 2, 4, 5)))
    np.testing.assert_allclose(found['value'], value, rtol=1e-5)
    np.testing.assert_allclose(found['gradient'], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('number', [float, np.float32, tf.constant], ids=['float', 'NumPy', 'tensor'])
def test_inside_a_keras_model_that_is_saved_and_loaded(tmp_path, number):
    def regularizer():
        return GuidedSparsity(group_lasso=number(0.25), group_variance=number(0.75))

    model = keras.Sequential([
        keras.Input((4, 4, 4, 1)),
        layers.Conv3D(3, 2, kernel_regularizer=regularizer()), layers.Reshape((9, 9)),
        layers.Conv1D(4, 3, kernel_regularizer=regularizer()), layers.Flatten(),
        layers.Dense(5, kernel_regularizer=regularizer())])
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, 'kernel')]
    np.testing.assert_allclose(sum(model.losses), sum(main.penalties(kernels, 0.25, 0.75).values()), rtol=1e-5)

    model.compile('sgd', 'mse')
    model.fit(np.ones((8, 4, 4, 4, 1)), np.ones((8, 5)), epochs=1, verbose=0)
    trained = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, 'kernel')]
    assert all((old != new).any() for old, new in zip(kernels, trained, strict=True))

    model.save(tmp_path / 'model.keras')
    again = keras.models.load_model(tmp_path / 'model.keras')
    assert again.layers[-1].kernel_regularizer.get_config() == {'group_lasso': 0.25, 'group_variance': 0.75}
    np.testing.assert_allclose(sum(again.losses), sum(model.losses))


def test_the_name_in_saved_models():
    assert keras.saving.get_registered_name(GuidedSparsity) == 'attention_guided_sparsity>GuidedSparsity'


def test_terms_with_zero_coefficients_are_dropped():
    kernel = tf.ones((4, 3))  # equal groups: the inverse variance is infinite
    assert GuidedSparsity(0.0, 0.0)(kernel) == 0
    np.testing.assert_allclose(GuidedSparsity(1.0, 0.0)(kernel), 6)
    assert GuidedSparsity().get_config() == {'group_lasso': 0.001, 'group_variance': 0.01}


@pytest.mark.parametrize('coefficients', [(-1, 0), (0, -1), (float('nan'), 0), (0, float('inf'))])
def test_bad_coefficients_are_refused(coefficients):
    with pytest.raises(ValueError, match='finite and at least 0'):
        GuidedSparsity(*coefficients)


# ------------------------------------------------------------------------------------------------------- random graphs

def randomize(model, random, share=0.4, sparse_inputs=True):
    """Weights of both signs, many of them zero or below the threshold: whole outputs, whole inputs, single ones."""
    constants = random.choice([0, 1, 1])
    for layer in model.layers:
        values = []
        for variable in layer.weights:
            shape, name = variable.shape, variable.name
            value = random.normal(0, 1, shape)
            if name.endswith('kernel'):
                value /= np.sqrt(max(1, np.prod(shape[:-1])))
                value *= random.random(shape[-1]) > share
                value *= random.random(shape) > random.choice([0, 0.3])
                if sparse_inputs and len(shape) > 1:
                    value *= random.random((shape[-2], 1)) > share / 2
                value = np.where(value == 0, random.choice([0, 0.0009, -0.001], shape), value)
            elif name == 'gamma':
                value = np.where(random.random(shape) < share, random.choice([0, 0.0009], shape), value)
            elif 'variance' in name:
                value = 0.5 + np.abs(value)
            elif name == 'count':
                value = 1
            elif name in ('beta', 'bias', 'moving_mean'):
                value = constants * value
            values.append(np.asarray(value, variable.dtype))
        layer.set_weights(values)
        for inner in layer._flatten_layers():
            if isinstance(inner, layers.Normalization):
                inner.finalize_state()
    return model


def threshold(model, threshold=1e-3):
    """Sets the model's small weights to zero, as written in cut's docstring."""
    for variable in model.weights:
        if variable.name.endswith(('kernel', 'gamma')):
            value = ops.convert_to_numpy(variable)
            variable.assign(np.where(np.abs(value) > np.asarray(threshold, value.dtype), value, 0))


class Graphs:
    """Random graphs of 0 to 3 spatial dimensions, layer by layer."""

    def __init__(self, seed):
        keras.utils.set_random_seed(seed)
        self.random, self.kinds = np.random.default_rng(seed), []
        self.rank = seed % 4
        sides = {0: [], 1: [9], 2: [7, 6], 3: [5, 4, 5]}[self.rank]
        self.inputs = [keras.Input((*sides, int(self.random.integers(1, 4)))) for _ in range(self.random.choice([1, 2]))]
        self.tensors = list(self.inputs)
        steps = [self.kernel, self.kernel, self.passing, self.passing, self.merge, self.excite, self.concatenate]
        for number in range(12):
            step = steps[number % 3 * 2] if number < 3 else self.pick(*steps, self.opaque)
            x = self.tensors[-1] if self.random.random() < 0.7 else self.pick(*self.tensors)
            self.kinds.append(step.__name__)
            self.tensors.append(step(x))
        x = self.tensors[-1]
        heads = [layers.Dense(3, activation=self.pick(None, 'softmax'))(layers.Flatten()(x))]
        if self.random.random() < 0.5:
            heads.append(self.pick(*self.tensors[-4:-1]))
        self.model = randomize(keras.Model(self.inputs, heads), self.random)

    def pick(self, *options):
        return options[self.random.integers(len(options))]

    def layer(self, name, *arguments, **options):
        return getattr(layers, f'{name}{self.rank}D')(*arguments, **options)

    def large(self, x):
        return min(x.shape[1:-1], default=0) >= 4

    def kernel(self, x, units=None):
        units = units or int(self.random.integers(2, 7))
        options = {'activation': self.pick(None, 'relu', 'tanh', 'sigmoid', 'gelu'), 'use_bias': self.pick(True, False)}
        if not self.rank or self.random.random() < 0.15:
            return layers.Dense(units, **options)(x)
        options['padding'] = self.pick('same', 'valid') if self.large(x) else 'same'
        kind = self.pick('Conv', 'Conv', 'Conv', 'Separable', 'Transpose')
        size, stride = self.pick(1, 2, 3), self.pick(1, 1, 2) if self.large(x) else 1
        if kind == 'Separable' and self.rank < 3:
            return self.layer('SeparableConv', units, size, **options)(x)
        if kind == 'Transpose' and max(x.shape[1:-1]) < 8:
            return getattr(layers, f'Conv{self.rank}DTranspose')(units, size, strides=stride, **options)(x)
        if self.rank == 1 and self.random.random() < 0.3:
            options['padding'] = 'causal'
        return self.layer('Conv', units, size, **({'strides': stride} if self.random.random() < 0.5 else
                          {'dilation_rate': 2 if min(x.shape[1:-1]) >= 6 else 1}), **options)(x)

    def passing(self, x):
        channels = x.shape[-1]
        numbers = (0.5 + self.random.random(channels)).tolist()
        options = [
            layers.BatchNormalization(scale=self.pick(True, True, False), center=self.pick(True, False)),
            layers.BatchNormalization(), layers.Activation(self.pick('relu', 'silu', 'softplus', lambda v: v * v / 2)),
            layers.LeakyReLU(), layers.ReLU(6.0, threshold=0.1), layers.ELU(), layers.Dropout(0.5),
            layers.GaussianNoise(0.5), layers.Rescaling(self.pick(0.5, numbers), self.pick(0.1, numbers)),
            layers.Normalization(mean=numbers, variance=numbers), layers.Normalization(), layers.Identity()]
        if self.rank:
            options += [self.layer('ZeroPadding', self.pick(1, (1, 0) if self.rank == 1 else 1)),
                        self.layer(self.pick('MaxPooling', 'AveragePooling'), self.pick(1, 2, 3), strides=self.pick(1, 2),
                                   padding='same'), self.layer('SpatialDropout', 0.5)]
            if max(x.shape[1:-1]) < 8:
                options += [self.layer('UpSampling', 2)]
            if self.large(x):
                options += [self.layer('Cropping', 1), self.layer(self.pick('MaxPooling', 'AveragePooling'), 2)]
            if self.rank < 3:
                options += 3 * [self.layer('DepthwiseConv', self.pick(2, 3), padding='same',
                                           activation=self.pick(None, 'relu'), use_bias=self.pick(True, False))]
            if self.rank == 2:
                options += [layers.Reshape((-1, x.shape[2], channels))]
        return self.pick(*options)(x)

    def merge(self, x):
        """A skip, perhaps over several layers: with what has the same shape, or is brought to it."""
        others = [y for y in self.tensors if y.shape == x.shape]
        y = self.pick(*others, layers.Dense(self.pick(x.shape[-1], x.shape[-1], 1))(x))
        if y.shape[-1] != x.shape[-1]:
            return layers.Multiply()([x, y])
        kind = self.pick('Add', 'Add', 'Subtract', 'Multiply', 'Average', 'Maximum', 'Minimum')
        return getattr(layers, kind)()([x, y])

    def excite(self, x):
        """Each channel weighed by what all of them are in the mean."""
        if not self.rank:
            return layers.Multiply()([x, layers.Dense(x.shape[-1], 'sigmoid')(layers.Dense(2, 'relu')(x))])
        pooled = self.layer(self.pick('GlobalAveragePooling', 'GlobalMaxPooling'), keepdims=True)(x)
        return layers.Multiply()([x, layers.Dense(x.shape[-1], 'sigmoid')(layers.Dense(2, 'relu')(pooled))])

    def concatenate(self, x):
        others = [y for y in self.tensors if y.shape[:-1] == x.shape[:-1]]
        return layers.Concatenate()([x, self.pick(*others), layers.Dense(2)(x)])

    def opaque(self, x):
        channels = x.shape[-1]
        twice = layers.Dense(channels)
        inner = keras.Input((*x.shape[1:-1], channels))
        nested = keras.Model(inner, layers.Dense(channels, 'relu')(layers.Normalization()(inner)))
        options = [lambda: layers.LayerNormalization()(x), lambda: layers.PReLU()(x), lambda: layers.Softmax()(x),
                   lambda: ops.sin(x) * 2 + x, lambda: twice(twice(x)), lambda: nested(x), lambda: x[..., ::-1],
                   lambda: layers.Dense(3, 'softmax')(x), lambda: layers.UnitNormalization()(x)]
        if self.rank in (1, 2):
            options += [lambda: self.layer('DepthwiseConv', 2, depth_multiplier=2, padding='same')(x),
                        lambda: self.layer('Conv', 2 * channels, 3, groups=channels, padding='same')(x)]
        return self.pick(*options)()


def arrays(model, random, size=None, number=3):
    return [random.normal(0, 1, (number, *(size if n is None else n for n in x.shape[1:]))).astype(x.dtype)
            for x in model.inputs]


def outputs(model, inputs):
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0]))]


def assert_same(small, model, random, tolerance=1e-5, sizes=(None,)):
    """Equal to the model, which is thresholded for good, on random inputs."""
    before = [ops.convert_to_numpy(variable) for variable in model.weights]
    threshold(model)
    for size in sizes:
        inputs = arrays(model, random, size)
        for found, wanted in zip(outputs(small, inputs), outputs(model, inputs), strict=True):
            assert np.isfinite(wanted).all()
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1, np.abs(wanted).max()))
    return before


def parameters(model):
    return sum(int(np.prod(variable.shape)) for variable in model.weights if variable.name not in ('map', 'bias'))


SEEDS = range(int(os.environ.get('FIRST_GRAPH', 0)), int(os.environ.get('LAST_GRAPH', 40)))


@pytest.mark.parametrize('seed', SEEDS)
def test_a_random_graph_stays_the_same_function(seed):
    graph = Graphs(seed)
    before = [ops.convert_to_numpy(variable) for variable in graph.model.weights]
    names = [operation.name for operation in graph.model.operations]
    small = cut(graph.model)
    for variable, value in zip(graph.model.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert [operation.name for operation in graph.model.operations] == names
    assert set(names) <= {operation.name for operation in small.operations}
    assert parameters(small) <= parameters(graph.model)
    assert_same(small, graph.model, graph.random)
