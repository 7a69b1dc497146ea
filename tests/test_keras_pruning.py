"""GuidedSparsity against main's losses, and cut: the same function, without anything that no chain of weights needs."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import interpreter
from keras import layers, ops

import keras_applications
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


def test_inside_a_keras_model_that_is_saved_and_loaded(tmp_path):
    a, b, c = (GuidedSparsity(group_lasso=number(0.25), group_variance=number(0.75))
               for number in (float, np.float32, tf.constant))
    model = keras.Sequential([
        keras.Input((4, 4, 4, 1)), layers.Conv3D(3, 2, kernel_regularizer=a), layers.Reshape((9, 9)),
        layers.Conv1D(4, 3, kernel_regularizer=b), layers.Flatten(), layers.Dense(5, kernel_regularizer=c)])
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


@pytest.fixture
def no_draws(monkeypatch):
    """Layers start as zeros, for `randomize` draws what they hold: a third of the time of a test."""
    monkeypatch.setattr(keras.initializers.VarianceScaling, '__call__', keras.initializers.Zeros.__call__)


def threshold(model, threshold=1e-3):
    """Sets the model's small weights to zero, as written in cut's docstring."""
    for variable in model.weights:
        if variable.name.endswith(('kernel', 'gamma')):
            value = ops.convert_to_numpy(variable)
            variable.assign(np.where(np.abs(value) > np.asarray(threshold, value.dtype), value, 0))


def half_square(x):
    """An activation that no registry knows."""
    return x * x / 2


class Graphs:
    """Random graphs of 0 to 3 spatial dimensions, layer by layer."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.rank = seed % 4
        sides = {0: [], 1: [9], 2: [7, 6], 3: [5, 4, 5]}[self.rank]
        self.inputs = [keras.Input((*sides, self.pick(1, 2, 3))) for _ in range(self.pick(1, 2))]
        self.tensors = list(self.inputs)
        steps = [self.kernel, self.kernel, self.passing, self.passing, self.merge, self.excite, self.concatenate]
        for number in range(8):
            step = steps[number % 3 * 2] if number < 3 else self.pick(*steps, self.opaque)
            x = self.tensors[-1] if self.random.random() < 0.7 else self.pick(*self.tensors)
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
        channels, side = x.shape[-1], max(x.shape[1:-1], default=0)
        numbers = (0.5 + self.random.random(channels)).tolist()
        options = [
            lambda: layers.BatchNormalization(scale=self.pick(True, False), center=self.pick(True, False)),
            layers.BatchNormalization, layers.BatchNormalization, layers.LeakyReLU, layers.ELU, layers.Normalization,
            lambda: layers.Activation(self.pick('relu', 'silu', 'softplus', half_square)),
            lambda: layers.ReLU(6.0, threshold=0.1), lambda: layers.Dropout(0.5), lambda: layers.GaussianNoise(0.5),
            lambda: layers.Rescaling(self.pick(0.5, numbers), self.pick(0.1, numbers)), layers.Identity,
            lambda: layers.Normalization(mean=numbers, variance=numbers)]
        if self.rank:
            options += [lambda: self.layer('ZeroPadding', 1), lambda: self.layer('SpatialDropout', 0.5),
                        lambda: self.layer(self.pick('MaxPooling', 'AveragePooling'), self.pick(1, 2, 3),
                                           strides=self.pick(1, 2), padding='same')]
        if self.rank and side < 8:
            options.append(lambda: self.layer('UpSampling', 2))
        if self.large(x):
            options += [lambda: self.layer('Cropping', 1),
                        lambda: self.layer(self.pick('MaxPooling', 'AveragePooling'), 2)]
        if self.rank in (1, 2):
            options += 3 * [lambda: self.layer('DepthwiseConv', self.pick(2, 3), padding='same', use_bias=self.pick(
                True, False), activation=self.pick(None, 'relu'))]
        if self.rank == 2:
            options.append(lambda: layers.Reshape((-1, x.shape[2], channels)))
        return self.pick(*options)()(x)

    def merge(self, x):
        """A skip, perhaps over several layers: with what has the same shape, or is brought to it."""
        others = [y for y in self.tensors if y.shape == x.shape]
        y = self.pick(*others, None)
        y = layers.Dense(self.pick(x.shape[-1], x.shape[-1], 1))(x) if y is None else y
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

        def nested(x):
            inner = keras.Input(x.shape[1:])
            return keras.Model(inner, layers.Dense(channels, 'relu')(layers.Normalization()(inner)))(x)

        options = [lambda: layers.LayerNormalization()(x), lambda: layers.PReLU()(x), lambda: layers.Softmax()(x),
                   lambda: ops.sin(x) * 2 + x, lambda: twice(twice(x)), lambda: nested(x), lambda: x[..., ::-1],
                   lambda: layers.Dense(3, 'softmax')(x), lambda: layers.UnitNormalization()(x)]
        if self.rank in (1, 2):
            options.append(lambda: self.layer('DepthwiseConv', 2, depth_multiplier=2, padding='same')(x))
        return self.pick(*options)()


