"""The programs in the process of the tests, a tiny run, and what a refusal has to be."""

import itertools

import keras
import pytest
from absl import app
from absl.testing import flagsaver

import main
import program

SMALL = ('--fake_data', '--widths=3,4,6,5', '--max_steps=4', '--eval_interval=2')

main.define_flags()
app.define_help_flags()
OF_MAIN = [*program._defined]  # which a tool in a process of its own does not have


def refused(words, call, *arguments):
    """Calls it, and asks for an error of one line in which the words are found; returns that line."""
    with pytest.raises(SystemExit, match=words) as stop:
        call(*arguments)
    assert stop.value.code.startswith('error: ') and '\n' not in stop.value.code
    return stop.value.code


def entry(tool):
    """The name of the function that a tool's command line calls."""
    return next(name for name in (f'{tool.__name__}_main', tool.__name__, 'main') if hasattr(tool, name))


@pytest.fixture(autouse=True)
def seeded():
    """main() makes the process deterministic, after which Keras's initializers ask for a seed."""
    main.tf.random.set_seed(0)


@pytest.fixture(scope='session')
def run_main():
    """Runs main.py's command line in this process: run_main('--flag=value', ...); SystemExit is what a user gets."""
    def run(*arguments):
        with flagsaver.flagsaver(), program.one_line_errors():
            program.parse_flags(main.__doc__, main.FLAG_GROUPS, ['main.py', *map(str, arguments)])
            main.main()
    return run


@pytest.fixture(scope='session')
def finished(run_main, tmp_path_factory):
    """The folder of the run of SMALL, to be read or copied."""
    folder = tmp_path_factory.mktemp('finished')
    run_main(*SMALL, f'--log_dir={folder}')
    return folder


@pytest.fixture(scope='session')
def run_tool():
    """The same for a tool, which has flags of its own: run_tool(compare, '--flag=value', ...)."""
    def run(tool, *arguments):
        flags, before = main.FLAGS, {name: main.FLAGS[name] for name in main.FLAGS if name not in OF_MAIN}
        for name in OF_MAIN:
            delattr(flags, name)
        try:
            tool.define_flags()
            with program.one_line_errors():
                program.parse_flags(tool.__doc__, [], [f'{tool.__name__}.py', *map(str, arguments)])
                getattr(tool, entry(tool))()
        finally:
            for name in {*flags}:
                if flags[name] is not before.get(name):
                    delattr(flags, name)
            main.define_flags()
    return run


@pytest.fixture
def train(tmp_path):
    """main.train in a new folder each time: train(data, **settings) -> (final figures, the net)."""
    numbers = itertools.count()
    return lambda data, **settings: main.train(data, main.Settings(**settings), tmp_path / str(next(numbers)))


@pytest.fixture
def no_draws(monkeypatch):
    """Layers start as zeros, for the test draws what they hold: a third of the time of a test."""
    monkeypatch.setattr(keras.initializers.VarianceScaling, '__call__', keras.initializers.Zeros.__call__)
