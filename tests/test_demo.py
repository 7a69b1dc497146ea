"""The recording in demo/: a terminal's own, short, and with nothing in it of the machine that it was made on."""

import itertools
import json
import re

import pytest

from conftest import ROOT

CAST = ROOT / 'demo' / 'demo.cast'


@pytest.fixture(scope='module')
def recording():
    """(header, events, all of the output as lines of text, without the terminal's colours and moves)."""
    header, *events = map(json.loads, CAST.read_text().splitlines())
    output = ''.join(text for _, kind, text in events if kind == 'o')
    return header, events, re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', output).replace('\r\n', '\n')


def test_it_is_asciinemas_second_version_and_takes_less_than_two_minutes(recording):
    header, events, _ = recording
    assert header['version'] == 2 and header['width'] <= 120
    times, limit = [0, *(time for time, _, _ in events)], header['idle_time_limit']
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert min(waits) >= 0 and 20 < sum(min(wait, limit) for wait in waits) < 120  # as a player shows them


def test_it_names_neither_the_machine_nor_a_host(recording):
    header, _, text = recording
    # /device:CPU:0 is what TensorFlow calls the processor.
    for where in (json.dumps(header), text):
        assert not re.findall(r'(?:^|[\s\'"=(:])[~/](?!device:CPU:0)[A-Za-z]\S*', where)
        assert not re.findall(r'https?://\S+|\b[\w-]+\.(?:com|org|net|io|dev|internal)\b', where)


def test_it_shows_what_the_script_types_and_what_came_of_it(recording):
    *_, text = recording
    lines = (ROOT / 'demo' / 'session.sh').read_text().split('\n\n')[-1].split("type_and_run '")
    places = [text.index('$ ' + line.strip().rstrip("'")) for line in lines if line.strip()]
    assert len(places) == 5 and places == sorted(places)
    assert 'sparsity, global' in text[places[3]:] and 'architecture: 20-50-500-256 -> ' in text[places[4]:]
    assert not re.search('error|Traceback|warning', text, re.IGNORECASE)


def test_both_files_are_small_and_the_readme_links_them():
    readme = (ROOT / 'README.rst').read_text()
    for path in (CAST, ROOT / 'demo' / 'demo_snapshot.png'):
        assert 1000 < path.stat().st_size < 1e6
        assert path.relative_to(ROOT).as_posix() in readme