def arrays(model, random, size=None, number=3):
    return [random.normal(0, 1, (number, *(size if n is None else n for n in x.shape[1:]))).astype(x.dtype)
            for x in model.inputs]


def outputs(model, inputs):
    found = model(inputs if len(inputs) > 1 or isinstance(model.input, list) else inputs[0])
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(found)]


def assert_same(small, model, random, tolerance=1e-5, sizes=(None,)):
    """Equal to the model, which is thresholded for good, on random inputs."""
    threshold(model)
    for size in sizes:
        inputs = arrays(model, random, size)
        for found, wanted in zip(outputs(small, inputs), outputs(model, inputs), strict=True):
            assert np.isfinite(wanted).all()
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1, np.abs(wanted).max()))


def parameters(model):
    return sum(int(np.prod(variable.shape)) for variable in model.weights if variable.name not in ('map', 'bias'))


def check(seed):
    """Cuts the random graph of a seed; returns the names of what it is made of."""
    graph = Graphs(seed)
    before = [ops.convert_to_numpy(variable) for variable in graph.model.weights]
    names = [operation.name for operation in graph.model.operations]
    small = cut(graph.model)
    for variable, value in zip(graph.model.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=f'seed {seed}')
    assert [operation.name for operation in graph.model.operations] == names
    assert set(names) <= {operation.name for operation in small.operations}
    assert parameters(small) <= parameters(graph.model)
    assert_same(small, graph.model, graph.random)
    return {type(operation).__name__ for operation in graph.model.operations + small.operations}


@pytest.mark.parametrize('rank', range(4))
def test_random_graphs_stay_the_same_function(rank, no_draws):
    kinds = set.union(*(check(seed) for seed in range(rank, 40, 4)))
    assert kinds >= {'Dense', 'BatchNormalization', 'Flatten', 'Concatenate', 'Add', 'Multiply', *(
        {f'Conv{rank}D'} if rank else {}), *({'DepthwiseConv2D', 'ConstantMap'} if rank == 2 else {})}, kinds
    assert len(kinds) >= 16


# --------------------------------------------------------------------------------- plain chains, against NumPy's sums

