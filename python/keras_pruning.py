"""Structured pruning of any Keras model, on any of Keras's backends: a regularizer, and what makes its zeros real.

    Dense(64, activation='relu', kernel_regularizer=GuidedSparsity(group_lasso=0.001, group_variance=0.01))
    ...                                   # train
    small = cut(model, threshold=1e-3)    # the same function, smaller and faster; compile it to train further

This file needs no other of this project: Keras, NumPy and SciPy alone. (keras_pruning.py --applications makes a table.)
"""

import collections
import functools
import math
import tempfile
import warnings

import keras
import numpy as np
from keras import layers, ops
from scipy import sparse

# --------------------------------------------------------------------------------------------------- the regularizer


@keras.saving.register_keras_serializable(package='attention_guided_sparsity')
class GuidedSparsity(keras.regularizers.Regularizer):
    """lambda_g * sum_g ||W_g||_2 + lambda_v / Var_g(||W_g||_2^2) of one layer: main.group_lasso and group_variance.

    It is for layers whose kernel has the outputs on the last axis: Dense and Conv1D to Conv3D. It is not for transposed
    convolutions (outputs on the last axis but one), depthwise and separable ones (the last two axes together),
    EinsumDense and attention (heads and features), or the recurrent layers (the gates of a unit lie apart).

    A BatchNormalization behind the layer defeats it, for that scales a small kernel up again. There regularise its
    gammas: gamma_regularizer=GuidedSparsity(group_lasso=..., group_variance=0), an L1 norm, for which Liu et al. (2017,
    Network Slimming) is the source. (They start as ones, all equal, so that the variance's term would be infinite.)
    They shrink together: set a share of them, the smallest, to 0 before `cut`, as keras_example.py does.

    Args:
      group_lasso, group_variance: the coefficients lambda_g and lambda_v. The defaults are the paper's; 0 drops a term.
        A layer with one output, or with equal ones as after a constant initializer, needs group_variance=0.

    Raises:
      ValueError: a coefficient is negative or not finite.
    """

    def __init__(self, group_lasso=0.001, group_variance=0.01):
        # Plain floats, for a tensor or a scalar of NumPy's could be saved but not loaded.
        self.group_lasso, self.group_variance = float(group_lasso), float(group_variance)
        if not (0 <= self.group_lasso < math.inf and 0 <= self.group_variance < math.inf):
            raise ValueError(f'coefficients must be finite and at least 0: {group_lasso}, {group_variance}')

    def __call__(self, x):
        """The penalty, a scalar, of weights [..., outputs]."""
        squared = ops.sum(ops.square(ops.reshape(x, [-1, x.shape[-1]])), axis=0)  # ||W_g||_2^2, [outputs]
        penalty = ops.zeros([], squared.dtype)
        if self.group_lasso:
            alive = squared > 0
            norms = ops.where(alive, ops.sqrt(ops.where(alive, squared, 1)), 0)  # the gradient at 0 is 0, not NaN
            penalty += self.group_lasso * ops.sum(norms)
        if self.group_variance:
            penalty += self.group_variance / ops.var(squared)
        return penalty

    def get_config(self):
        return {'group_lasso': self.group_lasso, 'group_variance': self.group_variance}


@keras.saving.register_keras_serializable(package='attention_guided_sparsity')
class ConstantMap(layers.Layer):
    """activation(x + map), the map of the shape of a sample: what removed channels sent, where places differ in it."""

    def __init__(self, activation=None, **options):
        super().__init__(**options)
        self.activation, self.supports_masking = keras.activations.get(activation), True

    def build(self, input_shape):
        self.map = self.add_weight(name='map', shape=input_shape[1:], initializer='zeros', trainable=False)

    def call(self, x):
        return self.activation(x + self.map)

    def get_config(self):
        return {**super().get_config(), 'activation': keras.activations.serialize(self.activation)}


# --------------------------------------------------------------------------------- what each operation does to channels

