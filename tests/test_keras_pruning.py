"""GuidedSparsity against main's losses; cut: what it cannot see through, free sizes, saving, refusals."""

import contextlib
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

import evaluations
import keras_applications
import keras_example
import keras_pruning
import main
from keras_pruning import ConstantMap, GuidedSparsity, cut
from test_keras_graphs import arrays, assert_same, outputs, parameters, randomize, threshold

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


@pytest.mark.parametrize('form, shape, numbers', [
    ('channels_first', (3, 6, 3), [1, 2, 3]), ('channels_first', (3, 6, 5), [1, 2, 3]),
    ('channels_last', (4, 4, 1), [1, 2, 3]), ('channels_last', (5, 6), [[1], [2], [3], [4], [5]])])
def test_a_rescaling_by_other_numbers_than_one_a_channel_stays_whole(form, shape, numbers):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(form)
    try:
        x = keras.Input(shape)
        y = layers.Rescaling(numbers, name='it')(layers.Dense(shape[-1], 'relu', name='many')(x))
        y = layers.Flatten(data_format='channels_last')(y)
        model = half_dead(keras.Model(x, y))
        with pytest.warns(UserWarning, match='^kept whole: what cannot be seen through: it$'):
            small = cut(model)
        assert small.get_layer('many').units == shape[-1]
        assert_same(small, model, np.random.default_rng(0))
    finally:
        keras.config.set_image_data_format(before)


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


def half_dead(model, seed=0):
    """The model with random weights and biases, and the first half of the outputs of each kernel dead."""
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        value = random.normal(size=variable.shape)
        if variable.name.endswith('kernel'):
            value *= np.arange(value.shape[-1]) >= value.shape[-1] // 2
        variable.assign(value)
    return model


def masked(merge):
    """Of two constants it is the one whose mask is on."""
    x = keras.Input((5,), dtype='int32')
    masked, plain = (layers.Embedding(9, 4, mask_zero=masked)(x) for masked in (True, False))
    return keras.Model(x, layers.Dense(3)(merge()([layers.Dense(8)(masked), layers.Dense(8)(plain)])))


class Backwards(keras.Model):
    """Its layers are not in the order in which it has them."""

    def __init__(self, **options):
        last, first = layers.Dense(8), layers.Dense(8, 'relu')
        x = keras.Input((8,))
        super().__init__(x, last(first(x)), **options)
        self.last, self.first, self.beside = last, first, layers.Dense(2)
        self.beside.build((None, 8))


class Pool(layers.Layer):
    """Another function under the name of its argument."""

    def __init__(self, pool='max', **options):
        super().__init__(**options)
        self.name_of_pool, self.pool = pool, ops.max if pool == 'max' else ops.mean

    def get_config(self):
        return {**super().get_config(), 'pool': self.name_of_pool}

    def call(self, x):
        return x - self.pool(x, axis=-1, keepdims=True)


