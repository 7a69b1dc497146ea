"""Structured pruning of any Keras model, on any of Keras's backends: a regularizer, and what makes its zeros real.

    Dense(64, activation='relu', kernel_regularizer=GuidedSparsity(group_lasso=0.001, group_variance=0.01))
    ...                                   # train
    small = cut(model, threshold=1e-3)    # the same function, smaller and faster; compile it to train on

This file needs no other of this project: Keras, NumPy and SciPy alone.
"""

import collections
import math
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


# --------------------------------------------------------------------------------- what each operation does to channels

def _types(names, dimensions=('',)):
    return tuple(getattr(layers, name + dimension) for name in names.split() for dimension in dimensions)


SEPARABLE = _types('SeparableConv', ('1D', '2D'))
TRANSPOSED = _types('Conv', ('1DTranspose', '2DTranspose', '3DTranspose'))
KERNELS = _types('Dense') + _types('Conv', ('1D', '2D', '3D')) + TRANSPOSED + SEPARABLE  # outputs mix all inputs
DEPTHWISE = _types('DepthwiseConv', ('1D', '2D'))
PADDING = _types('ZeroPadding', ('1D', '2D', '3D'))
MERGES = _types('Add Subtract Multiply Average Maximum Minimum')
PASSES = (  # output c depends on input c alone
    DEPTHWISE + PADDING + MERGES + _types('Cropping UpSampling MaxPooling AveragePooling GlobalMaxPooling '
                                          'GlobalAveragePooling SpatialDropout', ('1D', '2D', '3D'))
    + _types('Activation ReLU LeakyReLU ELU BatchNormalization Normalization Rescaling Dropout AlphaDropout '
             'GaussianDropout GaussianNoise ActivityRegularization Identity Flatten Reshape RepeatVector'))


def _is_elementwise(activation):
    """Whether an activation treats each element by itself and alike, found by trying it."""
    if activation is None or activation is keras.activations.linear:
        return True
    if isinstance(activation, keras.Layer):
        return False
    x = np.linspace(-4, 4, 2 * 3 * 5, dtype=keras.config.floatx()).reshape(2, 3, 5)[:, ::-1]
    try:
        whole, apart = (ops.convert_to_numpy(activation(ops.convert_to_tensor(of))) for of in (x, x.reshape(-1, 2)))
    except Exception:  # whatever a stranger's function does not like
        return False
    return whole.shape == x.shape and np.allclose(whole.ravel(), apart.ravel(), rtol=1e-5, atol=1e-6)


