"""How the tests are run: in two processes where there are two cores, the slow ones on request.

With two, a third process, the controller, hands out the tests, and its environment is theirs. So it imports nothing of
what is tested; those that do have in_process.py.
"""

import os
import pathlib
import signal
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'python'))

# The environment of a user, for tests of what `surroundings.prepare` makes of it: the controller's, for its children
# have COLUMNS and LINES of readline, which pytest imports.
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith('PYTEST_')}


def pytest_xdist_auto_num_workers():
    """At most two: each keeps two cores busy when it trains. On a single core one process does it all."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return 2 if cores > 1 else 0


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='the slow tests, too')


def pytest_configure_node(node):
    node.workerinput['outside'] = OUTSIDE


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes many seconds, and is skipped without --slow')
    if hasattr(config, 'workerinput'):
        OUTSIDE.clear()
        OUTSIDE.update(config.workerinput['outside'])
    if config.option.dist == 'no':  # not the controller
        import surroundings
        surroundings.prepare()  # so that this process works with the same kernels as the programs that the tests start
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):  # whoever started this process, nohup say, may ignore them
            signal.signal(number, signal.SIG_DFL)
        config.pluginmanager.import_plugin('in_process')


def pytest_collection_modifyitems(config, items):
    if not config.option.slow:  # -m "not slow" would say nothing of them
        for item in items:
            if item.get_closest_marker('slow'):
                item.add_marker(pytest.mark.skip(reason='slow: give --slow'))