def _types(names, dimensions=('',)):
    return tuple(getattr(layers, name + dimension) for name in names.split() for dimension in dimensions)


SEPARABLE = _types('SeparableConv', ('1D', '2D'))
TRANSPOSED = _types('Conv', ('1DTranspose', '2DTranspose', '3DTranspose'))
KERNELS = _types('Dense') + _types('Conv', ('1D', '2D', '3D')) + TRANSPOSED + SEPARABLE  # outputs mix all inputs
DEPTHWISE = _types('DepthwiseConv', ('1D', '2D'))
PADDING = _types('ZeroPadding', ('1D', '2D', '3D'))
PASSES = (ConstantMap, *DEPTHWISE, *PADDING) + _types(  # output c depends on input c alone
    'Cropping UpSampling MaxPooling AveragePooling GlobalMaxPooling GlobalAveragePooling SpatialDropout',
    ('1D', '2D', '3D')) + _types(
    'Activation ReLU LeakyReLU ELU BatchNormalization Normalization Rescaling Dropout AlphaDropout GaussianDropout '
    'GaussianNoise ActivityRegularization Identity Flatten Reshape RepeatVector Concatenate '
    'Add Subtract Multiply Average Maximum Minimum')


def _is_elementwise(activation):
    """Whether an activation treats each element by itself and alike, found by trying it: in other places, and a part.
    """
    for scale in (1, 1e-3, 1e3):
        x = scale * np.linspace(-4, 4, 2 * 3 * 5, dtype=keras.config.floatx()).reshape(2, 3, 5)[:, ::-1]
        try:
            whole, apart, part = (ops.convert_to_numpy(activation(ops.convert_to_tensor(of)))
                                  for of in (x, x.reshape(-1, 2), x[:1, 1:2]))
        except Exception:  # whatever a stranger's function does not like
            return False
        if whole.shape != x.shape or not all(
                np.allclose(a.ravel(), b.ravel(), rtol=1e-5, atol=1e-6, equal_nan=True)
                for a, b in ((whole, apart), (whole[:1, 1:2], part))):
            return False
    return True


def _inputs_first(layer, kernel):
    """The kernel, or back, with the axes [..., in, out], which a transposed convolution has the other way round."""
    return np.swapaxes(kernel, -1, -2) if type(layer) in TRANSPOSED else kernel