def numpy_forward(model, x):
    """Sequential models of a few layers, by loops over places, in float64; weights of 0.001 or less are zero."""
    def patches(x, size, padding, fill):
        """[..., places by dimension, patch, channels] of stride 1."""
        if padding == 'same':
            x = np.pad(x, [(0, 0), *(((n - 1) // 2, n // 2) for n in size), (0, 0)], constant_values=fill)
        axes = tuple(range(1, x.ndim - 1))
        seen = np.lib.stride_tricks.sliding_window_view(x, size, axes)  # [N, places, channels, patch]
        return np.moveaxis(seen.reshape(*seen.shape[:x.ndim], -1), -1, -2)

    for layer in model.layers:
        values = {variable.name: ops.convert_to_numpy(variable).astype(np.float64) for variable in layer.weights}
        values = {name: np.where(np.abs(value) <= np.float32(0.001), 0, value) if name in ('kernel', 'gamma') else value
                  for name, value in values.items()}
        kind = type(layer).__name__
        if kind.startswith('Conv'):
            kernel = values['kernel'].reshape(-1, *values['kernel'].shape[-2:])
            x = np.einsum('...pi,pio->...o', patches(x, layer.kernel_size, layer.padding, 0), kernel) + values['bias']
        elif kind == 'Dense':
            x = x @ values['kernel'] + values['bias']
        elif kind == 'BatchNormalization':
            x = (x - values['moving_mean']) / np.sqrt(values['moving_variance'] + layer.epsilon)
            x = x * values['gamma'] + values['beta']
        elif kind.startswith('MaxPooling'):
            x = patches(x, layer.pool_size, layer.padding, -np.inf).max(axis=-2)
        elif kind == 'Flatten':
            x = x.reshape(len(x), -1)
        if kind == 'ReLU' or getattr(layer, 'activation', None) is keras.activations.relu:
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize('rank', [1, 2, 3])
@pytest.mark.parametrize('padding', ['same', 'valid'])
def test_a_plain_chain_is_what_numpy_computes(rank, padding, no_draws):
    keras.utils.set_random_seed(rank)
    random = np.random.default_rng(rank)
    conv, pool = getattr(layers, f'Conv{rank}D'), getattr(layers, f'MaxPooling{rank}D')
    model = randomize(keras.Sequential([
        keras.Input((*[9, 8, 7][:rank], 2)), conv(9, 3, padding=padding, activation='relu'),
        layers.BatchNormalization(), conv(8, 2, padding=padding), layers.BatchNormalization(), layers.ReLU(),
        pool(2, strides=1, padding=padding), conv(7, 3, padding=padding, activation='relu'),
        layers.Flatten(), layers.Dense(9, 'relu'), layers.Dense(3)]), random)
    for layer in model.layers:
        for name in ('beta', 'bias'):  # so that constants have both signs
            if hasattr(layer, name):
                getattr(layer, name).assign(random.normal(0, 1, getattr(layer, name).shape))
    small, (x,) = cut(model), arrays(model, random)
    assert parameters(small) < 0.5 * parameters(model)
    wanted = numpy_forward(model, x.astype(np.float64))
    np.testing.assert_allclose(outputs(small, [x])[0], wanted, atol=1e-5 * max(1, np.abs(wanted).max()))
    maps = [layer for layer in small.layers if isinstance(layer, ConstantMap)]
    assert bool(maps) == (padding == 'same')


# -------------------------------------------------------------------------------------------- nothing removable is left

def small_graph(seed):
    """A random graph of dense layers, sums and concatenations; what it is made of: (kind, inputs, output) of names."""
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    tensors, made = {'x0': keras.Input((3,))}, []
    for number in range(1, 8):
        name, (one, other) = f'x{number}', random.choice(list(tensors), 2)
        kind = random.choice(['dense', 'dense', 'add', 'concatenate'])
        same = [key for key in tensors if tensors[key].shape == tensors[one].shape and key != one]
        if kind == 'add' and same:
            inputs = [one, same[random.integers(len(same))]]
            tensors[name] = layers.Add(name=name)([tensors[key] for key in inputs])
        elif kind == 'concatenate':
            inputs = [one, other]
            tensors[name] = layers.Concatenate(name=name)([tensors[key] for key in inputs])
        else:
            kind, inputs = 'dense', [one]
            tensors[name] = layers.Dense(int(random.choice([3, 3, 4])), 'tanh', name=name)(tensors[one])
        made.append((kind, inputs, name))
    model = keras.Model(tensors['x0'], layers.Dense(2, name='y')(tensors[name]))
    names = {layer.name for layer in model.layers}
    made = [call for call in made if call[2] in names] + [('dense', [name], 'y')]
    widths = {key: tensor.shape[-1] for key, tensor in tensors.items()} | {'y': 2}
    return randomize(model, random, share=0.3), made, widths


def left_by_the_rule(model, made, widths):
    """How many channels of each tensor stay, found by taking away one removable group of linked ones at a time."""
    group = {(name, c): (name, c) for name in widths for c in range(widths[name])}
    depends, kernels = {('x0', c) for c in range(widths['x0'])}, {}
    for kind, inputs, output in made:
        if kind == 'dense':
            kernel = ops.convert_to_numpy(model.get_layer(output).kernel)
            kernels[output] = inputs[0], np.where(np.abs(kernel) <= np.float32(0.001), 0, kernel)
            depends |= {(output, c) for i, c in np.argwhere(kernels[output][1]) if (inputs[0], i) in depends}
            continue
        starts = [0, widths[inputs[0]] if kind == 'concatenate' else 0]
        for one, other in [((name, c), (output, c + start)) for name, start in zip(inputs, starts, strict=True)
                           for c in range(widths[name])]:
            old, new = group[one], group[other]
            group.update({node: new for node in group if group[node] == old})
            depends |= {other} if one in depends else set()

    present = {*group}
    held = {group[name, c] for name in ('x0', 'y') for c in range(widths[name])}

    def removable():
        for head in {group[node] for node in present} - held:
            members = {node for node in present if group[node] == head}
            if not any((output, c) in present and kernel[i, c] and (name, i) in members & depends
                       for output, (name, kernel) in kernels.items() for i, c in np.ndindex(kernel.shape)):
                return members

    while members := removable():
        present -= members
    left = {name: sum((name, c) in present for c in range(widths[name])) for name in widths}
    for kind, inputs, output in made:  # a tensor of no channels there is not
        of_inputs = [left[name] for name in inputs]
        left[output] = max(1, left[output], {'dense': 0, 'add': max(of_inputs), 'concatenate': sum(of_inputs)}[kind])
    return left


@pytest.mark.parametrize('seed', range(12))
def test_nothing_removable_by_the_rule_is_left(seed, no_draws):
    model, made, widths = small_graph(seed)
    small, left = cut(model), left_by_the_rule(model, made, widths)
    found = {name: small.get_layer(name).output.shape[-1] for _, _, name in made}
    assert all(found[name] <= left[name] for name in found), (found, left)
    assert_same(small, model, np.random.default_rng(seed))


def test_a_residual_branch_whose_last_gammas_are_zero_loses_its_inner_filters():
    x = keras.Input((6, 6, 4))
    y = layers.Conv2D(5, 3, padding='same', activation='relu', name='inner')(x)
    y = layers.BatchNormalization(name='last')(layers.Conv2D(4, 3, padding='same', use_bias=False, name='outer')(y))
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.Add()([x, y]))))
    model.get_layer('last').gamma.assign([0] * 4)
    model.get_layer('last').beta.assign([1, -1, 0.5, 0])
    small = cut(model)
    assert (small.get_layer('inner').filters, small.get_layer('outer').filters) == (1, 4)
    assert_same(small, model, np.random.default_rng(0))


# ---------------------------------------------------------------------------------------- what cannot be seen through

@keras.saving.register_keras_serializable(package='test')
class Custom(layers.Dense):
    """A subclass may do anything."""

    def call(self, x):
        return ops.flip(super().call(x), -1)


def lora():
    layer = layers.Dense(6)
    layer.build((None, 5, 6))
    layer.enable_lora(2)
    return layer


def nested():
    return keras.Sequential([keras.Input((5, 6)), layers.Normalization(), layers.Dense(6)])


def functional_nested():
    x = keras.Input((5, 6))
    return keras.Model(x, layers.Conv1D(6, 1)(layers.Dense(3, kernel_regularizer='l1')(x)))


OPAQUE = {
    'LayerNormalization': layers.LayerNormalization, 'GroupNormalization': lambda: layers.GroupNormalization(3),
    'UnitNormalization': layers.UnitNormalization, 'PReLU': layers.PReLU, 'Softmax': layers.Softmax,
    'softmax inside': lambda: layers.Activation('softmax'), 'callable': lambda: layers.Activation(
        lambda x: x - ops.mean(x, axis=-1, keepdims=True)), 'channels flipped': lambda: layers.Activation(
            lambda x: x[..., ::-1]),
    'a layer as activation': lambda: layers.Dense(6, activation=layers.PReLU(shared_axes=[1])),
    'attention': lambda: lambda x: layers.MultiHeadAttention(2, 3)(x, x),
    'Dot': lambda: lambda x: layers.Dot(2)([x, x]), 'groups': lambda: layers.Conv1D(6, 3, groups=3),
    'multiplier': lambda: layers.DepthwiseConv1D(2, depth_multiplier=2),
    'separable multiplier': lambda: layers.SeparableConv1D(4, 2, depth_multiplier=2),
    'axis of BatchNormalization': lambda: layers.BatchNormalization(axis=1),
    'axis of Concatenate': lambda: lambda x: layers.Concatenate(axis=1)([x, x]),
    'Permute': lambda: layers.Permute((2, 1)),
    'axis of Normalization': lambda: layers.Normalization(axis=(1, 2)),
    'Reshape': lambda: layers.Reshape((3, 10)), 'layer used twice': lambda: (
        lambda layer: lambda x: layers.Add()([layer(x), layer(layer(x))]))(layers.Dense(6)),
    'nested Sequential': nested, 'nested functional': functional_nested, 'subclass': lambda: Custom(6), 'LoRA': lora,
    'TimeDistributed': lambda: layers.TimeDistributed(layers.Dense(4)), 'LSTM': lambda: layers.LSTM(4),
    'EinsumDense': lambda: layers.EinsumDense('abc,cd->abd', (5, 4)), 'Lambda': lambda: layers.Lambda(lambda x: x * 2),
    'keras.ops': lambda: ops.sin, 'arithmetic': lambda: lambda x: x * x + 1,
    'indexing': lambda: lambda x: x[:, 1:, ::-1],
    'several outputs': lambda: lambda x: layers.Add()(ops.split(x, 2, axis=-1)),
    'dropout that is always on': lambda: lambda x: layers.Dropout(0.0)(x, training=True)}


@pytest.mark.parametrize('kind', OPAQUE)
def test_what_cannot_be_seen_through_stays_whole_and_exact(kind, no_draws):
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x = keras.Input((5, 4))
    before = layers.Conv1D(6, 3, padding='same', activation='relu', name='before')(layers.Dense(8, name='far')(x))
    beside = layers.Flatten()(layers.Dense(7, 'relu', name='beside')(OPAQUE[kind]()(before)))
    model = keras.Model(x, layers.Dense(3, name='last')(beside))
    model(np.zeros((1, 5, 4), np.float32))  # a layer as activation is built by its first batch
    randomize(model, random, sparse_inputs=False)
    for name in ('far', 'beside'):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.where(np.arange(kernel.shape[-1]) < 2, 0, kernel))
    with pytest.warns(UserWarning, match='^kept whole: what cannot be seen through: '):
        small = cut(model)
    assert small.get_layer('before').filters == 6
    assert all(small.get_layer(name).units < model.get_layer(name).units for name in ('far', 'beside'))
    assert_same(small, model, random)