class Positional(layers.Layer):
    """As layers stand in many a guide."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return self.factor * x


class Wrapped(layers.Layer):
    """What it keeps is another function than the one that it is given."""

    def __init__(self, activation='relu', **options):
        super().__init__(**options)
        self.given, function = activation, keras.activations.get(activation)
        self.activation = lambda x: 2 * function(x)

    def get_config(self):
        return {**super().get_config(), 'activation': self.given}

    def call(self, x):
        return self.activation(x)


class Capped(layers.Layer):
    """A constraint in name alone."""

    def __init__(self, value_constraint=None, **options):
        super().__init__(**options)
        self.value_constraint = value_constraint

    def get_config(self):
        return {**super().get_config(), 'value_constraint': self.value_constraint}

    def call(self, x):
        return x if self.value_constraint is None else ops.minimum(x, self.value_constraint)


def vectorized():
    x = keras.Input((), dtype='string')
    words = layers.TextVectorization(standardize=lambda text: tf.strings.lower(text), output_sequence_length=3)
    words.adapt(['b a b'])
    return keras.Model(x, layers.Dense(3)(layers.Dense(8)(layers.Embedding(9, 4)(words(x)))))


def with_constant():
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(3)(layers.Add()([layers.Dense(8)(x), ops.ones((1, 8))])))


def vocabulary():
    x = keras.Input((3,), dtype='string')
    lookup = layers.StringLookup()
    lookup.adapt([['b', 'a', 'b']])
    return keras.Model(x, layers.Dense(3)(layers.Dense(8)(layers.Embedding(9, 4)(lookup(x)))))


def loss_of_its_own():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8)])
    inner.compile('sgd', lambda y, wanted: ops.mean(y - wanted))
    return inner


def through(layer):
    """A model with the layer, or whatever is called, between two dense layers."""
    x = keras.Input((8,))
    return keras.Model(x, layers.Dense(3)(layer(layers.Dense(8, 'relu')(x))))


def through_texts(layer):
    x = keras.Input((3,), dtype='string')
    words = layers.StringLookup(vocabulary=['a', 'b'])(layer(x))
    return keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.Dense(8)(layers.Embedding(9, 4)(words)))))


WORDS = np.array([['a', 'b', 'c'], ['b', 'b', 'a']])
EXACT = {  # function that makes a model, and its inputs; random ones if there are none
    'a call of its own': (lambda: through(Overridden([keras.Input((8,)), layers.Dense(8)])), None),
    'a compiled one': (lambda: through(loss_of_its_own()), None),
    'several outputs at the end': (lambda: keras.Sequential([
        keras.Input((3, 4)), layers.Dense(8), layers.LSTM(3, return_state=True)]), np.ones((2, 3, 4), np.float32)),
    **{f'masked {kind}': (lambda kind=kind: masked(getattr(layers, kind)), np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 1]]))
       for kind in ('Maximum', 'Minimum', 'Multiply')},
    'layers in another order': (lambda: through(Backwards()), None),
    'another function': (lambda: through(Pool()), None), 'a wrapped one': (lambda: through(Wrapped()), None),
    'a number called a constraint': (lambda: through(Capped(0.1)), None),
    **{f'texts through {layer.name}': (lambda layer=layer: through_texts(layer), tf.constant(WORDS)) for layer in (
        layers.Reshape((1, 3)), layers.Flatten(), layers.Identity(), layers.RepeatVector(2))},
    'arguments by position': (lambda: through(Positional(2.0)), None),
    'a scalar': (lambda: keras.Model(x := keras.Input((4,)), ops.mean(layers.LSTM(3)(ops.expand_dims(x, -1)))), None),
    'a function of text': (vectorized, tf.constant(['A b', 'b c a'])),
    'a constant in a merge': (with_constant, None), 'vocabulary': (vocabulary, tf.constant(WORDS)),
    'Lambda of a global': (lambda: through(layers.Lambda(lambda x: ops.sin(x) * np.pi)), None),
    'Lambda of a function': (lambda: through(layers.Lambda(ops.sin, output_shape=(8,))), None),
    'an initializer of its own': (lambda: through(layers.Dense(8, kernel_initializer=lambda shape, dtype=None: ops.ones(
        shape))), None),
    'functions of an LSTM': (lambda: keras.Sequential([
        keras.Input((3, 4)), layers.Dense(8), layers.LSTM(3, recurrent_activation=lambda x: x / 2)]),
        np.ones((2, 3, 4), np.float32))}


@pytest.mark.parametrize('kind', EXACT)
@pytest.mark.filterwarnings('ignore:The object being serialized includes a `lambda`')
def test_what_is_made_again_is_the_same(kind):
    make, inputs = EXACT[kind]
    model = half_dead(make())
    small = cut(model)
    if inputs is None:
        return assert_same(small, model, np.random.default_rng(0))
    threshold(model)
    for found, wanted in zip(keras.tree.flatten(small(inputs)), keras.tree.flatten(model(inputs)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize('layer, left', [
    (lambda: layers.Dropout(0.5), 4), (lambda: layers.AlphaDropout(0.5), 4), (lambda: layers.GaussianDropout(0.5), 4),
    (lambda: layers.GaussianNoise(0.5), 4), (lambda: layers.Dropout(0.5, noise_shape=(None, 1)), 4),
    (lambda: layers.Dropout(0.5, noise_shape=(None, 8)), 8),
    (lambda: lambda x: layers.BatchNormalization()(x, training=False), 4)])
def test_what_passes_in_training_alone_is_seen_through(layer, left):
    model = half_dead(through(layer()))
    small = cut(model)
    assert small.layers[1].units == left
    assert_same(small, model, np.random.default_rng(0))
    x = np.ones((2, 8), np.float32)
    small(x, training=True)


def test_a_fixed_size_behind_a_free_one_has_borders_that_are_known():
    x = keras.Input((None, None, 2))
    y = layers.Conv2D(8, 3, padding='same', activation='relu', name='first')(layers.Resizing(6, 6)(x))
    model = half_dead(keras.Model(x, layers.Dense(3)(layers.Flatten()(layers.Conv2D(8, 3, padding='same')(y)))))
    model.get_layer('first').bias.assign(np.arange(8))
    small = cut(model)
    assert small.get_layer('first').filters == 4
    assert_same(small, model, np.random.default_rng(0), sizes=(7, 12))


@pytest.mark.parametrize('activation', [
    lambda x: x - ops.mean(x), lambda x: x / ops.max(ops.abs(x)),
    lambda x: x * ops.minimum(1.0, 10 / ops.norm(x, axis=-1, keepdims=True))])  # for large numbers alone
@pytest.mark.filterwarnings('ignore:The object being serialized includes a `lambda`')
def test_an_activation_of_the_whole_tensor_is_not_seen_through(activation):
    model = half_dead(through(layers.Activation(activation)))
    small = cut(model)
    assert small.layers[1].units == 8
    assert_same(small, model, np.random.default_rng(0))


@pytest.mark.parametrize('name', (
    'relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid hard_sigmoid hard_silu tanh softplus softsign '
    'exponential linear log_sigmoid').split())
def test_keras_activations_are_seen_through(name):
    x = keras.Input((5,))
    model = half_dead(keras.Model(x, layers.Dense(3)(layers.Dense(8, name)(x))))
    assert cut(model).layers[1].units == 4


def test_the_name_of_a_layer_that_does_not_hand_it_on():
    class Nameless(layers.Layer):
        def __init__(self, **anything):
            super().__init__(**anything)

        def get_config(self):
            return {}

        def call(self, x):
            return 2 * x

    assert cut(half_dead(through(Nameless(name='it')))).get_layer('it')


@pytest.mark.parametrize('nested', [False, True])
def test_an_activation_that_has_no_weights_yet_is_named_and_not_touched(nested):
    x = keras.Input((6, 6, 2))
    layer = layers.Conv2D(4, 3, activation=layers.PReLU(shared_axes=[1, 2]), name='it')
    model = keras.Model(x, (keras.Sequential([layer]) if nested else layer)(x))
    with pytest.raises(ValueError, match='the activation of layer it has no weights yet. Call the model once'):
        cut(model)
    model(np.ones((1, 6, 6, 2), np.float32))
    assert_same(cut(model), model, np.random.default_rng(0))


def test_frozen_parts_stay_frozen():
    attention = layers.MultiHeadAttention(2, 3)
    x = keras.Input((4, 6))
    y = attention(*[layers.Dense(8)(x)] * 2)
    attention.trainable = False
    model = keras.Model(x, layers.Dense(2)(y))
    assert len(cut(model).trainable_weights) == len(model.trainable_weights) == 4


def test_thawed_parts_of_frozen_ones_stay_thawed():
    base = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(8)])
    base.trainable = False
    base.layers[-1].trainable = True
    model = through(base)
    model.layers[-1].bias.trainable = False
    small = cut(model)
    assert [[variable.shape for variable in of.trainable_weights] for of in (small, model)] == [
        [(8, 8), (8,), (8, 8), (8,), (8, 3)]] * 2


def test_an_optional_input_of_a_nested_model_stays_optional():
    a, b = keras.Input((5,)), keras.Input((5,), optional=True)

    class Sum(layers.Layer):
        def call(self, x, y=None):
            return x if y is None else x + y

        def compute_output_spec(self, x, y=None):
            return keras.KerasTensor(x.shape, x.dtype)

    inner = keras.Model([a, b], Sum()(a, b))
    c, d = keras.Input((5,)), keras.Input((5,), optional=True)
    model = keras.Model([c, d], layers.Dense(3)(inner([c, d])))
    x = np.ones((2, 5), np.float32)
    np.testing.assert_allclose(cut(model)([x, None]), model([x, None]), atol=1e-6)


def test_an_adapted_normalization_stays_one_in_float64():
    x = keras.Input((3,), dtype='float64')
    normalization = layers.Normalization(dtype='float64')
    normalization.adapt(np.random.default_rng(0).normal(1 / 3, 2 / 3, (50, 3)))
    model = keras.Model(x, layers.Dense(8, dtype='float64')(normalization(x)))
    images = np.random.default_rng(1).normal(size=(4, 3))
    small = cut(model)
    np.testing.assert_allclose(small(images), model(images), rtol=1e-12)
    assert [(*variable.shape,) for variable in small.layers[1].weights] == [(3,), (3,), ()]


def test_constants_are_told_from_rounding_output_by_output():
    x = keras.Input((6, 6, 2))
    model = keras.Model(x, layers.Conv2D(2, 3, padding='same', name='b')(layers.Conv2D(
        2, 3, padding='same', name='a', bias_initializer='ones')(x)))
    a, b = (model.get_layer(name) for name in 'ab')
    a.kernel.assign(a.kernel * [0, 1])
    kernel = np.array(b.kernel)
    kernel[:, :, 0] = 0
    kernel[1, 1, 0, 0], kernel[:, :, 0, 1] = 1e4, 0.01  # everywhere 10,000; 0.09 and less at the borders
    b.kernel.assign(kernel)
    (images,) = arrays(model, np.random.default_rng(0))
    (found,), (wanted,) = outputs(cut(model), [images]), outputs(model, [images])
    np.testing.assert_allclose(found[..., 1], wanted[..., 1], atol=1e-5)


# ------------------------------------------------------------------------------------------------------- free sizes

@pytest.mark.parametrize('rest', [[layers.Reshape((-1, 4)), layers.Conv1D(3, 4)], [layers.Conv1D(3, 5)]],
                         ids=['channels side by side', 'fully convolutional'])
def test_sequences_of_free_size(rest):
    x = y = keras.Input((None, 4))
    for layer in (first := layers.Conv1D(8, 1, activation='relu'), *rest):
        y = layer(y)
    model = half_dead(keras.Model(x, y))
    first.kernel.assign(np.random.default_rng(0).normal(size=first.kernel.shape) * ([0, 1, 1, 1] * 2))
    first.bias.assign(np.arange(1, 9))
    assert_same(cut(model), model, np.random.default_rng(0), sizes=(5, 9, 12))


@pytest.mark.parametrize('rank', [1, 2, 3])
def test_no_size_is_too_small_for_what_is_inside(rank):
    """oneDNN's convolution of too few places for one output gives memory as it lies, of the shape of its input."""
    convolution = getattr(layers, f'Conv{rank}D')
    x = keras.Input((*[None] * rank, 4))
    model = half_dead(keras.Model(x, convolution(3, 1)(convolution(4, 3)(convolution(4, 3, activation='relu')(x)))))
    for _ in range(3):
        assert_same(cut(model), model, np.random.default_rng(0), sizes=(5, 9))


