"""What surrounds a program: what it imports, the environment, closed files, signals during the imports, notebooks."""

import json
import os
import pathlib
import pwd
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import compress
import files
import input_data
import main
import program
import surroundings
from conftest import OUTSIDE, ROOT
from in_process import SMALL, refused

SCRIPT = pathlib.Path(main.__file__)


def python(*arguments, **options):
    return subprocess.run([sys.executable, *map(str, arguments)], text=True, timeout=300, **{
        'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'env': OUTSIDE, **options})


# ---------------------------------------------------------------------------------------------------------- imports

SILENT = """
import json, os, signal, sys
import keras, numpy, tensorflow
from absl import app, flags, logging

def state():
    return {'environment': dict(os.environ), 'flags': sorted(flags.FLAGS), 'modules': sorted(sys.modules),
            'signals': [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
            'files': {number: os.readlink(f'/proc/self/fd/{number}') for number in (0, 1, 2)},
            'streams': list(map(id, (sys.stdin, sys.stdout, sys.stderr, sys.excepthook)))}

events = []
sys.addaudithook(lambda name, _: name.split('.')[0] in ('subprocess', 'socket') and events.append(name)
                 or name in ('os.fork', 'os.forkpty', 'os.posix_spawn', 'os.exec', 'os.system', 'os.putenv')
                 and events.append(name))
sys.path.insert(0, sys.argv[1])
states = [state()]
import keras_pruning
states.append(state())
import main
states.append(state())
print(json.dumps([states, events]))
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/fd'), reason='reads what is open from /proc')
@pytest.mark.slow
def test_importing_is_silent():
    done = python('-c', SILENT, ROOT / 'python')
    assert done.returncode == 0, done.stderr
    (before, regularizer, after), events = json.loads(done.stdout)  # and nothing else was printed
    assert not events
    new = [set(state.pop('modules')) for state in (before, regularizer, after)]
    assert before == regularizer == after
    ours = {'main', 'program', 'surroundings', 'files', 'download', 'checkpoints', 'evaluations', 'input_data', 'loops',
            'report', 'timing'}
    assert new[1] - new[0] == {'keras_pruning'}
    assert {name.split('.')[0] for name in new[2] - new[1]} - set(sys.stdlib_module_names) == ours
    foreign = {'tensorboard', 'tqdm', 'mlxtend', 'requests', 'matplotlib'}
    assert not {name.split('.')[0] for name in new[2] - new[0]} & foreign


# One start for several programs: each runs in a fork of the process that has imported TensorFlow.
PROGRAMS = """
import os, signal, sys, time
import surroundings; surroundings.prepare()
import program, tensorflow
print(sorted({'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)))

class Deleted:
    def __del__(self):
        signal.raise_signal(number)
        time.sleep(0)

def main():
    Deleted()
    time.sleep(60)

def run(main, *arguments, stdout=1):
    sys.stdout.flush()
    started = time.monotonic()
    if not (child := os.fork()):
        sys.argv[:] = ['it', *arguments]
        os.dup2(stdout, 1)
        program.run(main, 'help', [])
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), time.monotonic() - started < 50)

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    run(main)
reader, writer = os.pipe()
os.close(reader)
run(lambda: [print(i) for i in range(9)], stdout=writer)
run(main, '--help', stdout=writer)
run(main, '--log_dir=x')
os.mkdir('gone')
os.chdir('gone')
os.rmdir('../gone')
run(lambda: print('not reached'))
"""


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
    """What they have printed, line by line, on stdout and on stderr."""
    done = python('-W', 'ignore::DeprecationWarning', '-c', PROGRAMS, cwd=tmp_path_factory.mktemp('programs'),
                  env={**OUTSIDE, 'PYTHONPATH': str(ROOT / 'python')})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_the_start_leaves_out_what_keras_imports_for_wrappers(programs):
    assert programs[0][0] == '[]'  # nor None: each may be imported later


# -------------------------------------------------------------------------------------------------------- environment

@pytest.mark.skipif(not os.path.exists('/proc/self/environ'), reason='reads what a process was started with from /proc')
def test_the_environment_of_a_user_is_none_of_pytests_nor_of_ours():
    started = pathlib.Path('/proc', str(os.getppid()) if 'PYTEST_XDIST_WORKER' in os.environ else 'self')
    theirs = (entry.split('=', 1) for entry in os.fsdecode((started / 'environ').read_bytes()).split('\0') if entry)
    assert OUTSIDE == {name: value for name, value in theirs if not name.startswith('PYTEST_')}
    assert started.name == 'self' or 'tensorflow' not in (started / 'maps').read_text()


KERAS_JSON = '{"floatx": "float16", "epsilon": 0.1, "backend": "torch", "image_data_format": "channels_first"}'


def weights(folder):
    reader = tf.train.load_checkpoint(str(folder / 'checkpoints' / 'step-4'))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if name.startswith('net')}


@pytest.fixture(scope='module')
def plain(finished):
    """The weights of a run in an environment without surprises."""
    return weights(finished)


@pytest.fixture(scope='module')
def surprised(tmp_path_factory):
    """The folder of the same run, without a standard file, in an environment that Keras and matplotlib read."""
    home = tmp_path_factory.mktemp('home')
    (home / '.keras').mkdir()
    (home / '.keras' / 'keras.json').write_text(KERAS_JSON)
    environment = {**OUTSIDE, 'HOME': str(home), 'KERAS_BACKEND': 'nonsense', 'TF_USE_LEGACY_KERAS': '1',
                   'KERAS_MAX_EPOCHS': 'many', 'KERAS_HOME': str(home / '.keras'),
                   'MPLBACKEND': 'module://no_such_package.backend'}
    done = python(SCRIPT, *SMALL, f'--log_dir={home / "run"}', env=environment, preexec_fn=lambda: close(0, 1, 2))
    assert done.returncode == 0
    return home / 'run'


def close(*numbers):
    for number in numbers:
        os.close(number)


@pytest.mark.slow
def test_what_keras_and_matplotlib_read_changes_no_run(plain, surprised):
    found = weights(surprised)
    assert found.keys() == plain.keys() and len(found) >= 11
    for name, value in found.items():
        np.testing.assert_array_equal(value, plain[name], err_msg=name)
    assert (surprised.parent / '.keras' / 'keras.json').read_text() == KERAS_JSON
    assert os.listdir(surprised.parent / '.keras') == ['keras.json']


@pytest.mark.slow
def test_all_three_standard_files_may_be_closed_and_nothing_is_left_in_the_home(surprised):
    facts = json.loads((surprised / 'results.json').read_text())
    assert facts['results']['step'] == 4 and sorted(os.listdir(surprised.parent)) == ['.keras', 'run']
    begun, = facts['starts']
    assert begun['oneDNN'] == OUTSIDE.get('TF_ENABLE_ONEDNN_OPTS', '1')
    assert begun['cores'] == len(os.sched_getaffinity(0))


@pytest.mark.parametrize('closed', [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)], ids=str)
def test_any_standard_file_may_be_closed(tmp_path, closed):
    """The next file that is opened does not take its place, and what is written to it goes nowhere."""
    code = ('import os, surroundings, sys\nsurroundings._open_standard_files()\n'
            'print("out")\nprint("err", file=sys.stderr)\n'
            'assert sys.stdin.read() == "" and os.open("it", os.O_CREAT) > 2')
    done = python('-c', code, cwd=tmp_path, stdin=subprocess.DEVNULL, preexec_fn=lambda: close(*closed),
                  env={**OUTSIDE, 'PYTHONPATH': str(ROOT / 'python')})
    assert (done.returncode, done.stdout, done.stderr) == (
        0, '' if 1 in closed else 'out\n', '' if 2 in closed else 'err\n')


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='the system binds no process to a core')
def test_the_surroundings_count_the_cores_that_this_process_may_use(monkeypatch):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert surroundings.versions()['cores'] == 1
    finally:
        os.sched_setaffinity(0, before)
    for choice in ('0', '1'):
        monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', choice)
        assert surroundings.versions()['oneDNN'] == choice


@pytest.mark.parametrize('floatx, legacy', [
    ('float16', '0'), ('float64', '0'), ('bfloat16', '0'), ('float32', '1'), ('float32', 'true'), ('float32', 'True')])
def test_another_floatx_and_legacy_keras_are_refused_by_name_where_nobody_has_prepared(
        tmp_path, monkeypatch, floatx, legacy):
    monkeypatch.setenv('TF_USE_LEGACY_KERAS', legacy)
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    said = 'TF_USE_LEGACY_KERAS is 1, and a run needs 0' if floatx == 'float32' else (
        f"Keras's floatx is {floatx}, and a run needs float32")
    try:
        with pytest.raises(program.RunError, match=f'^{said}[^\\n]*$'):
            main.train(input_data.read_data_sets(fake_data=True), main.Settings(), tmp_path / 'run')
    finally:
        keras.config.set_floatx(before)
    assert not (tmp_path / 'run').exists()


def test_another_backend_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.config, 'backend', lambda: 'torch')
    with pytest.raises(program.RunError, match="^Keras's backend is torch, and a run needs tensorflow"):
        main.train(input_data.read_data_sets(fake_data=True), main.Settings(), tmp_path / 'run')


def test_what_changes_bits_is_noted(monkeypatch):
    names = ('TF_NUM_INTRAOP_THREADS', 'ONEDNN_MAX_CPU_ISA', 'TF_XLA_FLAGS', 'XLA_FLAGS')
    plain = {name: value for name, value in os.environ.items() if name not in names}
    monkeypatch.setattr(os, 'environ', plain)  # a dict: what TensorFlow itself reads stays as it is
    before = surroundings.conditions()
    monkeypatch.setattr(os, 'environ', {**plain, **dict.fromkeys(names, 'x')})
    assert surroundings.conditions() == {**before, **dict.fromkeys(names, 'x')} and not {*names} & {*before}


def test_without_a_home_the_flag_is_named(run_main, monkeypatch):
    def getpwuid(_):
        raise KeyError('no such user')

    monkeypatch.delenv('HOME')
    monkeypatch.setattr(pwd, 'getpwuid', getpwuid)
    for arguments, flag in ((['--max_steps=0'], 'data_dir'), (['--fake_data', '--log_dir=~/run'], 'log_dir')):
        with pytest.raises(SystemExit, match=f'^error: --{flag}=~/.*no such home folder. Give a --{flag} without ~'):
            run_main(*arguments)


# ------------------------------------------------------------------------------------------------------- broken pipes

def test_a_reader_that_has_gone_costs_no_traceback(programs):
    assert programs[0][4:6] == ['1 True'] * 2 and len(programs[1]) == 2  # of the flag, of the working directory


def test_the_log_dir_of_absls_logging_is_no_flag_of_a_program(programs):
    assert programs[0][6] == '1 True' and programs[1][0].startswith("error: Unknown command line flag 'log_dir'")


def test_a_flag_of_main_alone_is_none_of_a_tool(run_tool):
    refused("Unknown command line flag 'max_steps'", run_tool, compress, '--log_dir=x', '--max_steps=3')


# ------------------------------------------------------------------------------------------------ places and files

def test_a_path_that_is_not_in_utf_8_is_refused():
    with pytest.raises(program.RunError, match=r"^--log_dir='a\\udcff' is not in UTF-8"):
        files.local_folder('a\udcff', 'log_dir')


def test_links_that_go_round_in_circles_are_no_traceback(tmp_path):
    (tmp_path / 'one').symlink_to('two')
    (tmp_path / 'two').symlink_to('one')
    assert files.resolved(tmp_path / 'one' / 'x', 'log_dir') == tmp_path / 'one' / 'x'
    assert files.file_of(tmp_path / 'one.csv', 'csv', '.csv') == tmp_path / 'one.csv'


@pytest.mark.parametrize('name', ['it.png', 'it', 'folder.csv', 'device.csv'])
def test_what_cannot_be_a_csv_file_is_refused(tmp_path, name):
    (tmp_path / 'folder.csv').mkdir()
    (tmp_path / 'device.csv').symlink_to('/dev/full')
    with pytest.raises(program.RunError, match=f'^--csv=.*{name} must be the name of a .csv file.$'):
        files.file_of(tmp_path / name, 'csv', '.csv')


def test_a_path_with_a_nul_is_refused():
    with pytest.raises(program.RunError, match='^--data_dir=.*holds a NUL'):
        files.local_folder('a\0b', 'data_dir')


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'it.csv'
    files.replace(path, 'old\n')
    code = ('import files, pathlib, resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n'
            'resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n'
            f'files.replace(pathlib.Path({str(path)!r}), 200 * "new\\n")')
    done = python('-c', code, cwd=ROOT / 'python')
    assert f"File too large: '{path}'" in done.stderr
    assert path.read_text() == 'old\n' and [path.name for path in tmp_path.iterdir()] == ['it.csv']


@pytest.mark.parametrize('error, said', [
    (OSError(28, 'No space left on device', 'x'), "No space left on device: 'x'. Make room on that disk."),
    (OSError(2, 'No such file or directory', 'x'), "No such file or directory: 'x'"),
    (tf.errors.PermissionDeniedError(None, None, '{{function_node __wrapped__X}} x; denied\nand so on'),
     'error: x; denied. Give a folder that you may write to.')])
def test_what_the_disk_refuses_costs_one_line(error, said):
    with pytest.raises(SystemExit) as stop, program.one_line_errors():
        raise error
    assert stop.value.code.startswith('error: ') and stop.value.code.endswith(said)


def test_a_flagfile_that_is_no_text_costs_one_line(run_main, tmp_path):
    (tmp_path / 'flags').write_bytes(b'\xff\xfe')
    with pytest.raises(SystemExit, match='^error: .*utf-8'):
        run_main(f'--flagfile={tmp_path}/flags')


def test_a_working_directory_that_is_gone_is_named(programs):
    assert programs[0][7:] == ['1 True']
    assert programs[1][1:] == ['error: the working directory is gone. Go to one that is there.']


# ------------------------------------------------------------------------------------------------------------ signals

def test_ctrl_c_during_the_imports_costs_no_traceback(tmp_path):
    """It reaches all processes of the terminal: here a TensorFlow that sends it itself stands in for the real one."""
    (tmp_path / 'tensorflow.py').write_text(
        'import os, signal, time\ntime.sleep(1)\nos.killpg(0, signal.SIGINT)\nraise ImportError("went on")')

    def start(script, **options):
        return subprocess.Popen([sys.executable, ROOT / 'python' / f'{script}.py', '--help'], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env={**OUTSIDE, 'PYTHONPATH': str(tmp_path)},
                                start_new_session=True, **options)

    scripts = ('main', 'benchmark', 'compare', 'compress', 'pictures')
    background = start('main', preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))  # by a shell
    for script, process in zip(scripts, list(map(start, scripts)), strict=True):
        assert process.communicate(timeout=300) == ('', '') and process.returncode == -signal.SIGINT, script
    assert background.communicate(timeout=300)[1].endswith('ImportError: went on\n') and background.returncode == 1


def test_ctrl_c_outside_of_a_run_ends_with_its_status(monkeypatch):
    """While data are read, say; then what is open is closed first."""
    closed = []
    with pytest.raises(SystemExit) as stop, program.one_line_errors():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        finally:
            closed.append(True)
    assert stop.value.code == 128 + signal.SIGINT and closed


def test_a_signal_that_comes_while_an_object_is_deleted_is_not_lost(programs):
    """An exception in a __del__ goes no further; TensorFlow's converter deletes thousands of objects."""
    assert programs[0][1:4] == [f'{128 + number} True' for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert len(programs[1]) == 2  # as above


# ----------------------------------------------------------------------------------------------------------- notebooks

# As IPython's %run does it: in this process, each time in a new __main__, and on a stdout that is no file.
NOTEBOOK = """
import os, runpy, signal, sys, types
sys.modules['IPython'] = types.ModuleType('IPython')
vars(sys.modules['IPython']).update(get_ipython=lambda: None, version_info=(9, 0))  # matplotlib asks

class Screen:
    def __init__(self, stream):
        self.write, self.flush, self.isatty = stream.write, stream.flush, lambda: False

def run(name, *arguments):
    sys.argv = [name, *arguments]
    try:
        runpy.run_path(os.path.join(folder, name), run_name='__main__')
    except SystemExit as stop:
        if stop.code:
            raise

folder, out = sys.argv[1:3]
small = sys.argv[3:]
sys.path.insert(0, folder)
os.environ['MPLBACKEND'] = 'agg'
before = signal.getsignal(signal.SIGINT)
sys.stdout = Screen(sys.stdout)
run('main.py', *small, f'--log_dir={out}/1', '--seed=1')
run('pictures.py', f'--log_dir={out}/1', f'--curve={out}/it.csv', f'--picture={out}/it.png')
run('main.py', *small, f'--log_dir={out}/2')  # needs no --curve, and has the seed of the default
assert signal.getsignal(signal.SIGINT) is before
"""


@pytest.mark.slow
def test_a_notebook_runs_the_programs_one_after_the_other(plain, tmp_path):
    done = python('-c', NOTEBOOK, ROOT / 'python', tmp_path, *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('\nfigures: ') == 2 and (tmp_path / 'it.png').exists()
    for number, same in ((1, False), (2, True)):
        found = weights(tmp_path / str(number))
        assert all((found[name] == plain[name]).all() for name in plain) == same