def test_a_softmax_inside_keeps_its_own_outputs_but_not_what_it_reads():
    random = np.random.default_rng(0)
    x = keras.Input((4,))
    y = layers.Dense(5, 'softmax', name='inside')(layers.Dense(9, name='before')(x))
    model = randomize(keras.Model(x, layers.Dense(3, 'softmax', name='outside')(y)), random)
    with pytest.warns(UserWarning, match='^kept whole: what cannot be seen through: inside$'):
        small = cut(model)
    assert small.get_layer('inside').units == 5 and small.get_layer('before').units < 9
    assert_same(small, model, random)


def test_channels_first_stays_whole():
    x = keras.Input((3, 6, 6))
    y = layers.AveragePooling2D(2, data_format='channels_first')(layers.Activation('relu')(x))
    y = layers.Flatten(data_format='channels_first')(y)
    model = randomize(keras.Model(x, layers.Dense(2)(layers.Dense(6)(y))), np.random.default_rng(0))
    with pytest.warns(UserWarning, match='average_pooling2d.*, flatten'):
        assert_same(cut(model), model, np.random.default_rng(0))


def test_masks_and_integers():
    x = keras.Input((7,), dtype='int32')
    y = layers.Conv1D(6, 3, padding='same')(layers.Embedding(9, 4)(x))
    z = layers.GlobalAveragePooling1D()(layers.Embedding(9, 3, mask_zero=True)(x))
    model = keras.Model(x, layers.Dense(2)(layers.Concatenate()([layers.GlobalMaxPooling1D()(y), layers.Dense(4)(z)])))
    randomize(model, np.random.default_rng(1))
    small = cut(model)
    threshold(model)
    words = np.random.default_rng(0).integers(0, 9, (5, 7))
    words[:, 0] = 1
    np.testing.assert_allclose(small(words), model(words), atol=1e-5)