class _Call:
    """A node of the graph: an operation, its input tensors, and how the model's channels hang together in it.

    Attributes:
      ins, outs: int arrays, the channels of all inputs and of all outputs; opaque: whether it cannot be seen through.
      inputs, outputs: lists of the tensors.
      free_outputs: whether the outputs are independent of each other, as they are not behind a softmax.
      pairs: int [2, pairs], input channels and the output channels linked with them: where channels are passed on.
      gates: int array, the one channel of each input that meets, alone, many of another one.
      links: bool, whether a weight other than zero leads from input to output: [pairs], or [in, out] of a kernel.
      meets_borders: whether a constant may come out as a map: by what is added around the input, or as channels that
        are set side by side.
    """

    def __init__(self, node, channels, is_alone, weights):
        operation, inputs, outputs = node.operation, node.input_tensors, node.output_tensors
        self.operation, self.inputs, self.outputs, kind = operation, inputs, outputs, type(operation)
        first, *options = node.arguments.args or [None]
        options += [value for name, value in node.arguments.kwargs.items() if name != 'training' or value]

        def of(name, default=None):
            return getattr(operation, name, default) if kind in KERNELS + PASSES else default  # others name anything so

        ins, outs = ([channels[id(tensor)] for tensor in tensors] for tensors in (inputs, outputs))
        self.ins, self.outs = np.concatenate(ins), np.concatenate(outs)
        self.pairs, self.gates, self.links = np.zeros([2, 0], int), np.zeros(0, int), np.zeros(0, bool)
        inside = of('activation')
        self.free_outputs = inside is None or not isinstance(inside, keras.Layer) and _is_elementwise(inside)
        self.meets_borders = kind in PADDING + TRANSPOSED or of('padding') in ('same', 'causal') and np.max(
            of('kernel_size', of('pool_size', 1))) > 1 or kind is layers.Reshape and len(self.outs) < len(self.ins)
        ins, axes = [self.ins] if kind is layers.Concatenate else ins, np.ravel(of('axis', -1))
        self.opaque = (
            kind not in KERNELS and not (kind in PASSES and self.free_outputs) or not is_alone or len(outs) != 1
            or any(option is not None for option in keras.tree.flatten(options))
            or not all(isinstance(part, keras.KerasTensor) for part in keras.tree.flatten(first))
            or isinstance(inside, keras.Layer) or (of('noise_shape') or [1])[-1] not in (None, 1)
            or kind in (layers.Maximum, layers.Minimum, layers.Multiply) and any(  # these leave out what is masked
                getattr(tensor, '_keras_mask', None) is not None for tensor in inputs)
            or any(len(tensor.shape) < 2 or tensor.shape[-1] is None or tensor.dtype == 'string'
                   for tensor in inputs + outputs)
            or of('data_format') == 'channels_first' or of('groups', 1) != 1 or of('depth_multiplier', 1) != 1
            or of('lora_enabled', False) or len(axes) != 1 or axes[0] not in (-1, len(inputs[0].shape) - 1)
            or kind in PASSES and any(max(len(part), len(self.outs)) % min(len(part), len(self.outs)) for part in ins)
            or kind is layers.Rescaling and any(
                np.size(number) > 1 and ({np.size(number), np.shape(number)[-1]} != {len(self.outs)}
                                         or keras.config.image_data_format() == 'channels_first')  # of the first axis
                for number in (operation.scale, operation.offset)))
        if self.opaque:
            return
        weights = dict(weights.get(operation.name, []))
        if kind in KERNELS:
            kernel = weights.get('pointwise_kernel', weights.get('kernel'))
            places = tuple(range(kernel.ndim - 2))
            self.links = _inputs_first(operation, kernel).any(axis=places)
            if kind in SEPARABLE:
                self.links &= weights['depthwise_kernel'].any(axis=places)
        else:  # one channel against many, and the channels of all places in a row, repeat
            self.pairs = np.concatenate([np.stack([np.resize(part, n), np.resize(self.outs, n)]) for part in ins
                                         for n in [max(len(part), len(self.outs))]], axis=1)
            if len(ins) > 1 and len(self.outs) > 1:
                self.gates = np.array([part[0] for part in ins if len(part) == 1], int)
            alive = weights.get('gamma', weights.get('kernel', np.ones(len(self.outs)))).reshape(-1, len(self.outs))
            self.links = np.resize(alive.any(axis=0), self.pairs.shape[1])

    def forward(self, depends):
        """Marks the outputs that depend on marked inputs."""
        if self.links.ndim == 2:
            depends[self.outs[self.links[depends[self.ins]].any(axis=0)]] = True
        else:
            depends[self.pairs[1, self.links & depends[self.pairs[0]]]] = True

    def backward(self, needed):
        """Marks the inputs that marked outputs depend on."""
        if self.links.ndim == 2:
            needed[self.ins[self.links[:, needed[self.outs]].any(axis=1)]] = True
        else:
            needed[self.pairs[0, self.links & needed[self.pairs[1]]]] = True


# ----------------------------------------------------------------------------------------------------- copies of models

def _plain(model):
    """The layers of a model as a bare functional one; None if it has no graph of layers, or does more than call them.
    """
    if not isinstance(model, keras.Model) or not isinstance(model, (keras.Sequential, keras.Function)):
        return None
    try:
        inputs, outputs = model.inputs, model.outputs
    except AttributeError:  # a Sequential one that has not been called on a symbol
        return None
    if isinstance(model, keras.Sequential):  # has no `input` before it is called, and one input
        (inputs,), outputs = inputs, outputs if len(outputs) > 1 else outputs[0]
    else:
        inputs, outputs = model.input, model.output
    plain = keras.Model(inputs, outputs, name=model.name)
    return plain if type(model).call in (keras.Sequential.call, type(plain).call) else None