@pytest.mark.filterwarnings('error:invalid value')
def test_a_constant_that_rounding_makes_a_map_of_free_size_stays():
    x = keras.Input((None, None, 2))
    first, normalization = layers.Conv2D(2, 3, name='first'), layers.BatchNormalization()
    up = layers.UpSampling2D(3, interpolation='bilinear')(first(x))
    model = keras.Model(x, layers.Conv2D(3, 1)(layers.ReLU()(normalization(up))))
    first.kernel.assign(first.kernel * [0, 1])
    normalization.moving_variance.assign([0, 1])
    normalization.beta.assign([0.05, 0])
    for constant in (0.3712, 0.7, 1 / 3, 12.1):
        first.bias.assign([constant, 0])
        normalization.moving_mean.assign([constant, 0])
        with pytest.warns(UserWarning, match='kept whole') if cut(model).get_layer('first').filters == 2 else (
                contextlib.nullcontext()):
            assert_same(cut(model), model, np.random.default_rng(0), sizes=(7, 12))


def test_sizes_that_a_model_takes_are_found():
    x = keras.Input((None, None, 2))
    y = layers.Conv2D(4, 1, activation='relu')(x)
    model = half_dead(keras.Model(x, layers.Conv2D(2, 1)(layers.Concatenate()([
        y, layers.UpSampling2D(3)(layers.MaxPooling2D(3)(y))]))))
    assert_same(cut(model), model, np.random.default_rng(0), sizes=(9, 12))

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
    assert sum('constant channels whose map depends' in str(warning.message) for warning in caught) == said
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
    alone = subprocess.run([sys.executable, tmp_path / 'keras_pruning.py'], capture_output=True, text=True)
    assert alone.returncode == 1 and alone.stderr.splitlines()[-1].endswith(
        "is there to be imported; --applications needs the rest of it: No module named 'keras_applications'")
    assert 'Traceback' not in alone.stderr


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
    exported = tf.saved_model.load(str(tmp_path / 'exported'))
    for found in (exported.serve(x), lite.get_tensor(lite.get_output_details()[0]['index'])):
        np.testing.assert_allclose(found, model(x), atol=1e-4)
    assert not small.losses and not any(
        getattr(layer, name, None) for layer in small.layers for name in dir(layer)
        if name.endswith(('_regularizer', '_constraint')))
    small.compile(keras.optimizers.SGD(1e-3), 'mse')
    losses = small.fit(x, np.ones((1, 3)), epochs=4, verbose=0).history['loss']
    assert losses[-1] < losses[0]


