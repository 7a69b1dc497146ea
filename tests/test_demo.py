"""The recording in demo/: a terminal's own, short, and with nothing in it of the machine that it was made on."""

import itertools
import json
import re
import sys

import pytest
from PIL import Image, ImageChops

from conftest import ROOT

sys.path.insert(0, str(ROOT / 'demo'))
import animate  # noqa: E402, from a folder that the other tests have no use for

CAST = ROOT / 'demo' / 'demo.cast'


@pytest.fixture(scope='module')
def recording():
    """(header, events, all of the output as lines of text, without the terminal's colours and moves)."""
    header, *events = map(json.loads, CAST.read_text().splitlines())
    output = ''.join(text for _, kind, text in events if kind == 'o')
    return header, events, re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', output).replace('\r\n', '\n')


def test_it_is_asciinemas_second_version_and_takes_half_a_minute(recording):
    header, events, _ = recording
    assert header['version'] == 2 and header['width'] <= 120
    times = [0, *(time for time, _, _ in events)]
    assert min(after - before for before, after in itertools.pairwise(times)) >= 0
    assert 20 < times[-1] < 28 and times[-1] - times[-2] >= 5 == header['idle_time_limit']  # the last table's
    assert int(re.match(r'Time compressed: \d+ minutes in (\d+) seconds', header['title'])[1]) <= 25


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
    assert len(places) == 3 and places == sorted(places)
    assert all('sparsity, global' in text[place:after] for place, after in itertools.pairwise(places))
    assert 'architecture: 20-50-500-256 -> ' in text[places[2]:]
    assert not re.search('error|Traceback|warning', text, re.IGNORECASE)


def test_the_animation_is_that_of_the_recording(recording, tmp_path):
    header, events, _ = recording
    animate.main(CAST, tmp_path / 'it.gif')
    with Image.open(CAST.with_suffix('.gif')) as committed, Image.open(tmp_path / 'it.gif') as drawn:
        assert committed.n_frames == drawn.n_frames and committed.size == drawn.size and drawn.size[0] == 850
        durations = []
        for frame in range(drawn.n_frames):
            for image in (committed, drawn):
                image.seek(frame)
            durations.append(committed.info['duration'])
            if frame % 20 == 0 or frame == drawn.n_frames - 1:
                assert ImageChops.difference(committed.convert('L'), drawn.convert('L')).getbbox() is None
    assert sum(durations) / 1000 == pytest.approx(events[-1][0], abs=0.5) and durations[-1] >= 5000
    assert CAST.with_suffix('.gif').stat().st_size < 1e6


def test_the_screen_is_that_of_a_terminal():
    screen = animate.Screen(5, 3)
    screen.feed('abcdefg\r\nbar 1\rbar 2\r\x1b[1m')
    assert screen.lines == ['abcde', 'fg', 'bar 2']
    screen.feed('x\r\n')
    assert screen.lines == ['fg', 'xar 2', '']


def test_a_recording_is_shortened_where_a_command_works():
    typed = [[i / 10, text] for i, text in enumerate(['$ m', 'ake', '\r\n'])]
    worked = [[0.2 + i, f'\r{i} steps'] for i in range(1, 200)]
    header, events = animate.shorten({}, [*typed, *worked, [200.2, '\r\n$ x'], [201.0, '$ y'], [202.0, '\r\nend']])
    assert header['title'] == 'Time compressed: 3 minutes in 10 seconds'
    assert [text for _, text in events[:2]] == ['$ m', 'ake\r\n']
    assert events[-1][0] - events[-2][0] == pytest.approx(animate.LAST)
    assert ''.join(text for _, text in events).count('steps') < 60


def test_the_files_are_small_and_the_readme_shows_them():
    readme = (ROOT / 'README.rst').read_text()
    for path in (CAST, CAST.with_suffix('.gif')):
        assert 1000 < path.stat().st_size < 1e6
        assert path.relative_to(ROOT).as_posix() in readme
