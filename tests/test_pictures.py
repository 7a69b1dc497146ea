"""The curve's CSV and picture, and the command that writes them."""

import errno
import functools
import json
import os
import pathlib

import pytest
from PIL import Image, PngImagePlugin

import checkpoints
import evaluations
import input_data
import main
import pictures
import program
from in_process import refused


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The folder of a short run; its figures in results.json are those of the last evaluation, on all test images."""
    folder = tmp_path_factory.mktemp('run')
    settings = main.Settings(widths=(3, 4, 6, 5), max_steps=30, eval_interval=10, learning_rate=0.01,
                             sparsity_threshold=0.05)
    main.train(input_data.read_data_sets(fake_data=True), settings, folder)
    return folder


@pytest.fixture
def command(run_tool, tmp_path, monkeypatch):
    """The command in this process: command('--flag=value', ...), in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(run_tool, pictures)


def test_each_column_holds_the_figures_of_its_name(run, command, tmp_path, capsys):
    results = json.loads((run / 'results.json').read_text())['results']
    assert len({results[name] for name in ('mean_of_five', 'mean_of_four', 'global_sparsity')}) == 3
    command(f'--log_dir={run}', '--curve=it.csv')
    assert os.listdir() == ['it.csv']
    rows = pictures.read_curve(tmp_path / 'it.csv')
    assert [row['step'] for row in rows] == [0, 10, 20, 30]
    assert rows[-1] == pytest.approx({
        'step': 30, 'test_accuracy': results['test']['accuracy'],
        **{name: results[name] for name in ('mean_of_five', 'mean_of_four', 'global_sparsity')}}, rel=1e-5)
    first = open('it.csv').read()
    command(f'--log_dir={run}', '--curve=it.csv')  # its own file is replaced
    assert open('it.csv').read() == first
    capsys.readouterr()
    command('--curve=it.csv', '--picture=it.png')  # without the run
    assert capsys.readouterr().out == evaluations.rst(pictures.level_table(rows)) + '\n'
    command('--curve=it.csv', '--dense=it.csv')
    assert ' 0.00\n' in capsys.readouterr().out
    assert os.path.getsize('it.png') > 10000


def test_a_matplotlibrc_plays_no_part(run, tmp_path, monkeypatch):
    monkeypatch.setitem(pictures.pyplot().rcParams, 'text.usetex', True)  # there is no LaTeX where CI runs
    monkeypatch.setitem(pictures.pyplot().rcParams, 'lines.linewidth', 77)
    rows = [dict.fromkeys(pictures.CURVES, value) for value in (0.0, 1.0)]
    pictures.draw_curve(rows, tmp_path / 'it.png')
    assert pictures.pyplot().rcParams['lines.linewidth'] == 77
    monkeypatch.undo()
    pictures.draw_curve(rows, tmp_path / 'plain.png')
    assert (tmp_path / 'it.png').read_bytes() == (tmp_path / 'plain.png').read_bytes()


def test_the_picture_shows_each_column_as_what_it_is(tmp_path, monkeypatch):
    plt, kept = pictures.pyplot(), []
    monkeypatch.setattr(plt, 'close', kept.append)
    rows = [{'step': i, 'test_accuracy': 0.9 + i / 100, 'mean_of_five': 0.1, 'mean_of_four': 0.2,
             'global_sparsity': 0.3} for i in range(3)]
    pictures.draw_curve(rows, tmp_path / 'it.png')
    above, below = kept[0].axes
    assert kept[0].get_suptitle().startswith('After 2 steps: 20% zeros by the mean of four layers, 91.0% of')
    assert list(above.lines[0].get_ydata()) == pytest.approx([90, 91, 92]) and above.get_ylim() == (90, 100)
    shown = {line.get_label().split(':')[0].split(',')[0]: set(line.get_ydata()) for line in below.lines}
    assert shown == {'global': {30}, 'mean of the four regularised layers': {20}, 'mean of the five layers': {10}}
    pictures.draw_curve([{**row, 'test_accuracy': 0.7} for row in rows], tmp_path / 'it.png')
    assert kept[1].axes[0].get_ylim() == (0, 100)


def curve(*points):
    """Rows of 100 steps each, of (mean of four, accuracy)."""
    return [{'step': 100.0 * i, 'test_accuracy': accuracy, 'mean_of_five': four / 2, 'mean_of_four': four,
             'global_sparsity': 0.5} for i, (four, accuracy) in enumerate(points)]


