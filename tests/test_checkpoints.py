"""A run survives kill -9, signals, damaged checkpoints, full disks and its own like."""

import concurrent.futures
import errno
import fcntl
import gc
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator  # the one that TensorBoard itself uses

import checkpoints
import evaluations
import files
import input_data
import main
import pictures
import program
import report
from in_process import refused

SCRIPT = pathlib.Path(main.__file__)
LONG = ('--fake_data', '--widths=3,4,6,5', '--learning_rate=0.01', '--max_steps=450', '--eval_interval=150',
        '--checkpoint_interval=30')
SHORT = ('--fake_data', '--widths=3,4,6,5', '--max_steps=6', '--eval_interval=2', '--checkpoint_interval=2')


def start(folder):
    """A process that runs LONG, once it has written a checkpoint."""
    before = max(steps_saved(folder), default=-1)
    process = subprocess.Popen([sys.executable, str(SCRIPT), *LONG, f'--log_dir={folder}'], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    while max(steps_saved(folder), default=-1) == before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def contents(folder, step):
    """Every tensor of a checkpoint, but for the count of saves."""
    reader = tf.train.load_checkpoint(str(folder / 'checkpoints' / f'step-{step}'))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
            if not name.startswith(('save_counter', '_CHECKPOINTABLE'))}


