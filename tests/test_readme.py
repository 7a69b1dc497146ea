"""The README says what the program does: commands, flags, names and the net's source."""

import dataclasses
import inspect
import re
import shlex
import sys
import textwrap

import numpy as np
import pytest

import benchmark
import compare
import compress
import main
import pictures
import program
from conftest import ROOT

README = (ROOT / 'README.rst').read_text()
COMMANDS = re.findall(r'^    (.*python .*)$', re.sub(r' *\\\n *', ' ', README), re.MULTILINE)  # a backslash goes on


def test_the_net_stands_there_as_it_stands_in_main():
    assert textwrap.indent(textwrap.dedent(inspect.getsource(main.LeNet.net)), '    ') in README


def test_every_flag_is_there_and_no_other(monkeypatch):
    ours = {flag.name for group in main.FLAG_GROUPS for flag in main.FLAGS.get_flags_for_module(group)}
    tools = set()
    monkeypatch.setattr(program, 'define', lambda group, kind, name, *_, **__: tools.add(name))
    for tool in (benchmark, compare, compress, pictures):
        tool.define_flags()
    assert {'rounds', 'seeds', 'output_dir', 'curve', 'log_dir', 'widths'} < tools
    assert set(re.findall(r'--([a-z_0-9]+)', README)) - {'logdir', 'help', 'sshlogin', 'array', 'wrap'} == ours | tools


@pytest.mark.parametrize('command', [c for c in COMMANDS if 'main.py' in c])
def test_the_commands_parse(run_main, monkeypatch, command):
    made = []
    monkeypatch.setattr(main, 'main', lambda: made.append(main.Settings(**{
        field.name: main.FLAGS[field.name].value for field in dataclasses.fields(main.Settings)})))
    run_main(*shlex.split(command.split('main.py', 1)[1]))
    assert made


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


@pytest.mark.parametrize('file', ['.ci/run', '.travis.yml', '.github/workflows/test.yml'])
def test_ci_runs_the_readmes_commands_and_the_linter(file):
    lines = [re.sub('^ *- (run: )?', '', line).split(' || exit 1')[0]
             for line in (ROOT / file).read_text().splitlines()]
    install, lint, smoke = [line for line in lines if line.startswith('python ')]
    assert 'pytest' in install and install in COMMANDS
    assert lint == 'python -m ruff check .'
    assert 'main.py' in smoke and smoke in COMMANDS


def test_ci_runs_them_on_the_same_pythons():
    for file in ('.travis.yml', '.github/workflows/test.yml'):
        assert re.findall(r'"(3\.\d+)"', (ROOT / file).read_text()) == ['3.11', '3.12', '3.13']


def test_the_names_in_the_map_exist():
    table = README[README.index('From the paper to the program'):README.index('Deviations\n')]
    names = [name for name in re.findall('``([A-Za-z_.0-9]+)``', table) if not name.startswith(('-', 'python'))]
    assert len(names) >= 15
    for name in names:
        thing = main
        for part in name.split('.'):
            thing = getattr(thing, part)