def test_where_a_run_passes_a_level_and_what_is_right_in_the_ten_evaluations_around():
    rows = curve(*[(0.1, 0.1)] * 9, (0.499, 0.1), *[(0.61, 0.8)] * 5, *[(0.55, 0.9)] * 5, (0.72, 1.0), (0.71, 0.1))
    dense = curve(*[(0.0, 0.5)] * 10, *[(0.0, 0.95)] * 10)
    head = ('mean of four', 'mean of five', 'global', 'step', 'accuracy')
    lines = [('61.0%', '30.5%', '50.0%', '1,000', '85.00%')] * 2 + [  # 50 and 60%; the last ten are not all there
        ('72.0%', '36.0%', '50.0%', '2,000', '85.00%'), ('71.0%', '35.5%', '50.0%', '2,100', '85.00%')]
    assert pictures.level_table(rows) == [head, *lines]
    beside = [('95.00%', '10.00')] * 4
    assert pictures.level_table(rows, dense) == [
        (*head, 'dense', 'lost'), *(line + of for line, of in zip(lines, beside, strict=True))]
    others = [{**row, 'step': row['step'] / 2} for row in dense]
    assert {line[-2:] for line in pictures.level_table(rows, others)[1:]} == {('not there',) * 2}
    assert pictures.level_table(curve((0.6, 0.5), (0.6, 0.7)))[1][-1] == '60.00%'  # fewer than ten


def test_the_home_is_understood(run, command, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'link').symlink_to(run)
    command('--log_dir=~/link', '--curve=~/it.csv', '--picture=~/it.png')
    assert (tmp_path / 'it.csv').exists() and (tmp_path / 'it.png').exists()


@pytest.mark.parametrize('arguments, words', [
    (['--curve='], '--curve.*must be the name of a file'),
    (['--log_dir=', '--curve=it.csv'], '--log_dir.*must be the name'),
    ([], '--curve'), (['--curve=it'], '--curve=it must be the name of a .csv file'), (['--curve=.csv'], '--curve=.csv'),
    (['--curve=it.CSV/'], '--curve='),
    (['--curve=it.csv', '--picture=it.csv'], '--picture=it.csv must be the name of a .png'),
    (['--curve=absent.csv', '--picture=it.png'], '--curve=absent.csv is not the evaluations of a run'),
    (['--curve=~nosuchuser/it.csv', '--picture=it.png'], '--curve=~nosuchuser/it.csv: there is no such home'),
    (['--log_dir=~nosuchuser', '--curve=it.csv'], '--log_dir=~nosuchuser: there is no such home'),
    (['--log_dir={run}', '--curve=it.csv', '--dense=it.png'], '--dense=it.png must be the name of a .csv'),
    (['--log_dir={run}', '--curve=it.csv', '--dense=absent.csv'], '--dense=absent.csv is not the evaluations'),
    (['--log_dir=nowhere', '--curve=it.csv'], '--log_dir=nowhere holds no evaluations.csv of a run'),
    (['--log_dir={run}', '--curve=no/such/folder/it.csv'], 'no/such/folder/it.csv'),
    (['--log_dir={run}', '--curve=folder.csv'], 'folder.csv')])
def test_bad_input_costs_one_line(run, command, tmp_path, arguments, words):
    (tmp_path / 'folder.csv').mkdir()
    refused(words, command, *(argument.format(run=run) for argument in arguments))
    assert os.listdir() == ['folder.csv']


HEAD = 'step,test_accuracy,mean_of_five,mean_of_four,global_sparsity\n'


@pytest.mark.parametrize('content', [
    b'', b'a,b\n1,2\n', b'a note\n', b'\xff\xfe\x00', HEAD.encode() + b'0,1,2,3\n', HEAD.encode() + b'0,1,2,3,x\n',
    HEAD.encode() + b'0,1,2,3,4,5\n', HEAD.replace('mean_of_five,mean_of_four', 'mean_of_four,mean_of_five').encode()])
def test_somebody_elses_csv_is_refused_and_kept(run, command, tmp_path, content):
    (tmp_path / 'it.csv').write_bytes(content)
    for arguments in (['--curve=it.csv', '--picture=it.png'], [f'--log_dir={run}', '--curve=it.csv']):
        refused('^error: --curve=it.csv is not the evaluations of a run .*Give another', command, *arguments)
    assert (tmp_path / 'it.csv').read_bytes() == content and os.listdir() == ['it.csv']


def test_somebody_elses_picture_is_kept(run, command, tmp_path):
    (tmp_path / 'it.png').write_text('mine')
    refused('^error: .*it.png is there, and no picture of this', command, f'--log_dir={run}', '--curve=it.csv',
            '--picture=it.png')
    assert (tmp_path / 'it.png').read_text() == 'mine' and os.listdir() == ['it.png']


