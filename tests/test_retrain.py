"""A retraining: what it starts from, what stays zero, how it goes on, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import checkpoints
import compress
import in_process
import input_data
import load_run
import main
import retrain
from conftest import ROOT
from files import hold
from test_checkpoints import assert_same, contents

RUN = ('--fake_data', '--widths=3,4,12,10', '--learning_rate=0.01', '--sparsity_threshold=0.02', '--seed=2',
       '--batch_size=50', '--eval_interval=20', '--checkpoint_interval=20', '--dropout=0.9', '--group_variance=0')
SHORT = ('--max_steps=6', '--eval_interval=2', '--checkpoint_interval=2')


def weights(folder, step, of='weights'):
    tensors = contents(folder, step)
    return {name: tensors[f'net/{of}/{name}/.ATTRIBUTES/VARIABLE_VALUE'] for name in (*main.REGULARISED, 'softmax')}


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def trained(run_main, tmp_path_factory):
    folder = tmp_path_factory.mktemp('first') / 'run'
    run_main(*RUN, '--max_steps=40', f'--log_dir={folder}')
    return folder


@pytest.fixture(scope='module')
def whole(run_tool, trained, tmp_path_factory):
    """A retraining of it that was never stopped."""
    folder = tmp_path_factory.mktemp('whole')
    run_tool(retrain, f'--log_dir={trained}', f'--output_dir={folder}', *SHORT)
    return folder


@pytest.fixture
def first(trained, tmp_path):
    """A copy of the run, to be spoilt."""
    shutil.copytree(trained, tmp_path / 'run')
    return tmp_path / 'run'


@pytest.fixture
def refused(run_tool, tmp_path):
    """Asks for one line, and that no file changes."""
    def refused(words, *arguments):
        before = files(tmp_path)
        in_process.refused(words, run_tool, retrain, *arguments)
        assert files(tmp_path) == before
    return refused


# ---------------------------------------------------------------------------------------------------------- start

def test_it_starts_from_the_thresholded_weights_and_touches_only_its_own_folder(run_tool, first):
    before = files(first)
    run_tool(retrain, f'--log_dir={first}', '--max_steps=0')
    after = files(first)
    assert before == {path: after[path] for path in before}
    assert {path.relative_to(first).parts[0] for path in after.keys() - before.keys()} == {'retrained'}
    tensors, values = contents(first / 'retrained', 0), weights(first, 40)
    for name, value in values.items():
        np.testing.assert_array_equal(weights(first / 'retrained', 0)[name], np.where(abs(value) <= 0.02, 0, value))
    for name, value in weights(first, 40, 'biases').items():
        np.testing.assert_array_equal(weights(first / 'retrained', 0, 'biases')[name], value)
    assert all(not value.any() for name, value in tensors.items() if 'optimizer/_variables' in name or '/step/' in name)
    ours, theirs = (json.loads((folder / 'results.json').read_text()) for folder in (first / 'retrained', first))
    assert ours['results']['test']['accuracy'] == theirs['results']['test']['accuracy']
    start = ours['start']
    assert (start['folder'], start['step'], start['groups']) == ('run', 40, '')
    assert start['settings'] == theirs['settings'] and len(start['hash']) == 64


def test_what_is_not_given_is_the_runs(whole, trained, run_tool, tmp_path):
    ours, theirs = (json.loads((folder / 'settings.json').read_text())['settings'] for folder in (whole, trained))
    for name in ('widths', 'sparsity_threshold', 'seed', 'dropout', 'batch_size'):
        assert ours[name] == theirs[name]
    assert {name: ours[name] for name in retrain.DEFAULTS} == {**retrain.DEFAULTS, 'max_steps': 6}
    assert retrain.DEFAULTS['max_steps'] == 3000
    run_tool(retrain, f'--log_dir={trained}', f'--output_dir={tmp_path / "other"}', '--max_steps=0', '--seed=9',
             '--group_lasso=0.01')
    facts = json.loads((tmp_path / 'other' / 'settings.json').read_text())
    assert (facts['settings']['seed'], facts['settings']['group_lasso'], facts['data']['seed']) == (9, 0.01, 2)
    data, _ = load_run.load_data(tmp_path / 'other', facts, None)  # the first run's made-up images, not seed 9's
    assert checkpoints.content(data) == checkpoints.content(input_data.read_data_sets(fake_data=True, seed=2))


def test_what_is_zero_stays_zero_where_gradients_would_move_it(whole):
    before, after = weights(whole, 2), weights(whole, 6)
    lenet = main.LeNet((28, 28, 1), main.Settings(widths=(3, 4, 12, 10)))
    for name, value in before.items():
        lenet.weights[name].assign(value)
        lenet.biases[name].assign(weights(whole, 2, 'biases')[name])
    images, labels = input_data.read_data_sets(fake_data=True, seed=2).train
    with tf.GradientTape() as tape:
        loss = main.cross_entropy(lenet.net(images[:200], training_status=True)[0], labels[:200])
    for name, gradient in tape.gradient(loss, lenet.weights).items():
        zero = before[name] == 0
        assert zero.any() and gradient.numpy()[zero].any() and not after[name][zero].any()
        assert (after[name] != before[name]).any()
        np.testing.assert_array_equal(weights(whole, 6, 'masks')[name], ~zero)


@pytest.mark.slow
def test_random_connections_stay_off(run_main, run_tool, tmp_path):
    run_main(*RUN, '--max_steps=20', '--random_sparsity=0.5', '--group_lasso=0', '--group_variance=0',
             f'--log_dir={tmp_path}')
    assert not any('mask' in name for name in contents(tmp_path, 20))  # drawn from the seed: old folders load
    run_tool(retrain, f'--log_dir={tmp_path}', *SHORT)
    for name, value in weights(tmp_path / 'retrained', 6).items():
        assert name == 'softmax' or (value == 0).mean() >= 0.49
        assert not value[weights(tmp_path, 20)[name] == 0].any()


def test_groups_keeps_those_of_largest_norm_whatever_the_threshold(run_tool, first):
    run_tool(retrain, f'--log_dir={first}', '--groups=2,3,4,5', '--max_steps=0')
    values, kept = weights(first, 40), weights(first / 'retrained', 0)
    for name, count in zip(main.REGULARISED, (2, 3, 4, 5), strict=True):
        norms = np.linalg.norm(values[name].reshape(-1, values[name].shape[-1]), axis=0)
        largest = sorted(range(len(norms)), key=lambda i: -norms[i])[:count]
        expected = np.zeros_like(values[name])
        expected[..., largest] = values[name][..., largest]
        np.testing.assert_array_equal(kept[name], expected)
    np.testing.assert_array_equal(kept['softmax'], values['softmax'])
    assert json.loads((first / 'retrained' / 'results.json').read_text())['start']['groups'] == '2-3-4-5'


# -------------------------------------------------------------------------------------------------------- goes on

@pytest.fixture(scope='module')
def interrupted(run_tool, trained, tmp_path_factory):
    """A retraining that was interrupted after its checkpoint of step 4."""
    folder = tmp_path_factory.mktemp('interrupted')
    with pytest.MonkeyPatch.context() as patch:
        def save(self, step, original=checkpoints.Run.save):
            original(self, step)
            if step == 4:
                raise KeyboardInterrupt
        patch.setattr(checkpoints.Run, 'save', save)
        with pytest.raises(SystemExit):
            run_tool(retrain, f'--log_dir={trained}', f'--output_dir={folder}', *SHORT)
    return folder


@pytest.fixture
def cut(interrupted, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(interrupted, tmp_path / 'cut')


@pytest.mark.parametrize('gone', ['folder', *(
    pytest.param(what, marks=pytest.mark.slow) for what in ('checkpoints', 'no'))])
def test_it_goes_on_to_the_bit_with_and_without_its_run(run_tool, cut, first, whole, gone, capsys):
    if gone == 'folder':
        shutil.rmtree(first)
    elif gone == 'checkpoints':
        shutil.rmtree(first / 'checkpoints')
    capsys.readouterr()
    run_tool(retrain, f'--output_dir={cut}', *SHORT, *([] if gone == 'folder' else [f'--log_dir={first}']))
    shown = capsys.readouterr()
    said = {'folder': 'not given', 'checkpoints': 'not there any more', 'no': ''}[gone]
    assert 'continued from step 4' in shown.out and ('the run to start from is' in shown.out) == bool(said)
    assert f'the run to start from is {said}: what has begun from its step 40 goes on' in shown.out or not said
    assert_same(cut, whole)


@pytest.mark.slow
def test_kill_9_changes_nothing(run_tool, first, tmp_path):
    arguments = ('--max_steps=400', '--eval_interval=100', '--checkpoint_interval=50')
    process = subprocess.Popen([sys.executable, str(ROOT / 'python' / 'retrain.py'), f'--log_dir={first}', *arguments],
                               stdout=subprocess.DEVNULL)
    while not (first / 'retrained' / 'checkpoints' / 'step-100.index').exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (first / 'retrained' / 'results.json').exists()
    for output in (first / 'retrained', tmp_path / 'other'):
        run_tool(retrain, f'--log_dir={first}', f'--output_dir={output}', *arguments)
    assert_same(first / 'retrained', tmp_path / 'other', 400)


@pytest.mark.slow
def test_a_run_that_has_gone_on_is_known_and_another_is_refused(run_main, run_tool, cut, first, whole, refused, capsys):
    run_main(*RUN, '--max_steps=60', f'--log_dir={first}')
    capsys.readouterr()
    run_tool(retrain, f'--output_dir={cut}', f'--log_dir={first}', *SHORT)
    assert 'at step 60 by now: what has begun from its step 40 goes on' in capsys.readouterr().out
    assert_same(cut, whole)
    other = shutil.copytree(first, first.parent / 'other')
    facts = json.loads((other / 'settings.json').read_text())
    (other / 'settings.json').write_text(json.dumps({**facts, 'identity': {**facts['identity'], 'group_lasso': 0.5}}))
    refused('--output_dir=.*cut holds the retraining of another run', f'--output_dir={cut}', f'--log_dir={other}')
    refused('settings: learning_rate .0.001 there, 0.01 here.. Give another --output_dir', f'--output_dir={cut}',
            f'--log_dir={first}', *SHORT, '--learning_rate=0.01')
    refused('settings: groups . there, 1-1-1-1 here', f'--output_dir={cut}', *SHORT, '--groups=1,1,1,1')


@pytest.mark.parametrize('name, value', [('step', 1e999), ('step', '40'), ('folder', None), ('hash', 1),
                                         ('settings', []), ('groups', 3)])
def test_a_start_of_somebody_else_is_refused(cut, refused, name, value):
    facts = json.loads((cut / 'settings.json').read_text())
    facts['start'][name] = value
    (cut / 'settings.json').write_text(json.dumps(facts))
    refused('settings.json does not hold the settings and the data of a run', f'--output_dir={cut}', *SHORT)


def test_the_gates_are_those_of_a_run(run_tool, trained, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for flag, said in (('accuracy', 'test accuracy'), ('sparsity', 'global sparsity')):
        in_process.refused(rf'^error: {said} 0\.\d+ is below --target_{flag}=1\.0$', run_tool, retrain,
                           f'--log_dir={trained}', f'--output_dir={tmp_path}', *SHORT, f'--target_{flag}=1')


def test_a_folder_in_use_is_refused(cut, first, refused):
    lock = hold(cut)
    try:
        refused('--output_dir=.*cut is in use by another run', f'--output_dir={cut}', f'--log_dir={first}', *SHORT)
    finally:
        os.close(lock)


def test_a_start_of_other_weights_is_refused(run_tool, cut, first, refused):
    """The same run, made again elsewhere, say: same settings, other bits."""
    lenet = load_run.load_net(first, load_run.load_facts(first)[1], (28, 28, 1))
    lenet.biases['fc1'].assign_add(tf.fill([12], 1e-6))
    with checkpoints.contextlib.chdir(first):
        tf.train.Checkpoint(net=lenet).write('checkpoints/step-40')
    refused('other settings: start', f'--output_dir={cut}', f'--log_dir={first}', *SHORT)


@pytest.mark.parametrize('damage, words', [
    ('gone', 'its checkpoints are gone'), ('broken', 'none of the checkpoints in .* can be read'),
    ('broken at step 0', 'holds no checkpoint that can be read, and the run that it started from is not there')])
def test_without_its_run_a_random_net_is_never_the_start(run_tool, cut, first, refused, damage, words):
    shutil.rmtree(first)
    for path in (cut / 'checkpoints').iterdir():
        if damage == 'gone' or damage.endswith('0') and not path.name.startswith('step-0'):
            path.unlink()
        elif 'data' in path.name:
            path.write_bytes(b'')
    refused(words, f'--output_dir={cut}', *SHORT)


def test_a_broken_first_checkpoint_is_made_again_from_the_run(run_tool, cut, first, whole):
    for path in (cut / 'checkpoints').iterdir():
        if not path.name.startswith('step-0'):
            path.unlink()
        elif 'data' in path.name:
            path.write_bytes(b'')
    run_tool(retrain, f'--output_dir={cut}', f'--log_dir={first}', *SHORT)
    assert_same(cut, whole)


@pytest.mark.slow
def test_a_retraining_can_be_retrained(run_tool, first):
    run_tool(retrain, f'--log_dir={first}', *SHORT)
    run_tool(retrain, f'--log_dir={first / "retrained"}', *SHORT, '--group_lasso=0.01')
    start = json.loads((first / 'retrained' / 'retrained' / 'results.json').read_text())['start']
    assert (start['folder'], start['step'], start['start']['folder'], start['start']['step']) == (
        'retrained', 6, 'run', 40)


# ------------------------------------------------------------------------------------------------------ bad input

def test_bad_input_costs_one_line_and_writes_nothing(run_main, refused, first, tmp_path):
    run, other = f'--log_dir={first}', tmp_path / 'other'
    run_main('--fake_data', '--widths=2,2,2,2', '--max_steps=0', f'--log_dir={other}')
    refused('give the folder of a run')
    refused('holds no run of main.py', f'--log_dir={tmp_path}')
    refused('holds no retraining', f'--output_dir={tmp_path / "nothing"}')
    refused('holds no retraining', run, f'--output_dir={other}')
    for name in ('', 'checkpoints', 'train/x'):
        refused('belongs to the run', run, f'--output_dir={first / name}')
    refused('conv2 has 4 groups, not 5', run, '--groups=3,5,6,5')
    for groups in ('1,2,3', '0,1,1,1', 'x,1,1,1', ''):
        refused('--groups=.*four whole numbers', run, f'--groups={groups}')
    refused('--learning_rate', run, '--learning_rate=nan')
    refused('--seed', run, '--seed=-1')
    settings = first / 'settings.json'
    facts = json.loads(settings.read_text())
    settings.write_text(json.dumps({**facts, 'data': {**facts['data'], 'seed': 3}}))
    refused('not the images that the run in', run)
    for start in ({}, [], None, {'settings': []}):
        (other / 'settings.json').write_text(json.dumps({**facts, 'start': start}))
        refused('does not hold the settings.*Give another --output_dir', f'--output_dir={other}')


def test_a_net_without_a_chain_of_weights_is_refused(run_main, refused, tmp_path):
    run_main('--fake_data', '--widths=2,2,2,2', '--max_steps=0', '--sparsity_threshold=9', f'--log_dir={tmp_path}')
    refused('no chain of weights is left', f'--log_dir={tmp_path}')


def test_an_unfinished_run_gets_a_warning(run_tool, first, capsys):
    for path in (first / 'checkpoints').glob('step-40*'):
        path.unlink()
    run_tool(retrain, f'--log_dir={first}', '--max_steps=0')
    assert capsys.readouterr().err == f'warning: the run in {first} is not finished: it is at step 20 of 40\n'


# ------------------------------------------------------------------------------------------------------ compressed

def accuracy_by_numpy(net, images, labels):
    """Of the weights and biases of a net, dicts by layer; convolutions as sums over shifted images."""
    x = images.astype(np.float64)
    for name in ('conv1', 'conv2'):
        height, width = x.shape[1:3]
        padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        x = np.maximum(0, net['biases'][name] + sum(
            padded[:, i:i + height, j:j + width] @ net['weights'][name][i, j] for i in range(5) for j in range(5)))
        x = x.reshape(len(x), height // 2, 2, width // 2, 2, -1).max((2, 4))
    x = x.reshape(len(x), -1)
    for name in ('fc1', 'fc2', 'softmax'):
        x = x @ net['weights'][name] + net['biases'][name]
        x = x if name == 'softmax' else np.maximum(0, x)
    return np.mean(x.argmax(1) == labels)


@pytest.mark.slow
def test_the_accuracy_of_a_retrained_compressed_net_is_numpys(run_tool, first, capsys):
    run_tool(retrain, f'--log_dir={first}', '--max_steps=200', '--learning_rate=0.01', '--groups=3,4,9,8')
    _, figures = compress.compress_run(first / 'retrained')
    compress.show(figures)
    assert 'retrained from: run, step 40 of 40' in capsys.readouterr().out
    left = list(map(int, figures['architecture']['compressed'].split('-')))
    assert left[:2] == [3, 4] and left[2] <= 9 and left[3] <= 8
    net = {of: weights(first / 'retrained', 200, of) for of in ('weights', 'biases')}
    net['weights'] = {name: np.where(abs(value) <= 0.02, 0, value) for name, value in net['weights'].items()}
    images, labels = input_data.read_data_sets(fake_data=True, seed=2).test
    expected = accuracy_by_numpy(net, images, labels)
    assert figures['accuracy']['compressed'] == expected == json.loads(
        (first / 'retrained' / 'results.json').read_text())['results']['test']['accuracy']
    assert expected > 0.2  # it has learned
