"""The grid of runs: its commands, its CSV through kills and on several machines, the numbers of the figure."""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import itertools
import json
import math
import operator
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

import compare
import evidence
import figure
import files
import main
import pictures
import retrain
import thresholds
from conftest import ROOT
from in_process import refused
from jobs import Job
from rows import COLUMNS, KEY, PLAIN, method, row_of, written

SCRIPT = ROOT / 'python' / 'compare.py'
PAGE = (ROOT / 'python' / 'README.rst').read_text()
LIST = re.search(r'    (xargs .*) < commands.txt', PAGE)[1]
TINY = ('--dataset=fake', '--widths=3,4,6,5', '--max_steps=20', '--seeds=3', '--group_lassos=0.1', '--levels=50')
TINY_RUNS = list(compare.grid([3], [0.1], [0.01], [50]))
COMMON = 'fake-3-4-6-5-steps-{}-rate-0.001-1e-05'


def command(folder, *arguments):
    return [sys.executable, str(SCRIPT), *TINY, f'--csv={folder}/it.csv', f'--runs_dir={folder}/runs', *arguments]


@pytest.fixture
def run(run_tool, capsys):
    """The program in this process: run(folder, '--flag=value', ...) -> what it has printed."""
    def run(folder, *arguments):
        capsys.readouterr()
        run_tool(compare, *command(folder, *arguments)[2:])
        return capsys.readouterr().out
    return run


def jobs(folder, runs=TINY_RUNS, steps=20, **more):
    """What the program makes of TINY, but in this process, which has imported TensorFlow already."""
    return remaining(folder, runs, steps, **more)()[0]


def remaining(folder, runs=TINY_RUNS, steps=20, **more):
    shared = {'dataset': 'fake', 'widths': '3-4-6-5', 'steps': steps, 'learning_rate': 0.001,
              'final_learning_rate': 1e-5}

    def look():
        rows = compare.read(folder / 'it.csv')
        return compare.to_do(compare.plan(runs, shared, folder / 'runs', None, rows=rows, **more)[0], rows)
    return look


def rows(folder):
    """The rows without the seconds, which a second run need not repeat, in an order of their own."""
    return sorted(tuple(value for name, value in row.items() if name != 'seconds')
                  for row in compare.read(folder / 'it.csv'))


@pytest.fixture(scope='module')
def train_all(run_main, run_tool):
    """The program's loop with its runs in this process: train_all(folder, ...) -> texts of what failed."""
    def train(job):
        run = partial(run_tool, retrain) if job.first else run_main
        run(*job.command[2:])
        return 0

    def train_all(folder, *arguments, **more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Job, 'train', train)
            return compare.train_all(remaining(folder, *arguments, **more), folder / 'it.csv')
    return train_all


@pytest.fixture(scope='module')
def in_turn(train_all, tmp_path_factory):
    """A folder in which the tiny grid was trained in turn."""
    folder = tmp_path_factory.mktemp('in turn')
    assert train_all(folder) == []
    return folder


def test_the_grid_has_each_method_at_each_strength_for_each_seed():
    runs = list(compare.grid([0, 1], [0.1, 0.2], [0.01, 1.0], [50, 90]))
    assert len(runs) == 2 * (1 + 2 * 3 + 2) and [r['seed'] for r in runs] == [0] * 9 + [1] * 9
    assert [method(r) for r in runs[:9]] == ['dense', *['ssl', 'gss', 'gss'] * 2, 'scn', 'scn']
    assert [r['random_sparsity'] for r in runs[7:9]] == [0.5, 0.9]


def test_rows_are_what_the_runs_found(in_turn):
    found = compare.read(in_turn / 'it.csv')
    assert [row['method'] for row in found] == ['dense', 'ssl', 'gss', 'scn']
    assert [row['group_lasso'] for row in found] == ['0', '0.1', '0.1', '0']
    assert [row['group_variance'] for row in found] == ['0', '0', '0.01', '0']
    assert sorted(path.name for path in (in_turn / 'runs' / COMMON.format(20)).iterdir() if path.is_dir()) == [
        'dense-seed-3', 'gss-lasso-0.1-variance-0.01-seed-3', 'scn-share-0.5-seed-3', 'ssl-lasso-0.1-seed-3']
    for row in found:
        assert (row['dataset'], row['widths'], row['seed'], row['steps']) == ('fake', '3-4-6-5', '3', '20')
        assert (row['learning_rate'], row['final_learning_rate']) == ('0.001', '1e-05')
    assert found[3]['random_sparsity'] == '0.5' and float(found[3]['mean_of_four']) == pytest.approx(0.5, abs=0.01)
    assert [row['alive_fc1'] for row in found] == ['6'] * 4 and len({row['norms_fc2'] for row in found}) == 4
    assert jobs(in_turn) == []
    new, = jobs(in_turn, compare.grid([3], [0.1], [0.01, 1.0], [50]))
    assert '--group_variance=1.0' in new.command


def test_a_cell_holds_the_figure_of_its_name():
    figures = {'mean_of_five': 0.5, 'mean_of_four': 0.55, 'global_sparsity': 0.6}
    parts = {'test': {'accuracy': 0.25, 'accuracy_as_trained': 0.75},
             'validation': {'accuracy': 0.3, 'accuracy_as_trained': 0.8}}
    layers = {name: {'groups_alive': i, 'largest_norms': [i + 0.5, float(i)], 'zero_share': i / 8}
              for i, name in enumerate(main.REGULARISED)}
    first = {'widths': [1, 2, 3, 4], 'seed': 5, 'group_lasso': 0.1, 'group_variance': 1e-2, 'random_sparsity': 0.0,
             'max_steps': 9, 'learning_rate': 0.001, 'final_learning_rate': 1e-5, 'sparsity_threshold': 0.002}
    content = {
        'identity': {'dataset': 'here'}, 'seconds': 7.5, 'steps_timed': 9, 'versions': {'python': '3', 'cores': 2},
        'settings': first, 'results': {**figures, **parts, 'layers': layers, 'step': 9, 'weights_left': 77, 'macs': 88}}
    common = ('gss,here,1-2-3-4,5,0.1,0.01,0,9,0.001,1e-05,0.25,0.75,0.3,0.8,0.5,0.55,0.6,77,88,0,1,2,3,'
              '0.5 0,1.5 1,2.5 2,3.5 3,{},{},0.002,0,0.125,0.25,0.375,{},7.5,python 3; cores 2')
    assert ','.join(row_of(content).values()) == common.format('', 0, 'cpu')  # an old one: no device
    retrained = {**content, 'device': 'A', 'steps_timed': 4, 'results': {**content['results'], 'step': 4},
                 'settings': {**first, 'group_lasso': 0.0, 'group_variance': 0.0, 'max_steps': 4, 'seed': 6},
                 'start': {'settings': first, 'step': 9, 'groups': '1-1-2-2'}}
    assert ','.join(row_of(retrained).values()) == common.format('1-1-2-2', 4, 'A')
    resumed = row_of({**content, 'steps_timed': 4, 'starts': [{'step': 0, 'python': '3', 'device': 'cpu'},
                                                              {'step': 4, 'python': '3', 'device': 'H'}]})
    assert (resumed['device'], resumed['versions'], resumed['seconds']) == ('cpu | H', 'python 3', '')


@pytest.fixture
def folder(tmp_path):
    """One whose name needs quotes."""
    (tmp_path / "it's a folder").mkdir()
    return tmp_path / "it's a folder"


def test_what_is_printed_is_what_a_shell_runs(run, folder):
    commands = list(map(shlex.split, run(folder, '--print_commands').splitlines()))
    assert not (folder / 'runs').exists()
    assert commands == [job.command for job in jobs(folder)] and len(commands) == 4
    assert all(words[:2] == [sys.executable, str(ROOT / 'python' / 'main.py')] for words in commands)