def _ways(operation, changes):
    """Yields functions that make an operation again, with these changes of its configuration, the best one first.

    Without regularizers and constraints. A configuration may name functions that nothing can look up, so these are
    handed on themselves; and a class need not take all that its configuration has.
    """
    def bare(config):
        if isinstance(config, dict):
            return {key: None if str(key).endswith(('_regularizer', '_constraint')) and (
                isinstance(value, (str, dict)) or callable(value)) else bare(value) for key, value in config.items()}
        return [bare(value) for value in config] if isinstance(config, list) else config

    kind, config = type(operation), {**bare(operation.get_config()), **changes}
    if kind is layers.ActivityRegularization:
        config |= {'l1': 0.0, 'l2': 0.0}
    named = [name for name, value in config.items() if isinstance(value, (str, dict)) and name not in changes]
    functions = {name: own for name in named if callable(own := getattr(operation, name, None))
                 and not isinstance(own, keras.Layer)}
    usual = {name: own for name, own in functions.items() if name.endswith(('activation', 'initializer'))}

    def handing_on(own):
        new = kind.from_config({**config, **own})
        if any(getattr(new, name, None) is not function for name, function in own.items()
               if not name.endswith('initializer')):  # all weights are given anyway
            raise ValueError('its class makes another function of the one that it is given')
        return new

    for own in (usual, {}, functions):
        yield functools.partial(handing_on, own)
    yield lambda: kind(**config)
    if getattr(operation, 'dtype_policy', None) == keras.config.dtype_policy():
        yield lambda: kind(**{name: config[name] for name in config.keys() - {'trainable', 'dtype', 'name'}})


def _clone(operation, **changes):
    """The same operation, with these changes of its configuration; ValueError if it cannot be made."""
    if plain := _plain(operation):
        return keras.models.clone_model(plain, _inputs(plain), _clone)
    if type(operation) is layers.Lambda:  # whose configuration has bytecode, without what that refers to
        return layers.Lambda(operation.function, operation._output_shape, operation.mask, operation.arguments,
                             name=operation.name, dtype=operation.dtype_policy)
    first = None
    try:
        for make in _ways(operation, changes):
            try:
                new = make()
            except Exception as error:
                first = first or error
            else:
                new.name = changes.get('name', operation.name)  # which not every class hands on
                return new
    except Exception as error:  # get_config's
        first = error
    raise ValueError(f'layer {operation.name} cannot be made again from its configuration: {first}') from first


def _inputs(model):
    """New inputs like those of a model, in the same structure."""
    return keras.tree.map_structure(lambda tensor: _clone(tensor._keras_history.operation).output, model.input)


def _leaves(layer):
    """The layer or, of a nested model, its layers, in the order of the graph, which is the same in a clone."""
    plain = _plain(layer)
    return [leaf for inner in plain.layers for leaf in _leaves(inner)] if plain else [layer]


def _variables(layer):
    """The weights of a layer, and those of another that is its activation, which Keras tracks only after a reload."""
    found = []
    for leaf in _leaves(layer):
        inner = getattr(leaf, 'activation', None)
        of_inner = inner.weights if isinstance(inner, keras.Layer) else []
        found += [variable for variable in leaf.weights if not any(variable is other for other in of_inner)] + of_inner
    return found


