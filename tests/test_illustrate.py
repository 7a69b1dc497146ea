"""The pictures of the method: the norms that are recorded, and that what is drawn is what was given."""

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

import illustrate
import input_data
import main
import pictures
import program
from conftest import ROOT
from in_process import refused

TINY = {'widths': (3, 4, 6, 5), 'max_steps': 3, 'learning_rate': 0.001, 'sparsity_threshold': 0.05, 'seed': 4}


def made_up(moments=4, groups=256):
    """Two runs as `record` returns them: groups die one after the other, and the second has one that grows."""
    runs = []
    for variance in (0.0, 0.01):
        norms = np.random.default_rng(0).uniform(0.5, 2, groups)
        rows = []
        for moment in range(moments):
            left = np.maximum(norms - (1.2 - 10 * variance) * moment / (moments - 1), 0)
            if variance:
                left[7] = 2 + 1.5 * moment / (moments - 1)
            rows.append({'dataset': 'here', 'layer': 'fc1', 'group_lasso': 0.01, 'group_variance': variance, 'seed': 0,
                         'step': 10 * moment, 'test_accuracy': 0.125 + moment / 1000 + variance, 'norms': left})
        runs.append(rows)
    return runs


@pytest.fixture
def texts(monkeypatch):
    """The texts of each frame that is drawn from now on."""
    frames = []

    class Canvas(illustrate.FigureCanvasAgg):
        def draw(self):
            frames.append([text.get_text() for text in self.figure.findobj(Text)])
            super().draw()

    monkeypatch.setattr(illustrate, 'FigureCanvasAgg', Canvas)
    return frames


# ------------------------------------------------------------------------------------------------------- recording

