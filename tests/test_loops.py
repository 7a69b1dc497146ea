"""The steps compiled by XLA against those op by op, on a CPU: all but the speed of a GPU."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

import input_data
import loops
import main
import retrain
from in_process import SMALL, refused

SETTINGS = main.Settings(widths=(3, 4, 6, 5), batch_size=20, dropout=0.6, random_sparsity=0.3, learning_rate=1e-3,
                         final_learning_rate=1e-4, max_steps=200, eval_interval=16, seed=3)
BROKEN = 70  # the step that meets the image that is not finite


class Way:
    """All that trains by one way, with its state at step 0 to go back to."""

    def __init__(self, data, compiled, start=None):
        self.net, optimizer, self.batch, self.steps = main.assemble(data, SETTINGS, start, compiled)
        self.variables = [*self.net.trainable_variables, self.net.step, *(v.value for v in optimizer.variables)]
        self.first = self.values()

    def values(self):
        return [variable.numpy() for variable in self.variables]

    def begin(self):
        for variable, value in zip(self.variables, self.first, strict=True):
            variable.assign(value)


@pytest.fixture(scope='module')
def data():
    """Images of odd sizes, of which one is not finite."""
    images, labels = input_data.read_data_sets(fake_data=True).train
    images = images[:, :25, :23].copy()
    images[input_data.indices(len(labels), BROKEN, 20, SETTINGS.seed)[0]] = np.inf
    return input_data.DataSet(images, labels)


@pytest.fixture(scope='module')
def ways(data):
    """The ordinary way and the compiled one."""
    return Way(data, compiled=False), Way(data, compiled=True)


def assert_close(ordinary, compiled):
    """Weights and biases to 1e-6; what is larger, of Adam's averages, to that share of the largest."""
    for one, other in zip(ordinary, compiled, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-6 * max(1, np.abs(one).max()))


@pytest.mark.slow
def test_fifty_steps_give_the_ordinary_ones(ways):
    """With dropout, random connections and a falling rate; 50 is no multiple of the trip count."""
    for way in ways:
        way.begin()
        assert way.steps(50) and way.net.step == 50
        assert all((value != first).any() for value, first in zip(way.values()[:10], way.first, strict=False))
    assert_close(*(way.values() for way in ways))
    off = {name: mask.numpy() == 0 for name, mask in ways[1].net.masks.items()}
    assert len(off) == 4 and all((ways[1].net.weights[name].numpy()[mask] == 0).all() for name, mask in off.items())


@pytest.mark.slow
def test_the_bits_do_not_depend_on_the_steps_of_a_call(ways):
    """Nor on where a run was stopped, for its random numbers are those of each step."""
    _, compiled = ways
    found = []
    for counts in ((50,), (50,), (1, 20, 29)):
        compiled.begin()
        assert all(compiled.steps(count) for count in counts)
        found.append(compiled.values())
    for values in found[1:]:
        for value, first in zip(values, found[0], strict=True):
            np.testing.assert_array_equal(value, first)


@pytest.mark.slow
def test_the_zeros_of_a_retraining_stay_in_all_five_layers(data):
    net, random = main.LeNet((25, 23, 1), main.Settings(widths=SETTINGS.widths)), np.random.default_rng(0)
    weights = {name: weight * (random.random(weight.shape) > 0.4) for name, weight in net.weights.items()}
    ways = [Way(data, compiled, retrain.Start({}, weights, net.biases)) for compiled in (False, True)]
    assert all(way.steps(20) for way in ways)
    assert_close(*(way.values() for way in ways))
    for name, weight in weights.items():
        np.testing.assert_array_equal(ways[1].net.weights[name] == 0, weight == 0)
        assert (ways[1].net.weights[name] != weight).numpy().any()


@pytest.mark.slow
def test_a_step_that_is_not_finite_stops_within_a_call_and_is_explained_as_ever(ways):
    said = []
    for way in ways:
        way.begin()
        assert way.steps(BROKEN - 1) and not way.steps(100) and way.net.step == BROKEN
        before = way.values()
        assert np.isinf(way.batch()[0]).any() and not way.steps(3)
        for value, old in zip(way.values(), before, strict=True):
            np.testing.assert_array_equal(value, old)
        said.append(main.report.explain(main.terms_by_layer(way.net, *way.batch(), 0.001, 0.01),
                                        way.net.trainable_variables))
    assert_close(*(way.values() for way in ways))
    assert said == 2 * ['cross_entropy. Try a smaller --learning_rate.']


@pytest.mark.slow
def test_no_step_is_no_step(ways):
    _, compiled = ways
    compiled.begin()
    assert compiled.steps(0)
    for value, first in zip(compiled.values(), compiled.first, strict=True):
        np.testing.assert_array_equal(value, first)