def _fill(layer, original, weights):
    """Gives a clone its weights, pairs (name, array), and what else its original has learned or been told."""
    variables = _variables(layer)
    if [(*variable.shape,) for variable in variables] != [np.shape(value) for _, value in weights]:
        raise ValueError(f'layer {original.name}, made again from its configuration, has other weights than it has. '
                         'Give its class a get_config that tells all, and a build that makes all weights.')
    its_variables = _variables(original)
    if any(variable is its for variable in variables for its in its_variables):
        raise ValueError(f'layer {original.name}, made again from its configuration, has the same variables. Give its '
                         'class a get_config that describes its layers instead of handing them on.')
    for variable, (_, value) in zip(variables, weights, strict=True):
        variable.assign(value)
    pairs = [(layer, original)] if _plain(original) else []  # a nested model may be frozen itself
    for leaf, its in zip(_leaves(layer), _leaves(original), strict=True):
        pairs += zip(leaf._flatten_layers(), its._flatten_layers(), strict=False)
    for new, old in pairs:
        if isinstance(new, layers.Normalization):
            new.finalize_state()
        if hasattr(old, 'get_vocabulary'):
            _copy_vocabulary(new, old)
        if new.trainable != old.trainable:  # the outer ones come first, and change the inner ones, too
            new.trainable = old.trainable
    for variable, its in zip(variables, its_variables, strict=False):  # a bias may be new
        variable.trainable = its.trainable


def _copy_vocabulary(new, old):
    """What a lookup has adapted itself to, as it is saved, for it is no weight."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            old.save_own_variables(store := {})
            new.load_own_variables(store)
            old.save_assets(folder)
            new.load_assets(folder)
        if list(new.get_vocabulary()) != list(old.get_vocabulary()):  # of words with line breaks, say
            raise ValueError('it comes back as another')
    except Exception as error:
        raise ValueError(f'layer {old.name}: its vocabulary cannot be saved and loaded: {error}') from error


def _copy(model, changes, weights, maps):
    """A copy of the model, smaller.

    Args:
      changes, weights: dicts from the name of a layer to changes of its configuration, and to pairs (name, array).
      maps: dict from the name of a layer to (array to add before its activation, whether its name is an output's).
    """
    originals, taken = {}, {operation.name for operation in model.operations}

    def fresh(name):
        while name in taken:
            name += '_'
        taken.add(name)
        return name

    def clone(operation):
        name, more = operation.name, changes.get(operation.name, {})
        _, is_output = maps.get(name, (None, False))
        new = _clone(operation, **more, **({'name': fresh(f'{name}_linear')} if is_output else {}))
        originals[id(new)] = operation
        return new

    def call(operation, *args, **kwargs):
        result, original = operation(*args, **kwargs), originals[id(operation)]
        if isinstance(operation, keras.Layer):  # has variables, by now
            _fill(operation, original, weights[original.name])
        if original.name in maps:
            added, is_output = maps[original.name]
            name = original.name if is_output else fresh(f'{original.name}_map')
            add = ConstantMap(original.activation, name=name, dtype=operation.dtype_policy.name)
            result = add(result)
            add.set_weights([added])
        return result

    return keras.models.clone_model(model, _inputs(model), clone, call)


def _functional(model):
    """The same layers as a plain functional model; a ValueError says what stands in the way."""
    plain = _plain(model)
    if not plain:
        raise ValueError(f'{model} has no graph of layers. Give a Sequential model that is built, or a functional one: '
                         'keras.Model(inputs, outputs), where outputs is what your layers make of a keras.Input.')
    for layer in _leaves(plain):
        kinds = {variable.dtype for variable in layer.weights} - {'float32', 'float64', 'int32', 'int64'}
        if kinds or getattr(layer, 'quantization_mode', None):
            raise ValueError(f'layer {layer.name} is quantized or has weights of another type ({sorted(kinds)}) than '
                             'float32 and float64. Cut the model before you quantize it.')
        if isinstance(inner := getattr(layer, 'activation', None), keras.Layer) and not inner.built:
            raise ValueError(f'the activation of layer {layer.name} has no weights yet. Call the model once, then cut.')
    return plain


def _record(model, weights):
    """The channels' numbers by id of tensor, and the _Calls in an order that they can be made in."""
    nodes = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]
             if not node.is_input]
    tensors = {id(tensor): tensor for tensor in [*model.inputs, *(
        tensor for node in nodes for tensor in node.output_tensors)]}
    sizes = [tensor.shape[-1] or 1 if len(tensor.shape) > 1 else 1 for tensor in tensors.values()]
    channels = dict(zip(tensors, np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]), strict=True))
    times = collections.Counter(node.operation.name for node in nodes)
    return channels, [_Call(node, channels, times[node.operation.name] == 1, weights) for node in nodes]