def test_names_of_outputs_and_a_second_cut():
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(8, 3, padding='same', activation='relu', name='y_map')(x)
    z = layers.Conv2D(8, 3, padding='same', activation='relu', name='y')(y)
    heads = [layers.Conv2D(3, 3, padding='same', activation=kind, name=kind)(z) for kind in ('softmax', 'linear')]
    model = half_dead(keras.Model(x, heads))
    small = cut(model)
    assert small.output_names == model.output_names == ['softmax', 'linear']
    assert [layer.name for layer in small.layers if isinstance(layer, ConstantMap)] == ['y_map_', *model.output_names]
    assert_same(small, model, np.random.default_rng(0))
    kernel = small.get_layer('y').kernel
    kernel.assign(kernel * [0, 1, 1, 0])
    smaller = cut(small)
    assert smaller.get_layer('y').filters == 2 and smaller.output_names == model.output_names
    assert_same(smaller, small, np.random.default_rng(0))


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


def untold():
    class Untold(layers.Dense):
        def get_config(self):
            return {**super().get_config(), 'use_bias': False}
    return through(Untold(8))


def inside_another():
    x = keras.Input((2, 4))
    return keras.Model(x, layers.TimeDistributed(layers.Dense(8, lambda x: x / 2))(x))


def asking():
    class Asking(layers.Layer):
        def call(self, x):
            with tf.control_dependencies([tf.debugging.assert_positive(x)]):
                return tf.identity(x)
    return through(Asking())