class _Call:
    """An operation, its input and output tensors, and how their channels, numbered throughout, hang together.

    Attributes:
      ins, outs: int arrays, the channels of all inputs and of all outputs.
      kind: 'kernel', 'passes' (an Add and a Concatenate do, too) or 'opaque'.
      pairs: of what passes channels on, two int arrays: input channels and the output channels linked with them.
      links: bool, whether a weight other than zero leads from input to output: [in, out] of a kernel, else [pairs].
      free_outputs: whether the channels of the outputs are independent of each other, as they are not in a softmax.
    """

    def __init__(self, operation, inputs, outputs, options, channels, is_alone, weights):
        self.operation, self.inputs = operation, inputs
        weights = dict(weights.get(operation.name, []))
        of_inputs, of_outputs = ([channels[id(tensor)] for tensor in tensors] for tensors in (inputs, outputs))
        self.ins, self.outs = np.concatenate(of_inputs), np.concatenate(of_outputs)
        self.pairs, self.kind = (self.ins[:0], self.outs[:0]), 'opaque'
        self.free_outputs = _is_elementwise(getattr(operation, 'activation', None))
        axes = np.ravel(getattr(operation, 'axis', -1))
        self.links = np.zeros(0, bool)
        if (not is_alone or any(option is not None for option in options) or len(outputs) != 1
                or any(len(tensor.shape) < 2 or tensor.shape[-1] is None for tensor in inputs + outputs)
                or getattr(operation, 'data_format', None) == 'channels_first'
                or getattr(operation, 'groups', 1) != 1 or getattr(operation, 'depth_multiplier', 1) != 1
                or getattr(operation, 'lora_enabled', False)
                or isinstance(getattr(operation, 'activation', None), keras.Layer)
                or len(axes) != 1 or axes[0] not in (-1, len(inputs[0].shape) - 1)):
            return
        if type(operation) in KERNELS:
            kernel = weights.get('pointwise_kernel', weights.get('kernel'))
            self.links = (_inputs_first(operation, kernel) != 0).any(axis=tuple(range(kernel.ndim - 2)))
            if type(operation) in SEPARABLE:
                self.links &= weights['depthwise_kernel'].any(axis=tuple(range(kernel.ndim - 2)))
            self.kind = 'kernel'
        elif type(operation) in PASSES and self.free_outputs or type(operation) is layers.Concatenate:
            if type(operation) is layers.Concatenate:
                self.pairs = self.ins, self.outs
            else:  # one channel against many, or the channels of all places in a row: they repeat
                longest = [max(len(of), len(self.outs)) for of in of_inputs]
                if any(long % len(of) or long % len(self.outs) for long, of in zip(longest, of_inputs, strict=True)):
                    return
                self.pairs = tuple(np.concatenate(of) for of in zip(*(
                    (np.resize(of, long), np.resize(self.outs, long))
                    for long, of in zip(longest, of_inputs, strict=True)), strict=True))
            alive = weights.get('gamma', weights.get('kernel', np.ones([len(self.outs), 1]))) != 0
            self.links = np.resize(alive.reshape(-1, len(self.outs)).any(axis=0), len(self.pairs[0]))
            if type(operation) is layers.Rescaling and any(
                    np.size(of) != 1 and np.size(of) != np.shape(of)[-1] for of in (operation.scale, operation.offset)):
                return
            self.kind = 'passes'

    @property
    def meets_borders(self):
        """Whether a constant may come out as a map, by what is added around the input."""
        size = getattr(self.operation, 'kernel_size', getattr(self.operation, 'pool_size', 1))
        return type(self.operation) in PADDING + TRANSPOSED or (
            getattr(self.operation, 'padding', 'valid') in ('same', 'causal') and np.max(size) > 1)

    def forward(self, depends):
        """Marks the outputs that depend on marked inputs."""
        if self.kind == 'kernel':
            depends[self.outs[self.links[depends[self.ins]].any(axis=0)]] = True
        else:
            depends[self.pairs[1][self.links & depends[self.pairs[0]]]] = True

    def backward(self, needed):
        """Marks the inputs that marked outputs depend on."""
        if self.kind == 'kernel':
            needed[self.ins[self.links[:, needed[self.outs]].any(axis=1)]] = True
        else:
            needed[self.pairs[0][self.links & needed[self.pairs[1]]]] = True


def _inputs_first(layer, kernel):
    """The kernel, or back, with the axes [..., in, out], which a transposed convolution has the other way round."""
    return np.swapaxes(kernel, -1, -2) if type(layer) in TRANSPOSED else kernel


# ----------------------------------------------------------------------------------------------------------------- cut

@keras.saving.register_keras_serializable(package='attention_guided_sparsity')
class ConstantMap(keras.layers.Layer):
    """Adds an array of the shape of one sample: what removed channels sent, where it differs from place to place."""

    def build(self, input_shape):
        self.map = self.add_weight(name='map', shape=input_shape[1:], initializer='zeros', trainable=False)

    def call(self, x):
        return x + self.map


def _is_functional(model):
    return isinstance(model, keras.Model) and isinstance(model, (keras.Sequential, keras.Function))


def _clone(operation, **changes):
    """The same operation with these changes of its configuration, without regularizers and constraints."""
    def bare(config):
        if isinstance(config, dict):
            return {key: None if str(key).endswith(('_regularizer', '_constraint')) else bare(value)
                    for key, value in config.items()}
        return [bare(value) for value in config] if isinstance(config, list) else config

    if _is_functional(operation):
        return keras.models.clone_model(operation, clone_function=_clone)
    trusted = {'safe_mode': False} if isinstance(operation, layers.Lambda) else {}  # for it is here, not in a file
    config = bare(operation.get_config())
    if 'activation' in config and not isinstance(operation.activation, keras.Layer):
        config['activation'] = operation.activation  # itself, for not every function can be found by its name
    return type(operation).from_config({**config, **changes}, **trusted)