# ----------------------------------------------------------------------------------------------------------------- cut

def _of_a_sample(model, weights, calls):
    """What comes into the calls, dict from id of tensor to array; free sizes: the first that all can take.

    The sample's numbers lie between 0 and 1, and differ: constants are the same for any, and of zeros a logarithm, or a
    quotient by a norm, is none. Integers are 0. Raises ValueError if there is no such size.
    """
    tensors = list({id(tensor): tensor for call in calls if not call.opaque for tensor in call.inputs}.values())
    into = keras.Model(model.inputs, [*tensors, *model.outputs])
    thresholded = [(variable, value) for layer in model.layers
                   for variable, (_, value) in zip(_variables(layer), weights[layer.name], strict=True)]
    free, error = any(None in tensor.shape[1:] for tensor in model.inputs), 'an empty tensor'
    # With factors of 2, 3, 5 and 7, for poolings and reshapes that must come out even.
    for size in [of * 2**i for of in (1, 3, 15, 105) for i in range(10) if of * 2**i <= 512] if free else [1]:
        shapes = [[size if n is None and axis else n or 1 for axis, n in enumerate(tensor.shape)]
                  for tensor in model.inputs]
        sample = [ops.zeros(shape, tensor.dtype) if tensor.dtype == 'string' else ops.cast(
            np.resize(np.linspace(0.25, 0.75, 97), shape), tensor.dtype)
            for shape, tensor in zip(shapes, model.inputs, strict=True)]
        try:
            if free:  # of too few places oneDNN's convolutions give what lies in memory: Keras's shapes tell
                into.compute_output_spec([keras.KerasTensor(shape, tensor.dtype)
                                          for shape, tensor in zip(shapes, model.inputs, strict=True)])
            with keras.StatelessScope(thresholded):  # in place of the model's own weights, which stay as they are
                found = [ops.convert_to_numpy(value) for value in keras.tree.flatten(into(sample, training=False))]
            if all(value.size for value in found):
                return dict(zip(map(id, tensors), found, strict=False))  # without the outputs
        except Exception as stop:
            error = stop
    raise ValueError('the model cannot take a made-up sample' + ', of any size that was tried: give its inputs fixed '
                     'ones' * free + f' ({error})')


def _differ(values, sizes):
    """Bool [channels]: whether values [places, channels] differ by more than what numbers of these sizes round to."""
    return ~(np.ptp(values, axis=0) <= 50 * np.finfo(values.dtype).eps * sizes.max(axis=0))


