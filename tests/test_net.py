"""The net, its randomness and its training step."""

import math

import numpy as np
import pytest
import tensorflow as tf

import input_data
import main

WIDTHS = (3, 4, 6, 5)
SHAPE = (28, 28, 1)


def make_net(widths=WIDTHS, shape=SHAPE, **settings):
    return main.LeNet(shape, main.Settings(widths=widths, **settings))


def some_images(count=6, shape=SHAPE):
    random = np.random.default_rng(3)
    return random.random((count, *shape), np.float32), random.integers(0, 10, count)


def values(net):
    return {v.name + str(v.shape): v.numpy() for v in net.variables}


@pytest.fixture(scope='module')
def paper_net():
    return make_net((64, 128, 512, 256))


def test_exact_parameter_count(paper_net):
    assert sum(math.prod(w.shape) for w in paper_net.weights.values()) == 3_551_296
    assert sum(math.prod(b.shape) for b in paper_net.biases.values()) == 970
    assert {name: tuple(w.shape) for name, w in paper_net.weights.items()} == {
        'conv1': (5, 5, 1, 64), 'conv2': (5, 5, 64, 128), 'fc1': (6272, 512), 'fc2': (512, 256), 'softmax': (256, 10)}


def test_initial_values_match_the_arithmetic(paper_net):
    # A normal of stddev 0.1 cut at two of them has a variance of 0.00774; times 25, 1600, 6272 and 512 inputs:
    means = [float(tf.reduce_mean(main.squared_group_norms(w))) for w in paper_net.regularised()]
    np.testing.assert_allclose(means, [0.19, 12.4, 48.6, 4.0], rtol=0.05)
    lasso = main.penalties(paper_net.regularised(), 0.001, 0.01)['group_lasso']
    np.testing.assert_allclose(lasso, 0.001 * np.dot([64, 128, 512, 256], np.sqrt([0.19, 12.4, 48.6, 4.0])), rtol=0.01)
    assert all((b.numpy() == np.float32(0.1)).all() for b in paper_net.biases.values())
    assert all(abs(w.numpy()).max() <= 0.2 for w in paper_net.weights.values())