def test_the_commands_name_the_data_and_where_they_are(run_tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('HOME', str(tmp_path))
    place = f'--data_dir={os.path.realpath(tmp_path)}/data'
    for dataset, given, wanted in (('mnist', [], []), ('cifar10', ['--data_dir=~/data'], [place])):
        run_tool(compare, f'--csv={tmp_path}/it.csv', f'--runs_dir={tmp_path}/runs', '--seeds=0', '--levels=',
                 '--group_lassos=0.1', f'--dataset={dataset}', *given, '--print_commands')
        commands = list(map(shlex.split, capsys.readouterr().out.splitlines()))
        assert len(commands) == 3 and not any('--fake_data' in words for words in commands)
        for words in commands:
            assert [word for word in words if word.startswith('--data')] == [f'--dataset={dataset}', *wanted]


def test_the_program_says_what_there_is_to_do_and_what_failed(run, in_turn, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Job, 'train', lambda job: 3)
    (tmp_path / 'it.csv').write_text(written(compare.read(in_turn / 'it.csv')[1:], header=True))
    with pytest.raises(SystemExit, match=r'^error: these runs failed: dense-seed-3 \(status 3, see .*-3\.log\)$'):
        run(tmp_path)
    assert capsys.readouterr().out == (f'3 of 4 runs have their rows in {tmp_path}/it.csv; 1 to do\n'
                                       '1 of 1: dense-seed-3, FAILED with status 3\n')


@pytest.mark.slow
def test_several_at_once_through_xargs_give_the_same_rows(run, folder, in_turn):
    """Two of the four, from another working directory."""
    printed = run(folder, '--print_commands').splitlines(keepends=True)
    subprocess.run(LIST, shell=True, input=''.join(printed[:2]), text=True, check=True, cwd='/', timeout=300,
                   stdout=subprocess.DEVNULL)
    assert '2 rows added' in run(folder, '--collect')
    assert rows(folder) == sorted(row for row in rows(in_turn) if row[0] in ('dense', 'ssl'))


def test_the_list_of_the_readme_goes_on_after_a_job_that_dies_and_does_nothing_without_jobs(tmp_path):
    run = partial(subprocess.run, LIST, shell=True, text=True, cwd=tmp_path, timeout=60, capture_output=True)
    assert (run(input='').stdout, run(input='').returncode) == ('', 0)
    jobs = ["sh -c 'kill -9 $$'", 'false', 'touch done', "touch 'a b'"]
    done = run(input=''.join(f'{job}\n' for job in jobs))
    assert sorted(os.listdir(tmp_path)) == ['a b', 'done']
    assert sorted(line.split(' ')[1] for line in done.stderr.splitlines() if 'failed: ' in line) == ['false', 'sh']


@pytest.mark.skipif(not shutil.which('parallel'), reason='GNU parallel is not installed')
def test_gnu_parallel_runs_each_line(tmp_path):
    words = re.search(r'    (parallel .*) < commands.txt', PAGE)[1].replace(' --sshlogin one,two', ' --will-cite')
    subprocess.run(words, shell=True, input="touch 'a b'\ntouch c\n", text=True, cwd=tmp_path, check=True, timeout=60)
    assert sorted(os.listdir(tmp_path)) == ['a b', 'c']


def test_a_job_of_slurms_array_runs_its_line(tmp_path):
    (tmp_path / 'commands.txt').write_text("touch c\ntouch 'a b'\n")
    subprocess.run(re.search(r"--wrap '(.*)'", PAGE)[1], shell=True, cwd=tmp_path, check=True,
                   env={**os.environ, 'SLURM_ARRAY_TASK_ID': '2'})
    assert sorted(os.listdir(tmp_path)) == ['a b', 'commands.txt']


@pytest.mark.slow
def test_retrainings_and_baselines_have_rows_of_their_own(run, train_all, in_turn, tmp_path, capsys):
    """Of the dense run and SSL's, which are finished; each retraining starts when its first run is there."""
    shutil.copytree(in_turn / 'runs', tmp_path / 'runs')
    shutil.copy(in_turn / 'it.csv', tmp_path)
    before, path = (tmp_path / 'it.csv').read_text(), tmp_path / 'it.csv'
    more = {'runs': TINY_RUNS[:2], 'retrain_steps': 10, 'baselines': True}
    assert train_all(tmp_path, **more) == [] == jobs(tmp_path, **more)
    assert path.read_text().startswith(before)
    plain, found = compare.read(in_turn / 'it.csv'), compare.read(path)[4:]
    alive = '-'.join(plain[1][f'alive_{layer}'] for layer in main.REGULARISED)
    columns = ('method', 'widths', 'groups', 'steps', 'retrain_steps', 'seed', 'group_lasso')
    assert [tuple(row[name] for name in columns) for row in found] == [
        ('dense', '3-4-6-5', '', '20', '10', '3', '0'), ('ssl', '3-4-6-5', '', '20', '10', '3', '0.1'),
        ('dense', alive, '', '30', '0', '3', '0'), ('dense', '3-4-6-5', alive, '20', '10', '3', '0')]
    assert {row['learning_rate'] for row in found} == {'0.001'}

    arguments = ('--retrain_steps=10', '--group_lassos=0.1', '--levels=')
    path.unlink()
    assert '5 rows added' in run(tmp_path, *arguments, '--collect')  # GSS's first run, too
    command, = run(tmp_path, *arguments, '--print_commands').splitlines()
    assert 'retrain.py' in command and 'gss-' in command
    shutil.rmtree(tmp_path / 'runs' / COMMON.format(20) / 'gss-lasso-0.1-variance-0.01-seed-3')
    command, = run(tmp_path, *arguments, '--print_commands').splitlines()
    assert 'main.py' in command and 'gss-' in command

    result = next((tmp_path / 'runs').rglob('ssl-lasso-0.1-seed-3-retrained-10/results.json'))
    content = json.loads(result.read_text())
    for cells in ({'mean_of_four': 1.5}, {'macs': 'many'}, {'test': {**content['results']['test'], 'accuracy': None}}):
        result.write_text(json.dumps({**content, 'results': {**content['results'], **cells}}))
        path.unlink()
        with pytest.raises(SystemExit, match='^error: 1 finished runs were not taken. '):
            run(tmp_path, *arguments, '--collect')
        assert re.fullmatch('not taken: .*retrained-10: its results.json cannot be used .*cannot be.*\n',
                            capsys.readouterr().err)
        assert len(compare.read(path)) == 3
    for change, words in (({'settings': {**content['settings'], 'batch_size': 7}}, 'batch_size .7 there, 100 here.'),
                          ({'start': {**content['start'], 'step': 19}}, 'what it learned or started from'),
                          ({'start': {**content['start'], 'start': {}}}, 'a start that is a retraining'),
                          ({'start': {**content['start'], 'settings': {**content['start']['settings'], 'dropout': 1}}},
                           'dropout .1 there, 0.8 here.')):
        result.write_text(json.dumps({**content, **change}))
        path.unlink()
        with pytest.raises(SystemExit, match='^error: 1 finished runs were not taken. '):
            run(tmp_path, *arguments, '--collect')
        assert re.fullmatch(f'not taken: .*ssl-lasso-0.1-seed-3-retrained-10: of another grid: {words}\n',
                            capsys.readouterr().err)
        assert len(compare.read(path)) == 3


def test_print_commands_says_what_waits_and_what_is_printed_again(run_tool, in_turn, tmp_path, capsys):
    shutil.copy(in_turn / 'it.csv', tmp_path)
    run_tool(compare, *command(tmp_path, '--print_commands', '--retrain_steps=10')[2:])
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 4
    assert 'dense-seed-3 is printed again' in shown.err and '4 retrainings wait' in shown.err
    dense = tmp_path / 'runs' / COMMON.format(20) / 'dense-seed-3'
    shutil.copytree(in_turn / 'runs', tmp_path / 'runs')
    shutil.rmtree(dense / 'checkpoints')  # to save the room: main.py would not begin anew there
    run_tool(compare, *command(tmp_path, '--print_commands', '--retrain_steps=10')[2:])
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 3 and f'{dense} has lost its checkpoints' in shown.err
    content = json.loads((dense / 'results.json').read_text())
    shutil.copytree(in_turn / 'runs' / COMMON.format(20) / 'dense-seed-3', dense, dirs_exist_ok=True)
    content['settings']['batch_size'] = 50  # another run: no start for the dense net's retraining
    (dense / 'results.json').write_text(json.dumps(content))
    job, = jobs(tmp_path, TINY_RUNS[:1], retrain_steps=10)[-1:]
    assert not job.can_start()
    run_tool(compare, *command(tmp_path, '--print_commands')[2:])
    assert capsys.readouterr() == ('', '')


def test_a_run_that_left_nothing_is_not_retrained(in_turn, tmp_path, run_tool, capsys):
    found = compare.read(in_turn / 'it.csv')
    found[1]['alive_fc2'] = '0'
    (tmp_path / 'it.csv').write_text(written(found, header=True))
    run_tool(compare, *command(tmp_path, '--print_commands', '--retrain_steps=10', '--baselines')[2:])
    shown = capsys.readouterr()
    assert 'ssl-lasso-0.1-seed-3 cannot be retrained' in shown.err and '4 retrainings wait' in shown.err


def test_lambda_g_of_0_is_gss_alone_and_the_dense_run_once():
    runs = list(compare.grid([0], [0.0, 0.1], [0.01], []))
    assert [(method(r), r['group_lasso']) for r in runs] == [
        ('dense', 0), ('gss', 0), ('ssl', 0.1), ('gss', 0.1)]


def wait_for(path, process, seconds=300):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_kill_9_loses_no_row_and_doubles_none(tmp_path):
    """First the program alone: its child lives on and holds the run's folder, so another run comes first. Then both.

    The third run has its row from the start.
    """
    folder, flags = tmp_path / 'runs' / COMMON.format(600), ('--max_steps=600', '--group_lassos=', '--levels=50,60')
    runs = list(compare.grid([3], [], [], [50, 60]))
    third = dict(zip(KEY, jobs(tmp_path, runs, steps=600)[-1].key, strict=True))
    (tmp_path / 'it.csv').write_text(written([{**made_up(), **third, 'method': 'scn'}], header=True))
    first = subprocess.Popen(command(tmp_path, *flags), stdout=subprocess.DEVNULL)
    wait_for(folder / 'dense-seed-3' / 'settings.json', first)
    first.kill()
    first.communicate()
    second = subprocess.Popen(command(tmp_path, *flags), stdout=subprocess.DEVNULL, start_new_session=True)
    wait_for(folder / 'scn-share-0.5-seed-3' / 'checkpoints' / 'step-250.index', second)
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate()
    assert compare.train_all(remaining(tmp_path, runs, steps=600), tmp_path / 'it.csv') == []
    assert sorted(row['random_sparsity'] for row in compare.read(tmp_path / 'it.csv')) == ['0', '0.5', '0.6']
    log = (folder / 'dense-seed-3.log').read_text()
    assert log.count('settings: ') == 1 and 'in use' not in log  # that run was left to the process that had it
    assert 'continued from step' in (folder / 'scn-share-0.5-seed-3.log').read_text()


def test_a_folder_that_is_held_is_a_run_that_is_running(tmp_path):
    job, *_ = jobs(tmp_path)
    assert not job.is_running()
    job.folder.mkdir(parents=True)
    held = files.hold(job.folder)
    assert job.is_running()
    os.close(held)
    assert not job.is_running()


def test_a_run_that_another_process_holds_comes_last(tmp_path, monkeypatch):
    order, held = [], {'dense-seed-3': 3}

    def is_running(job):
        held[job.name] = held.get(job.name, 0) - 1
        return held[job.name] >= 0

    monkeypatch.setattr(Job, 'is_running', is_running)
    monkeypatch.setattr(Job, 'train', lambda job: order.append(job.name) or 0)
    monkeypatch.setattr(Job, 'row', lambda job: None if job.name not in order else {
        **made_up(), **(cells := dict(zip(KEY, job.key, strict=True))), 'method': method(cells)})
    assert compare.train_all(remaining(tmp_path), tmp_path / 'it.csv') == []
    assert order[-1] == 'dense-seed-3' and len(order) == 4


@pytest.mark.slow
def test_a_signal_reaches_the_run_which_writes_its_checkpoint(tmp_path):
    """SIGHUP for the program, SIGTERM for the run; SIGINT is in test_checkpoints.py."""
    process = subprocess.Popen(command(tmp_path, '--max_steps=100000'), stdout=subprocess.DEVNULL,
                               start_new_session=True)
    folder = tmp_path / 'runs' / COMMON.format(100000) / 'dense-seed-3'
    try:
        wait_for(folder / 'test', process)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=300) == 128 + signal.SIGHUP
    finally:  # nor does a run go on for hours
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert 'stopped by SIGTERM' in (folder.parent / f'{folder.name}.log').read_text()