def _marks(model, channels, calls, sent):
    """Bool arrays [channels]: which stay; which of these are of use, for a tensor keeps one in any case; which depend
    on the input; which of use an output, or something opaque, needs.
    """
    depends, needed, stays, unknown, zero = np.zeros([5, sum(map(len, channels.values()))], bool)
    whole = []
    for marks, tensors in ((depends, model.inputs), (needed, model.outputs)):
        for tensor in tensors:
            marks[channels[id(tensor)]] = stays[channels[id(tensor)]] = True
    for call in calls:
        free = any(None in tensor.shape[1:] for tensor in call.inputs)
        for numbers, value in ((channels[id(tensor)], sent[id(tensor)]) for tensor in call.inputs if not call.opaque):
            value = value.reshape(-1, len(numbers))
            depends[numbers] |= ~np.isfinite(value).all(axis=0)
            if free:
                finite = np.where(depends[numbers], 0, value.astype(np.result_type(value, np.float32)))
                unknown[numbers] |= call.meets_borders & finite.any(axis=0) | _differ(finite, np.abs(finite))
            depends[numbers] |= unknown[numbers]
            zero[numbers] = ~depends[numbers] & ~value.any(axis=0)
        if not call.opaque and type(call.operation) is layers.Multiply:  # by a constant 0 it gives 0
            call.links = ~np.isin(call.pairs[1], call.pairs[1, zero[call.pairs[0]]])
        call.forward(depends)
        if call.opaque:
            needed[call.ins] = stays[call.ins] = True
        if call.opaque or not call.free_outputs:
            whole += [call.operation.name] if call.opaque or not stays[call.outs].all() else []
            depends[call.outs] = needed[call.outs] = stays[call.outs] = True
    for call in reversed(calls):
        call.backward(needed)
        stays[call.gates] = True
    stays |= depends & needed
    reasons = [f'what cannot be seen through: {", ".join(dict.fromkeys(whole))}'] if whole else []
    if unknown[stays].any():
        reasons.append(f'{unknown[stays].sum()} constant channels whose map depends on the free size of the input')
    if reasons:
        warnings.warn(f'kept whole: {"; ".join(reasons)}', stacklevel=3)

    pairs = np.concatenate([np.zeros([2, 0], int), *(
        call.pairs[:, ~np.isin(call.pairs[0], call.gates)] for call in calls)], axis=1)
    _, linked = sparse.csgraph.connected_components(
        sparse.coo_array((np.ones(pairs.shape[1], bool), pairs), [len(stays)] * 2), directed=False)
    used = np.isin(linked, linked[stays])
    for numbers in channels.values():
        if not np.isin(linked[numbers], linked[stays]).any():
            stays[numbers[0]] = True  # a tensor of no channels there is not
    return np.isin(linked, linked[stays]), used, depends, needed & used


def _sent_by_removed(call, weights, sent, kept, used, depends, needed):
    """What the removed inputs of a kernel add to its remaining outputs, [..., outs], of one sample; or None.

    Two arrays: the second is the same with the magnitudes of all numbers, by which rounding can be told.
    """
    constants = np.where(used[call.ins] | depends[call.ins], 0, sent[id(call.inputs[0])])
    if not constants.any():
        return None
    linear = _clone(call.operation, activation='linear', use_bias=False, dtype=weights[0][1].dtype.name)
    linear.build(constants.shape)
    found = []
    for of in (np.asarray, np.abs):
        linear.set_weights([of(value) for name, value in weights if name != 'bias'])
        added = np.where(needed[call.outs], ops.convert_to_numpy(linear(of(constants))), 0)
        found.append(added[0][..., kept[call.outs]])
    return found if found[0].any() else None


def _smaller(call, weights, kept, used, depends, needed):
    """The changes of a layer's configuration, and its weights, for the channels that are kept."""
    if call.opaque:
        return {}, weights
    layer, ins, outs = call.operation, kept[call.ins], kept[call.outs]
    config = {name: int(outs.sum()) for name in ('units', 'filters') if hasattr(layer, name)}
    if type(layer) is layers.Reshape:
        config['target_shape'] = (*layer.target_shape[:-1], int(outs.sum()))
    if type(layer) is layers.Rescaling:
        config = {name: np.ravel(value)[outs].tolist() for name in ('scale', 'offset')
                  if np.size(value := getattr(layer, name)) > 1}
    if type(layer) is layers.Normalization and layer.input_mean is not None:  # which it was given, not adapted to
        return {name: ops.convert_to_numpy(getattr(layer, name)).ravel()[outs].tolist()
                for name in ('mean', 'variance')}, []

    def part(name, value):
        if name == 'depthwise_kernel' or name == 'kernel' and type(layer) in DEPTHWISE:
            return value[..., ins, :]
        if not name.endswith('kernel'):
            return value[..., outs] if value.ndim else value  # the count of a Normalization
        value = np.where(used[call.ins][:, None] & needed[call.outs], _inputs_first(layer, value), 0)
        return _inputs_first(layer, value[..., ins, :][..., outs])

    return config, [(name, part(name, value)) for name, value in weights]


