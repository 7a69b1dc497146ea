"""The loss terms, sparsify and sparsity against NumPy written apart, and against finite differences."""

import numpy as np
import pytest
import tensorflow as tf

import main

SHAPES = {'dense': (7, 5), 'conv1d': (3, 4, 6), 'conv2d': (3, 2, 4, 5), 'conv3d': (2, 3, 2, 4, 3)}


def random_weight(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def numpy_norms(weight):
    """One group at a time, in plain Python."""
    return np.array([sum(v * v for v in weight[..., g].ravel()) ** 0.5 for g in range(weight.shape[-1])])


def numpy_lasso(weights):
    return sum(numpy_norms(w).sum() for w in weights)


def numpy_variance(weights):
    total = 0.0
    for weight in weights:
        squares = numpy_norms(weight) ** 2
        total += 1 / (sum((s - squares.mean()) ** 2 for s in squares) / len(squares))
    return total


TERMS = [(main.group_lasso, numpy_lasso), (main.group_variance, numpy_variance)]


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('ours, reference', TERMS, ids=['lasso', 'variance'])
def test_value_and_gradient_of_one_layer(ours, reference, shape):
    weight = random_weight(shape)
    variable = tf.Variable(weight)
    with tf.GradientTape() as tape:
        value = ours([variable])
    assert value.dtype == tf.float64 and value.shape == ()
    np.testing.assert_allclose(value, reference([weight]), rtol=1e-12)
    gradient = tape.gradient(value, variable).numpy()
    for index in np.random.default_rng(1).choice(weight.size, 10, replace=False):
        nudge = np.zeros(weight.size)
        nudge[index] = 1e-6
        nudge = nudge.reshape(shape)
        slope = (reference([weight + nudge]) - reference([weight - nudge])) / 2e-6
        np.testing.assert_allclose(gradient.ravel()[index], slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize('dtype, rtol', [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize('ours, reference', TERMS, ids=['lasso', 'variance'])
def test_layers_are_summed_unscaled(ours, reference, dtype, rtol):
    weights = [random_weight(shape, seed, dtype) for seed, shape in enumerate(SHAPES.values())]
    np.testing.assert_allclose(ours([tf.constant(w) for w in weights]), reference(weights), rtol=rtol)


def test_an_all_zero_group_has_gradient_zero():
    weight = random_weight((4, 3), dtype=np.float32)
    weight[:, 1] = 0
    variable = tf.Variable(weight)
    with tf.GradientTape(persistent=True) as tape:
        lasso, variance = main.group_lasso([variable]), main.group_variance([variable])
    for value in (lasso, variance):
        gradient = tape.gradient(value, variable).numpy()
        assert np.isfinite(gradient).all() and (gradient[:, 1] == 0).all() and (gradient[:, 0] != 0).all()


@pytest.mark.parametrize('weight', [np.ones((4, 3)), np.zeros((4, 3)), np.ones((4, 1))],
                         ids=['equal groups', 'all zero', 'one group'])
def test_without_variance_the_inverse_is_infinite_and_a_zero_coefficient_drops_it(weight):
    weights = [tf.constant(weight)]
    assert main.group_variance(weights) == np.inf
    assert main.penalties(weights, 0.5, 0).keys() == {'group_lasso'}
    assert main.penalties(weights, 0, 0.5).keys() == {'group_variance'}
    assert main.penalties(weights, 0, 0) == {}


def test_penalties_are_scaled():
    weights = [random_weight((4, 3)), random_weight((2, 5))]
    terms = main.penalties([tf.constant(w) for w in weights], 0.3, 0.7)
    np.testing.assert_allclose(terms['group_lasso'], 0.3 * numpy_lasso(weights))
    np.testing.assert_allclose(terms['group_variance'], 0.7 * numpy_variance(weights))


def test_cross_entropy_is_the_mean_over_the_images():
    logits, labels = random_weight((6, 10)), np.array([0, 1, 2, 3, 4, 9])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(main.cross_entropy(tf.constant(logits), labels),
                               -np.log(shares[np.arange(6), labels]).mean())


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_sparsify_includes_the_threshold_itself(shape):
    weight = random_weight(shape, dtype=np.float32)
    threshold = float(np.abs(weight).ravel()[3])
    expected = np.array([0 if abs(v) <= threshold else v for v in weight.ravel()]).reshape(shape)
    np.testing.assert_array_equal(main.sparsify(tf.constant(weight), threshold), expected)
    np.testing.assert_array_equal(main.sparsify(tf.constant(weight), 0.0), weight)


def test_sparsity_is_the_unweighted_mean_over_layers_and_counts_what_is_left():
    weights = [random_weight(shape, seed, np.float32) for seed, shape in enumerate(SHAPES.values())]
    mean, left = main.sparsity([tf.constant(w) for w in weights], 0.5)
    shares = [sum(abs(v) <= 0.5 for v in w.ravel()) / w.size for w in weights]
    np.testing.assert_allclose(mean, sum(shares) / len(shares), rtol=1e-6)
    assert left == sum(sum(abs(v) > 0.5 for v in w.ravel()) for w in weights)
    for weight in weights:
        kept = main.sparsify(weight, 0.5)
        assert main.zero_fraction(kept) == tf.math.zero_fraction(kept)


@pytest.mark.parametrize('shape', [(28, 28, 1), (32, 30, 3), (9, 7, 2)], ids=str)
def test_multiply_accumulates_are_counted_where_the_weights_are_used(shape):
    """A weight of a convolution is used at each position of its output, one of a dense layer once."""
    net = main.LeNet(shape, main.Settings(widths=(3, 4, 6, 5)))
    expected = {name: weight.shape.num_elements() for name, weight in net.weights.items()}
    expected['conv1'] *= shape[0] * shape[1]
    expected['conv2'] *= -(-shape[0] // 2) * -(-shape[1] // 2)
    assert main.macs(shape, (3, 4, 6, 5)) == expected


def test_a_group_is_alive_as_long_as_any_weight_is_left_however_small():
    net = main.LeNet((28, 28, 1), main.Settings(widths=(3, 4, 6, 5), sparsity_threshold=0))
    net.weights['fc2'].assign(tf.fill(net.weights['fc2'].shape, 1e-30))  # the square is 0 in float32
    layer = main.sparsity_figures(net)['layers']['fc2']
    assert layer['zero_share'] == 0 and layer['groups_alive'] == 5


def test_dead_groups_are_left_out_of_the_multiply_accumulates():
    net = main.LeNet((28, 28, 1), main.Settings(widths=(3, 4, 6, 5)))
    for name, dead in (('conv1', 1), ('conv2', 2), ('fc1', 3), ('fc2', 4)):
        weight = net.weights[name].numpy()
        weight[..., :dead] = 0.001  # the threshold itself
        net.weights[name].assign(weight)
    figures = main.sparsity_figures(net)
    assert figures['macs'] == 28**2 * 25 * 2 + 14**2 * 25 * 2 * 2 + 49 * 2 * 3 + 3 * 1 + 1 * 10