@pytest.mark.parametrize('training_status', [True, False])
@pytest.mark.parametrize('shape', [(28, 28, 1), (32, 30, 3), (9, 7, 2)], ids=str)
def test_logits_against_numpy(shape, training_status):
    """Every layer in loops of NumPy; in training with dropout after fc1 and fc2, in evaluation thresholded."""
    net = make_net(sparsity_threshold=0.05, shape=shape, dropout=0.5)
    images, _ = some_images(2, shape)
    threshold = 0 if training_status else 0.05
    kept = {name: net.dropout(tf.ones((2, width)), name, training_status).numpy()
            for name, width in zip(('fc1', 'fc2'), WIDTHS[2:], strict=True)}

    def conv(x, w, b):
        padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        out = np.zeros((*x.shape[:3], w.shape[3]))
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                out[:, i, j] = np.einsum('nabc,abco->no', padded[:, i:i + 5, j:j + 5], w)
        return np.maximum(out + b, 0)

    def pool(x):
        x = np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))  # zeros: x is not negative
        return np.max([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)

    w = {name: np.where(abs(v.numpy()) <= threshold, 0, v.numpy()).astype(np.float64)
         for name, v in net.weights.items()}
    b = {name: v.numpy().astype(np.float64) for name, v in net.biases.items()}
    conv1 = conv(images, w['conv1'], b['conv1'])
    conv2 = conv(pool(conv1), w['conv2'], b['conv2'])
    fc1 = np.maximum(pool(conv2).reshape(2, -1) @ w['fc1'] + b['fc1'], 0)
    fc2 = np.maximum(fc1 * kept['fc1'] @ w['fc2'] + b['fc2'], 0)
    expected = {'conv1': conv1, 'conv2': conv2, 'fc1': fc1, 'fc2': fc2,
                'softmax': fc2 * kept['fc2'] @ w['softmax'] + b['softmax']}
    for x in (images, images.reshape(2, -1)):
        logits, activations = net.net(x, training_status)
        np.testing.assert_allclose(logits, expected['softmax'], rtol=1e-4, atol=1e-5)
        assert list(activations) == list(expected)
        for name, activation in activations.items():
            np.testing.assert_allclose(activation, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
    measured = net.measure(images, np.array([0, 1]), training_status)['zero_activations']
    assert 0 < measured['conv1'] < 1 and measured['softmax'] == 0
    for name, activation in expected.items():
        assert float(measured[name]) == pytest.approx(np.mean(activation == 0), abs=1e-6), name


def test_training_takes_the_weights_as_they_are_and_evaluation_thresholds_them():
    net, (images, _) = make_net(dropout=1.0, sparsity_threshold=0.05), some_images()
    as_trained, _ = net.net(images, training_status=True)
    np.testing.assert_array_equal(net.at_threshold(0.0).net(images, training_status=False)[0], as_trained)
    assert (net.net(images, training_status=False)[0] != as_trained).numpy().any()
    everything, _ = net.at_threshold(9.0).net(images, training_status=False)  # all weights zero: a bias is left
    np.testing.assert_array_equal(everything, np.full((6, 10), 0.1, np.float32))


def test_evaluation_changes_no_variable_and_the_last_partial_batch_counts():
    net, (images, labels) = make_net(sparsity_threshold=0.05), some_images(7)
    before = values(net)
    whole = main.evaluate(net, images, labels)
    parts = main.evaluate(net, images, labels, batch_size=3)
    for name, value in values(net).items():
        np.testing.assert_array_equal(value, before[name])
    assert whole['accuracy'] == pytest.approx(parts['accuracy'])
    assert whole['cross_entropy'] == pytest.approx(parts['cross_entropy'], rel=1e-5)
    assert whole['zero_activations'] == pytest.approx(parts['zero_activations'], rel=1e-5)
    hits = tf.argmax(net.net(images, training_status=False)[0], axis=1).numpy() == labels
    assert whole['accuracy'] == pytest.approx(hits.mean())


def test_the_graph_has_the_papers_scopes_and_the_variables_their_names():
    net, (images, labels) = make_net(), some_images()
    graph = net.measure.get_concrete_function(images, labels, training_status=True).graph
    scopes = {operation.name.split('/')[0] for operation in graph.get_operations() if '/' in operation.name}
    figures = {'SparseSoftmaxCrossEntropyWithLogits', 'ArgMax'}
    assert {name for name in scopes - figures if not name.startswith('zero_fraction')} == {
        'reshape', 'conv1', 'pool1', 'conv2', 'pool2', 'fc1', 'fc2', 'softmax'}
    assert {v.name for v in net.trainable_variables} == {
        f'{layer}/{kind}:0' for layer in (*main.REGULARISED, 'softmax') for kind in ('weights', 'biases')}


def test_dropout_keeps_the_stated_share_and_is_a_function_of_seed_layer_and_step():
    net, x = make_net(dropout=0.8), tf.ones((100, 200))
    kept = net.dropout(x, 'fc1', training_status=True).numpy()
    assert set(np.unique(kept)) == {0, np.float32(1.25)}
    assert np.mean(kept > 0) == pytest.approx(0.8, abs=0.01)
    np.testing.assert_array_equal(net.dropout(x, 'fc1', training_status=True), kept)
    assert net.dropout(x, 'fc1', training_status=False) is x
    for other in (net.dropout(x, 'fc2', training_status=True), make_net(seed=1).dropout(x, 'fc1', True)):
        assert np.mean((other.numpy() > 0) == (kept > 0)) == pytest.approx(0.68, abs=0.02)  # 0.8^2 + 0.2^2
    net.step.assign_add(1)
    other = net.dropout(x, 'fc1', training_status=True).numpy()
    assert np.mean((other > 0) == (kept > 0)) == pytest.approx(0.68, abs=0.02)


@pytest.mark.parametrize('batch_size', [1, 7, 10, 23])
def test_each_epoch_is_a_permutation_and_batches_run_across_its_end(batch_size):
    images, labels = tf.range(10) * 100, tf.range(10)
    batches = [input_data.batch(images, labels, tf.constant(step, tf.int64), batch_size, seed=0)
               for step in range(-(-40 // batch_size))]
    assert all((x == y * 100).numpy().all() and len(y) == batch_size for x, y in batches)
    order = np.concatenate([y for _, y in batches])[:40].reshape(4, 10)
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(10), (4, 1)))


def test_the_orders_of_epochs_and_seeds_do_not_resemble_each_other():
    places = tf.range(5000)

    def order(epoch, seed):
        return input_data.batch(places, places, tf.constant(epoch, tf.int64), 5000, seed)[1].numpy()

    orders = [order(epoch, 0) for epoch in range(6)] + [order(0, 1)]
    correlations = np.corrcoef([np.arange(5000), *orders])
    assert abs(correlations - np.eye(8)).max() < 5 / math.sqrt(5000)  # five standard deviations


@pytest.mark.parametrize('share', [0.5, 0.9, 0.123])
def test_random_sparsity_is_exact_in_each_layer_and_stays_through_training(share):
    net, (images, labels) = make_net(random_sparsity=share, sparsity_threshold=0.0), some_images()
    off = {name: net.weights[name].numpy() == 0 for name in main.REGULARISED}
    for mask in off.values():
        assert mask.sum() == round(share * mask.size)
    optimizer = built(tf.keras.optimizers.Adam(0.01), net)
    for _ in range(3):
        main.training_step(net, optimizer, images, labels, 0.001, 0.01)
    for name, mask in off.items():
        np.testing.assert_array_equal(net.weights[name].numpy()[mask], 0)
        assert (net.weights[name].numpy()[~mask] != 0).all()
    assert not (make_net(random_sparsity=share, seed=1).weights['fc1'].numpy() == 0)[off['fc1']].all()
    assert (net.weights['softmax'].numpy() != 0).all()


def built(optimizer, net):
    optimizer.build(net.trainable_variables)
    return optimizer


def test_one_step_changes_every_variable():
    net, (images, labels) = make_net(), some_images(50)
    before = values(net)
    main.training_step(net, built(tf.keras.optimizers.Adam(0.01), net), images, labels, 0.001, 0.01)
    assert all((after != before[name]).any() for name, after in values(net).items())
    assert net.step == 1


def test_a_gradient_whose_square_is_not_finite_changes_nothing():
    """It would break Adam's average of squares, and with the next step the weights."""
    net, (images, labels) = make_net(), some_images()
    before, optimizer = values(net), tf.keras.optimizers.Adam(0.01)
    optimizer.build(net.trainable_variables)
    with tf.GradientTape() as tape:
        loss = main.penalties(net.regularised(), 1e22, 0)['group_lasso']
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, net.regularised()))
    assert not main.training_step(net, optimizer, images, labels, 1e22, 0)
    for name, value in values(net).items():
        np.testing.assert_array_equal(value, before[name])
    terms = main.terms_by_layer(net, images, labels, 1e22, 0)
    assert main.report.explain(terms, net.trainable_variables).startswith('group_lasso of conv1. Try a smaller')


def test_zero_coefficients_give_plain_cross_entropy():
    """The step's gradients, read off plain gradient descent with rate 1, are those of the cross-entropy alone."""
    net, (images, labels) = make_net(), some_images()
    with tf.GradientTape() as tape:
        logits, _ = net.net(images, training_status=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    gradients = tape.gradient(loss, net.trainable_variables)
    expected = [v - g for v, g in zip(net.trainable_variables, gradients, strict=True)]
    assert main.training_step(net, built(tf.keras.optimizers.SGD(1.0), net), images, labels, 0, 0)
    for variable, value in zip(net.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-6, atol=1e-7)


def test_adam_has_tensorflow_1s_constants(train):
    """Two steps of train() against Adam written in NumPy.

    Small gradients tell its epsilon, 1e-8, from Keras's 1e-7; the first step depends on neither beta.
    """
    data, net = input_data.read_data_sets(fake_data=True), make_net()
    variables = net.trainable_variables
    m, v = ([np.zeros(variable.shape) for variable in variables] for _ in range(2))
    for step in (1, 2):
        with tf.GradientTape() as tape:
            images, labels = input_data.batch(*data.train, net.step, 100, seed=0)
            logits, _ = net.net(images, training_status=True)
            loss = main.cross_entropy(logits, labels) + sum(main.penalties(net.regularised(), 0.001, 0.01).values())
        gradients = [gradient.numpy().astype(np.float64) for gradient in tape.gradient(loss, variables)]
        _, trained = train(data, max_steps=step, learning_rate=0.01, widths=WIDTHS)
        for i, gradient in enumerate(gradients):
            before = variables[i].numpy()
            m[i] = 0.9 * m[i] + 0.1 * gradient
            v[i] = 0.999 * v[i] + 0.001 * gradient ** 2
            change = 0.01 * math.sqrt(1 - 0.999 ** step) / (1 - 0.9 ** step) * m[i] / (np.sqrt(v[i]) + 1e-8)
            after = trained.trainable_variables[i].numpy()
            np.testing.assert_allclose(before - after, change, rtol=1e-3, atol=2e-7)
            variables[i].assign(after)
        net.step.assign(step)


@pytest.mark.parametrize('final, step, rate', [
    (None, 8, 0.01), (0.001, 0, 0.01), (0.001, 5, 0.0055), (0.0, 10, 0.0),
    (0.001, 8, 0.001 + 0.009 * 0.5 * (1 + math.cos(0.8 * math.pi)))])
def test_the_learning_rate_is_constant_or_falls_along_half_a_cosine(final, step, rate):
    optimizer = main.adam(main.Settings(max_steps=10, learning_rate=0.01, final_learning_rate=final))
    optimizer.iterations.assign(step)
    assert float(optimizer.learning_rate) == pytest.approx(rate, abs=1e-8)


def test_the_rate_falls_with_the_steps_of_train(train, monkeypatch):
    made, original = [], main.adam
    monkeypatch.setattr(main, 'adam', lambda settings: made.append(original(settings)) or made[-1])
    figures, _ = train(input_data.read_data_sets(fake_data=True), max_steps=3, widths=WIDTHS, final_learning_rate=0.0)
    optimizer, = made
    assert optimizer.iterations == 3 == figures['step'] and float(optimizer.learning_rate) == 0
    none = main.adam(main.Settings(max_steps=0, final_learning_rate=0.0))
    assert float(none.learning_rate) == pytest.approx(0.0001)


def test_the_same_seed_gives_the_same_run_bit_for_bit_whatever_the_steps_per_call(train, monkeypatch):
    data = input_data.read_data_sets(fake_data=True)
    settings = dict(max_steps=15, widths=WIDTHS, learning_rate=0.01)
    figures, net = train(data, **settings, eval_interval=15)
    figures_again, net_again = train(data, **settings, eval_interval=7)
    for name, value in values(net).items():
        np.testing.assert_array_equal(values(net_again)[name], value)
    assert figures == figures_again
    assert (make_net(seed=1).weights['fc1'] != make_net().weights['fc1']).numpy().any()


def test_train_builds_the_net_of_its_arguments_and_orders_the_images_by_its_seed(train, monkeypatch):
    data = input_data.read_data_sets(fake_data=True)
    settings = dict(seed=5, random_sparsity=0.5, widths=WIDTHS, sparsity_threshold=0.0)
    figures, net = train(data, max_steps=0, dropout=0.7, **settings)
    for name, value in values(make_net(random_sparsity=0.5, seed=5)).items():
        np.testing.assert_array_equal(values(net)[name], value)
    assert (net.keep_probability, net.threshold, net.seed) == (0.7, 0.0, 5)
    seeds, original = [], input_data.batch
    monkeypatch.setattr(input_data, 'batch', lambda *arguments, seed, **others: seeds.append(seed) or original(
        *arguments, seed=seed, **others))
    figures, _ = train(data, max_steps=2, **settings)
    assert set(seeds) == {5}
    for name in main.REGULARISED:
        size = net.weights[name].shape.num_elements()
        assert figures['layers'][name]['zero_share'] == pytest.approx(round(size / 2) / size)


def test_training_learns_and_reports_what_the_net_holds(train):
    data = input_data.read_data_sets(fake_data=True)
    figures, net = train(data, max_steps=120, widths=WIDTHS, learning_rate=0.02, dropout=1.0, sparsity_threshold=0.1)
    assert figures['test']['accuracy_as_trained'] > 0.9 and figures['step'] == 120
    for part in ('test', 'validation'):
        images, labels = getattr(data, part)
        thresholded, as_trained = (np.mean(tf.argmax(net.net(images, status)[0], axis=1) == labels)
                                   for status in (False, True))  # in training too, for dropout keeps everything
        assert abs(thresholded - as_trained) > 0.01
        assert figures[part]['accuracy'] == pytest.approx(thresholded)
        assert figures[part]['accuracy_as_trained'] == pytest.approx(as_trained)
    zero = {name: np.abs(weight.numpy()) <= np.float32(0.1) for name, weight in net.weights.items()}
    shares = [mask.mean() for mask in zero.values()]
    assert figures['mean_of_five'] == pytest.approx(np.mean(shares))
    assert figures['mean_of_four'] == pytest.approx(np.mean(shares[:4]))
    assert figures['weights_left'] == sum((~mask).sum() for mask in zero.values())
    assert figures['global_sparsity'] == pytest.approx(1 - figures['weights_left'] / figures['weights'])
    assert figures['macs_dense'] == 28**2 * 25 * 3 + 14**2 * 25 * 3 * 4 + 49 * 4 * 6 + 6 * 5 + 5 * 10
    for name, mask in zero.items():
        kept = np.where(mask, 0, net.weights[name].numpy()).reshape(-1, mask.shape[-1])
        norms = np.linalg.norm(kept, axis=0)
        alive = (~mask.reshape(-1, mask.shape[-1])).any(axis=0)
        of_layer = dict(figures['layers'][name])
        assert of_layer.pop('largest_norms') == pytest.approx(sorted(norms.tolist())[:-3:-1])
        assert of_layer == pytest.approx({'zero_share': mask.mean(), 'groups_alive': alive.sum(), 'groups': len(alive)})