def test_what_is_drawn_for_many_steps_is_what_each_would_draw():
    net, places = main.LeNet((28, 28, 1), SETTINGS), tf.range(500)
    index = tf.reshape(input_data.indices(500, 40, 20, seed=3, steps=5), [5, 20])  # across an epoch's end
    masks = loops.kept(net, tf.range(40, 45, dtype=tf.int64), 20)
    assert masks['fc1'].shape == (5, 20, 6) and masks['fc2'].shape == (5, 20, 5)
    for i in range(5):
        net.step.assign(40 + i)
        np.testing.assert_array_equal(index[i], input_data.batch(places, places, net.step, 20, seed=3)[0])
        with_masks = loops.compilable(net, {name: mask[i] for name, mask in masks.items()})
        for name, width in (('fc1', 6), ('fc2', 5)):
            x = tf.random.stateless_normal([20, width], [i, width])
            np.testing.assert_allclose(with_masks.dropout(x, name, True), net.dropout(x, name, True), rtol=1e-6)


@pytest.mark.parametrize('shape', [(2, 4, 6, 3), (2, 5, 7, 1), (1, 1, 1, 2), (3, 6, 3, 2)], ids=str)
@pytest.mark.parametrize('values', ['few', 'many', 'huge'])
def test_the_pool_is_tensorflows_bit_for_bit_and_so_is_its_gradient(shape, values):
    """Also where several of a window are the largest, and where padding might be."""
    random = np.random.default_rng(0)
    x = random.normal(size=shape).astype(np.float32)
    x = {'few': np.round(x), 'many': x, 'huge': -np.abs(x) * np.float32(1e38)}[values]
    found = []
    for pool in (main.max_pool_2x2, loops.max_pool_2x2):
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            y = pool(variable)
            loss = tf.reduce_sum(y * np.random.default_rng(1).normal(size=y.shape).astype(np.float32))
        found.append((y, tape.gradient(loss, variable)))
    np.testing.assert_array_equal(*(y for y, _ in found))
    np.testing.assert_array_equal(*(gradient for _, gradient in found))


@pytest.mark.parametrize('steps, changed', [
    (50, {}), (256, dict(eval_interval=1024, checkpoint_interval=256)), (16, dict(eval_interval=7)),
    (150, dict(eval_interval=300, checkpoint_interval=300)), (129, dict(eval_interval=257, checkpoint_interval=257)),
    (25, dict(batch_size=25000, widths=(2, 2, 50, 50))), (10, dict(batch_size=100000, widths=(2, 2, 2, 2))),
    (13, dict(batch_size=10000)), (1, dict(batch_size=100000))])
def test_the_trip_count_fits_the_intervals_and_stays_within_its_bounds(steps, changed):
    assert loops.trip_count(main.Settings(**changed)) == steps


def test_a_run_that_goes_on_the_other_way_warns_and_notes_it(run_main, finished, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(loops, 'compiled', lambda *arguments: asked.append('by XLA') or loops.ordinary(*arguments))
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    run_main(*SMALL, '--max_steps=6', '--compiled', f'--log_dir={tmp_path}')
    assert 'was last trained with compiled not set then, by XLA now: what' in capsys.readouterr().err
    run_main(*SMALL, '--max_steps=7', f'--log_dir={tmp_path}')
    assert 'was last trained with compiled by XLA then, not set now: what' in capsys.readouterr().err
    assert asked == ['by XLA']
    starts = json.loads((tmp_path / 'results.json').read_text())['starts']
    assert [(start['step'], start.get('compiled')) for start in starts] == [(0, None), (4, 'by XLA'), (6, None)]


@pytest.mark.slow
def test_a_compiled_run_that_was_stopped_ends_with_the_same_bits(tmp_path):
    """With other intervals then, and so another trip count; and it is the ordinary run, but for rounding."""
    data, found = input_data.read_data_sets(fake_data=True), []
    shared = dict(widths=(3, 4, 6, 5), batch_size=10, group_lasso=0, dropout=1.0)
    other = dict(max_steps=60, eval_interval=40, checkpoint_interval=40)
    for runs, compiled in (([dict(max_steps=60)], True), ([dict(max_steps=23), other], True),
                           ([dict(max_steps=60)], False)):
        for settings in runs:
            folder, settings = tmp_path / str(len(found)), main.Settings(**shared, **settings)
            _, net = main.train(data, settings, folder, compiled=compiled)
        found.append([variable.numpy() for variable in net.variables])
    whole, continued, ordinary = found
    for value, expected in zip(continued, whole, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert_close(ordinary, whole)


def test_nothing_is_rounded_to_tf32(finished):
    assert os.environ['NVIDIA_TF32_OVERRIDE'] == '0'
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_the_flag_is_yes_or_no(run_main):
    refused('--compiled=maybe', run_main, '--compiled=maybe', '--fake_data', '--max_steps=0')