def test_an_evaluation_that_a_kill_has_cut_is_left_out(run, command, tmp_path):
    whole = (run / 'evaluations.csv').read_text()
    for cut in (-1, -4):
        (tmp_path / 'evaluations.csv').write_text(whole[:cut])
        command(f'--log_dir={tmp_path}', '--curve=it.csv')
        assert [row['step'] for row in pictures.read_curve(tmp_path / 'it.csv')] == [0, 10, 20]


def test_the_runs_own_file_is_not_replaced(run, command, tmp_path):
    before = (run / 'evaluations.csv').read_bytes()
    refused('is not the evaluations of a run .*its columns', command, f'--log_dir={run}',
            f'--curve={run}/evaluations.csv')
    assert (run / 'evaluations.csv').read_bytes() == before


def test_a_folder_that_a_run_has_just_made_has_no_evaluations(tmp_path):
    checkpoints.write_json(tmp_path / 'settings.json', {})
    before = evaluations.lines([pictures.CURVES, (0, 0.1, 0.2, 0.3, 0.4)])
    (tmp_path / 'good.csv').write_text(before)
    for content in (None, '', 'step,mine\n2,1\n'):  # a start has an empty one until its first evaluation
        if content is not None:
            (tmp_path / 'evaluations.csv').write_text(content)
        for name in ('it.csv', 'good.csv'):
            with pytest.raises(program.RunError, match='holds no evaluations.csv of a run'):
                pictures.write_curve(tmp_path, tmp_path / name)
    assert not (tmp_path / 'it.csv').exists() and (tmp_path / 'good.csv').read_text() == before


@pytest.mark.parametrize('row', ['2,nan,0,0,0', '2,0.1,0,inf,0', '-10,0.1,0,0,0', '1,0.1,0,0,0', '2,99.1,0,0,0'])
def test_a_curve_of_what_are_no_shares_or_no_rising_steps_is_refused(tmp_path, row):
    (tmp_path / 'it.csv').write_text(','.join(pictures.CURVES) + '\n0,0.1,0.2,0.3,0.4\n1,0.1,0.2,0.3,0.4\n' + row)
    with pytest.raises(program.RunError, match='^--curve=.*steps do not rise, or a share'):
        pictures.read_curve(tmp_path / 'it.csv')


def test_a_curve_from_an_editor_is_read_whole_and_a_link_leads_to_it(run, command, tmp_path):
    (tmp_path / 'it.csv').write_text('\ufeff' + ','.join(pictures.CURVES) + '\n0,0.1,0.2,0.3,0.4\n3,0.2,0.2,0.3,0.4')
    assert [row['step'] for row in pictures.read_curve(tmp_path / 'it.csv')] == [0, 3]
    (tmp_path / 'link.csv').symlink_to(tmp_path / 'it.csv')
    command(f'--log_dir={run}', '--curve=link.csv')
    assert (tmp_path / 'link.csv').is_symlink()
    assert [row['step'] for row in pictures.read_curve(tmp_path / 'it.csv')][-1] == 30


def test_a_picture_that_does_not_fit_leaves_the_one_before(tmp_path, monkeypatch):
    rows = curve((0.1, 0.9), (0.2, 0.9))
    pictures.draw_curve(rows, tmp_path / 'it.png')
    before = (tmp_path / 'it.png').read_bytes()

    def half(figure, file, **_):
        pathlib.Path(file).write_bytes(before[:99])
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(pictures.pyplot().Figure, 'savefig', half)
    with pytest.raises(OSError, match='it.png'):
        pictures.draw_curve(rows[:1], tmp_path / 'it.png')
    assert (tmp_path / 'it.png').read_bytes() == before and len([*tmp_path.iterdir()]) == 1


def test_a_picture_too_large_to_open_is_somebody_elses(tmp_path, monkeypatch):
    Image.new('1', (9, 9)).save(tmp_path / 'it.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 20)
    with pytest.raises(program.RunError, match='no picture of this program'):
        pictures.check(tmp_path / 'it.png')


def test_a_comment_is_the_mark_in_a_gif_alone(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text('comment', 'mine')
    Image.new('1', (9, 9)).save(tmp_path / 'it.png', pnginfo=text)
    with pytest.raises(program.RunError, match='no picture of this program'):
        pictures.check(tmp_path / 'it.png')
    Image.new('P', (9, 9)).save(tmp_path / 'it.gif', comment=pictures.MARK)  # as earlier versions did
    pictures.check(tmp_path / 'it.gif')