# ------------------------------------------------------------------------------------------------------- free sizes

def free_model(bias, padding='same'):
    x = keras.Input((None, None, 2))
    y = layers.Conv2D(8, 3, padding=padding, name='first', activation='relu')(x)
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding=padding, name='second')(layers.MaxPooling2D(2)(y)))
    y = layers.Conv2D(6, 3, padding=padding, name='third')(layers.ReLU()(y))
    model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
    randomize(model, np.random.default_rng(0), sparse_inputs=False)
    for layer in model.layers:
        for name in ('bias', 'beta', 'moving_mean'):
            if hasattr(layer, name):
                getattr(layer, name).assign(bias * np.random.default_rng(1).normal(size=getattr(layer, name).shape))
    for name in ('first', 'second'):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.where(np.arange(8) < 4, 0, kernel))
    return model


@pytest.mark.parametrize('bias, padding, filters, said', [
    (0, 'same', 4, 0), (1, 'same', None, 1), (1, 'valid', 4, 0)])
def test_inputs_of_free_size(bias, padding, filters, said, no_draws):
    model = free_model(bias, padding)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        small = cut(model)
    assert sum('constant channels whose border depends' in str(warning.message) for warning in caught) == said
    left = [small.get_layer(name).filters for name in ('first', 'second')]
    assert max(left) <= 4 if filters else 4 < max(left) <= 8
    assert not any(isinstance(layer, ConstantMap) for layer in small.layers)
    assert_same(small, model, np.random.default_rng(0), sizes=(20, 21, 33))