def test_a_run_that_fails_is_named_and_the_others_go_on(in_turn, tmp_path, monkeypatch):
    """A run's folder that somebody else has filled; a shell that copies finished runs stands in for Python."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nfor word; do folder=${word#--log_dir=}; [ "$folder" = "$word" ] || break; done\n'
                      f'[ ! -e "$folder" ] && cp -r "{in_turn}/runs/{COMMON.format(20)}/${{folder##*/}}" "$folder"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(python))
    strange = tmp_path / 'runs' / COMMON.format(20) / 'ssl-lasso-0.1-seed-3'
    strange.mkdir(parents=True)
    (strange / 'results.json').write_text('{}')
    failed, = compare.train_all(remaining(tmp_path), tmp_path / 'it.csv')
    assert failed == f'ssl-lasso-0.1-seed-3 (status 1, see {strange}.log)'
    assert len(rows(tmp_path)) == 3 and (strange / 'results.json').read_text() == '{}'


def test_somebody_elses_csv_is_not_touched(run, tmp_path):
    (tmp_path / 'it.csv').write_text('a,b\n1,2\n')
    with pytest.raises(SystemExit, match='^error: [^\n]*it.csv has other columns[^\n]*$'):
        run(tmp_path)
    assert (tmp_path / 'it.csv').read_text() == 'a,b\n1,2\n'


@pytest.mark.parametrize('name, value', [
    ('test_accuracy', ''), ('test_accuracy', 'x'), ('test_accuracy', 'nan'), ('test_accuracy', '99.1'), ('seed', '0.5'),
    ('alive_conv1', 'inf'), ('macs', '-1'), ('group_lasso', 'inf')])
def test_a_cell_that_no_run_has_written_is_named(run, in_turn, tmp_path, name, value):
    found = compare.read(in_turn / 'it.csv')
    found[1][name] = value
    before = ''.join(','.join(cells) + '\n' for cells in (COLUMNS, *(row.values() for row in found)))
    (tmp_path / 'it.csv').write_text(before)
    for flag in ('--figure', '--collect'):
        with pytest.raises(SystemExit, match=f'^error: --csv=.*seed {found[1]["seed"]}, {name} cannot be '
                                             f"'{value}'[^\n]*$"):
            run(tmp_path, flag)
    assert (tmp_path / 'it.csv').read_text() == before and len([*tmp_path.iterdir()]) == 1


def test_a_strange_results_file_is_no_row(in_turn, tmp_path):
    for content in ('', '[]', '{"versions": ["x"]}', '[' * 100000, 'null'):
        job = jobs(tmp_path)[0]
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / 'results.json').write_text(content)
        assert job.row() is None
    found = json.loads(next((in_turn / 'runs').rglob('dense*/results.json')).read_text())
    (job.folder / 'results.json').write_text(json.dumps({**found, 'versions': ['x']}))
    assert job.row() is None
    (job.folder / 'results.json').write_text(json.dumps(found))
    assert job.row()


def test_a_seed_that_is_named_twice_counts_once(run, tmp_path):
    assert len(run(tmp_path, '--print_commands', '--seeds=3,3').splitlines()) == len(TINY_RUNS)


def test_a_csv_that_cannot_be_written_is_named_before_the_first_run(run, tmp_path):
    (tmp_path / 'link').symlink_to('nowhere')
    with pytest.raises(SystemExit, match="^error: .*link'$"):
        run(tmp_path, f'--csv={tmp_path}/link/it.csv')
    assert [path.name for path in tmp_path.iterdir()] == ['link']


def test_a_row_that_a_full_disk_has_cut_is_done_again(in_turn, tmp_path):
    lines = (in_turn / 'it.csv').read_text().splitlines(keepends=True)
    (tmp_path / 'it.csv').write_text(''.join(lines[:3]) + lines[3][:40])
    assert [row['method'] for row in compare.read(tmp_path / 'it.csv')] == ['dense', 'ssl']
    for row in compare.read(in_turn / 'it.csv'):
        compare.append(tmp_path / 'it.csv', row)
    assert rows(tmp_path) == rows(in_turn)


def test_a_cut_line_is_replaced_in_one_move(in_turn, tmp_path, monkeypatch):
    whole, path = compare.read(in_turn / 'it.csv'), tmp_path / 'it.csv'
    before = written(whole[:3], header=True) + written(whole[3:])[:40] + '\n'
    path.write_text(before)
    path.chmod(0o664)

    def full(*_):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', full)  # a full disk, or a kill, before the one move
        with pytest.raises(OSError):
            compare.append(path, whole[3])
    assert path.read_text() == before and len([*tmp_path.iterdir()]) == 1
    (tmp_path / 'link.csv').symlink_to(path)
    compare.append(tmp_path / 'link.csv', whole[3])
    assert path.read_text() == written(whole, header=True)
    assert (tmp_path / 'link.csv').is_symlink() and path.stat().st_mode & 0o777 == 0o664


def test_who_waited_for_a_file_that_was_replaced_opens_it_anew(in_turn, tmp_path):
    """Eight threads append at once to a file with their cut lines; flock keeps apart what was opened apart."""
    whole, path = compare.read(in_turn / 'it.csv'), tmp_path / 'it.csv'
    more = [{**whole[0], 'seed': str(seed)} for seed in range(10, 18)]
    path.write_text(written(whole, header=True) + ''.join(written([row])[:40] + '\n' for row in more))
    with open(path) as held, concurrent.futures.ThreadPoolExecutor(8) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = [pool.submit(compare.append, path, row) for row in more]
        time.sleep(0.3)
        assert not any(one.done() for one in done)
        fcntl.flock(held, fcntl.LOCK_UN)
    assert [one.result() for one in done] == [None] * 8
    assert compare.read(path) == whole + more


def test_the_committed_rows_are_those_of_before_the_last_columns():
    added = {*PLAIN, *(f'zero_{layer}' for layer in main.REGULARISED), 'device'}
    for name, count, sha256 in (('comparison.csv', 113, '361df464945c6d43'),
                                ('comparison_cifar10.csv', 56, '91d4b58d9250e2cf')):
        rows = compare.read(ROOT / '_img' / name)[:count]
        old = '\n'.join(','.join(row[column] for column in COLUMNS if column not in added) for row in rows)
        assert hashlib.sha256(old.encode()).hexdigest().startswith(sha256)


def test_bad_input_costs_one_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = {'--seeds=1,x': 'whole', '--seeds=-1': 'whole', '--group_lassos=-1': 'at least 0',
           '--group_lassos=nan': 'at least 0', '--group_lassos=1e-60': 'at least 1.2e-38',
           '--retrain_steps=-1': 'retrain_steps',
           '--baselines': 'retrain_steps', '--group_variances=0': 'above 0', '--levels=100': 'between 0 and 100',
           '--widths=1,2': 'four whole numbers', '--learning_rate=nan': 'finite',
           '--final_learning_rate=1': 'at most --learning_rate', '--dataset=other': 'dataset', '--csv=': 'csv',
           '--runs_dir=': 'runs_dir', '--print_commands --collect': 'collect', '--thresholds --figure': 'thresholds',
           '--thresholds --levels=': 'give these, too', '--thresholds --retrain_steps=9': 'of plain runs',
           '--thresholds --baselines': 'of plain runs', '--max_steps=-1': 'whole number',
           '--seeds=': 'whole', '--group_variances=': 'above 0', '--csv=it.png': 'a .csv file', '--csv=.': 'a .csv',
           '--csv=~nosuchuser/x.csv': 'no such home', '--picture=it.png': 'give these, too',
           '--figure --picture=it.csv': 'a .png', '--figure --levels= --picture=it.png': 'give these, too',
           '--runs_dir=~nosuchuser/x': 'no such home'}
    for line, words in bad.items():
        refused(words, run, tmp_path, *line.split())
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------------------- figures

def made_up(**cells):
    return {**dict.fromkeys(COLUMNS, '0'), **PLAIN, **{f'zero_{layer}': '' for layer in main.REGULARISED},
            'device': 'cpu', 'dataset': 'mnist', 'widths': '20-50-500-256', 'steps': '10000', 'learning_rate': '0.001',
            'final_learning_rate': '1e-05', 'macs': '1',
            **{name: str(value) for name, value in cells.items()}}


def series(method, variance, points, seed=0):
    return [made_up(method=method, group_variance=variance, seed=seed, group_lasso=lasso, mean_of_four=share,
                    test_accuracy=accuracy) for lasso, share, accuracy in points]


ROWS = [made_up(method='dense', test_accuracy=0.99), made_up(method='scn', random_sparsity=0.7, mean_of_four=0.71,
                                                            test_accuracy=0.97),
        *series('ssl', 0, [(0.1, 0.9, 0.95), (0.01, 0.6, 0.985), (0.001, 0.2, 0.995)]),  # in no order
        *series('gss', 0.01, [(0.01, 0.5, 0.98)])]


@pytest.fixture
def path(tmp_path):
    """Of a CSV with these rows."""
    for row in ROWS:
        compare.append(tmp_path / 'comparison.csv', row)
    return tmp_path / 'comparison.csv'


@pytest.mark.parametrize('method, level, expected', [
    ('ssl', 60, 0.5), ('ssl', 40, 0.0), ('ssl', 75, 2.25), ('ssl', 90, 4.0), ('ssl', 95, None), ('ssl', 10, None),
    ('scn', 70, 2.0), ('scn', 71, None), ('gss', 50, None)])
def test_a_level_is_interpolated_between_its_neighbours_and_never_beyond(method, level, expected):
    found = evidence.drop(ROWS, '0', method, '0.01' if method == 'gss' else '0', 'mean_of_four', level)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_the_level_of_random_masks_is_found_as_its_row_is_written():
    masks = made_up(method='scn', random_sparsity='0.666667', test_accuracy=0.97)
    assert evidence.drop([ROWS[0], masks], '0', 'scn', '0', 'mean_of_four', 200 / 3) == pytest.approx(2)


def test_a_neighbour_that_does_not_say_its_level_encloses_none():
    """Its zeros by layer are empty, as in rows of earlier versions."""
    said, silent = series('ssl', 0, [(0.001, 0.6, 0.98), (0.01, 0.9, 0.9)])
    said |= {f'zero_{layer}': '0.6' for layer in main.REGULARISED}
    for level in (60, 75):
        assert evidence.drop([ROWS[0], said, silent], '0', 'ssl', '0', 'mean_of_three', level) is None
    assert evidence.drop([ROWS[0], said, {**silent, **{f'zero_{layer}': '0.9' for layer in main.REGULARISED}}],
                         '0', 'ssl', '0', 'mean_of_three', 60) == pytest.approx(1)


def test_a_level_may_be_the_multiply_accumulates_saved():
    rows = [dict(row, macs=macs) for row, macs in zip(ROWS, (1000, 900, 100, 400, 800, 700), strict=True)]
    for level, expected in ((60, 0.5), (75, 2.25), (95, None)):  # saved: 90%, 60%, 20% at 0.95, 0.985, 0.995
        found = evidence.drop(rows, '0', 'ssl', '0', evidence.MACS_SAVED, level)
        assert found == (expected if expected is None else pytest.approx(expected))
    assert evidence.drop(rows, '0', 'scn', '0', evidence.MACS_SAVED, 70) is None  # no two strengths
    masks = [made_up(method='scn', random_sparsity=share, macs=macs, test_accuracy=accuracy)
             for share, macs, accuracy in ((0.9, 200, 0.95), (0.5, 900, 0.99), (0.7, 600, 0.98))]
    assert evidence.drop([rows[0], *masks], '0', 'scn', '0', evidence.MACS_SAVED, 20) == pytest.approx(1 / 3)
    assert [line[:2] for line in figure.interval_table(rows, 0.01, evidence.MACS_SAVED, [55])[1:3]] == [
        ('50%', '0.25'), ('55%', '0.38')]  # SSL's, without an interval, for there is one seed


def test_retrained_rows_are_read_apart_and_move_no_plain_cell():
    more = [dict(row, retrain_steps='3000', test_accuracy=str(float(row['test_accuracy']) + 0.001 * i))
            for i, row in enumerate(ROWS)]
    pruned = [dict(more[0], groups='1-2-3-4', test_accuracy='0.1'), dict(ROWS[0], sparsity_threshold='0.01')]
    for rows in (pruned + more + ROWS, ROWS + pruned + more):
        for measure in (*evidence.OF_MASKS, evidence.MACS_SAVED):
            assert figure.interval_table(rows, 0.01, measure) == figure.interval_table(ROWS, 0.01, measure)
        assert figure.run_table(rows) == figure.run_table(ROWS)
        assert evidence.drop(rows, '0', 'ssl', '0', 'mean_of_four', 60, 3000) == pytest.approx(0.5 - 0.3)
        assert len(figure.run_table(rows, 3000)) == len(figure.run_table(ROWS))
    dead = [dict(row, macs='400') if row['method'] == 'dense' else dict(row, macs='500') for row in more]
    whole = [dict(row, macs='1000') for row in ROWS]
    flat = [dict(dead[0]), *(dict(row, macs=str(600 - 200 * i)) for i, row in enumerate(dead[2:4]))]
    assert evidence.drop(whole + flat, '0', 'ssl', '0', evidence.MACS_SAVED, 50, 3000) is not None  # of 1000, not 400


def test_without_the_dense_net_of_the_same_seed_there_is_no_drop():
    rows = series('ssl', 0, [(1, 0.1, 0.9), (2, 0.9, 0.8)], seed=1) + ROWS
    assert evidence.drop(rows, '1', 'ssl', '0', 'mean_of_four', 50) is None


def test_an_interval_is_the_one_by_hand_and_covers_as_often_as_it_says():
    mean, half = evidence.interval([1.0, 2.0, 4.0], 0.95)
    assert mean == pytest.approx(7 / 3) and half == pytest.approx(4.302653 * math.sqrt(7 / 3) / math.sqrt(3), rel=1e-6)
    assert figure.bounds([1.0, 2.0, 4.0]) == '+2.33 [-1.46, +6.13]'
    assert figure.bounds([1.0, 2.0, 4.0], sign='') == '2.33 [-1.46, 6.13]' and figure.bounds([1.0]) == '+1.00'
    assert figure.bounds([-0.001]) == '+0.00'
    random = np.random.default_rng(0)
    for seeds, confidence in ((3, 0.95), (7, 0.975)):
        covered = [abs(mean - 5) <= half for mean, half in (
            evidence.interval(list(values), confidence) for values in random.normal(5, 2, (2000, seeds)))]
        assert np.mean(covered) == pytest.approx(confidence, abs=0.015)


def test_the_sign_flip_counts_all_choices_of_signs():
    assert evidence.sign_flip([1.0, 2.0, 3.0]) == 2 / 8
    assert evidence.sign_flip([1.0, 2.0, -3.0]) == 1  # the sum is 0
    assert evidence.sign_flip([1.0, 2.0, -0.5]) == 4 / 8  # 2.5: 1 + 2 - 0.5, 1 + 2 + 0.5, and their opposites
    assert evidence.sign_flip([0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.1]) == 2 / 128
    assert evidence.sign_flip([0.5]) == 1
    assert evidence.sign_flip([0.1] * 30) == 2 / 2**30  # in no time: not by a list of all choices
    assert evidence.sign_flip([1.0] * 23 + [-1.0]) == 2 * (1 + 24) / 2**24  # one minus, or none
    values = random.Random(0).choices(range(-9, 10), k=11)  # whole numbers, so that many sums are equal
    far = sum(abs(sum(map(operator.mul, values, signs))) >= abs(sum(values))
              for signs in itertools.product((1, -1), repeat=11))
    assert evidence.sign_flip(values) == far / 2**11


def test_a_level_that_a_seed_does_not_reach_gets_no_interval():
    rows = []
    for seed, (dense, ssl, gss, end) in enumerate([(0.99, 0.98, 0.985, 0.75), (0.99, 0.97, 0.98, 0.65)]):
        rows += [made_up(method='dense', seed=seed, test_accuracy=dense),
                 *series('ssl', 0, [(1, 0.4, ssl), (2, 0.75, ssl)], seed),
                 *series('gss', 0.01, [(1, 0.4, gss), (2, end, gss)], seed)]
    head, at_60, at_70, *_ = figure.interval_table(rows, 0.01, 'mean_of_four')
    assert head == ('level', 'SSL', 'GSS', 'GSS - SSL', 'p', 'GSS - SSL, by seed')  # there is no row of SCN
    assert at_60 == ('60%', figure.bounds([1, 2], sign=''), figure.bounds([0.5, 1], sign=''),
                     figure.bounds([-0.5, -1]), '0.500', '-0.50, -1.00')
    assert at_70 == ('70%', figure.bounds([1, 2], sign=''), *['not by all'] * 4)
    assert figure.seed_table([*rows, made_up(method='dense', seed=2)], 0.01, 'mean_of_four') == [
        ('seed', '60%', '70%'), ('0', '-0.50', '-0.50'), ('1', '-1.00', 'not reached'), ('2', *['not reached'] * 2)]
    assert figure.seed_table(rows, 0.01, 'global_sparsity') == [('seed',)]
    for row in rows:  # the mean without conv1; rows of before do not say it
        row.update(zero_conv1='0', zero_conv2='0.3', zero_fc1=row['mean_of_four'], zero_fc2='0.9')
    of_three = figure.interval_table(rows, 0.01, 'mean_of_three')[1]
    assert of_three[1] == figure.bounds([1, 2], sign='')  # (0.3 + 0.4 + 0.9) / 3 to (0.3 + 0.65 + 0.9) / 3
    rows[1]['zero_fc1'] = ''
    assert figure.interval_table(rows, 0.01, 'mean_of_three')[1][1] == 'not by all'
    assert len(figure.interval_table(rows, 0.01, 'global_sparsity')) == 1  # the levels that none reaches are left out


def test_ten_seeds_stay_readable_and_those_of_the_plan_are_told_from_those_before(run_tool, tmp_path, capsys):
    """The primary comparison by hand: seeds 3 to 9, GSS loses 0.1 to 0.7 points more at 80%, and 0.1 fewer at 90%."""
    path = tmp_path / 'it.csv'
    for seed, more in enumerate((-2, -2.1, -1.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)):
        for row in (made_up(method='dense', seed=seed, test_accuracy=0.99),
                    *series('ssl', 0, [(1, 0.8, 0.97), (2, 0.9, 0.96)], seed),
                    *series('gss', 0.01, [(1, 0.8, 0.97 - more / 100), (2, 0.88 if seed == 5 else 0.9, 0.961)], seed)):
            compare.append(path, row)
    shown = {}
    for seeds in ('3,4,5,6,7,8,9', '0,1,2', '0,1,2,3,4,5,6,7,8,9'):
        run_tool(compare, f'--csv={path}', '--figure', f'--seeds={seeds}', '--levels=80,90')
        shown[seeds] = capsys.readouterr().out
        assert all(len(line) <= 125 and len(line.split('  ')) <= 7 for line in shown[seeds].splitlines()
                   if line.startswith('=='))
    ours, before, all_ten = shown.values()
    for table in (  # t is 2.9687 and 2.4469 at 97.5% and 95% with 6 degrees of freedom, the deviation 0.21602
            [('claim', 'paper', 'here', 'verdict'),
             ('GSS - SSL at 80%, points lost', '-0.40', '+0.40 [+0.16, +0.64]', 'the opposite')],
            [('level', 'SSL', 'GSS', 'GSS - SSL', 'p'),
             ('80%', '2.00 [2.00, 2.00]', '2.40 [2.20, 2.60]', '+0.40 [+0.20, +0.60]', f'{2 / 2**7:.3f}'),
             ('90%', '3.00 [3.00, 3.00]', *['not by all'] * 3)],
            [('seed', '80%', '90%'), ('3', '+0.10', '-0.10'), ('4', '+0.20', '-0.10'), ('5', '+0.30', 'not reached'),
             ('6', '+0.40', '-0.10'), ('7', '+0.50', '-0.10'), ('8', '+0.60', '-0.10'), ('9', '+0.70', '-0.10')]):
        assert figure.rst(table) in ours
    assert '-2.00, -2.10, -1.90' in before and 'by seed, points' not in before
    assert [line.split()[0] for line in all_ten.splitlines() if line.endswith(('-0.10', 'not reached'))] == [
        *map(str, range(10))]


def at_90(gss):
    """Rows of seeds of which SSL loses what it does in the paper at 90%, and GSS these points."""
    rows = []
    for seed, lost in enumerate(gss):
        rows += [made_up(method='dense', seed=seed, test_accuracy=0.99),
                 *series('ssl', 0, [(1, 0.4, 0.98), (2, 0.9, 0.99 - evidence.PAPER['ssl'][90] / 100)], seed),
                 *series('gss', 0.01, [(1, 0.4, 0.98), (2, 0.9, 0.99 - lost / 100)], seed)]
    return rows


@pytest.mark.parametrize('gss, verdict, title', [
    ((0.61, 0.62, 0.63), 'reproduced', 'loses less'), ((1.61, 1.6, 1.62), 'not reproduced', 'do not tell'),
    ((0.5, 1.61, 3.0), 'undecided, ± 4.49', 'do not tell'), ((3.0, 3.1, 3.2), 'the opposite', 'loses more'),
    ((1, 1.01, 1.02), 'another size', 'loses less')])
def test_a_verdict_follows_from_the_interval(gss, verdict, title):
    rows = at_90(gss)
    lines = {line[0]: line for line in figure.claim_table(rows, 0.01)}
    differences = [lost - evidence.PAPER['ssl'][90] for lost in gss]
    line = lines['GSS - SSL at 90%, points lost']
    assert line[1:] == ('-0.99', figure.bounds(differences, 0.975), verdict)
    assert lines['points lost at 90%, SSL / GSS'][-1] == 'none'  # it is of the same values
    assert not any(words.startswith('SCN') for words in lines)  # without a row there is no line
    assert title in figure.headline(rows, 0.01)


def test_where_nothing_is_lost_there_is_no_number_of_times():
    assert [line[0] for line in figure.claim_table(at_90((0, 0.5)), 0.01)[1:]] == [
        'GSS - SSL at 80%, points lost', 'GSS - SSL at 90%, points lost']


def test_the_figure_takes_only_rows_of_one_grid(run_tool, tmp_path, capsys):
    others = [dict(row, **change) for change in (
        {'steps': '3000'}, {'widths': '64-128-512-256'}, {'dataset': 'cifar10'}, {'learning_rate': '0.01'},
        {'final_learning_rate': '0.0001'})
              for row in series('ssl', 0, [(0.001, 0.1, 0.1), (0.1, 0.9, 0.1)], 5) + [made_up(method='dense', seed=5)]]
    path = tmp_path / 'comparison.csv'
    for row in [*others, *ROWS]:
        compare.append(path, row)
    run_tool(compare, f'--csv={path}', '--figure', f'--picture={tmp_path}/a.png', f'--alive={tmp_path}/b.png')
    found = [line.split()[3:5] for line in capsys.readouterr().out.splitlines() if line.startswith('SSL ')]
    assert len(found) == 3 and all(seeds == '(1)' for _, seeds in found)
    assert (tmp_path / 'a.png').stat().st_size > 10000 and (tmp_path / 'b.png').stat().st_size > 5000
    for flag in ('--max_steps=77', '--seeds=7'):
        with pytest.raises(SystemExit, match='^error: [^\n]*has no rows[^\n]*$'):
            run_tool(compare, f'--csv={path}', '--figure', flag)


def test_the_figure_is_of_the_seeds_that_are_named(run_tool, path, tmp_path, capsys):
    path = path.rename(tmp_path / 'it.csv')
    for row in ROWS:
        compare.append(path, dict(row, seed='1', test_accuracy='0.5'))
    run_tool(compare, f'--csv={path}', '--figure', '--seeds=0')
    assert figure.rst(figure.run_table(ROWS)) in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ['it.csv']  # no picture that no flag names


def test_each_run_stands_beside_its_baselines_paired_by_seed(run_tool, tmp_path, capsys):
    left = dict(zip((f'alive_{layer}' for layer in main.REGULARISED), '2345', strict=True))
    rows, path = [], tmp_path / 'it.csv'
    for seed, dense, ssl, fresh, magnitude in ((3, 0.995, 0.985, 0.98, 0.975), (4, 0.994, 0.982, 0.979, 0.976)):
        of_dense = {'method': 'dense', 'seed': seed}
        again = {'retrain_steps': 3000}
        rows += [made_up(**of_dense, test_accuracy=0.99, macs=1000),
                 made_up(**of_dense, **again, test_accuracy=dense, macs=900),
                 made_up(**of_dense, **again, groups='2-3-4-5', test_accuracy=magnitude),
                 made_up(**of_dense, widths='2-3-4-5', steps=13000, test_accuracy=fresh),
                 made_up(**of_dense, widths='2-3-4-5', steps=10000, test_accuracy=0.1)]  # too short
        for kind, variance, lasso in (('ssl', 0, 0.002), ('gss', 0.01, 0.002), ('gss', 1, 0.002), ('ssl', 0, 0.008)):
            run = {'method': kind, 'group_variance': variance, 'group_lasso': lasso, 'seed': seed, **left}
            if lasso == 0.008 or (kind, seed) == ('gss', 4):
                run['alive_fc2'] = 9  # none beside it
            rows += [made_up(**run, test_accuracy=0.97, macs=300),
                     made_up(**run, **again, test_accuracy=ssl + 0.001 * (kind == 'gss'), macs=250)]
    for row in rows:
        compare.append(path, row)
    run_tool(compare, f'--csv={path}', '--figure', '--seeds=3,4', '--levels=')
    table = [  # lost: 1.0 and 1.2; 1.5 and 1.5; 2.0 and 1.8; t is 12.7062 with one degree of freedom
        ('run, lambda_g (seeds)', 'MACs saved', 'run', 'fresh', 'run - fresh', 'magnitude', 'run - magnitude'),
        ('SSL, 0.002 (2)', '75.0%', '1.10', '1.50', '-0.40 [-1.67, +0.87]', '1.90', '-0.80 [-3.34, +1.74]'),
        ('GSS, 0.002 (1)', '75.0%', '0.90', '1.50', '-0.60', '2.00', '-1.10')]
    assert figure.rst(table) in capsys.readouterr().out
    figure.show([row for row in rows if row['widths'] != '2-3-4-5'], [0.01], [], rows[:1])
    assert 'run - fresh' not in capsys.readouterr().out


@pytest.mark.parametrize('flag', ['picture', 'alive'])
def test_somebody_elses_picture_is_kept(run_tool, path, tmp_path, flag):
    pictures.pyplot().figure().savefig(tmp_path / 'it.png')
    before = (tmp_path / 'it.png').read_bytes()
    with pytest.raises(SystemExit, match='^error: .*it.png is there, and no picture of this program'):
        run_tool(compare, f'--csv={path}', '--figure', f'--{flag}={tmp_path}/it.png')
    assert (tmp_path / 'it.png').read_bytes() == before and len([*tmp_path.iterdir()]) == 2


def test_without_levels_there_is_the_table_of_runs_alone(run_tool, path, tmp_path, capsys):
    run_tool(compare, f'--csv={path}', '--figure', '--levels=')
    assert capsys.readouterr().out == f'All runs, means over the seeds\n\n{figure.rst(figure.run_table(ROWS))}\n'
    assert [path.name for path in tmp_path.iterdir()] == ['comparison.csv']


def test_every_run_is_a_point_and_every_kind_of_row_a_curve():
    rows, alive = [], {f'alive_{layer}': '3' for layer in main.REGULARISED}
    for seed in (0, 1):
        rows += [dict(made_up(method='dense', seed=seed, test_accuracy=0.99), macs='1000'),
                 *(dict(row, **alive, macs=macs) for row, macs in zip(series(
                     'ssl', 0, [(1, 0.4, 0.98), (2, 0.8, 0.96 - seed / 100)], seed), ('700', '200'), strict=True))]
    again = [dict(row, retrain_steps='3000', test_accuracy=str(float(row['test_accuracy']) + 0.01 * (
        row['method'] != 'dense'))) for row in rows]
    pruned = [dict(again[0], groups='3-3-3-3', macs='250', mean_of_four='0.75', test_accuracy='0.97')]
    small = dict(rows[0], widths='3-3-3-3', steps='13000', macs='100', test_accuracy='0.95')
    others = [dict(small, **change) for change in (
        {'seed': '7'}, {'widths': '3-3-3-4'}, {'learning_rate': '0.5'}, {'dataset': 'cifar10'})]
    rows += again + pruned
    whole = dict(rows[1], **dict(zip(alive, rows[0]['widths'].split('-'), strict=True)))
    assert figure.fresh([rows[0], whole], rows) == []  # not the dense net itself, where nothing is retrained
    assert figure.fresh(rows, [*rows, small, *others]) == [small]
    found = figure.curves(rows, 0.01, evidence.MACS_SAVED, [75], [small])
    assert set(found) == {('ssl', 'plain'), ('ssl', 'retrained'), ('magnitude', 'plain'), ('fresh', 'plain')}
    assert found['ssl', 'plain']['runs'] == [pytest.approx(point) for point in ((30, 1), (30, 1), (80, 3), (80, 4))]
    assert found['ssl', 'retrained']['runs'] == [pytest.approx(point) for point in ((30, 0), (30, 0), (80, 2), (80, 3))]
    level, mean, half = next(point for point in found['ssl', 'plain']['means'] if point[0] == 75)
    assert (level, mean, half) == pytest.approx((75, *evidence.interval([2.8, 3.7])))
    assert found['magnitude', 'plain']['runs'] == [pytest.approx((75, 2))]
    assert found['fresh', 'plain']['runs'] == [pytest.approx((90, 4))]
    assert figure.points(rows[:1], evidence.MACS_SAVED, pruned, 3000) == []  # of a dense net that is not retrained
    fewer = [row for row in rows if row['seed'] == '0' or row['retrain_steps'] == '0']
    means = {kind: of['means'] for kind, of in figure.curves(fewer, 0.01, evidence.MACS_SAVED, [75]).items()}
    assert means['ssl', 'plain'] and not means['ssl', 'retrained']  # a mean is one of all seeds
    by_layers = figure.curves(rows, 0.01, 'mean_of_four', [75])
    assert ('fresh', 'plain') not in by_layers and by_layers['gss', 'paper']['means'][-1] == (90, 0.62, None)


def test_points_curves_and_intervals_stand_at_their_values(tmp_path, monkeypatch):
    plt, kept = pictures.pyplot(), []
    monkeypatch.setattr(plt, 'close', kept.append)
    pictures.draw_comparison('what came out', {'a': {
        ('ssl', 'plain'): {'runs': [(55, 1.0), (56, 1.5)], 'means': [(50, 2.0, 0.5), (90, 3.0, None)]},
        ('gss', 'paper'): {'runs': [], 'means': [(80, 0.51, None)]}}}, tmp_path / 'it.png')
    panel, = kept[0].axes
    assert kept[0].get_suptitle() == 'what came out'
    drawn = [[list(map(float, axis)) for axis in line.get_data()] for line in panel.lines]
    assert [[55, 56], [1, 1.5]] in drawn and [[50, 90], [2, 3]] in drawn and [[80], [0.51]] in drawn
    bars, = panel.containers
    assert [segment[:, 1].tolist() for segment in bars[2][0].get_segments()] == [[1.5, 2.5], [3, 3]]
    assert [text.get_text() for text in kept[0].legends[0].texts] == ['SSL', 'GSS in the paper']


def test_the_groups_alive_are_of_the_layer_that_differs_most(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, 'draw_alive', lambda *arguments: drawn.append(arguments))
    rows = []
    for kind, variance, conv2 in (('ssl', 0, 3), ('gss', 0.01, 7)):
        for row in series(kind, variance, [(0.001, 0.1, 0.9), (0.01, 0.2, 0.9)]):
            rows.append(dict(row, **{f'alive_{layer}': '10' for layer in main.REGULARISED}))
        rows[-1]['alive_conv2'] = str(conv2)
    figure.draw_alive(rows, 0.01, tmp_path / 'it.png')
    (title, methods, _), = drawn
    assert title == 'conv2: at lambda_g = 0.01 SSL keeps 3.0 groups in the mean, GSS 7.0'
    assert methods == {'ssl': {0.001: [10], 0.01: [3]}, 'gss': {0.001: [10], 0.01: [7]}}
    figure.draw_alive(rows[:2], 0.01, tmp_path / 'it.png')  # without GSS there is nothing to compare
    assert drawn[1][0] == 'Groups alive in conv1'


# ---------------------------------------------------------------------------------- thresholds, the choice of lambda_v

@pytest.mark.parametrize('level', [0.01, 40, 50, 62.5, 90, 99.9])
def test_a_threshold_is_the_least_at_which_the_mean_of_the_layers_is_at_the_level(level):
    """By trying every magnitude, in whole numbers: with ties, zeros, sizes that floats do not divide."""
    random = np.random.default_rng(0)
    weights = [random.normal(0, scale, size).round(digits).astype(np.float32) for scale, size, digits in (
        (0.1, (5, 2), 2), (1e-5, (7, 9), 8), (0.3, 30, 1), (1, (2, 2, 5), 9))]
    shares = [(float(threshold), sum(int((abs(w) <= threshold).sum()) * (1260 // w.size) for w in weights))
              for threshold in np.unique(np.concatenate([abs(w).ravel() for w in weights]))]
    least = next(threshold for threshold, share in shares if share * 100 >= level * 4 * 1260)
    found = thresholds.threshold_at(weights, level)
    assert least <= found <= least * (1 + 1e-5) and found == float(f'{found:.6g}')
    assert sum((abs(w) <= np.float32(found)).mean() for w in weights) / 4 >= level / 100 - 1e-12


def test_rows_at_moved_thresholds_are_those_of_mains_own_flag(run, run_main, in_turn, tmp_path, capsys):
    """Of GSS's run, which alone is kept: SSL's has no checkpoint, the dense net's is not finished."""
    shutil.copytree(in_turn / 'runs', tmp_path / 'runs')
    dense, ssl, gss, _ = jobs(tmp_path)
    (dense.folder / 'results.json').unlink()
    shutil.rmtree(ssl.folder / 'checkpoints')
    before = {path: path.read_bytes() for path in gss.folder.rglob('*') if path.is_file()}
    assert run(tmp_path, '--thresholds', '--levels=60,90').count(f'{gss.name}, threshold ') == 3
    assert before == {path: path.read_bytes() for path in gss.folder.rglob('*') if path.is_file()}
    own, at_60, at_90 = compare.read(tmp_path / 'it.csv')
    assert own == compare.read(in_turn / 'it.csv')[2]
    assert all(0 <= float(row['mean_of_four']) - level < 0.01 for row, level in ((at_60, 0.6), (at_90, 0.9)))
    run_main(*gss.command[2:], f'--sparsity_threshold={at_60["sparsity_threshold"]}')
    mains = row_of(json.loads((gss.folder / 'results.json').read_text()))
    assert {**mains, 'seconds': at_60['seconds']} == at_60  # that call has trained nothing
    with pytest.raises(SystemExit, match='^error: --runs_dir=.*has no finished run of this grid'):
        run(tmp_path, '--thresholds', '--seeds=4')
    assert 'dense-seed-4 is not finished, or its last checkpoint is gone' in capsys.readouterr().err