def _variables(layer):
    """The weights of a layer, and those of another that is its activation, which Keras tracks only after a reload."""
    inner = getattr(layer, 'activation', None)
    of_inner = inner.weights if isinstance(inner, keras.Layer) else []
    return [variable for variable in layer.weights if not any(variable is other for other in of_inner)] + of_inner


def _fill(operation, weights):
    """Sets the weights of a layer that has been called, and what Normalization derives from its own."""
    if not isinstance(operation, keras.Layer):
        return
    for variable, (_, value) in zip(_variables(operation), weights[operation.name], strict=False):  # some not built yet
        variable.assign(value)
    for inner in operation._flatten_layers():
        if isinstance(inner, layers.Normalization):
            inner.finalize_state()


def _copy(model, clone, call):
    inputs = keras.tree.map_structure(lambda tensor: _clone(tensor._keras_history.operation).output, model.input)
    return keras.models.clone_model(model, inputs, clone, call)


def _functional(model, threshold):
    """The same layers as a plain functional model; a ValueError says what stands in the way."""
    if not threshold >= 0:
        raise ValueError(f'the threshold must be at least 0: {threshold}')
    if _is_functional(model) and model.built:
        of_one = isinstance(model, keras.Sequential)
        plain = keras.Model(*((model.inputs[0], model.outputs[0]) if of_one else (model.input, model.output)),
                            name=model.name)
    if not _is_functional(model) or not model.built or type(model).call not in (
            keras.Sequential.call, type(plain).call):
        raise ValueError(f'{model} has no graph of layers. Give a Sequential model that is built, or a functional one: '
                         'keras.Model(inputs, outputs), where outputs is what your layers make of a keras.Input.')
    for layer in plain.layers:
        kinds = {variable.dtype for variable in layer.weights} - {'float32', 'float64', 'int32', 'int64'}
        if kinds or getattr(layer, 'quantization_mode', None):
            raise ValueError(f'layer {layer.name} is quantized or has weights of another type ({sorted(kinds)}) than '
                             'float32 and float64. Cut the model before you quantize it.')
    return plain


def _thresholded(variable, threshold):
    value = ops.convert_to_numpy(variable)
    return np.where(np.abs(value) <= threshold, 0, value) if variable.name.endswith(('kernel', 'gamma')) else value


def _record(model, weights):
    """A copy of a model with these weights, the channels' numbers by id of tensor, and its _Calls in their order."""
    made = []

    def call(operation, *args, **kwargs):
        result = operation(*args, **kwargs)
        _fill(operation, weights)
        inputs, outputs = ([tensor for tensor in keras.tree.flatten(of) if isinstance(tensor, keras.KerasTensor)]
                           for of in ((args, kwargs), result))
        made.append((operation, inputs, outputs, keras.tree.flatten((args[1:], kwargs))))
        return result

    twin = _copy(model, _clone, call)
    tensors = {id(tensor): tensor for tensor in [*twin.inputs, *(
        tensor for _, inputs, outputs, _ in made for tensor in inputs + outputs)]}
    sizes = [tensor.shape[-1] or 1 if len(tensor.shape) > 1 else 1 for tensor in tensors.values()]
    channels = dict(zip(tensors, np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]), strict=True))
    times = collections.Counter(operation.name for operation, *_ in made)
    return twin, channels, [_Call(*of, channels, times[of[0].name] == 1, weights) for of in made]