# ------------------------------------------------------------------------------------------------- saved, trained, lost

# In a folder that holds keras_pruning.py, and no other file of this project.
RELOAD = """
import sys
sys.modules.update(dict.fromkeys(['sklearn', 'pandas', 'matplotlib']))  # which Keras imports where it can
import keras, numpy as np
found = np.load('found.npz')
np.testing.assert_allclose(keras.models.load_model('plain.keras')(found['x']), found['plain'], atol=1e-5)
sys.path.append('')
import keras_pruning
np.testing.assert_allclose(keras.models.load_model('mapped.keras')(found['x']), found['mapped'], atol=1e-5)
"""


def image_model(padding='same', activation='relu'):
    x = keras.Input((9, 8, 2), name='image')
    y = layers.Conv2D(8, 3, padding=padding, kernel_regularizer=GuidedSparsity(), kernel_constraint='non_neg')(x)
    y = layers.BatchNormalization(gamma_regularizer='l1')(y)
    y = layers.Conv2D(8, 3, padding=padding, activation=activation)(layers.ReLU()(y))
    return randomize(keras.Model(x, layers.Dense(3, activity_regularizer='l2')(layers.Flatten()(y))),
                     np.random.default_rng(5))


def test_what_is_saved_needs_nothing_to_load_and_with_a_map_this_file_alone(tmp_path):
    (x,), found = arrays(image_model(), np.random.default_rng(0)), {}
    for name, padding in (('plain', 'valid'), ('mapped', 'same')):
        small = cut(image_model(padding))
        small.save(tmp_path / f'{name}.keras')
        found[name] = small(x)
    np.savez(tmp_path / 'found.npz', x=x, **found)
    shutil.copy(keras_pruning.__file__, tmp_path)
    subprocess.run([sys.executable, '-I', '-c', RELOAD], check=True, cwd=tmp_path)


def test_batch_normalization_and_a_map_exported_as_tflite_and_trained_on(tmp_path):
    model = image_model()
    small, (x,) = cut(model), arrays(model, np.random.default_rng(0), number=1)
    assert [layer.name for layer in small.layers if isinstance(layer, ConstantMap)] == [
        f'{model.layers[4].name}_map']
    small.export(tmp_path / 'exported', verbose=False)
    lite = interpreter.Interpreter(
        model_content=tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / 'exported')).convert())
    lite.allocate_tensors()
    lite.set_tensor(lite.get_input_details()[0]['index'], x)
    lite.invoke()
    threshold(model)
    for found in (tf.saved_model.load(str(tmp_path / 'exported')).serve(x),
                  lite.get_tensor(lite.get_output_details()[0]['index'])):
        np.testing.assert_allclose(found, model(x), atol=1e-4)
    assert not small.losses and not any(
        getattr(layer, name, None) for layer in small.layers for name in dir(layer)
        if name.endswith(('_regularizer', '_constraint')))
    small.compile(keras.optimizers.SGD(1e-3), 'mse')
    losses = small.fit(x, np.ones((1, 3)), epochs=4, verbose=0).history['loss']
    assert losses[-1] < losses[0]


