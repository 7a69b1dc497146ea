"""filters.py: the filters of a run, in the CSV file and in the picture."""

import json
import shutil

import numpy as np
import pytest

import filters
import main
import pictures
from in_process import refused
from program import RunError


def test_the_filters_are_those_of_the_run_and_the_dead_are_crossed_out(run_tool, finished, tmp_path, monkeypatch):
    run_tool(filters, f'--log_dir={finished}', f'--folder={tmp_path}/new')
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['filters.csv', 'filters.png']
    found, wanted = filters.read(tmp_path / 'new' / 'filters.csv'), filters.of_run(finished)
    assert list(found) == list(wanted) == [0, 4] and found[0].shape == (3, 5, 5)
    net = main.LeNet((28, 28, 1), main.Settings(widths=(3, 4, 6, 5)))
    for step, of_step in found.items():
        np.testing.assert_allclose(of_step, wanted[step], rtol=0.006)
    start = main.sparsify(net.weights['conv1'], 0.001).numpy()
    np.testing.assert_array_equal(wanted[0], start[:, :, 0].transpose(2, 0, 1))
    assert np.abs(found[4] - found[0]).max() > 1e-4
    found[4][1] = 0
    shown, draw = [], pictures.save
    monkeypatch.setattr(pictures, 'save', lambda figure, *rest: (shown.append(figure), draw(figure, *rest)))
    filters.draw(found, tmp_path / 'it.png')
    assert [len(axes.images) for axes in shown[0].axes] == [1, 1, 1, 1, 0, 1]
    assert '3 at the start, 2 alive at the end' in ' '.join(text.get_text() for text in shown[0].texts)


def test_the_filters_are_thresholded_and_the_last_ones_the_checkpoints(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    facts = json.loads((tmp_path / 'settings.json').read_text())
    facts['settings']['sparsity_threshold'] = 0.05
    (tmp_path / 'settings.json').write_text(json.dumps(facts))
    reader = main.tf.train.load_checkpoint(f'{finished}/checkpoints/step-4')
    end = reader.get_tensor('net/weights/conv1/.ATTRIBUTES/VARIABLE_VALUE')[:, :, 0].transpose(2, 0, 1)
    found = filters.of_run(tmp_path)[4]
    np.testing.assert_array_equal(found, np.where(np.abs(end) <= np.float32(0.05), 0, end))
    assert (found == 0).any()


def test_a_single_filter_that_is_left_keeps_its_shades(tmp_path, monkeypatch):
    of_step, shown, draw = np.zeros([40, 5, 5]), [], pictures.save
    of_step[7] = np.linspace(-1, 1, 25).reshape(5, 5)
    monkeypatch.setattr(pictures, 'save', lambda figure, *rest: (shown.append(figure), draw(figure, *rest)))
    filters.draw({0: of_step, 9: np.zeros([40, 5, 5])}, tmp_path / 'it.png')
    (image,), = [axes.images for axes in shown[0].axes if axes.images]
    assert 0.9 < image.norm.vmax == -image.norm.vmin <= 1


@pytest.mark.parametrize('content', ['', 'step,filter,weights\n0,0,1 2\n', 'step,filter,weights\n0,0,nan\n',
                                     'step,filter,weights\n0,0,1\n0,1,2\n5,0,1\n', 'a,b\n1,2\n'])
def test_a_file_without_filters_is_refused_and_kept(run_tool, finished, tmp_path, content):
    (tmp_path / 'filters.csv').write_text(content)
    refused('filters.csv does not hold the filters of a run', run_tool, filters, f'--folder={tmp_path}',
            f'--log_dir={finished}')
    assert (tmp_path / 'filters.csv').read_text() == content and len([*tmp_path.iterdir()]) == 1


def test_a_retraining_is_refused_for_its_start_is_not_in_it(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    facts = json.loads((tmp_path / 'settings.json').read_text())
    start = {'folder': 'a', 'hash': 'b', 'groups': '', 'identity': {}, 'step': 4, 'settings': facts['settings']}
    (tmp_path / 'settings.json').write_text(json.dumps({**facts, 'start': start}))
    with pytest.raises(RunError, match='is a retraining'):
        filters.of_run(tmp_path)


def test_without_a_run_or_beside_somebody_elses_picture_nothing_is_written(run_tool, finished, tmp_path):
    refused('filters.csv does not hold the filters of a run', run_tool, filters, f'--folder={tmp_path}')
    (tmp_path / 'filters.png').write_text('mine')
    refused('no picture of this program', run_tool, filters, f'--folder={tmp_path}', f'--log_dir={finished}')
    assert [path.name for path in tmp_path.iterdir()] == ['filters.png']
    assert (tmp_path / 'filters.png').read_text() == 'mine'