def _on_zeros(model, calls):
    """What comes into the calls for an input of zeros: dict from id of tensor to array, of one sample.

    A free size is the first power of two that all operations take.
    """
    tensors = list({id(tensor): tensor for call in calls if call.kind != 'opaque' for tensor in call.inputs}.values())
    if not tensors:
        return {}
    into, sizes = keras.Model(model.inputs, tensors), 2**np.arange(10)
    for size in sizes:
        try:
            found = [ops.convert_to_numpy(value) for value in into([
                ops.zeros([size if n is None and axis else n or 1 for axis, n in enumerate(tensor.shape)], tensor.dtype)
                for tensor in model.inputs])]
        except Exception:
            if not _is_free(model) or size == sizes[-1]:
                raise
            continue
        if all(value.size for value in found):
            break
    return {id(tensor): value for tensor, value in zip(tensors, found, strict=True)}


def _is_free(model):
    return any(None in tensor.shape[1:] for tensor in model.inputs)


def _marks(model, channels, calls, sent):
    """Bool arrays [channels]: which stay; which of them are of use; which depend on the input; which are needed.

    Needed are those of use that an output, or something opaque, depends on; of no use is the one channel that is left
    where all could go.
    """
    depends, needed, stays, unknown = np.zeros([4, sum(map(len, channels.values()))], bool)
    whole = []
    for tensor in model.inputs:
        depends[channels[id(tensor)]] = stays[channels[id(tensor)]] = True
    for tensor in model.outputs:
        needed[channels[id(tensor)]] = stays[channels[id(tensor)]] = True
    for call in calls:
        for numbers, value in ((channels[id(t)], sent[id(t)]) for t in call.inputs if call.kind != 'opaque'):
            value = value.reshape(-1, len(numbers))
            if _is_free(model) and call.meets_borders:
                unknown[numbers] |= ~depends[numbers] & value.any(axis=0)
            depends[numbers] |= unknown[numbers] | ~np.isfinite(value).all(axis=0)
        call.forward(depends)
        if call.kind == 'opaque':
            needed[call.ins] = stays[call.ins] = True
        if call.kind == 'opaque' or not call.free_outputs:
            if call.kind == 'opaque' or not stays[call.outs].all():
                whole.append(call.operation.name)
            depends[call.outs] = needed[call.outs] = stays[call.outs] = True
    for call in reversed(calls):
        call.backward(needed)
    stays |= depends & needed
    reasons = [f'what cannot be seen through: {", ".join(dict.fromkeys(whole))}'] if whole else []
    if unknown[stays].any():
        reasons.append(f'{unknown[stays].sum()} constant channels whose border depends on the free size of the input')
    if reasons:
        warnings.warn(f'kept whole: {"; ".join(reasons)}', stacklevel=3)

    pairs = np.concatenate([np.stack(call.pairs) for call in calls], axis=1) if calls else np.zeros([2, 0], int)
    _, linked = sparse.csgraph.connected_components(
        sparse.coo_array((np.ones(pairs.shape[1], bool), pairs), [len(stays)] * 2), directed=False)
    used, kept = np.zeros([2, len(stays)], bool)
    used[linked[stays]] = kept[linked[stays]] = True
    for numbers in channels.values():
        if not kept[linked[numbers]].any():
            kept[linked[numbers[0]]] = True  # a tensor of no channels there is not
    return kept[linked], used[linked], depends, needed & used[linked]


def _sent_by_removed(call, weights, sent, kept, used, depends, needed):
    """What the removed inputs of a kernel add to its remaining outputs, array [..., outs], of one sample; or None."""
    constants = np.where(used[call.ins] | depends[call.ins], 0, sent[id(call.inputs[0])])
    if not constants.any():
        return None
    linear = _clone(call.operation, activation='linear', use_bias=False)
    linear.build(constants.shape)
    linear.set_weights([value for name, value in weights if name != 'bias'])
    return np.where(needed[call.outs], ops.convert_to_numpy(linear(constants)), 0)[0][..., kept[call.outs]]


