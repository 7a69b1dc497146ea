"""cut on random models: the same function, without anything that no chain of weights needs."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_pruning import ConstantMap, cut

pytestmark = pytest.mark.filterwarnings(
    'ignore:kept whole', 'ignore:__array__ implementation:DeprecationWarning')  # the latter is Keras's own

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
        for step in [self.kernel, self.passing, self.kernel, *(self.pick(*steps, self.opaque) for _ in range(4))]:
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
    of_rank = [set(), {'Conv1D', 'DepthwiseConv1D', 'ConstantMap'}, {'Conv2D', 'DepthwiseConv2D', 'ConstantMap'},
               {'Conv3D'}][rank]
    assert kinds >= {'Dense', 'BatchNormalization', 'Flatten', 'Concatenate', 'Add', 'Multiply'} | of_rank, kinds
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


def dead_behind(model, left, beta=0):
    """The model cut, with all but the last few of its eight gammas zero and its betas one number, and the same."""
    norm, = (layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    norm.gamma.assign(np.arange(8) >= 8 - left)
    norm.beta.assign(ops.full(norm.beta.shape, beta))
    small = cut(model)
    assert_same(small, model, np.random.default_rng(0))
    return small


@pytest.mark.parametrize('join', [layers.Multiply, layers.Add, layers.Maximum])
def test_one_channel_that_meets_many_does_not_link_them(join):
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 3, padding='same', activation='relu', name='many')(x)
    y = layers.BatchNormalization()(join()([y, layers.Conv2D(1, 3, padding='same', activation='sigmoid')(x)]))
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(layers.Conv2D(4, 3)(y))))
    assert dead_behind(model, 3, beta=0.5).get_layer('many').filters == 3


@pytest.mark.parametrize('beta, left', [(0, 3), (-1, 3), (1, 8)])
def test_what_an_excitation_multiplies_by_zero_is_gone(beta, left):
    x = keras.Input((6, 6, 3))
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False, name='many')(x)))
    weight = layers.Dense(8, 'sigmoid')(layers.Dense(2, 'relu')(layers.GlobalAveragePooling2D(keepdims=True)(y)))
    small = dead_behind(keras.Model(x, layers.Conv2D(4, 1)(layers.Multiply()([y, weight]))), 3, beta)
    assert small.get_layer('many').filters == left


@pytest.mark.parametrize('stranger', [
    lambda x: ops.log(ops.abs(x)), lambda x: x / ops.norm(x, axis=-1, keepdims=True), lambda x: (
        x - ops.mean(x, 1, keepdims=True)) / ops.std(x, 1, keepdims=True)], ids=['logarithm', 'norm', 'deviation'])
def test_what_is_no_number_for_zeros_hides_nothing_behind_it(stranger):
    x = keras.Input((7, 5))
    y = layers.BatchNormalization()(layers.Conv1D(8, 3, name='many')(stranger(x)))
    with pytest.warns(UserWarning, match='^kept whole: what cannot be seen through'):
        small = dead_behind(keras.Model(x, layers.Dense(2)(layers.Conv1D(4, 3)(y))), 3, beta=1)
    assert small.get_layer('many').filters == 3