def test_rows_at_moved_thresholds_have_a_csv_of_their_own(run_tool, tmp_path, monkeypatch):
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, 'move_thresholds', lambda jobs, levels, data_dir, path: asked.append(path.name) or 1)
    run_tool(compare, '--thresholds')
    run_tool(compare, '--thresholds', '--csv=it.csv')
    assert asked == ['thresholds.csv', 'it.csv']


def test_what_moved_thresholds_cost_has_a_table_and_moves_no_other(run_tool, tmp_path, capsys):
    path, rows, moved = tmp_path / 'it.csv', [], []
    for seed, lost in ((3, 0.001), (4, 0.003)):
        rows += [made_up(method='dense', seed=seed, test_accuracy=0.99), *series('ssl', 0, [(0.001, 0.5, 0.98)], seed)]
        moved += [dict(row, sparsity_threshold=threshold) for threshold, row in (
            ('0.1', made_up(method='dense', seed=seed, mean_of_four=0.6, test_accuracy=0.99 - 2 * lost)),
            *zip(('0.01', '0.02', '0.03', '0.04'), series('ssl', 0, [
                (0.001, 0.6 if seed == 3 else 0.62, 0.1), (0.001, 0.7003, 0.99 - lost), (0.001, 0.704, 0.1),
                (0.001, 0.8, 0.99 - 10 * lost)], seed), strict=True),
            ('0.05', series('gss', 0.01, [(0.001, 0.7, 0.99 + lost)], seed)[0]),
            ('0.05', series('gss', 1, [(0.001, 0.8, 0.1)], seed)[0]))]
    for row in rows + moved:
        compare.append(path, row)
    run_tool(compare, f'--csv={path}', '--figure', '--seeds=3,4', '--levels=60,70,80')
    table = [('run (seeds)', '60%', '70%', '80%'),
             ('dense (2)', figure.bounds([0.2, 0.6], sign=''), *['not by all'] * 2),
             ('SSL 0.001 (2)', 'not by all', figure.bounds([0.1, 0.3], sign=''), figure.bounds([1, 3], sign='')),
             ('GSS 0.001 (2)', 'not by all', figure.bounds([-0.1, -0.3], sign=''), 'not by all')]
    shown = capsys.readouterr().out
    assert figure.rst(table) in shown and figure.rst(figure.run_table(rows)) in shown
    assert len(figure.threshold_table(rows, 0.01, [50])) == 1  # a run at the default threshold is none
    assert len(figure.threshold_table(moved, 0.01, [70])) == 1  # nor without the dense net of its seed