def _smaller(call, weights, kept, used, depends, needed):
    """The changes of an operation's configuration, and its weights, for the channels that are kept."""
    ins, outs, left = kept[call.ins], kept[call.outs], int(kept[call.outs].sum())
    layer, config = call.operation, {}
    if call.kind == 'opaque' or not isinstance(layer, keras.Layer):
        return {}, weights
    for name in {'units', 'filters'} & layer.get_config().keys():
        config[name] = left
    if type(layer) is layers.Reshape:
        config['target_shape'] = (*layer.target_shape[:-1], left)
    if type(layer) is layers.Rescaling:
        config |= {name: np.resize(getattr(layer, name), len(outs))[outs].tolist() for name in ('scale', 'offset')
                   if np.size(getattr(layer, name)) > 1}
    if type(layer) is layers.Normalization:
        config |= {name: ops.convert_to_numpy(getattr(layer, name)).ravel()[outs].tolist()
                   for name in ('mean', 'variance')}
        return config, []
    small = []
    for name, value in weights:
        if name == 'depthwise_kernel' or name == 'kernel' and type(layer) in DEPTHWISE:
            value = value[..., ins, :]
        elif name.endswith('kernel'):
            used_weights = used[call.ins][:, None] & needed[call.outs]
            value = np.where(used_weights, _inputs_first(layer, value), 0)[..., ins, :][..., outs]
            value = _inputs_first(layer, value)
        else:
            value = value[..., outs]
        small.append((name, value))
    return config, small


def cut(model, threshold=1e-3):
    """A new model that gives what `model` with its kernels and gammas thresholded gives, without what is dead.

    A channel (a filter, a neuron) stays if a chain of weights, none of them zero, leads through it from an input to an
    output, or if it is linked with one that does, as by an Add. What the others send is the same for every input, and
    is carried exactly into the biases of what reads it; where padding makes a map of it, into a ConstantMap before the
    activation. Inputs and outputs keep their shapes, and a tensor at least one channel. What cannot be seen through
    keeps all channels that it reads and writes: other layers than dense ones, convolutions, normalisation over the last
    axis, pooling, merges and their like; groups and depth multipliers; layers used twice; nested models; keras.ops.

    Args:
      model: a built Sequential or functional model of float32 or float64 weights. It is not changed.
      threshold: weights of this magnitude or less count as zero, in every variable whose name ends in kernel or gamma.

    Returns:
      A functional keras.Model with the layers' names, without their regularizers and constraints, not compiled. (Saved,
      it needs this file only if it has a ConstantMap.)

    Warns:
      UserWarning: operations that stay whole, and constants that do because the input's size is free and they meet a
        border, where they would become a map of that size.

    Raises:
      ValueError: the model has no graph of layers, or is quantized, or the threshold is negative.
    """
    plain = _functional(model, threshold)
    weights = {layer.name: [(variable.name, _thresholded(variable, threshold)) for variable in _variables(layer)]
               for layer in plain.layers}
    twin, channels, calls = _record(plain, weights)
    sent = _on_zeros(twin, calls)
    marks = _marks(twin, channels, calls, sent)

    changes, small, maps, activations = {}, {}, {}, {}
    for call in calls:
        layer, name = call.operation, call.operation.name
        changes[name], small[name] = _smaller(call, weights.get(name), *marks)
        added = _sent_by_removed(call, weights[name], sent, *marks) if call.kind == 'kernel' else None
        if added is None:
            continue
        places = added.astype(weights[name][0][1].dtype).reshape(-1, added.shape[-1])
        if np.ptp(places, axis=0).max() <= 50 * np.finfo(places.dtype).eps * np.abs(places).max():  # all places alike
            of = dict(small[name])
            small[name] = [*((key, value) for key, value in small[name] if key != 'bias'),
                           ('bias', of.get('bias', 0) + places.mean(axis=0))]
            changes[name]['use_bias'] = True
        else:
            maps[name], activations[name] = added, layer.activation
            changes[name]['activation'] = 'linear'

    def rebuild(operation, *args, **kwargs):
        result = operation(*args, **kwargs)
        _fill(operation, small)
        if operation.name in maps:
            layer = ConstantMap(name=f'{operation.name}_map', dtype=operation.dtype_policy.name)
            result = layer(result)
            layer.set_weights([maps[operation.name]])
            result = layers.Activation(activations[operation.name], name=f'{operation.name}_activation',
                                       dtype=operation.dtype_policy.name)(result)
        return result

    return _copy(twin, lambda operation: _clone(operation, **changes.get(operation.name, {})), rebuild)