def assert_same(folder, other, step=6):
    ours, theirs = contents(folder, step), contents(other, step)
    assert ours.keys() == theirs.keys() and len(ours) > 30  # weights, biases, two slots each, the step
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def curves(folder, part):
    """What TensorBoard shows of a part: a list of (step, value) for each of some tags."""
    events = plugin_event_accumulator.EventAccumulator(str(folder / part), size_guidance={'tensors': 0})
    events.Reload()
    return [[(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
            for tag in ('accuracy', 'loss/total', *(['sparsity/mean_of_four'] if part == 'test' else []))]


@pytest.fixture(scope='module')
def uninterrupted(run_main, tmp_path_factory):
    folder = tmp_path_factory.mktemp('uninterrupted')
    run_main(*LONG, f'--log_dir={folder}')
    return folder


def steps_saved(folder):
    return {int(path.stem.split('-')[1]) for path in (folder / 'checkpoints').glob('step-*.index')}


def test_a_signal_ends_with_a_checkpoint_and_until_then_another_run_is_refused(run_main, tmp_path):
    """SIGINT; SIGTERM and SIGHUP are in test_compare.py."""
    process = start(tmp_path)
    process.send_signal(signal.SIGSTOP)
    try:
        refused('error: --log_dir=.* is in use by another run. Give another.$', run_main, *LONG,
                f'--log_dir={tmp_path}')
    finally:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGINT, err
    said = re.search(r'^stopped by SIGINT at step ([0-9,]+): the same command continues from there.\n\Z', err,
                     re.MULTILINE)
    assert 0 < int(said[1].replace(',', '')) == max(steps_saved(tmp_path)) < 450


@pytest.mark.slow
def test_kill_9_at_several_moments_changes_nothing(run_main, uninterrupted, tmp_path, capsys):
    moments = random.Random(0)
    for _ in range(2):  # a run that is new, and one that goes on
        process = start(tmp_path)
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert 0 < max(steps_saved(tmp_path)) < 450
    capsys.readouterr()
    run_main(*LONG, f'--log_dir={tmp_path}')
    shown = capsys.readouterr()
    assert 'continued from step' in shown.out and shown.err == ''
    assert_same(tmp_path, uninterrupted, 450)
    for part in ('train', 'test'):
        found = curves(tmp_path, part)
        assert found == curves(uninterrupted, part) and [step for step, _ in found[0]] == [0, 150, 300, 450]
    assert len(steps_saved(tmp_path)) <= 3 + 1  # a kill may orphan one, and the next start removes it
    for folder, name in ((tmp_path, 'killed'), (uninterrupted, 'whole')):
        pictures.write_curve(folder, tmp_path / f'{name}.csv')
    written = (tmp_path / 'killed.csv').read_text()
    assert written == (tmp_path / 'whole.csv').read_text()
    assert written.startswith('step,test_accuracy,mean_of_five,mean_of_four,global_sparsity\n0,')
    assert [int(line.split(',')[0]) for line in written.splitlines()[1:]] == [0, 150, 300, 450]

    run_main(*LONG, f'--log_dir={tmp_path}')  # a finished run prints its report again
    table = re.compile(r'\nlayer.*validation[^\n]*', re.DOTALL)
    assert table.search(capsys.readouterr().out)[0] == table.search(shown.out)[0]


@pytest.fixture(scope='module')
def begun(run_main, tmp_path_factory):
    """The folder of the first three steps of SHORT, to be copied."""
    folder = tmp_path_factory.mktemp('begun')
    run_main(*SHORT, f'--log_dir={folder}', '--max_steps=3')
    return folder


def test_a_larger_max_steps_extends_a_finished_run_and_other_surroundings_are_said(
        run_main, begun, short, tmp_path, capsys):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    facts = json.loads((tmp_path / 'settings.json').read_text())
    first, = facts['starts']
    facts['starts'] = [{**first, 'cores': 999, 'processor': 'Other', 'TF_NUM_INTRAOP_THREADS': '1'}]
    (tmp_path / 'settings.json').write_text(json.dumps(facts))
    capsys.readouterr()
    run_main(*SHORT, f'--log_dir={tmp_path}')
    shown = capsys.readouterr()
    assert 'continued from step 3' in shown.out
    assert re.fullmatch('warning: .* was last trained with TF_NUM_INTRAOP_THREADS 1 then, not set now, cores 999 then, '
                        '[0-9]+ now, processor Other then, [^\n]*\n', shown.err)
    assert_same(tmp_path, short, 6)
    assert steps_saved(tmp_path) == {3, 4, 6}
    starts = json.loads((tmp_path / 'settings.json').read_text())['starts']
    assert starts == [*facts['starts'], {**first, 'step': 3}]
    assert json.loads((tmp_path / 'results.json').read_text())['starts'] == starts
    results = (tmp_path / 'results.json').read_text()
    run_main(*SHORT, f'--log_dir={tmp_path}')  # a finished run: nothing is trained, nobody warned
    assert json.loads((tmp_path / 'settings.json').read_text())['starts'] == starts and not capsys.readouterr().err
    assert (tmp_path / 'results.json').read_text() == results  # the seconds, too
    finished = json.loads(results)
    for change, timed in (({'results': {'step': 9}}, 0), ({'steps_timed': None}, 6)):
        found = {name: value for name, value in {**finished, 'seconds': 77, **change}.items() if value is not None}
        (tmp_path / 'results.json').write_text(json.dumps(found))
        run_main(*SHORT, f'--log_dir={tmp_path}')
        again = json.loads((tmp_path / 'results.json').read_text())
        assert again['steps_timed'] == timed and (again['seconds'] == 77) == (timed == 6)


def test_a_start_at_step_0_makes_all_rows_again(tmp_path):
    row = {'step': 0, 'threshold': 0.05, 'seconds': 1.0}
    evaluations.Evaluations(tmp_path / 'it.csv', 0).append(row)
    evaluations.Evaluations(tmp_path / 'it.csv', 0).append({**row, 'threshold': 0.001})
    assert [row['threshold'] for row in evaluations.read(tmp_path / 'it.csv')] == ['0.001']


def test_another_interval_costs_no_row_and_other_thresholds_make_no_curve(run_main, begun, tmp_path):
    """Nor a point of TensorBoard: the evaluation of step 2 is not made again."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    for step in ('3.index', '3.data-00000-of-00001'):
        (tmp_path / 'checkpoints' / f'step-{step}').unlink()
    run_main(*SHORT, f'--log_dir={tmp_path}', '--eval_interval=5')
    assert [row['step'] for row in evaluations.read(tmp_path / 'evaluations.csv')] == ['0', '2', '5']
    accuracies, *_ = curves(tmp_path, 'test')
    assert [step for step, _ in accuracies] == [0, 2, 5]
    run_main(*SHORT, f'--log_dir={tmp_path}', '--sparsity_threshold=0.05', '--max_steps=7', '--eval_interval=7')
    with pytest.raises(program.RunError, match='rows of several thresholds .0.001, 0.05.'):
        pictures.write_curve(tmp_path, tmp_path / 'it.csv')
    assert not (tmp_path / 'it.csv').exists()


def test_a_signal_in_the_last_evaluation_is_one(run_main, begun, tmp_path, monkeypatch, capsys):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    original = main.accuracies

    def accuracies(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(main, 'accuracies', accuracies)
    with pytest.raises(SystemExit) as stop:
        run_main(*SHORT, '--max_steps=3', f'--log_dir={tmp_path}')
    assert stop.value.code == 128 + signal.SIGTERM and 'at step 3: the run is finished' in capsys.readouterr().err
    assert json.loads((tmp_path / 'results.json').read_text())['results']['step'] == 3


def test_a_run_of_before_the_starts_has_one(run_main, begun, tmp_path, capsys):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    facts = json.loads((tmp_path / 'settings.json').read_text())
    first, = facts.pop('starts')
    versions = {name: first[name] for name in ('python', 'tensorflow', 'numpy', 'cores', 'oneDNN')}
    (tmp_path / 'settings.json').write_text(json.dumps({**facts, 'versions': versions, 'device': 'H'}))
    (tmp_path / 'evaluations.csv').unlink()
    (tmp_path / 'checkpoints' / 'checkpoint').unlink()  # the manager's list is not needed
    capsys.readouterr()
    run_main(*SHORT, f'--log_dir={tmp_path}')
    shown = capsys.readouterr()
    changed, said = shown.err.splitlines()
    assert 'continued from step 3' in shown.out and 'was last trained with device H then, cpu now:' in changed
    assert re.search('evaluations.csv is not there, as in .* it will not have the evaluations before step 3.', said)
    assert json.loads((tmp_path / 'settings.json').read_text())['starts'] == [
        {'step': 0, **versions, 'device': 'H'}, {**first, 'step': 3}]
    starts = json.loads((tmp_path / 'results.json').read_text())['starts']
    assert [start['device'] for start in starts] == ['H', 'cpu']  # as a row has it
    assert [row['step'] for row in evaluations.read(tmp_path / 'evaluations.csv')] == ['4', '6']


def test_a_start_is_void_from_the_step_at_which_the_next_one_begins(tmp_path):
    """The run was killed before it saved what it had trained; nor does a start count that has trained nothing."""
    data, settings = input_data.read_data_sets(fake_data=True), main.Settings(max_steps=9)

    def start(*saved, trains=True):
        net = tf.Module()
        net.step = tf.Variable(0)
        with checkpoints.Run(tmp_path, data, settings) as run:
            run.restore(net=net)
            if trains:
                run.has_trained()
            for step in saved:
                run.save(step)
        return [one['step'] for one in json.loads((tmp_path / 'settings.json').read_text())['starts']]

    assert start(trains=False) == [] and start(3) == [0]
    assert start() == [0, 3] and start(5) == [0, 3] and start() == [0, 3, 5]


@pytest.mark.slow
def test_evaluations_that_are_made_again_have_one_row(run_main, short, tmp_path):
    """Cut anywhere, and with rows from beyond the checkpoint: the rows of the uninterrupted run."""
    def figures(folder):
        return [{name: cell for name, cell in row.items() if name not in ('seconds', 'images_per_second')}
                for row in evaluations.read(folder / 'evaluations.csv')]

    def forget(step):
        for path in (tmp_path / 'checkpoints').glob(f'step-{step}.*'):
            path.unlink()

    shutil.copytree(short, tmp_path, dirs_exist_ok=True)
    path = tmp_path / 'evaluations.csv'
    whole, text = figures(tmp_path), path.read_text()
    assert [row['step'] for row in whole] == ['0', '2', '4', '6']
    run_main(*SHORT, f'--log_dir={tmp_path}')
    assert path.read_text() == text  # a finished run keeps its last, seconds too
    for step, cut in ((4, -2), (4, -200), (4, 3), (4, len(text)), (6, text.index('\n6,') + 1)):
        path.write_text(text[:cut])
        again = evaluations.Evaluations(path, step)
        for row in evaluations.read(short / 'evaluations.csv'):
            if int(row['step']) >= step:
                again.append({**row, 'step': int(row['step'])})
        assert figures(tmp_path) == (whole[2:] if cut == 3 else whole)
    forget(6)
    path.write_text(text[:-200])
    run_main(*SHORT, f'--log_dir={tmp_path}')
    assert figures(tmp_path) == whole
    path.write_text('step,mine\n2,1\n')
    with pytest.raises(SystemExit, match='^error: .*evaluations.csv has other columns'):
        forget(6) or run_main(*SHORT, f'--log_dir={tmp_path}')
    for strange in ('mine\n1\n', 'step\nx\n', 'step\n1,2\n'):
        path.write_text(strange)
        with pytest.raises(SystemExit, match='^error: .*evaluations.csv is not the evaluations of a run'):
            run_main(*SHORT, f'--log_dir={tmp_path}')
        assert path.read_text() == strange


@pytest.mark.slow
def test_a_falling_rate_continues_bit_for_bit_and_keeps_its_length(run_main, tmp_path):
    """Stopped by an error at the evaluation of step 4, with the checkpoint of step 4 on the disk."""
    falling = (*SHORT, '--learning_rate=0.01', '--final_learning_rate=1e-5')
    run_main(*falling, f'--log_dir={tmp_path / "whole"}')
    with pytest.MonkeyPatch.context() as patch:
        original = report.Report.progress

        def progress(self, *arguments):
            original(self, *arguments)
            if len(steps_saved(tmp_path / 'parts')) == 3:
                raise program.RunError('cut')

        patch.setattr(report.Report, 'progress', progress)
        with pytest.raises(SystemExit, match='cut'):
            run_main(*falling, f'--log_dir={tmp_path / "parts"}')
    assert steps_saved(tmp_path / 'parts') == {0, 2, 4}
    with pytest.raises(SystemExit, match=r'other settings: max_steps \(6 there, 8 here\)'):
        run_main(*falling, f'--log_dir={tmp_path / "parts"}', '--max_steps=8')
    run_main(*falling, f'--log_dir={tmp_path / "parts"}')
    assert_same(tmp_path / 'parts', tmp_path / 'whole', 6)


def continue_twice(folder):
    """What a run asks of its folder, three times over: restore, save, and prune."""
    data, settings = input_data.read_data_sets(fake_data=True), main.Settings(max_steps=6)
    for start, steps in ((0, (2, 4)), (4, (6,)), (6, ())):
        net = tf.Module()
        net.step = tf.Variable(0)
        with checkpoints.Run(folder, data, settings) as run:
            assert run.restore(net=net) == start == net.step
            for step in steps:
                net.step.assign(step)
                run.save(step)


@pytest.mark.parametrize('name', [
    '[2024] thesis', 'run[12]', 'a*', 'a?', 'back\\slash', '{a,b}', '[!a]', 'ünï ☃', "it's", '%d', 'whole run[12]'])
def test_whatever_a_folder_is_called_it_resumes_and_touches_no_other(run_main, begun, tmp_path, capsys, name):
    """TensorFlow takes the paths of checkpoints as patterns; the neighbours' names are what these would match."""
    neighbours = ['run1', 'run2', 'ab', 'a', 'b', '2 thesis', 'backslash', 'whole run1', 'whole run2']
    for other in neighbours:
        (tmp_path / other / 'checkpoints').mkdir(parents=True)
        for step in range(0, 10, 2):
            for suffix in ('index', 'data-00000-of-00001'):
                (tmp_path / other / 'checkpoints' / f'step-{step}.{suffix}').write_text(other)
    if name.startswith('whole'):
        shutil.copytree(begun, tmp_path / name)
        run_main(*SHORT, f'--log_dir={tmp_path / name}')
        assert 'continued from step 3' in capsys.readouterr().out
    else:
        continue_twice(tmp_path / name)
    assert capsys.readouterr().err == ''  # no checkpoint was passed over
    assert steps_saved(tmp_path / name) == {3 if name.startswith('whole') else 2, 4, 6}
    assert len(list((tmp_path / name / 'checkpoints').iterdir())) == 7
    for other in neighbours:
        files = list((tmp_path / other / 'checkpoints').iterdir())
        assert len(files) == 10 and all(file.read_text() == other for file in files)
    assert sorted(os.listdir(tmp_path)) == sorted([*neighbours, name])


@pytest.fixture(scope='module')
def short(run_main, tmp_path_factory):
    """The folder of a finished run, to be copied."""
    folder = tmp_path_factory.mktemp('short')
    run_main(*SHORT, f'--log_dir={folder}')
    return folder


@pytest.mark.parametrize('left', ['results.json', 'train', 'test', 'checkpoints', 'checkpoints/checkpoint'])
def test_a_run_whose_checkpoints_are_gone_does_not_start_anew_in_silence(run_main, short, tmp_path, left):
    """Of a run's files only settings.json and `left` are there."""
    shutil.copytree(short, tmp_path / 'run')
    for path in sorted((tmp_path / 'run').rglob('*'), reverse=True):  # what is inside a folder before it
        name = path.relative_to(tmp_path / 'run').as_posix()
        if not (name == 'settings.json' or name.startswith(left + '/') and left != 'checkpoints'
                or left.startswith(name)):
            path.rmdir() if path.is_dir() else path.unlink()
    before = sorted((tmp_path / 'run').rglob('*'))
    with pytest.raises(SystemExit, match='checkpoints are gone. Put them back, or give another --log_dir') as stop:
        run_main(*SHORT, f'--log_dir={tmp_path / "run"}')
    assert left.split('/')[0] in stop.value.code and '\n' not in stop.value.code
    assert sorted((tmp_path / 'run').rglob('*')) == before


def test_a_copy_of_a_checkpoint_is_none(run_main, short, tmp_path):
    shutil.copytree(short, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / 'checkpoints').glob('step-*'):
        path.rename(f'{path}.bak')
    before = (tmp_path / 'evaluations.csv').read_bytes()
    with pytest.raises(SystemExit, match='checkpoints are gone'):
        run_main(*SHORT, f'--log_dir={tmp_path}')
    assert (tmp_path / 'evaluations.csv').read_bytes() == before


@pytest.mark.parametrize('of', ['a kill before it', pytest.param('a kill in the middle of it', marks=pytest.mark.slow)])
def test_a_run_that_was_cut_before_its_first_checkpoint_starts(run_main, tmp_path, monkeypatch, of):
    """And by a full disk."""
    def fail(self, **_):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.CheckpointManager, 'save', fail)
        with pytest.raises(SystemExit, match='No space left'):
            run_main(*SHORT, f'--log_dir={tmp_path}')
    (tmp_path / 'checkpoints').mkdir()
    if of == 'a kill in the middle of it':
        (tmp_path / 'checkpoints' / 'step-0_temp').mkdir()
    run_main(*SHORT, f'--log_dir={tmp_path}')
    assert steps_saved(tmp_path) == {2, 4, 6}


@pytest.mark.parametrize('damage', [
    'cut short', *(pytest.param(other, marks=pytest.mark.slow) for other in ('other bytes', 'no data'))])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(run_main, short, tmp_path, capsys, damage):
    shutil.copytree(short, tmp_path / 'run')
    data = tmp_path / 'run' / 'checkpoints' / 'step-6.data-00000-of-00001'
    content = data.read_bytes()
    if damage == 'no data':
        data.unlink()
    else:
        data.write_bytes(content[:len(content) // 2] + (bytes(len(content) // 4) if damage == 'other bytes' else b''))
    capsys.readouterr()
    run_main(*SHORT, f'--log_dir={tmp_path / "run"}')
    shown = capsys.readouterr()
    assert shown.err.startswith(f'warning: {tmp_path / "run" / "checkpoints" / "step-6"} cannot be read')
    assert 'continued from step 4' in shown.out
    assert_same(tmp_path / 'run', short, 6)


def test_checkpoints_that_cannot_be_read_are_never_a_silent_start(run_main, short, tmp_path):
    shutil.copytree(short, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / 'checkpoints').glob('*.data*'):
        path.write_bytes(b'')
    before = {path: path.read_bytes() for path in (tmp_path / 'checkpoints').iterdir()}
    with pytest.raises(SystemExit, match='error: none of the checkpoints in .* can be read'):
        run_main(*SHORT, f'--log_dir={tmp_path}')
    assert {path: path.read_bytes() for path in (tmp_path / 'checkpoints').iterdir()} == before


@pytest.mark.slow
def test_what_killed_starts_have_left_goes_and_nothing_else(run_main, short, tmp_path, capsys):
    shutil.copytree(short, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / 'checkpoints'
    assert steps_saved(tmp_path) == {2, 4, 6}
    for step in (1, 3):  # that TensorFlow's list forgot
        for end in ('index', 'data-00000-of-00001'):
            shutil.copy(folder / f'step-4.{end}', folder / f'step-{step}.{end}')
    for name in ('step-5_temp', 'step-7_temp', 'step-x_temp', 'mine', 'step-1.mine'):
        (folder / name).mkdir()
    for name in ('step-mine', 'notes.txt', 'step-1.index.bak', 'step-0.tar.gz', 'step-99.note'):
        (folder / name).write_text('mine')
    before = {path.name for path in folder.iterdir()}
    run_main(*SHORT, f'--log_dir={tmp_path}')
    assert capsys.readouterr().err == ''
    after = {path.name for path in folder.iterdir()}
    assert after - before == set() and before - after == {
        'step-5_temp', 'step-7_temp', 'step-1.index', 'step-1.data-00000-of-00001'}  # 3 is among the last three
    for step in (2, 3, 4, 6):  # none of these can be read: what is older stays
        (folder / f'step-{step}.index').write_text('damaged')
    for end in ('index', 'data-00000-of-00001'):
        shutil.copy(short / 'checkpoints' / f'step-4.{end}', folder / f'step-1.{end}')
    run_main(*SHORT, f'--log_dir={tmp_path}')
    assert 'continued from step 1' in capsys.readouterr().out


def test_a_file_in_the_folder_is_locked_for_writing(tmp_path, monkeypatch):
    """A lock on a folder does not reach other NFS clients, and some take an exclusive one from writers alone."""
    locked, original = [], fcntl.flock

    def flock(number, how):
        locked.append((os.readlink(f'/proc/self/fd/{number}'), fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE, how))
        original(number, how)

    monkeypatch.setattr(fcntl, 'flock', flock)
    assert not files.is_held(tmp_path)
    held = files.hold(tmp_path)
    assert locked == [(f'{tmp_path}/.lock', os.O_RDWR, fcntl.LOCK_EX | fcntl.LOCK_NB)]
    assert files.is_held(tmp_path)
    with pytest.raises(BlockingIOError):
        files.hold(tmp_path, seconds=0.1)
    os.close(held)
    assert not files.is_held(tmp_path) and (tmp_path / '.lock').exists()


def test_a_look_costs_no_start_its_start(tmp_path):
    stop = threading.Event()

    def look():
        count = 0
        while not stop.is_set():
            files.is_held(tmp_path)
            count += 1
        return count

    (tmp_path / '.lock').touch()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        looks = [pool.submit(look) for _ in range(2)]
        try:
            for _ in range(20):
                time.sleep(0.05)
                os.close(files.hold(tmp_path))
        finally:
            stop.set()
        assert sum(one.result() for one in looks) > 1000


def test_a_folder_that_is_refused_gets_no_new_file(run_main, tmp_path):
    (tmp_path / 'train').mkdir()
    with pytest.raises(SystemExit, match='holds train, but not of a run'):
        run_main(*SHORT, f'--log_dir={tmp_path}')
    assert os.listdir(tmp_path) == ['train']


def test_a_part_takes_its_name_when_it_is_whole_and_what_the_killed_have_left_goes(tmp_path):
    path = tmp_path / 'it.csv'
    left = tmp_path / '.it.csv.0123abcd.part'
    others = ['.it.csv.part', '.it.csv.0123abcd.part2', 'it.csv.0123abcd.part', '.other.csv.0123abcd.part']
    for name in others:
        (tmp_path / name).write_text('mine')
    left.write_text('half')
    with pytest.raises(ZeroDivisionError), files.part_of(path) as part:
        assert not left.exists()
        part.write_text('half')
        files.replace(path, 'whole')  # by another process: it leaves alone what is at work
        assert part.exists()
        1 / 0  # noqa: B018
    assert path.read_text() == 'whole' and sorted(os.listdir(tmp_path)) == sorted([*others, 'it.csv'])
    with files.part_of(tmp_path / 'new', folder=True) as part:
        (part / 'file').write_text('x')
        assert not (tmp_path / 'new').exists()
    assert os.listdir(tmp_path / 'new') == ['file'] and sorted(os.listdir(tmp_path)) == sorted(
        [*others, 'it.csv', 'new'])


def test_a_part_and_what_was_left_are_locked_by_who_may_write_as_nfs_asks(tmp_path, monkeypatch):
    original, left = fcntl.flock, tmp_path / '.it.0123abcd.part'
    left.write_text('half')

    def flock(number, how):
        if how & fcntl.LOCK_EX and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, 'Bad file descriptor')
        original(number, how)

    monkeypatch.setattr(fcntl, 'flock', flock)
    files.replace(tmp_path / 'it', 'whole')
    assert os.listdir(tmp_path) == ['it'] and (tmp_path / 'it').read_text() == 'whole'


def test_a_part_that_was_left_read_only_goes_too(tmp_path, monkeypatch):
    left, original = tmp_path / '.it.0123abcd.part', os.open
    left.write_text('half')

    def read_only(path, flags, *more, **options):
        if path == left and flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return original(path, flags, *more, **options)

    monkeypatch.setattr(os, 'open', read_only)
    monkeypatch.setattr(os, 'access', lambda path, _: path != left)  # root may write all
    files.replace(tmp_path / 'it', 'whole')
    assert os.listdir(tmp_path) == ['it']


@pytest.mark.parametrize('folder', [False, True])
def test_a_file_system_without_locks_is_an_error_and_no_part_stays(tmp_path, monkeypatch, folder):
    errors = iter([OSError(errno.ENOLCK, 'No locks available')])  # one, for a second try is one too many

    def flock(*_):
        raise next(errors)

    monkeypatch.setattr(fcntl, 'flock', flock)
    with pytest.raises(OSError, match='No locks available'), files.part_of(tmp_path / 'it', folder):
        pass
    assert os.listdir(tmp_path) == []


def test_a_part_that_another_process_removes_before_it_is_held_is_made_anew(tmp_path, monkeypatch):
    held, original = [], files.lock

    def lock(path):
        held.append(path)
        if len(held) == 1:
            path.unlink()
        return original(path)

    monkeypatch.setattr(files, 'lock', lock)
    files.replace(tmp_path / 'it', 'whole')
    assert len(held) == 2 and os.listdir(tmp_path) == ['it'] and (tmp_path / 'it').read_text() == 'whole'


@pytest.mark.slow
def test_a_full_disk_costs_one_line_and_no_checkpoint(run_main, tmp_path, capsys):
    """A limit on the size of files stands in for the disk; the data of a checkpoint is the first to meet it."""
    wide = ('--fake_data', '--widths=8,16,64,32', '--max_steps=100', '--eval_interval=100', '--checkpoint_interval=40')
    run_main(*wide, '--max_steps=40', f'--log_dir={tmp_path}')
    size = (tmp_path / 'checkpoints' / 'step-40.data-00000-of-00001').stat().st_size
    before = contents(tmp_path, 40)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(SystemExit, match='^error: .*step 80 in .* cannot be written.*the same command continues'):
            run_main(*wide, f'--log_dir={tmp_path}')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert all((value == before[name]).all() for name, value in contents(tmp_path, 40).items())
    capsys.readouterr()
    run_main(*wide, f'--log_dir={tmp_path}')
    shown = capsys.readouterr()
    assert 'continued from step 40' in shown.out and shown.err == ''


@pytest.mark.parametrize('layer, kind, words', [
    ('conv2', 'equal', 'group_variance of conv2. Try .*, or --group_variance=0, for its groups have become equal'),
    ('fc1', 'huge', 'group_variance of fc1'),
    ('softmax', 'nan', 'weights. Try a smaller --learning_rate')])
def test_a_step_that_is_not_finite_stops_the_run_before_the_variables_are_touched(
        tmp_path, monkeypatch, layer, kind, words):
    nets, original = [], checkpoints.Run.restore

    def restore(self, **objects):
        step = original(self, **objects)
        weight = objects['net'].weights[layer]
        weight.assign({'equal': tf.ones_like(weight), 'huge': weight * 1e20, 'nan': weight * np.nan}[kind])
        nets.append((objects['net'], [v.numpy() for v in objects['net'].variables]))
        return step

    monkeypatch.setattr(checkpoints.Run, 'restore', restore)
    data = input_data.read_data_sets(fake_data=True)
    with pytest.raises(program.RunError, match=f'at step 0 this is no longer finite: {words}'):
        main.train(data, main.Settings(max_steps=5, widths=(3, 4, 6, 5), eval_interval=10), tmp_path)
    net, before = nets[0]
    for variable, value in zip(net.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert steps_saved(tmp_path) == {0}


def test_the_cross_entropy_is_named_when_only_it_is_not_finite():
    net = main.LeNet((28, 28, 1), main.Settings(widths=(3, 4, 6, 5), dropout=1.0))
    optimizer = tf.keras.optimizers.Adam()
    optimizer.build(net.trainable_variables)
    batch = np.full((2, 28, 28, 1), np.inf, np.float32), np.array([0, 1])
    terms = main.terms_by_layer(net, *batch, 0.001, 0.01)
    assert report.explain(terms, net.trainable_variables) == 'cross_entropy. Try a smaller --learning_rate.'
    assert not main.training_step(net, optimizer, *batch, 0.001, 0.01)


def test_a_folder_that_cannot_be_written_is_named_and_left(run_main, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, 'Permission denied', str(tmp_path / 'settings.json'))  # the tests may run as root
    monkeypatch.setattr(checkpoints, 'write_json', refuse)
    with pytest.raises(SystemExit, match='error: --log_dir=.* cannot be used .*Permission denied'):
        run_main(*SHORT, f'--log_dir={tmp_path}')
    assert os.listdir(tmp_path) == ['.lock']


def test_an_error_is_told_by_its_first_line_or_its_type():
    assert program.first_line(ValueError('one\ntwo')) == 'one'
    assert program.first_line(AssertionError()) == 'AssertionError'
    assert program.first_line(ValueError('{{function_node __wrapped__Save_device_/x}} full [Op:Save]')) == (
        'full [Op:Save]')


STATE = b"""model_checkpoint_path: "{}"
all_model_checkpoint_paths: "{}"
all_model_checkpoint_timestamps: 1e9
last_preserved_timestamp: 1e8
"""


@pytest.mark.parametrize('content', [b'', b'\xff\xfe', b'mine', STATE])
def test_a_state_file_of_somebody_else_deletes_nothing(run_main, short, tmp_path, content):
    """TensorFlow's manager would remove the oldest of what it lists."""
    shutil.copytree(short, tmp_path / 'run')
    mine = tmp_path / 'step-1.index'
    mine.write_text('mine')
    (tmp_path / 'run' / 'checkpoints' / 'checkpoint').write_bytes(
        content.replace(b'{}', str(mine.with_suffix('')).encode()))
    with pytest.raises(SystemExit, match='^error: .*checkpoints/checkpoint lists .*Move that file away'):
        run_main(*SHORT, f'--log_dir={tmp_path / "run"}', '--max_steps=20')
    assert mine.read_text() == 'mine' and steps_saved(tmp_path / 'run') == steps_saved(short)


def test_a_link_to_nothing_is_not_replaced(run_main, tmp_path):
    (tmp_path / 'settings.json').symlink_to('nowhere')
    refused('^error: --log_dir=.*Give another', run_main, *SHORT, f'--log_dir={tmp_path}')
    assert os.listdir(tmp_path) == ['settings.json'] and (tmp_path / 'settings.json').is_symlink()


@pytest.mark.parametrize('content', [
    '', '{}', '[]', '[1]', '{"identity": [[1, 2]]}', '{"settings": 1}', '{"identity": 1}', '[' * 100000, 'null'])
def test_settings_of_somebody_else_are_refused_and_kept(run_main, tmp_path, content):
    (tmp_path / 'settings.json').write_text(content)
    with pytest.raises(SystemExit, match='^error: .*settings.json is not what a run wrote. Give another --log_dir.$'):
        run_main(*SHORT, f'--log_dir={tmp_path}')
    assert (tmp_path / 'settings.json').read_text() == content


@pytest.fixture
def run(tmp_path):
    """A Run in a new folder, not entered."""
    return checkpoints.Run(tmp_path / 'run', input_data.read_data_sets(fake_data=True), main.Settings())


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_request_and_the_same_again_ends_the_process(run, number):
    before = signal.getsignal(number)
    with run:
        os.kill(os.getpid(), number)
        assert run.signal == number
        assert signal.getsignal(number) == signal.SIG_DFL
        others = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} - {number}
        assert all(callable(signal.getsignal(other)) for other in others)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(run, number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with run:
            os.kill(os.getpid(), number)
            assert not run.signal and signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.slow
def test_nothing_of_a_run_outlives_it_and_tensorflow_does_not_warn(train, caplog):
    """Neither the images, which are the most of its memory, nor the net, nor a graph, which would hold both.

    TensorFlow's warning is that of retracing: it counts five tracings, of whatever run of the process.
    """
    data = input_data.read_data_sets(fake_data=True)
    size, kinds = data.train.images.size, (tf.Graph, type(tf.constant(0)))  # the latter: tensors with values
    settings, logger = dict(widths=(3, 4, 6, 5), max_steps=1), tf.get_logger()

    def left():
        return [thing for thing in gc.get_objects() if issubclass(type(thing), kinds)
                and (isinstance(thing, tf.Graph) or thing.shape.num_elements() == size)]

    level = logger.level
    logger.addHandler(caplog.handler)
    logger.setLevel('WARNING')
    try:
        for _ in range(5):
            train(data, **settings)
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(level)
    assert 'retracing' not in caplog.text
    gc.collect()
    before = len(left())
    gc.disable()  # a graph is full of cycles, but none of them holds the images
    try:
        train(data, **settings)
        images = [thing for thing in left() if not isinstance(thing, tf.Graph)]
    finally:
        gc.enable()
    assert not images
    gc.collect()
    assert len(left()) <= before  # of another test's some may go


@pytest.mark.slow
def test_a_run_holds_no_more_the_longer_it_is(train, monkeypatch):
    """Objects after an early evaluation and a late one."""
    counts, original = {}, report.Report.evaluation

    def evaluation(self, step, **figures):
        original(self, step, **figures)
        if step in (6, 30):
            gc.collect()
            counts[step] = len(gc.get_objects())

    monkeypatch.setattr(report.Report, 'evaluation', evaluation)
    train(input_data.read_data_sets(fake_data=True), widths=(3, 4, 6, 5), max_steps=30, eval_interval=2)
    assert counts[30] < counts[6] + 50, counts  # a tensor a layer kept by each of 12 evaluations would be more