def late(called):
    class Late(layers.Layer):
        def build(self, shape):
            self.inner = layers.Dense(8)

        def call(self, x):
            return self.inner(x)

        def compute_output_shape(self, shape):
            return shape

    model = through(Late())
    if called:
        model(np.ones((1, 8), np.float32))
    return model


def handing_on():
    class HandingOn(layers.Layer):
        def __init__(self, inner, **options):
            super().__init__(**options)
            self.inner = inner

        def get_config(self):
            return {**super().get_config(), 'inner': self.inner}

        def call(self, x):
            return self.inner(x)
    return through(HandingOn(layers.Dense(8)))


def test_what_a_layer_hands_on_is_not_changed():
    model = handing_on()
    model.layers[2].inner.kernel.assign(ops.full((8, 8), 5e-4))
    with pytest.raises(ValueError, match='layer handing_on.*has the same variables'):
        cut(model)
    assert model.layers[2].inner.kernel.numpy().all()


@pytest.mark.parametrize('make, said', [
    (lambda: late(False), 'layer late.*makes weights while it is called'),
    (lambda: late(True), 'layer late.*has other weights.*a build that makes all'),
    (untold, 'layer untold.*has other weights.*get_config'),
    (inside_another, 'layer time_distributed.* cannot be made again from its configuration'),
    (asking, 'the model cannot take a made-up sample')])
def test_a_layer_that_cannot_be_made_again_is_named(make, said):
    with pytest.raises(ValueError, match=said):
        cut(half_dead(make()))


