"""The program as its user sees it: flags, messages, folder, exit status, TensorBoard."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import checkpoints
import input_data
import main
import program
import report
from in_process import SMALL, refused

SCRIPT = pathlib.Path(main.__file__)


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------------------------------------------------ flags

@pytest.mark.parametrize('argument, words', [
    ('--dropout=0', 'above 0 and at most 1'), ('--dropout=1.1', 'above 0 and at most 1'),
    ('--dropout=nan', 'above 0 and at most 1'), ('--learning_rate=0', 'finite and above 0'),
    ('--learning_rate=inf', 'finite and above 0'), ('--learning_rate=nan', 'finite and above 0'),
    ('--group_lasso=-1', 'finite and at least 0'), ('--group_lasso=inf', 'finite and at least 0'),
    ('--group_variance=inf', 'finite and at least 0'), ('--sparsity_threshold=inf', 'finite and at least 0'),
    ('--group_variance=nan', 'finite and at least 0'), ('--group_variance=-0.1', 'finite and at least 0'),
    ('--sparsity_threshold=-1', 'finite and at least 0'), ('--sparsity_threshold=nan', 'finite and at least 0'),
    ('--random_sparsity=1', 'at least 0 and below 1'), ('--random_sparsity=-0.1', 'at least 0 and below 1'),
    ('--random_sparsity=nan', 'at least 0 and below 1'),
    ('--target_accuracy=95', 'from 0 to 1'), ('--target_accuracy=nan', 'from 0 to 1'),
    ('--target_sparsity=95', 'from 0 to 1'), ('--target_sparsity=nan', 'from 0 to 1'),
    ('--final_learning_rate=-1', 'finite and at least 0'), ('--final_learning_rate=nan', 'finite and at least 0'),
    ('--final_learning_rate=0.001', 'must be at most --learning_rate'),
    ('--widths=64,128,512', 'four whole numbers'), ('--widths=64,128,512,0', 'four whole numbers'),
    ('--widths=64,128,512,x', 'four whole numbers'),
    ('--widths=01,2,3,4', 'four whole numbers'), ('--widths=', 'four whole numbers'),
    ('--widths=2,2,2,1000000', 'four whole numbers'), ('--learning_rate=1e39', 'finite and above 0'),
    ('--learning_rate=1e-60', 'at least 1.2e-38'), ('--group_lasso=1e-39', 'at least 1.2e-38'),
    ('--final_learning_rate=1e-60', 'at least 1.2e-38'),
    ('--dropout=1e-320', 'above 0 and at most 1'), ('--data_dir=', 'the name of a file or folder'),
    ('--log_dir=', 'the name of a file or folder'), ('--max_steps=1000000001', 'a whole number from 0 to 1000000000'),
    ('--batch_size=100001', 'from 1 to 100000'), ('--widths=1,2,3,4', 'one group has no variance'),
    ('--max_steps=-1', 'a whole number from 0 to'), ('--max_steps=many', 'max_steps'),
    ('--batch_size=0', 'a whole number from 1 to'), ('--eval_interval=0', 'a whole number from 1 to'),
    ('--checkpoint_interval=0', 'a whole number from 1 to'), ('--batch_size=1.5', 'batch_size'),
    ('--seed=-1', 'from 0 to 2147483647'), ('--seed=2147483648', 'from 0 to 2147483647'),
    ('--dataset=cifar100', 'dataset'), ('--data_dir=~nosuchuser/x', 'no such home folder'),
    ('--log_dir=~nosuchuser/x', 'no such home folder'), ('--log_dir=gs://bucket/x', 'only local folders work'),
    ('--drop_out=0.5', "Unknown command line flag 'drop_out'"), ('100', 'unexpected argument'),
])
def test_a_bad_flag_gets_one_line_that_names_it(run_main, argument, words):
    message = refused('^error: ', run_main, '--fake_data', argument)  # on stderr, and the status is 1
    assert words in message and argument.split('=')[0].lstrip('-') in message
    assert not os.listdir()


def test_one_group_a_layer_is_fine_without_the_variance(run_main):
    run_main('--fake_data', '--widths=1,1,1,1', '--max_steps=1', '--group_variance=0')


def test_the_flags_defaults_are_the_papers_and_those_of_settings():
    paper = dict(fake_data=False, max_steps=100000, learning_rate=0.0001, sparsity_threshold=0.001, dropout=0.8,
                 group_lasso=0.001, group_variance=0.01, widths=['64', '128', '512', '256'], batch_size=100,
                 eval_interval=100)
    assert {name: main.FLAGS[name].default for name in paper} == paper
    settings = {name: list(map(str, value)) if name == 'widths' else value
                for name, value in dataclasses.asdict(main.Settings()).items()}
    assert {name: main.FLAGS[name].default for name in settings} == settings


@pytest.mark.parametrize('given', [
    dict(seed=np.int64(5), batch_size=np.array(7), dropout=np.float64(0.5), widths=np.array([3, 4, 6, 5])),
    dict(seed=5, batch_size=np.int8(7), dropout=np.float32(0.5), widths=[np.uint8(3), 4, np.int16(6), np.array(5)]),
    dict(seed='5', batch_size='7', dropout='0.5', widths=['3', ' 4', '6', '5'])])
def test_settings_of_numpy_are_plain_numbers(given):
    settings = main.Settings(**given)
    assert settings == main.Settings(seed=5, batch_size=7, dropout=0.5, widths=(3, 4, 6, 5))
    assert hash(settings) and json.dumps(dataclasses.asdict(settings))  # an array has no hash, an int64 no JSON
    assert {type(n) for n in (settings.seed, settings.batch_size, *settings.widths)} == {int}


@pytest.mark.parametrize('name, value', [
    ('seed', 0.5), ('seed', 1.0), ('seed', True), ('seed', None), ('seed', [1, 2]), ('seed', np.array([1, 2])),
    ('batch_size', float('inf')), ('max_steps', float('nan')), ('max_steps', '1_0'), ('dropout', 'much'),
    ('dropout', None), ('group_lasso', 10**400), ('group_lasso', 1j), ('widths', 5), ('widths', (3, 4, 6, 5.5)),
    ('widths', None), ('widths', 'abcd'), ('final_learning_rate', 'low')])
def test_settings_that_are_no_numbers_of_their_kind_cost_one_line(name, value):
    with pytest.raises(program.RunError, match=f'^--{name}=.*: must be [^\n]*$'):
        main.Settings(**{name: value})


def test_help_shows_every_flag_in_its_group(run_main, capsys):
    with pytest.raises(SystemExit) as exit:
        run_main('--help')
    assert not exit.value.code
    shown = capsys.readouterr().out
    assert shown.startswith(main.__doc__)
    places = [shown.index(f'\n{group}:') for group in main.FLAG_GROUPS]
    assert places == sorted(places)
    for group in main.FLAG_GROUPS:
        for flag in flags.FLAGS.get_flags_for_module(group):
            assert re.search(rf'^  --(\[no\])?{flag.name}:', shown, re.MULTILINE)


# -------------------------------------------------------------------------------------------------------- run

def test_the_run_folder_and_its_files(run_main, capsys):
    run_main(*SMALL)
    shown = capsys.readouterr().out
    folder, = pathlib.Path('logs').iterdir()
    assert re.fullmatch('fake-[0-9a-f]{8}', folder.name) and f'folder: {folder}\n' in shown
    assert {path.name for path in folder.iterdir()} == {'.lock', 'settings.json', 'results.json', 'evaluations.csv',
                                                             'train', 'test', 'checkpoints'}
    settings, results = (json.loads((folder / name).read_text()) for name in ('settings.json', 'results.json'))
    assert settings['settings']['max_steps'] == 4 and settings['starts'][0]['tensorflow'] == tf.__version__
    assert all(results[key] == settings[key] for key in settings)
    assert results['results']['step'] == 4
    assert f'{results["results"]["test"]["accuracy"]:.2%}' in shown
    assert re.findall(r'^ +(\d+) +\d+\.\d\d%  ', shown.partition('  step  test accuracy ')[2], re.MULTILINE) == [
        '0', '2', '4']
    *_, last = shown.splitlines()
    assert re.fullmatch(rf'next:    python .*retrain\.py --log_dir={folder}', last)
    run_main(*SMALL)
    assert f'folder: {folder}, finished before, at step 4: nothing is left to train\n' in capsys.readouterr().out
    assert '\r' not in shown  # no bar where there is no terminal
    size = 5 * 5 * 3 + 5 * 5 * 3 * 4 + 49 * 4 * 6 + 6 * 5 + 5 * 10
    assert f'parameters: {size:,} weights, 28 biases' in shown


def test_the_default_folder_depends_on_what_changes_the_weights_and_on_nothing_else(run_main, monkeypatch):
    def stop(*_, **objects):
        raise program.RunError('far enough')

    def folders(*arguments):
        with pytest.raises(SystemExit, match='far enough'):
            run_main(*SMALL, *arguments)
        return set(os.listdir('logs'))

    monkeypatch.setattr(checkpoints.Run, 'restore', stop)
    first = folders()
    for argument in ('--max_steps=5', '--eval_interval=3', '--checkpoint_interval=3', '--sparsity_threshold=0.01',
                     '--target_accuracy=0', '--widths=3, 4,6,5', '--data_dir=elsewhere'):
        assert folders(argument) == first
    for number, arguments in enumerate((
            ['--seed=1'], ['--batch_size=99'], ['--group_lasso=0'], ['--group_variance=0.1'], ['--learning_rate=0.1'],
            ['--dropout=1'], ['--widths=3,4,6,4'], ['--random_sparsity=0.5'], ['--final_learning_rate=0'],
            ['--final_learning_rate=1e-5'], ['--final_learning_rate=1e-5', '--max_steps=5'])):
        assert len(folders(*arguments)) == number + 2


def test_a_folder_with_another_run_is_refused_and_left_alone(run_main, finished, tmp_path):
    shutil.copytree(finished, 'mine')
    before = {path: path.read_bytes() for path in (tmp_path / 'mine').rglob('*') if path.is_file()}
    with pytest.raises(SystemExit, match=r'error: .*mine holds a run with other settings: group_lasso \(0.001 there, '
                                         r'0.5 here\)\. Give another --log_dir'):
        run_main(*SMALL, '--log_dir=mine', '--group_lasso=0.5')
    with pytest.raises(SystemExit, match=r': seed \(0 there, 1000000 here\), train_sha256 \([0-9a-f]{16} there, '
                                         r'[0-9a-f]{16} here\), widths \(\[3, 4, 6, 5\] there, \[3, 4, 6, 4\] here'):
        run_main(*SMALL, '--log_dir=mine', '--seed=1000000', '--widths=3,4,6,4')
    assert {path: path.read_bytes() for path in (tmp_path / 'mine').rglob('*') if path.is_file()} == before


@pytest.mark.parametrize('name', ['results.json', 'train', 'test', 'checkpoints'])
def test_what_somebody_else_named_like_ours_is_not_touched(run_main, tmp_path, name):
    """Nor a link to nothing."""
    (tmp_path / name).symlink_to('nowhere')
    for content in ('mine', None):
        refused(f'--log_dir=.* holds {name}, but not of a run of this program. Give another', run_main, *SMALL,
                f'--log_dir={tmp_path}')
        assert os.listdir(tmp_path) == [name] and (tmp_path / name).is_symlink() == bool(content)
        (tmp_path / name).unlink()
        (tmp_path / name).write_text('mine')
    assert (tmp_path / name).read_text() == 'mine'


def test_a_shorter_run_does_not_replace_the_results_of_a_longer_one(run_main, finished):
    shutil.copytree(finished, 'run')
    before = [pathlib.Path('run', name).read_text() for name in ('settings.json', 'results.json')]
    with pytest.raises(SystemExit, match='holds this run at step 4. Give a --max_steps of at least that'):
        run_main(*SMALL, '--log_dir=run', '--max_steps=3')
    assert [pathlib.Path('run', name).read_text() for name in ('settings.json', 'results.json')] == before


def test_the_data_are_those_that_the_flags_name(run_main, tmp_path, monkeypatch):
    asked = []

    def read_data_sets(**arguments):
        asked.append(arguments)
        raise input_data.DataError('far enough')

    monkeypatch.setattr(input_data, 'read_data_sets', read_data_sets)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    for data_dir, folder in (('here', tmp_path / 'here'), ('~/there', tmp_path / 'home' / 'there'),
                             (tmp_path, tmp_path)):
        with pytest.raises(SystemExit, match='^error: far enough$'):
            run_main(f'--data_dir={data_dir}', '--dataset=cifar10', '--seed=7')
        assert asked.pop() == {'data_dir': str(folder), 'dataset': 'cifar10', 'fake_data': False, 'seed': 7}
    with pytest.raises(SystemExit, match='^error: far enough$'):
        run_main('--fake_data')
    assert asked == [{'data_dir': None, 'dataset': 'mnist', 'fake_data': True, 'seed': 0}]


def test_the_home_is_understood_and_other_files_in_a_folder_are_kept(run_main, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'notes.txt').write_text('mine')
    run_main(*SMALL, '--log_dir=~/')
    assert (tmp_path / 'notes.txt').read_text() == 'mine' and (tmp_path / 'results.json').exists()


def test_a_folder_that_cannot_be_made_is_named(run_main, tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'circle').symlink_to('circle')
    for name in ('file/run', 'circle', 'circle/run', 300 * 'a'):
        with pytest.raises(SystemExit, match=f'^error: --log_dir=[^\\n]*{name} cannot be used[^\\n]*$'):
            run_main(*SMALL, f'--log_dir={name}')


def test_a_loss_that_is_no_longer_finite_stops_the_run(run_main):
    with pytest.raises(SystemExit, match='error: at step 0 this is no longer finite: group_variance of conv1. Try '
                                         'a smaller --group_lasso or .*, or --group_variance=0, for its groups'):
        run_main(*SMALL, '--group_variance=3e38', '--max_steps=30')


def test_weights_that_are_no_longer_finite_are_no_result(run_main):
    with pytest.raises(SystemExit, match='error: the weights are no longer finite. Try a smaller --learning_rate'):
        run_main(*SMALL, '--max_steps=1', '--learning_rate=3e38')
    assert not list(pathlib.Path('logs').glob('*/results.json'))


def test_out_of_memory_costs_one_line(run_main, monkeypatch):
    def train(*_, **more):
        raise tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor\nmore')
    monkeypatch.setattr(main, 'train', train)
    with pytest.raises(SystemExit, match='^error: OOM when allocating tensor. Give a smaller net[^\n]*$'):
        run_main('--fake_data')


def test_an_accuracy_of_exactly_the_target_passes():
    """900 of 1,000 is 0.9: in float32 it would be less."""
    net = main.LeNet((28, 28, 1), main.Settings(widths=(3, 4, 6, 5)))
    images = np.random.default_rng(0).random((1000, 28, 28, 1), np.float32)
    labels = tf.argmax(net.net(images, training_status=False)[0], axis=1).numpy()
    labels[::10] = (labels[::10] + 1) % 10
    assert main.evaluate(net, images, labels)['accuracy'] == 0.9


@pytest.mark.parametrize('flags, message', [
    (['--target_accuracy=0.5', '--target_sparsity=0.7'], None),
    (['--target_accuracy=0.6'], 'test accuracy 0.500000 is below --target_accuracy=0.6'),
    (['--target_sparsity=0.8'], 'global sparsity 0.700000 is below --target_sparsity=0.8'),
    (['--target_accuracy=0.1', '--target_sparsity=0.8'], 'global sparsity 0.700000 is below --target_sparsity=0.8')])
def test_the_gates_look_at_the_thresholded_test_accuracy_and_the_global_sparsity(
        run_main, monkeypatch, flags, message):
    others = {'accuracy': 0.9, 'accuracy_as_trained': 0.9}
    monkeypatch.setattr(main, 'train', lambda *_, **more: ({
        'test': {'accuracy': 0.5, 'accuracy_as_trained': 0.9}, 'validation': others,
        'mean_of_five': 0.9, 'mean_of_four': 0.9, 'global_sparsity': 0.7}, None))
    if message:
        with pytest.raises(SystemExit, match=f'^error: {message}$'):
            run_main('--fake_data', *flags)
    else:
        run_main('--fake_data', *flags)


def test_real_digits_are_learnt(run_main):
    """Small widths, real images: the test set of mnist_5k, thresholded."""
    run_main('--dataset=mnist_5k', '--widths=8,16,64,32', '--learning_rate=0.003', '--max_steps=300',
                    '--eval_interval=300', '--target_accuracy=0.93')


def test_the_script_in_a_process_of_its_own(tmp_path):
    """Its status is 1; test_program.py has runs that end with 0."""
    failed = subprocess.run([sys.executable, str(SCRIPT), *SMALL, '--log_dir=run', '--target_accuracy=1'],
                            capture_output=True, text=True, timeout=300)
    assert (tmp_path / 'run' / 'results.json').exists()
    assert failed.returncode == 1 and 'Traceback' not in failed.stderr
    assert re.search(r'^error: test accuracy 0\.\d+ is below --target_accuracy=1\.0\n\Z', failed.stderr, re.MULTILINE)


# ------------------------------------------------------------------------------------------------ TensorBoard

@pytest.mark.parametrize('part', ['train', 'test'])
def test_tensorboard_shows_what_it_should(finished, part):
    events = event_accumulator.EventAccumulator(str(finished / part), size_guidance={'tensors': 0, 'images': 0})
    events.Reload()
    layers = (*main.REGULARISED, 'softmax')
    of_weights = {  # once, under test
        *(f'sparsity/{measure}' for measure in ('mean_of_five', 'mean_of_four', 'global_sparsity')),
        *(f'{kind}/{layer}' for kind in ('zero_weights', 'groups_alive', 'group_norms') for layer in layers),
        'macs', '_hparams_/experiment', '_hparams_/session_start_info'}
    assert set(events.Tags()['tensors']) == {
        'accuracy', 'images', *(f'loss/{term}' for term in ('cross_entropy', 'group_lasso', 'group_variance', 'total')),
        *(f'zero_activations/{layer}' for layer in layers), *(of_weights if part == 'test' else ())}
    assert events.Graph().node
    nodes = {node.name.split('/')[0] for node in events.Graph().node}
    assert {'reshape', 'conv1', 'pool1', 'conv2', 'pool2', 'fc1', 'fc2', 'softmax'} <= nodes

    def values(tag):
        return {event.step: tf.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)}

    assert list(values('accuracy')) == [0, 2, 4]
    total = sum(values(f'loss/{term}')[4] for term in ('cross_entropy', 'group_lasso', 'group_variance'))
    np.testing.assert_allclose(values('loss/total')[4], total, rtol=1e-6)
    results = json.loads((finished / 'results.json').read_text())['results']
    net = main.LeNet((28, 28, 1), main.Settings(widths=(3, 4, 6, 5)))
    if part == 'train':  # the next batch, with dropout
        data = input_data.read_data_sets(fake_data=True)
        net = main.LeNet((28, 28, 1), main.Settings(widths=(3, 4, 6, 5)))
        images, labels = input_data.batch(*data.train, net.step, 100, 0)
        expected = main.cross_entropy(net.net(images, training_status=True)[0], labels)
        np.testing.assert_allclose(values('loss/cross_entropy')[0], expected, rtol=1e-6)
    terms = main.penalties(net.regularised(), 0.001, 0.01)
    for term, value in terms.items():
        np.testing.assert_allclose(values(f'loss/{term}')[0], value, rtol=1e-6)
    for layer, weight in net.weights.items() if part == 'test' else ():  # the histogram's buckets: left, right, count
        norms = np.linalg.norm(weight.numpy().reshape(-1, weight.shape[-1]), axis=0)
        buckets = values(f'group_norms/{layer}')[0]
        np.testing.assert_allclose([buckets[0, 0], buckets[-1, 1]], [norms.min(), norms.max()], rtol=1e-6)
    if part == 'test':  # all of the made-up test images are in one periodic evaluation
        np.testing.assert_allclose(values('accuracy')[4], results['test']['accuracy'], rtol=1e-6)
        np.testing.assert_allclose(values('sparsity/mean_of_four')[4], results['mean_of_four'], rtol=1e-6)
    assert len(values('images')[0]) == 2 + 10  # width, height, and ten pictures


@pytest.mark.parametrize('last', ['raise ImportError("no such TensorFlow")', 'os.abort()'])
def test_the_noise_filter_lets_errors_through(tmp_path, last):
    """What is written to file descriptor 2 while TensorFlow is imported comes out, but for the known noise."""
    lines = ['I0000 noise', 'W0000 noise', 'E0000 an error', 'WARNING: All log messages before', 'anything else']
    (tmp_path / 'tensorflow.py').write_text(
        f'import os\nos.write(2, {chr(10).join([*lines, ""]).encode()!r})\n{last}')
    result = subprocess.run([sys.executable, '-c', 'import surroundings; surroundings.prepare()'],
                            env={**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{SCRIPT.parent}'}, timeout=120,
                            capture_output=True, text=True)
    assert result.returncode and result.stderr.startswith('E0000 an error\nanything else\n')
    if 'raise' in last:
        assert result.stderr.endswith('ImportError: no such TensorFlow\n')


def test_the_report_shows_each_figure_in_its_place(tmp_path, capsys):
    """A report of made-up figures, all different, so that none can stand in for another."""
    data = input_data.read_data_sets(fake_data=True)
    net = main.LeNet((28, 28, 1), main.Settings(widths=(3, 4, 6, 5)))
    names = list(net.weights)
    layers = {name: {'zero_share': 0.1 + 0.1 * i, 'groups_alive': 11 + i, 'groups': 21 + i,
                     'largest_norms': [31.0 + i, 41.0 + i][:1 + (i > 0)]}
              for i, name in enumerate(names)}
    sparsity = {'mean_of_five': 0.61, 'mean_of_four': 0.72, 'global_sparsity': 0.83, 'weights_left': 1234,
                'weights': 5678, 'layers': layers, 'macs': 4321, 'macs_dense': 8765}
    measured = {part: {'cross_entropy': 1.5 + i, 'accuracy': 0.25 + i / 2,
                       'zero_activations': {name: i / 2 + j / 16 for j, name in enumerate(names)}}
                for i, part in enumerate(('train', 'test'))}
    settings = main.Settings(max_steps=101000, widths=(3, 4, 6, 5), seed=77, sparsity_threshold=0.007)
    run = types.SimpleNamespace(folder=tmp_path, settings=settings, facts={'settings': dataclasses.asdict(settings)})
    show = report.Report(run, data, net, 0)
    show.progress(40, 2.0)
    show.evaluation(100, **measured, penalties={'group_lasso': 10.0, 'group_variance': 20.0}, sparsity=sparsity,
                    norms={name: tf.fill([9], float(i)) for i, name in enumerate(names)})
    show.progress(99900, 8e6)
    show.evaluation(100000, **measured, penalties={}, sparsity={**sparsity, 'weights_left': 3632128},
                    norms=dict.fromkeys(names, tf.zeros([1])))
    show.end({'step': 1000, **sparsity, 'test': {'accuracy': 0.91, 'accuracy_as_trained': 0.92},
              'validation': {'accuracy': 0.93, 'accuracy_as_trained': 0.94}})
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines() if line.startswith(('  step', '   100', '100000'))) == 79
    shown = ' '.join(shown.split())
    for text in ('step test accuracy test CE mean of five weights left images/s time left '
                 '100 75.00% 2.5000 0.6100 1,234 2,000 1:24:05',
                 'conv1 10.00% 11 of 21 conv2 20.00% 12 of 22 fc1 30.00% 13 of 23',
                 "the authors' own: 61.00%", 'four regularised layers: 72.00%', 'global, share of all weights: 83.00%',
                 'weights left: 1,234 of 5,678', 'an image: 4,321 without the dead groups, of 8,765',
                 'test 1,000 91.00% 92.00% validation 500 93.00% 94.00%'):
        assert text in shown
    row, *_ = csv.DictReader((tmp_path / 'evaluations.csv').read_text().splitlines())
    assert 0 < float(row.pop('seconds')) < 300
    assert row == {
        'step': '100', 'threshold': '0.007', 'train_cross_entropy': '1.5', 'train_accuracy': '0.25',
        'test_cross_entropy': '2.5', 'test_accuracy': '0.75', 'group_lasso': '10', 'group_variance': '20',
        'mean_of_five': '0.61', 'mean_of_four': '0.72', 'global_sparsity': '0.83', 'weights_left': '1234',
        'macs': '4321', 'images_per_second': '2000', **{f'alive_{name}': str(11 + i) for i, name in enumerate(names)},
        **{f'norm_1_{name}': str(31 + i) for i, name in enumerate(names)},
        **{f'norm_2_{name}': str(41 + i) if i else '0' for i, name in enumerate(names)}}
    for i, part in enumerate(('train', 'test')):
        events = event_accumulator.EventAccumulator(str(tmp_path / part), size_guidance={'tensors': 0})
        events.Reload()

        def value(tag, events=events):
            return tf.make_ndarray(events.Tensors(tag)[0].tensor_proto)

        expected = {'accuracy': 0.25 + i / 2, 'loss/cross_entropy': 1.5 + i, 'loss/group_lasso': 10,
                    'loss/group_variance': 20, 'loss/total': 31.5 + i}
        expected |= {f'zero_activations/{name}': i / 2 + j / 16 for j, name in enumerate(names)}
        if part == 'test':
            expected |= {'macs': 4321, 'sparsity/mean_of_five': 0.61, 'sparsity/mean_of_four': 0.72,
                         'sparsity/global_sparsity': 0.83}
            for j, name in enumerate(names):
                expected |= {f'zero_weights/{name}': 0.1 + 0.1 * j, f'groups_alive/{name}': 11 + j}
                assert abs(value(f'group_norms/{name}')[0, 0] - j) <= 0.5  # the histogram's left edge
        assert {tag: float(value(tag)) for tag in expected} == pytest.approx(expected)
        assert all(events.SummaryMetadata(tag).summary_description for tag in expected)
        first = tf.io.decode_png(value('images')[2]).numpy()
        np.testing.assert_allclose(first / 255, getattr(data, part).images[0], atol=1 / 255)
    experiment, trial = (
        plugin_data_pb2.HParamsPluginData.FromString(events.summary_metadata[f'_hparams_/{name}'].plugin_data.content)
        for name in ('experiment', 'session_start_info'))
    columns = [column.name for column in experiment.experiment.hparam_infos]
    assert len(columns) == 12 and {'group_lasso', 'group_variance', 'random_sparsity', 'dataset'} < set(columns)
    assert {metric.name.tag for metric in experiment.experiment.metric_infos} == {
        'accuracy', 'macs', 'sparsity/mean_of_five', 'sparsity/mean_of_four', 'sparsity/global_sparsity'}
    assert {column.name for column in experiment.experiment.hparam_infos if column.differs} == {
        'dataset', 'seed', 'group_lasso', 'group_variance', 'random_sparsity'}
    trial = trial.session_start_info  # a folder's last name may be another's, too
    assert trial.group_name == f'gss {tmp_path}' and set(trial.hparams) == set(columns)
    assert trial.hparams['seed'].number_value == 77 and trial.hparams['widths'].string_value == '3,4,6,5'


def test_evaluations_go_through_the_test_images_in_a_new_order_each_epoch(train, monkeypatch):
    """As the reader of the authors' program does: 1,000 at a time, across the end of an epoch."""
    data = input_data.read_data_sets(fake_data=True)
    images = np.concatenate([data.train.images, data.test.images])[:2500]
    labels = np.concatenate([data.train.labels, data.test.labels])[:2500]
    images[:, 0, 0, 0] = np.arange(2500) / 2500  # so that each can be told
    seen, original = [], main.evaluate
    monkeypatch.setattr(main, 'evaluate', lambda net, x, y, *more: seen.append((x, y)) or original(net, x, y, *more))
    train(data._replace(test=input_data.DataSet(images, labels)), max_steps=8, eval_interval=2, widths=(3, 4, 6, 5))
    assert [len(y) for _, y in seen[:5]] == [1000] * 5  # of steps 0, 2, 4, 6 and 8; then the final ones
    places = np.concatenate([np.round(2500 * x.numpy()[:, 0, 0, 0]).astype(int) for x, _ in seen[:5]])
    np.testing.assert_array_equal(np.concatenate([y for _, y in seen[:5]]), labels[places])
    epochs = places.reshape(2, 2500)
    np.testing.assert_array_equal(np.sort(epochs), [np.arange(2500)] * 2)
    assert abs(np.corrcoef([np.arange(2500), *epochs]) - np.eye(3)).max() < 0.1  # five standard deviations


def test_identity_tells_data_apart_by_content():
    data, settings = input_data.read_data_sets(fake_data=True), main.Settings()
    changed = data._replace(train=data.train._replace(labels=np.roll(data.train.labels, 1)))
    assert checkpoints.identity(data, settings) != checkpoints.identity(changed, settings)


@pytest.mark.parametrize('changed, name', [({}, 'fake-e8d02e31'), (
    dict(widths=(3, 4, 6, 5), final_learning_rate=1e-5, seed=3, max_steps=7), 'fake-637b8e92')])
def test_the_default_folders_name_stays_what_it_was(changed, name):
    """Byte for byte what earlier versions wrote, or their runs would not continue."""
    identity = checkpoints.identity(input_data.read_data_sets(fake_data=True), main.Settings(**changed))
    assert checkpoints.default_log_dir({**identity, 'train_sha256': 64 * '0'}).name == name