def at_variances(lost):
    """Rows of GSS that save 70 and 95%, by lambda_v and seed: points lost at both, on validation, then on test."""
    rows = []
    for seed in (0, 1):
        rows.append(made_up(method='dense', seed=seed, macs=1000, test_accuracy=0.99, validation_accuracy=0.98))
        for variance, (validation, test) in lost.items():
            rows += [made_up(method='gss', group_variance=f'{variance:g}', seed=seed, group_lasso=lasso, macs=macs,
                             validation_accuracy=0.98 - (validation[place] + seed) / 100,
                             test_accuracy=0.99 - (test[place] + seed) / 100)
                     for place, (lasso, macs) in enumerate(((0.002, 300), (0.015, 50)))]
    return rows


def test_lambda_v_is_chosen_by_validation_over_the_seeds_that_all_have(run_tool, tmp_path, capsys):
    rows = at_variances({0.01: ((1, 3.5), (0, 0)), 1e-4: ((2, 2), (5, 5)), 1e-5: ((0, 7.5), (1, 1))})
    rows += [dict(row, seed='2', validation_accuracy='0.5') for row in rows if row['group_variance'] in ('0', '0.01')]
    again = [dict(row, retrain_steps='3000', validation_accuracy='0.98') for row in rows]
    for row in rows + again:
        compare.append(tmp_path / 'it.csv', row)
    shown = {}
    for variances in ('0.01,0.0001,0.00001,1', '0.01', '0.01,1'):
        run_tool(compare, f'--csv={tmp_path}/it.csv', '--figure', '--levels=', f'--group_variances={variances}')
        shown[variances] = capsys.readouterr().out
    several, *others = shown.values()
    # 80 and 90% lie at 0.4 and 0.8 of the way from 70 to 95%; seed 1 loses a point more.
    table = [('lambda_v (seeds)', 'validation, 80%', 'validation, 90%', 'mean', 'chosen', 'test, 80%', 'test, 90%')]
    for variance, chosen, at, test in (
            ('1e-05', 'no', (3, 6), (1, 1)), ('0.0001', 'yes', (2, 2), (5, 5)), ('0.01', 'no', (2, 3), (0, 0))):
        table.append((f'{variance} (2)', *(figure.bounds([of, of + 1], sign='') for of in (*at, sum(at) / 2)), chosen,
                      *(figure.bounds([of, of + 1], sign='') for of in test)))
    assert figure.rst(table) in several
    assert not any('chosen' in text for text in others)
    short = [row for row in rows if (row['group_variance'], row['seed'], row['macs']) != ('0.0001', '1', '50')]
    found = {line[0]: line for line in figure.variance_table(short, [0.01, 1e-4, 1e-5])}
    assert found['0.0001 (2)'][1:] == (*['not by all'] * 3, 'no', *['not by all'] * 2)
    assert found['0.01 (2)'][4] == 'yes'