@pytest.mark.parametrize('number', [-1, float('nan'), None, 'small', [0.001], 10**400])
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


def test_the_table_is_written_and_nothing_in_place_of_somebody_elses(monkeypatch, tmp_path, capsys):
    row = {name: 1 for name in ('network', 'parameters', 'macs', 'milliseconds', 'parameters_cut', 'macs_cut',
                                'milliseconds_cut', 'seconds', 'difference')}
    monkeypatch.setattr(keras_applications, 'measure', lambda name: {**row, 'network': name})
    (tmp_path / 'mine.csv').write_text('mine')
    cut_short = 'network,parameters,parameters_cut,macs,macs_cut\nA,1\n'
    (tmp_path / 'cut.csv').write_text(cut_short)
    for name, words in (('mine.csv', 'is no CSV of keras_applications'), ('cut.csv', 'the row of A is cut'),
                        ('mine', 'must be the name of a .csv file')):
        monkeypatch.setattr(sys, 'argv', ['keras_pruning.py', '--applications', f'--csv={tmp_path / name}'])
        with pytest.raises(SystemExit, match=f'^error: .*{words}'):
            keras_applications.main()
    assert (tmp_path / 'mine.csv').read_text() == 'mine' and (tmp_path / 'cut.csv').read_text() == cut_short
    monkeypatch.setattr(sys, 'argv', ['keras_pruning.py', '--applications', f'--csv={tmp_path}/new/it.csv'])
    for _ in range(2):  # its own is replaced
        keras_applications.main()
        table = keras_applications.application_table(tmp_path / 'new' / 'it.csv')
        assert evaluations.rst(table) in capsys.readouterr().out
        assert [line[0] for line in table[1:]] == keras_applications.APPLICATIONS


def test_a_row_of_the_table_is_measured(monkeypatch, tmp_path):
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(layers.Conv2D(4, 3, activation='relu')(x))))
    monkeypatch.setattr(keras_applications, 'application', lambda name: half_dead(model))
    row = keras_applications.measure('it', rounds=1)
    assert (row['parameters'], row['parameters_cut']) == (108 + 4 + 288 + 2, 54 + 2 + 144 + 2)
    assert (row['macs'], row['macs_cut']) == (36 * 108 + 288, 36 * 54 + 144) and float(row['difference']) < 1e-5
    (tmp_path / 'it.csv').write_text(evaluations.lines([row, row.values()]))
    assert keras_applications.application_table(tmp_path / 'it.csv')[1][0] == 'it'


def test_the_example_without_its_smallest_gammas_is_the_same_function():
    model, random = keras_example.residual(0.003), np.random.default_rng(0)
    found = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for layer in found:
        layer.gamma.assign(random.uniform(0.1, 1, layer.gamma.shape))
        layer.beta.assign(random.normal(size=layer.beta.shape))
    small = keras_example.slimmed(model, 0.4)
    limit = np.quantile(np.concatenate([layer.gamma.numpy() for layer in found]), 0.4)
    for layer in found:
        alive = layer.gamma.numpy() > limit
        layer.gamma.assign(layer.gamma * alive)
        layer.beta.assign(layer.beta * alive)
    (x,) = arrays(model, random)
    np.testing.assert_allclose(outputs(small, [x])[0], outputs(model, [x])[0], atol=1e-5)
    assert keras_applications.macs(small) < 0.8 * keras_applications.macs(model)


def test_an_activity_regularization_is_gone():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.ActivityRegularization(l2=0.1),
                              layers.Dense(2)])
    small = cut(model)
    small(np.ones((3, 4)), training=True)
    assert not any(small.losses)
    assert [layer.name for layer in small.layers[1:]] == [layer.name for layer in model.layers]


def test_the_multiply_accumulates_are_those_of_the_layers():
    model = keras.Sequential([
        keras.Input((8, 8, 3)), layers.Conv2D(4, 3, strides=2, padding='same'), layers.DepthwiseConv2D(3),
        layers.SeparableConv2D(5, 2), layers.Flatten(), layers.Dense(7)])
    assert keras_applications.macs(model) == 16 * 9 * 3 * 4 + 4 * 9 * 4 + 1 * (4 * 4 + 4 * 5) + 5 * 7
