"""Fixtures shared by the tests; they import what ships, in python/."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'python'))

import main  # after the path is set
from absl import app
from absl.testing import flagsaver

main.define_flags()
app.define_help_flags()


@pytest.fixture(autouse=True)
def seeded():
    """main() makes the process deterministic, after which Keras's initializers ask for a seed."""
    main.tf.random.set_seed(0)


@pytest.fixture(scope='session')
def run_main():
    """Runs main.py's command line in this process: run_main('--flag=value', ...) -> status."""
    def run(*arguments):
        with flagsaver.flagsaver():
            return main.main(main.report.parse_flags(main.__doc__, main.FLAG_GROUPS, ['main.py', *map(str, arguments)]))
    return run


@pytest.fixture
def train(tmp_path, monkeypatch):
    """main.train in a new folder each time: train(data, **settings) -> (final figures, the net)."""
    nets = []

    class Report(main.report.Report):
        def __init__(self, folder, facts, data, lenet, graphs, step):
            nets.append(lenet)
            super().__init__(folder, facts, data, lenet, graphs, step)

    monkeypatch.setattr(main.report, 'Report', Report)
    return lambda data, **settings: (main.train(data, tmp_path / str(len(nets)), **settings), nets[-1])