def test_inputs_and_outputs_by_name_and_frozen_layers():
    inputs = {'a': keras.Input((4,), name='a'), 'b': keras.Input((4,), name='b')}
    y = layers.Dense(9, 'relu', name='frozen', trainable=False)(layers.Add()(list(inputs.values())))
    model = randomize(keras.Model(inputs, {'y': layers.Dense(2, name='y')(y), 'same': inputs['a']}, name='it'),
                      np.random.default_rng(0))
    small = cut(model)
    x = {'a': np.ones((2, 4), np.float32), 'b': np.full((2, 4), 0.5, np.float32)}
    threshold(model)
    for name, wanted in model(x).items():
        np.testing.assert_allclose(small(x)[name], wanted, atol=1e-5)
    assert small.name == 'it' and not small.get_layer('frozen').trainable and small.get_layer('frozen').units < 9
    assert {layer.name for layer in small.layers} == {layer.name for layer in model.layers}


def test_a_compiled_model_is_not_needed_to_be_compiled_again():
    model = image_model()
    model.compile('adam', lambda y, wanted: ops.mean(y - wanted))  # which no registry knows
    assert not cut(model).compiled and model.compiled


@pytest.mark.parametrize('dead', ['first', 'middle', 'last'])
def test_a_model_without_a_chain_is_the_constant_that_it_is(dead):
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(4, 3, padding='same', activation='relu', name='first')(x)
    y = layers.Flatten()(layers.Conv2D(4, 3, padding='same', activation='relu', name='middle')(y))
    model = keras.Model(x, layers.Dense(3, name='last')(y))
    for layer in (model.get_layer(name) for name in ('first', 'middle', 'last')):
        layer.bias.assign(np.linspace(-1, 2, layer.bias.shape[0]))
    model.get_layer(dead).kernel.assign(0 * model.get_layer(dead).kernel)
    small = cut(model)
    assert small.get_layer('first').filters == small.get_layer('middle').filters == 1
    assert not small.get_layer('last').kernel.numpy().any()
    assert_same(small, model, np.random.default_rng(0))


# ------------------------------------------------------------------------------------------------------------ refusals

class Subclassed(keras.Model):
    def call(self, x):
        return x


class Overridden(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return 2 * super().call(x)


def half():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype='float16')])


def quantized():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.quantize('int8')
    return model


@pytest.mark.parametrize('make, said', [
    (Subclassed, 'has no graph of layers.* keras.Model.inputs, outputs'),
    (lambda: keras.Sequential([layers.Dense(3)]), 'has no graph.* built'),
    (lambda: Overridden([keras.Input((4,)), layers.Dense(3)]), 'has no graph'),
    (lambda: layers.Dense(3), 'has no graph'),
    (half, 'float32 and float64'), (quantized, 'quantized')])
def test_what_cannot_be_cut_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        cut(make())


@pytest.mark.parametrize('number', [-1, float('nan')])
def test_a_threshold_that_is_none_is_refused(number):
    with pytest.raises(ValueError, match='threshold must be at least 0'):
        cut(image_model(), number)


def test_nothing_is_said_where_nothing_stays_whole():
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        cut(image_model())
        cut(keras.Sequential([keras.Input((4,)), layers.Dense(3, 'relu'), layers.Dense(2, 'softmax')]))


# --------------------------------------------------------------------------------------------------- keras.applications

@pytest.fixture
def float64():
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx('float64')
    keras.config.set_dtype_policy('float64')
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.mark.slow
@pytest.mark.parametrize('name', keras_applications.APPLICATIONS)
def test_a_network_of_each_family(name, float64):
    side = {'Xception': 71, 'InceptionV3': 75, 'InceptionResNetV2': 75}.get(name, 32)  # the least that each takes
    model = keras_applications.application(name, input_shape=(side, side, 3), classes=10)
    small = cut(model, threshold=0)
    assert parameters(small) < 0.8 * parameters(model)
    assert keras_applications.macs(small) < keras_applications.macs(model)
    (x,) = arrays(model, np.random.default_rng(0), number=2)
    (found,), (wanted,) = outputs(small, [x]), outputs(model, [x])
    assert wanted.dtype == np.float64 and np.ptp(wanted) > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * max(1, np.abs(wanted).max()))
    keras.utils.clear_session()


def test_the_multiply_accumulates_are_those_of_the_layers():
    model = keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(4, 3, strides=2, padding='same'), layers.DepthwiseConv2D(3),
        layers.SeparableConv2D(5, 2), layers.Flatten(), layers.Dense(7)])
    assert keras_applications.macs(model) == 16 * 9 * 3 * 4 + 4 * 9 * 4 + 1 * (4 * 4 + 4 * 5) + 5 * 7