@pytest.mark.parametrize('layer', ['conv2', pytest.param('fc2', marks=pytest.mark.slow)])
def test_recorded_norms_are_those_of_the_run(layer):
    data = input_data.read_data_sets(fake_data=True, seed=4)
    settings = main.Settings(**TINY, group_lasso=0.1, group_variance=0.01)
    lenet, optimizer = main.LeNet(data.train.images.shape[1:], settings), main.adam(settings)
    optimizer.build(lenet.trainable_variables)
    rows = illustrate.record(data, settings, layer)
    assert [row['step'] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        weight = lenet.weights[layer].numpy()
        kept = np.where(np.abs(weight) <= 0.05, 0, weight).reshape(-1, weight.shape[-1])
        np.testing.assert_allclose(row['norms'], np.linalg.norm(kept, axis=0), rtol=1e-5)
        assert row['test_accuracy'] == pytest.approx(main.evaluate(lenet, *data.test)['accuracy'])
        assert (row['dataset'], row['layer'], row['seed']) == (data.name, layer, 4)
        assert (row['group_lasso'], row['group_variance']) == (0.1, 0.01)
        step = main.tf.constant(row['step'], main.tf.int64)
        main.training_step(lenet, optimizer, *input_data.batch(*data.train, step, 100, 4), 0.1, 0.01)


def test_the_csv_keeps_three_digits_and_who_is_dead(tmp_path):
    runs = made_up()
    illustrate.write(runs, tmp_path / 'it.csv')
    for of_one, found in zip(runs, illustrate.read(tmp_path / 'it.csv'), strict=True):
        for row, back in zip(of_one, found, strict=True):
            np.testing.assert_allclose(back['norms'], row['norms'], rtol=0.006)
            np.testing.assert_array_equal(back['norms'] == 0, row['norms'] == 0)
            assert {**back, 'norms': 0, 'test_accuracy': 0} == {**row, 'norms': 0, 'test_accuracy': 0}
            assert back['test_accuracy'] == pytest.approx(row['test_accuracy'], abs=5.1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ['it.csv']


@pytest.mark.parametrize('content', [None, '', 'step,norms\n0,1\n', 'one run', 'cut', b'\xff\xfe\x00'])
def test_a_file_without_two_runs_is_refused(tmp_path, content):
    path = tmp_path / 'it.csv'
    illustrate.write(made_up(), path)
    lines = path.read_text().splitlines(keepends=True)
    content = {'one run': ''.join(lines[:5]), 'cut': ''.join(lines)[:-20]}.get(content, content)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(program.RunError, match='it.csv does not hold the norms of two runs .* give --record'):
        illustrate.read(path)


@pytest.mark.parametrize('cells', [
    {'norms': [1.0, np.nan]}, {'norms': [1.0, np.inf]}, {'norms': [1.0, -1.0]}, {'norms': [1e9, 1.0]}, {'norms': []},
    {'test_accuracy': np.nan}, {'test_accuracy': 99.0}])
def test_numbers_that_are_no_norms_are_refused(tmp_path, cells):
    runs = made_up()
    for of_one in runs:
        of_one[1].update(cells)
    illustrate.write(runs, tmp_path / 'it.csv')
    with pytest.raises(program.RunError, match='it.csv does not hold the norms of two runs .at step 10'):
        illustrate.read(tmp_path / 'it.csv')


@pytest.mark.parametrize('norms', [np.zeros(5), np.array([900000.0, 1, 2, 0, 0])])
def test_norms_of_any_size_are_drawn(tmp_path, norms):
    runs = made_up(moments=2)
    for row in runs[0] + runs[1]:
        row['norms'] = norms
    illustrate.draw_animation(runs, tmp_path / 'it.gif')
    assert (tmp_path / 'it.gif').stat().st_size > 1000


# --------------------------------------------------------------------------------------------------------- drawing

@pytest.mark.parametrize('lasso, variance', [(0.01, 0.0), (0.0, 0.5), (0.3, 0.5), (0.0, 0.0)])
def test_pulls_are_minus_the_derivatives_of_the_penalties(lasso, variance):
    norms = np.array([0.3, 0.9, 1.1, 1.6])

    def loss(norms):
        return lasso * norms.sum() + (variance / np.var(norms ** 2) if variance else 0)

    found = illustrate.pulls(norms, lasso, variance)
    for i, nudge in enumerate(1e-6 * np.eye(4)):
        assert found[i] == pytest.approx(-(loss(norms + nudge) - loss(norms - nudge)) / 2e-6, rel=1e-6, abs=1e-9)
    if variance and not lasso:
        assert found[0] < 0 < found[3]


def test_each_group_has_a_square_in_its_bin_and_none_covers_another():
    norms = np.array([0, 0.1, 0.25, 0.3, 0, 0.39, 1.0, 0.31, 0.2, 0])
    corners = illustrate.squares(norms, width=0.2, across=2, dead_bins=3)
    alive = norms > 0
    assert np.all(corners[~alive, 0] >= -0.6 - 1e-9) and np.all(corners[~alive, 0] < -1e-9)
    np.testing.assert_array_equal(np.floor(corners[alive, 0] / 0.2 + 1e-9), np.floor(norms[alive] / 0.2))
    assert len({tuple(np.round(corner, 9)) for corner in corners}) == len(norms)
    in_one_bin = np.sort(corners[(norms >= 0.2) & (norms < 0.4)][:, 1])
    np.testing.assert_array_equal(in_one_bin, [0, 0, 1, 1, 2])  # two side by side, and no gap below


def test_share_of_variance():
    squares = np.array([1.0, 2.0, 9.0])
    assert illustrate.share_of_variance(np.sqrt(squares)) == pytest.approx(25 / (9 + 4 + 25))


def test_frames_show_the_numbers_that_are_given(texts):
    runs = made_up()
    illustrate.draw_frame(runs, 1, last=False)
    illustrate.draw_frame(runs, -1, last=True)
    for shown, moment in zip(texts, (1, -1), strict=True):
        for of_one in runs:
            row, norms = of_one[moment], np.sort(of_one[moment]['norms'])
            assert (f'{(norms > 0).sum()} of 256 alive\ntest accuracy {100 * row["test_accuracy"]:.1f}%\n'
                    f'largest: {norms[-1]:.2f}, {norms[-2]:.2f}') in shown
        assert f'step {runs[0][moment]["step"]} of 30' in shown
    assert (runs[0][-1]['norms'] > 0).sum() != (runs[1][-1]['norms'] > 0).sum()
    last = ' '.join(texts[1])
    outpulled = int(np.sum(illustrate.pulls(runs[1][-1]['norms'], 0.01, 0.01) > 0))
    assert f'outpulls the lasso on {outpulled} of 256 groups' in last and 'outpulls' not in ' '.join(texts[0])
    assert f'this group carries {illustrate.share_of_variance(runs[1][-1]["norms"]):.0%}' in last


def test_colours_say_who_pulls_harder_and_who_is_dead(monkeypatch):
    drawn, draw = [], illustrate.draw_squares
    monkeypatch.setattr(illustrate, 'draw_squares', lambda *arguments: (drawn.append(arguments[2]), draw(*arguments)))
    runs = made_up()
    illustrate.draw_frame(runs, -1, last=True)
    alone, both = drawn
    np.testing.assert_array_equal(alone, np.where(runs[0][-1]['norms'] > 0, illustrate.LEFT, illustrate.DEAD))
    right = illustrate.pulls(runs[1][-1]['norms'], 0.01, 0.01) > 0
    np.testing.assert_array_equal(both == illustrate.RIGHT, right)
    assert right[7] and not right.all()


def test_the_animation_loops_calmly_and_is_small(tmp_path):
    path = tmp_path / 'it.gif'
    illustrate.draw_animation(made_up(moments=9), path)
    image, durations = Image.open(path), []
    assert image.n_frames == 10 and image.size[0] == 850 and image.info['loop'] == 0
    for frame in range(image.n_frames):
        image.seek(frame)
        durations.append(image.info['duration'])
    assert 10000 <= sum(durations) <= 14000 and durations[-1] >= 4000 and len(set(durations[:-1])) == 1
    assert path.stat().st_size < 10**6 / 6
    image.seek(0)
    assert image.convert('RGB').getpixel((2, 2)) == (255, 255, 255)


def test_the_idea_is_drawn(tmp_path):
    illustrate.draw_idea(tmp_path / 'it.png')
    image = Image.open(tmp_path / 'it.png')
    assert image.size == (1700, 720) and (tmp_path / 'it.png').stat().st_size < 300000
    drawn = {rgb for _, rgb in image.convert('RGB').getcolors(10**6)}
    assert {tuple(bytes.fromhex(colour[1:])) for colour in (illustrate.LEFT, illustrate.RIGHT)} <= drawn


# --------------------------------------------------------------------------------------------------------- command

@pytest.mark.slow
def test_one_command_records_and_draws(run_tool, tmp_path, capfd):
    run_tool(illustrate, '--record', '--max_steps=2', '--widths=3,4,6,5', '--layer=conv1', f'--folder={tmp_path}/new')
    out, err = capfd.readouterr()
    assert err == ''
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == [
        'group_norms.csv', 'idea.png', 'varianceloss.gif']
    alone, both = illustrate.read(tmp_path / 'new' / 'group_norms.csv')
    assert [row['step'] for row in alone] == [0, 1, 2] and len(alone[0]['norms']) == 3
    assert (alone[0]['group_variance'], both[0]['group_variance']) == (0, 0.01)
    np.testing.assert_array_equal(alone[0]['norms'], both[0]['norms'])  # the same start
    assert any(alone[2]['norms'] != both[2]['norms'])
    assert 'lambda_v 0.01, step 2: test accuracy' in out


@pytest.mark.parametrize('arguments, message', [
    ([], 'does not hold the norms of two runs'),
    (['--record', '--group_variance=0'], 'needs a --group_variance above 0'),
    (['--record', '--widths=1,2,3,4'], '--widths'), (['--layer=conv1'], '--layer is of the runs.*--record')])
def test_bad_input_costs_one_line(run_tool, tmp_path, arguments, message):
    refused(message, run_tool, illustrate, f'--folder={tmp_path}', *arguments)


@pytest.mark.parametrize('name, words', [
    ('group_norms.csv', 'group_norms.csv does not hold the norms of two runs'),
    ('idea.png', 'idea.png is there, and no picture'), ('varianceloss.gif', 'gif is there, and no picture')])
def test_files_of_somebody_else_are_kept(run_tool, tmp_path, name, words):
    csv = (ROOT / '_img' / 'group_norms.csv').read_bytes()
    (tmp_path / 'group_norms.csv').write_bytes(csv)
    (tmp_path / name).write_text('mine')
    for flags in (['--record', '--max_steps=1'], []):
        with pytest.raises(SystemExit, match=f'^error: .*{words}'):
            run_tool(illustrate, *flags, f'--folder={tmp_path}')
    assert (tmp_path / name).read_text() == 'mine' and {path.name for path in tmp_path.iterdir()} == {
        name, 'group_norms.csv'}
    assert name == 'group_norms.csv' or (tmp_path / 'group_norms.csv').read_bytes() == csv


def test_the_pictures_of_the_repository_are_of_its_csv():
    folder = ROOT / '_img'
    runs = illustrate.read(folder / 'group_norms.csv')
    animation = Image.open(folder / 'varianceloss.gif')
    assert animation.n_frames == len(runs[0]) + 1 == illustrate.MOMENTS + 2
    shown = [[row['step'], row['norms'].tolist()] for run in runs for row in run]
    assert pictures.source(folder / 'varianceloss.gif') == pictures.fingerprint(shown)
    sizes = {path: (folder / path).stat().st_size for path in ('group_norms.csv', 'varianceloss.gif', 'idea.png')}
    assert sizes['group_norms.csv'] < 300000 and sizes['varianceloss.gif'] < 10**6 and sizes['idea.png'] < 10**6