def cut(model, threshold=1e-3):
    """A new model that gives what `model` with its kernels and gammas thresholded gives, without what is dead.

    A channel (a filter, a neuron) stays if a chain of weights, none of them zero, leads through it from an input to an
    output, or if it is linked with one that does, as by an Add. What the others send is the same for every input, and
    is carried exactly into the biases of what reads it; where padding makes a map of it, into a ConstantMap before the
    activation. Inputs and outputs keep their shapes, and a tensor at least one channel. What cannot be seen through
    keeps all channels that it reads and writes: other layers than dense ones, convolutions, normalisation over the last
    axis, pooling, merges and their like; groups and depth multipliers; layers used twice; nested models, each of which
    gets a copy of a layer that they share; keras.ops.

    Args:
      model: a built Sequential or functional model of float32 or float64 weights. It is not changed.
      threshold: weights of this magnitude or less count as zero, in every variable whose name ends in kernel or gamma.

    Returns:
      A functional keras.Model with the names of layers and outputs, without regularizers and constraints, not compiled.
      (Saved, it needs this file only if it has a ConstantMap: NAME_map behind the layer NAME. At an output that is
      NAME, and the layer NAME_linear.)

    Warns:
      UserWarning: operations that stay whole, and constants that do, for they differ by place while the size is free.

    Raises:
      ValueError: the model has no graph of layers, is quantized or half precise, or does not take a made-up sample; a
        layer cannot be made again from its get_config, its vocabulary not be saved, or it has weights that are made
        later than in its build; or the threshold is no number of at least 0.
    """
    try:
        least = float(threshold)
    except (TypeError, ValueError, OverflowError):
        least = math.nan
    if not least >= 0:
        raise ValueError(f'the threshold must be at least 0: {threshold}')
    plain = _functional(model)
    weights = {layer.name: [
        (name, np.where((np.abs(value) <= least) & name.endswith(('kernel', 'gamma')), 0, value))
        for name, value in ((variable.name, ops.convert_to_numpy(variable)) for variable in _variables(layer))]
        for layer in plain.layers}
    channels, calls = _record(plain, weights)
    sent = _of_a_sample(plain, weights, calls)
    for layer in plain.layers:
        if len(_variables(layer)) != len(weights[layer.name]):
            raise ValueError(f'layer {layer.name} makes weights while it is called. Give its class a build that makes '
                             'all of them.')
    marks = _marks(plain, channels, calls, sent)

    changes, small, maps, ends = {}, {}, {}, set(map(id, plain.outputs))
    for call in calls:
        name = call.operation.name
        changes[name], small[name] = _smaller(call, weights.get(name), *marks)
        added = _sent_by_removed(call, weights[name], sent, *marks) if call.links.ndim == 2 else None
        if added is None:
            continue
        places, sizes = (of.astype(weights[name][0][1].dtype).reshape(-1, of.shape[-1]) for of in added)
        if not _differ(places, sizes).any():
            without = {**dict(small[name]), 'bias': dict(small[name]).get('bias', 0) + places.mean(axis=0)}
            small[name], changes[name]['use_bias'] = list(without.items()), True
        else:
            maps[name], changes[name]['activation'] = (added[0], id(call.outputs[0]) in ends), 'linear'
    return _copy(plain, changes, small, maps)


if __name__ == '__main__':
    try:  # here alone, so that a copy of this file needs no other: the tool that makes the table
        import keras_applications
    except ModuleNotFoundError as error:
        raise SystemExit(f'{__file__} is there to be imported; --applications needs the rest of it: {error}') from None
    keras_applications.main()
