"""The README says what the program does: commands, flags, names and the net's source."""

import inspect
import re
import shlex
import sys
import textwrap

import numpy as np
import pytest

import main
from conftest import ROOT

README = (ROOT / 'README.rst').read_text()
COMMANDS = re.findall(r'^    (.*python .*)$', re.sub(r' *\\\n *', ' ', README), re.MULTILINE)  # a backslash goes on


def test_the_net_stands_there_as_it_stands_in_main():
    assert textwrap.indent(textwrap.dedent(inspect.getsource(main.LeNet.net)), '    ') in README


def test_every_flag_is_there_and_no_other():
    ours = {flag.name for group in main.FLAG_GROUPS for flag in main.FLAGS.get_flags_for_module(group)}
    tools = {name for tool in ('benchmark', 'compare', 'report') for name in
             re.findall(r"(?:DEFINE_\w+|define_numbers)\('(\w+)'", (ROOT / 'python' / f'{tool}.py').read_text())}
    assert {'rounds', 'seeds', 'curve'} < tools
    assert set(re.findall(r'--([a-z_0-9]+)', README)) - {'logdir', 'help', 'sshlogin', 'array', 'wrap'} == ours | tools


@pytest.mark.parametrize('command', [c for c in COMMANDS if 'main.py' in c])
def test_the_commands_parse(run_main, monkeypatch, command):
    monkeypatch.setattr(main, 'main', lambda _: 0)
    assert run_main(*shlex.split(command.split('main.py', 1)[1])) == 0


def test_the_example_for_your_own_model_trains(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr('sys.path', list(sys.path))
    start = README.index('.. code-block:: python', README.index('In your own model\n'))
    example = re.match(r'.*\n\n((?:    .*\n|\n)+)', README[start:])[1]
    names = {}
    exec(textwrap.dedent(example), names)
    names['model'].compile('adam', 'mse')
    history = names['model'].fit(np.ones((32, 20)), np.ones((32, 10)), epochs=3, verbose=0).history['loss']
    assert history[-1] < history[0]


@pytest.mark.parametrize('file', ['.ci/run', '.travis.yml'])
def test_ci_runs_the_readmes_commands(file):
    lines = [line.removeprefix('  - ').split(' || exit 1')[0] for line in (ROOT / file).read_text().splitlines()]
    run = [line for line in lines if line.startswith('python -m pip') or 'main.py' in line]
    assert len(run) == 2 and 'pytest' in run[0]
    assert all(line in COMMANDS for line in run)


def test_the_names_in_the_map_exist():
    table = README[README.index('From the paper to the program'):README.index('Deviations\n')]
    names = [name for name in re.findall('``([A-Za-z_.0-9]+)``', table) if not name.startswith(('-', 'python'))]
    assert len(names) >= 15
    for name in names:
        thing = main
        for part in name.split('.'):
            thing = getattr(thing, part)
