"""The compressed net is the thresholded one: every dead output goes, and no logit changes."""

import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format

import compress
import export
import filters
import input_data
import main
import program
import retrain
from conftest import ROOT
from test_input_data import arrays, idx


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    monkeypatch.setattr(export, 'ROUNDS', 2)


SMALL = ('--fake_data', '--widths=5,6,15,12', '--max_steps=2', '--seed=3')


def random_net(seed):
    """A LeNet with outputs that are dead by hand: no weight in, or none out, or none above the threshold.

    Returns: (main.LeNet, images float32 [9, height, width, channels]).
    """
    random = np.random.default_rng(seed)
    shape = tuple(map(int, random.choice([(28, 28, 1), (8, 8, 3), (7, 9, 1), (5, 3, 2), (1, 1, 1), (2, 6, 4)])))
    lenet = main.LeNet(shape, main.Settings(widths=random.integers(1, 9, 4), group_variance=0))
    share_dead, inputs = random.choice([0, 0.3, 0.6]), shape[-1]
    for name, variable in lenet.weights.items():
        kernel = random.normal(0, 0.3, [variable.shape.num_elements() // inputs // variable.shape[-1], inputs,
                                        variable.shape[-1]])
        dead = random.random(kernel.shape) < random.choice([0, 0.5, 0.95])
        dead |= random.random(kernel.shape[2]) < (share_dead if name != 'softmax' else 0)
        dead |= random.random(kernel.shape[1])[:, None] < share_dead / 2
        kernel = np.where(dead, random.choice([0, -0.001, 0.0009], kernel.shape), kernel)
        variable.assign(kernel.reshape(variable.shape).astype(np.float32))
        lenet.biases[name].assign(random.normal(0, 1, lenet.biases[name].shape))
        inputs = variable.shape[-1]
    return lenet, random.random((9, *shape), np.float32)


def thresholded(lenet):
    return ({name: np.where(np.abs(w.numpy()) <= np.float32(lenet.threshold), 0, w.numpy())
             for name, w in lenet.weights.items()}, {name: b.numpy() for name, b in lenet.biases.items()})


def compressed(lenet):
    return compress.compress(*thresholded(lenet), lenet.image_shape)


def one_by_one(lenet):
    """The outputs that stay, found by taking away a single dead one at a time until there is none."""
    weights = thresholded(lenet)[0]
    layers = list(weights)
    present = {name: set(range(kernel.shape[-1])) for name, kernel in weights.items()}

    def linked(layer, source, target):
        """Is there a weight from output `source` of the layer before, or channel of the image, to output `target`?"""
        before = layers.index(layer) - 1
        sources = lenet.image_shape[-1] if before < 0 else weights[layers[before]].shape[-1]
        return bool(weights[layer][..., source::sources, target].any())

    def dead():
        for before, layer, after in zip([None, *layers[:-2]], layers[:-1], layers[1:], strict=True):
            for output in present[layer]:
                sources = present[before] if before else range(lenet.image_shape[-1])
                if not (any(linked(layer, source, output) for source in sources)
                        and any(linked(after, output, target) for target in present[after])):
                    return layer, output

    while found := dead():
        present[found[0]].remove(found[1])
    return present


def assert_same_function(net, lenet, images, tolerance=1e-5):
    wanted = lenet.net(images, training_status=False)[0].numpy()
    np.testing.assert_allclose(net(images), wanted, rtol=0, atol=tolerance * max(1, np.abs(wanted).max()))


def assert_left(net, lenet, left):
    """The net's kernels are the run's, of the outputs that stay, dict from layer name to indices, and of no other."""
    inputs, before = range(lenet.image_shape[-1]), lenet.image_shape[-1]
    for name, kernel in thresholded(lenet)[0].items():
        outputs = sorted(left[name])
        small = kernel.reshape(-1, before, kernel.shape[-1])[:, list(inputs)][..., outputs]
        np.testing.assert_array_equal(net.get_layer(name).kernel, small.reshape(*kernel.shape[:-2], -1, len(outputs)))
        inputs, before = outputs, kernel.shape[-1]


def names(net):
    return {layer.name for layer in net.layers}


def test_random_nets_lose_what_is_dead_and_stay_the_same_function():
    kinds = set()
    for seed in range(24):
        lenet, images = random_net(seed)
        net, left = compressed(lenet), one_by_one(lenet)
        assert_same_function(net, lenet, images)
        assert compress.has_chain(net) == retrain.has_chain(thresholded(lenet)[0])
        if not compress.has_chain(net):
            assert not any(left[name] for name in main.REGULARISED)
            kinds.add('constant')
            continue
        assert_left(net, lenet, left)
        whole = all(len(left[name]) == lenet.weights[name].shape[-1] for name in main.REGULARISED)
        kinds |= {'whole' if whole else 'smaller', *(names(net) & {'conv1_map', 'conv2_map'})}
        kinds |= {f'{name}: dies after another' for name, kernel in thresholded(lenet)[0].items()
                  if {*np.flatnonzero(kernel.any(axis=tuple(range(kernel.ndim - 1))))} - {*left[name]}}
    assert kinds == {'constant', 'whole', 'smaller', 'conv2_map',
                     *(f'{name}: dies after another' for name in main.REGULARISED)}


# ------------------------------------------------------------------------------------------------- nets by hand

ALL = {'conv1': range(3), 'conv2': range(2), 'fc1': range(4), 'fc2': range(3), 'softmax': range(10)}


def net_by_hand(shape=(9, 7, 1), widths=(3, 2, 4, 3)):
    """All weights are alive, half of the biases negative."""
    random = np.random.default_rng(0)
    lenet = main.LeNet(shape, main.Settings(widths=widths))
    for variable in lenet.trainable_variables:
        variable.assign(random.uniform(0.1, 0.5, variable.shape) * random.choice([-1, 1], variable.shape))
    return lenet, random.random((5, *shape), np.float32)


def clear(variable, *place):
    array = variable.numpy()
    array[place] = 0
    variable.assign(array)


def test_a_net_without_a_dead_output_is_left_as_it_is():
    lenet, images = net_by_hand()
    net = compressed(lenet)
    for name in lenet.weights:
        np.testing.assert_array_equal(net.get_layer(name).kernel, lenet.weights[name])
        np.testing.assert_array_equal(net.get_layer(name).bias, lenet.biases[name])
    assert_same_function(net, lenet, images)


@pytest.mark.parametrize('bias', [0.7, -0.7])
def test_a_dead_filter_of_conv1_becomes_a_map_that_differs_at_the_border(bias):
    lenet, images = net_by_hand(shape=(13, 15, 1))
    clear(lenet.weights['conv1'], ..., 1)
    lenet.biases['conv1'].assign([0.2, bias, -0.2])
    net = compressed(lenet)
    assert_left(net, lenet, {**ALL, 'conv1': [0, 2]})
    kernel, expected = lenet.weights['conv2'].numpy(), np.tile(lenet.biases['conv2'].numpy(), (7, 8, 1))
    for y, x, i, j in np.ndindex(7, 8, 5, 5):  # 7 by 8: 13 by 15, pooled
        if 0 <= y + i - 2 < 7 and 0 <= x + j - 2 < 8:
            expected[y, x] += max(bias, 0) * kernel[i, j, 1]
    if bias > 0:
        np.testing.assert_allclose(net.get_layer('conv2').bias + net.get_layer('conv2_map').map, expected, atol=1e-5)
        inside = expected[2:-2, 2:-2].reshape(-1, 2)
        np.testing.assert_allclose(inside, inside[:1].repeat(len(inside), axis=0), atol=1e-6)
        assert np.abs(expected[0, 0] - inside[0]).min() > 0.01
    else:
        np.testing.assert_array_equal(net.get_layer('conv2').bias, lenet.biases['conv2'])  # nothing is sent
        assert 'conv2_map' not in names(net)
    assert_same_function(net, lenet, images)


def test_a_map_is_carried_through_relu_pooling_and_the_dense_layer():
    """Filter 0 of conv2 reads the dead filter of conv1 alone: a map, no output, and then part of fc1's bias."""
    lenet, images = net_by_hand()
    clear(lenet.weights['conv1'], ..., 1)
    lenet.biases['conv1'].assign([0.2, 0.9, -0.2])
    clear(lenet.weights['conv2'], ..., [0, 2], 0)
    net = compressed(lenet)
    assert_left(net, lenet, {**ALL, 'conv1': [0, 2], 'conv2': [1]})
    assert np.abs(net.get_layer('fc1').bias - lenet.biases['fc1']).min() > 0.01
    assert_same_function(net, lenet, images)


def test_a_chain_dies_backwards_from_what_nothing_reads():
    lenet, images = net_by_hand(widths=(2, 2, 2, 2))
    clear(lenet.weights['softmax'], 1)
    clear(lenet.weights['fc2'], 1, 0)
    clear(lenet.weights['fc1'], slice(1, None, 2), 0)
    clear(lenet.weights['conv2'], ..., 1, 0)
    net = compressed(lenet)
    assert_left(net, lenet, {**dict.fromkeys(main.REGULARISED, [0]), 'softmax': range(10)})
    assert_same_function(net, lenet, images)


def test_a_chain_dies_forwards_from_what_reads_nothing():
    lenet, images = net_by_hand(widths=(2, 2, 2, 2))
    clear(lenet.weights['conv1'], ..., 1)
    clear(lenet.weights['conv2'], ..., 0, 1)
    clear(lenet.weights['fc1'], slice(0, None, 2), 1)
    clear(lenet.weights['fc2'], 0, 1)
    for name in main.REGULARISED:
        lenet.biases[name].assign([0.1, 0.5])
    net = compressed(lenet)
    assert_left(net, lenet, {**dict.fromkeys(main.REGULARISED, [0]), 'softmax': range(10)})
    assert_same_function(net, lenet, images)


@pytest.mark.parametrize('layer', [*main.REGULARISED, 'softmax'])
def test_a_dead_layer_leaves_a_constant(layer):
    lenet, images = net_by_hand()
    clear(lenet.weights[layer])
    net = compressed(lenet)
    assert not compress.has_chain(net) and not retrain.has_chain(thresholded(lenet)[0])
    assert all(net.get_layer(name).kernel.shape[-1] == 1 for name in main.REGULARISED)
    assert np.ptp(net(images), axis=0).max() == 0 and np.ptp(net(images), axis=1).min() > 0
    assert_same_function(net, lenet, images)


def test_a_difference_counts_by_the_largest_logit():
    wanted = np.array([[200.0, 1.0]], np.float32)
    assert compress.largest_difference('it', wanted + np.float32(0.015), wanted) < 0.02
    for found in (wanted + np.float32(0.03), wanted * np.float32('nan')):
        with pytest.raises(program.RunError, match='^it: a logit differs by .* at most 0.02 can be rounding'):
            compress.largest_difference('it', found, wanted)


# -------------------------------------------------------------------------------------------------------- files

RELOAD = """
import importlib.util, sys, numpy as np, tensorflow as tf
assert not any(importlib.util.find_spec(name) for name in ('keras_pruning', 'export', 'compress'))
images = np.load('images.npy')
for name in sys.argv[1:]:
    serve = tf.saved_model.load(name).signatures['serving_default']
    (argument, spec), = serve.structured_input_signature[1].items()
    assert spec.dtype == tf.float32 and argument == 'images'
    answers = [serve(images=tf.constant(batch)).values() for batch in (images, images[:1], images[:3])]
    np.save(f'{name}.npy', np.concatenate([answer for answer, in answers]))
"""


@pytest.mark.slow
def test_both_files_give_the_logits_without_this_code(tmp_path):
    """With a layer that is a map of constants, and with one that is dead."""
    wanted = {}
    for name in ('alive', 'dead'):
        lenet, images = net_by_hand()
        clear(lenet.weights['conv1'], ..., 1)
        lenet.biases['conv1'].assign([0.2, 0.9, -0.2])
        if name == 'dead':
            clear(lenet.weights['fc1'])
        net = compressed(lenet)
        assert name == 'dead' or 'conv2_map' in names(net)
        export.write(net, tmp_path, name)
        batches = images, images[:1], images[:3]
        wanted[name] = [lenet.net(batch, training_status=False)[0] for batch in batches]
        lite = export.load(tmp_path / f'{name}.tflite')
        for batch, logits in zip(batches, wanted[name], strict=True):
            np.testing.assert_allclose(lite(batch), logits, atol=1e-5)
    np.save(tmp_path / 'images.npy', images)
    subprocess.run([sys.executable, '-I', '-c', RELOAD, *wanted], check=True, cwd=tmp_path)
    for name, logits in wanted.items():
        np.testing.assert_allclose(np.load(tmp_path / f'{name}.npy'), np.concatenate(logits), atol=1e-5)


def test_nothing_but_dense_operations_is_exported(tmp_path):
    lenet, _ = net_by_hand()
    clear(lenet.weights['conv1'], ..., 1)
    export.write(compressed(lenet), tmp_path, 'net')
    graph = tf.saved_model.load(str(tmp_path / 'net')).signatures['serving_default'].graph
    functions = json_format.MessageToDict(graph.as_graph_def())['library']['function']
    operations = {node['op'] for function in functions for node in function['nodeDef']}
    plumbing = {'ReadVariableOp', 'Const', 'Identity', 'NoOp', 'StatefulPartitionedCall', 'PartitionedCall',
                'Shape', 'StridedSlice', 'Pack', 'Squeeze'}  # of shapes, by Keras
    assert operations - plumbing <= {'Conv2D', 'AddV2', 'BiasAdd', 'Relu', 'MaxPool', 'Reshape', 'MatMul'}
    assert {'Conv2D', 'MatMul'} <= operations


# ------------------------------------------------------------------------------------------------------ the run

@pytest.fixture(scope='module')
def plain(run_main, tmp_path_factory):
    """The folder of the run of SMALL, to be copied."""
    folder = tmp_path_factory.mktemp('plain')
    run_main(*SMALL, f'--log_dir={folder}')
    return folder


@pytest.fixture
def run(run_main, plain, tmp_path):
    """A run's folder; with flags, run('--flag=value', ...), that of a run that has not trained."""
    def run(*flags):
        if not flags:
            return shutil.copytree(plain, tmp_path / 'run')
        run_main(*SMALL, '--max_steps=0', *flags, f'--log_dir={tmp_path / "run"}')
        return tmp_path / 'run'
    return run


def command(*flags):
    done = subprocess.run([sys.executable, ROOT / 'python' / 'compress.py', *flags], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_command_writes_what_it_says(run):
    folder = run('--random_sparsity=0.95', '--group_lasso=0', '--group_variance=0')
    status, out, err = command(f'--log_dir={folder}')
    assert (status, err) == (0, '')
    output = folder / 'compressed'
    assert {path.name for path in output.iterdir()} == {'dense', 'compressed', 'dense.tflite', 'compressed.tflite',
                                                        'compression.json'}
    assert not list(folder.glob('.*.part'))
    figures, results = (json.loads(path.read_text()) for path in (output / 'compression.json', folder / 'results.json'))
    assert figures['accuracy'] == {'as_trained': results['results']['test']['accuracy_as_trained'],
                                   'thresholded': results['results']['test']['accuracy'],
                                   'compressed': results['results']['test']['accuracy']}
    layers = figures['layers']
    assert figures['architecture']['dense'] == '5-6-15-12'
    assert figures['architecture']['compressed'] == '-'.join(
        str(layers[name]['outputs']['compressed']) for name in main.REGULARISED)
    conv1, conv2, fc1, fc2 = (layers[name]['outputs']['compressed'] for name in main.REGULARISED)
    assert 0 < conv1 <= 5 and conv1 + conv2 + fc1 + fc2 < 38
    assert {name: layer['weights']['compressed'] for name, layer in layers.items()} == {
        'conv1': 25 * conv1, 'conv2': 25 * conv1 * conv2, 'fc1': 49 * conv2 * fc1, 'fc2': fc1 * fc2,
        'softmax': fc2 * 10}
    assert layers['conv2']['macs'] == {'dense': 14 * 14 * 25 * 5 * 6, 'compressed': 14 * 14 * 25 * conv1 * conv2}
    assert figures['in_all']['weights']['dense'] == 125 + 750 + 4410 + 180 + 120
    assert figures['bytes']['compressed.tflite'] == (output / 'compressed.tflite').stat().st_size
    assert figures['bytes']['compressed.tflite'] < figures['bytes']['dense.tflite']
    assert all(0 < taken for of_batch in figures['milliseconds'].values() for taken in of_batch.values())
    assert set(figures['largest_difference']) == {'dense', 'compressed', 'dense.tflite', 'compressed.tflite'}
    assert max(figures['largest_difference'].values()) < 1e-4
    for words in (f'5-6-15-12 -> {figures["architecture"]["compressed"]}', 'on all 1,000 test images', str(output)):
        assert words in out

    before = {path: path.stat().st_mtime_ns for path in output.rglob('*')}
    refused('--output_dir=.*/compressed is there, ', folder)  # once more
    assert {path: path.stat().st_mtime_ns for path in output.rglob('*')} == before


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.slow
def test_a_kill_on_the_way_leaves_no_half_output(run, number):
    folder = run()
    before = set(folder.iterdir())
    process = subprocess.Popen([sys.executable, ROOT / 'python' / 'compress.py', f'--log_dir={folder}'],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while set(folder.iterdir()) == before and process.poll() is None:
        time.sleep(0.01)
    left, = set(folder.iterdir()) - before
    assert re.fullmatch(r'\.compressed\.[0-9a-f]{8}\.part', left.name)  # hidden
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert not (folder / 'compressed').exists()
    if number == signal.SIGKILL:
        assert compress.compress_run(folder)[0] == folder / 'compressed'  # what was left goes
        before |= {folder / 'compressed'}
    assert set(folder.iterdir()) == before


@pytest.mark.slow
def test_a_run_with_nothing_left_is_exported_as_the_constant_that_it_is(run, capfd, tmp_path):
    folder = run('--sparsity_threshold=100')
    capfd.readouterr()
    output, figures = compress.compress_run(folder, tmp_path / 'deep' / 'output')
    compress.show(figures)
    out, err = capfd.readouterr()
    assert 'step 0 of 0, threshold 100.0' in out
    compress.show({**figures, 'max_steps': 1000})
    assert 'step 0 of 1,000, UNFINISHED, threshold 100.0' in capfd.readouterr()[0]
    assert 'warning: no chain of weights' in err and '5-6-15-12 -> 0-0-0-0' in out
    assert figures['in_all'] == {'weights': {'dense': 5585, 'compressed': 0},
                                 'macs': {'dense': figures['in_all']['macs']['dense'], 'compressed': 0}}
    assert output == tmp_path / 'deep' / 'output' and np.ptp(export.load(output / 'compressed.tflite')(
        np.random.default_rng(0).random((7, 28, 28, 1), np.float32)), axis=0).max() == 0


def refused(words, *arguments):
    with pytest.raises(program.RunError, match=words) as error:
        compress.compress_run(*arguments)
    assert '\n' not in str(error.value)


def test_an_output_that_is_taken_is_refused_and_kept(run, tmp_path, monkeypatch):
    folder, file, taken = run(), tmp_path / 'file', tmp_path / 'taken'
    file.write_text('mine')
    taken.mkdir()
    (taken / 'notes').write_text('mine')
    refused('--output_dir=.*file is there, and not an empty folder', folder, file)
    refused('--output_dir=.*taken is there, and not an empty folder', folder, taken)
    refused('--output_dir=.* cannot be written', folder, file / 'below')
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    refused('--output_dir=.*here is the working directory', folder, '.')
    assert file.read_text() == (taken / 'notes').read_text() == 'mine'
    (tmp_path / 'empty').mkdir()
    assert compress.compress_run(folder, tmp_path / 'empty')[0] == tmp_path / 'empty'


@pytest.mark.slow
def test_another_function_is_an_error_and_leaves_nothing(run, tmp_path, monkeypatch):
    folder = run()
    ours = compress.compress

    def wrong(weights, biases, *more):
        return ours(weights, {**biases, 'softmax': biases['softmax'] + wrong.by}, *more)

    monkeypatch.setattr(compress, 'compress', wrong)
    for wrong.by in (2e-4, float('nan')):
        refused('compressed: a logit differs by .* Nothing has been written', folder, tmp_path / 'output')
    assert [path.name for path in tmp_path.iterdir()] == ['run'] and not (folder / 'compressed').exists()


def test_a_run_that_is_none_is_refused(run, tmp_path):
    refused('--log_dir=.*nowhere holds no run of main.py, for it has no settings.json', tmp_path / 'nowhere')
    assert not (tmp_path / 'nowhere').exists()
    folder = run()
    settings = (folder / 'settings.json').read_text()
    facts = json.loads(settings)
    for content in ('', '[]', '{"settings": {}}', 'null', '[' * 100000, json.dumps({**facts, 'settings': {
            **facts['settings'], 'widths': [2, 3]}}), json.dumps({**facts, 'settings': {}}),
                    json.dumps({**facts, 'data': {'folder': 'here'}}), json.dumps({**facts, 'data': 7}),
                    json.dumps({**facts, 'data': {'dataset': 'mnist', 'fake_data': False, 'data_dir': 7}}),
                    json.dumps({**facts, 'data': None, 'identity': {**facts['identity'], 'dataset': 'mine'}})):
        (folder / 'settings.json').write_text(content)
        refused('settings.json does not hold the settings and the data of a run', folder)
    (folder / 'settings.json').write_text(settings)
    for path in (folder / 'checkpoints').iterdir():
        path.write_bytes(b'broken')
    refused('none of the checkpoints in .* can be read', folder)
    for path in (folder / 'checkpoints').iterdir():
        path.unlink()
    refused('holds no checkpoint', folder)
    assert not (folder / 'compressed').exists()


# ----------------------------------------------------------------------------------------------------- its data

@pytest.mark.parametrize('flags, expected', [
    ((), {'data_dir': None, 'fake_data': True, 'dataset': 'mnist', 'seed': 3}),
    (('--seed=7', '--data_dir=here'), {'data_dir': 'here', 'fake_data': True, 'dataset': 'mnist', 'seed': 7})])
def test_a_run_notes_where_its_data_came_from(run, monkeypatch, tmp_path, flags, expected):
    monkeypatch.chdir(tmp_path)
    facts = json.loads((run(*flags) / 'settings.json').read_text())
    if expected['data_dir']:
        expected = {**expected, 'data_dir': str(tmp_path / 'here')}
    assert facts['data'] == expected
    assert not {'data_dir', 'fake_data'} & {*facts['settings'], *facts['identity']}


def test_a_run_that_does_not_say_so_is_compressed_all_the_same(run):
    folder = run()
    facts = json.loads((folder / 'settings.json').read_text())
    del facts['data']
    (folder / 'settings.json').write_text(json.dumps(facts))
    output, figures = compress.compress_run(folder, folder.parent / 'to [1] {a,b}*?')  # TensorFlow's patterns, too
    assert figures['test_images'] == 1000 and (output / 'compressed' / 'saved_model.pb').exists()


@pytest.mark.slow
def test_data_that_have_moved_or_changed(run_main, tmp_path, monkeypatch):
    def write(folder):
        folder.mkdir()
        for name, array in arrays().items():
            (folder / f'{name}.gz').write_bytes(gzip.compress(idx(array), 1))

    write(tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    run_main('--data_dir=data', '--widths=2,3,4,5', '--max_steps=0', '--log_dir=run')
    monkeypatch.chdir('/')
    assert compress.compress_run(tmp_path / 'run', tmp_path / 'first')[1]['test_images'] == 30
    (tmp_path / 'data').rename(tmp_path / 'moved')
    monkeypatch.setattr(input_data, 'MIRRORS', {'mnist': ()})
    refused(r'.*data/train-images-.*Give the folder of the run.s data as --data_dir\.$', tmp_path / 'run')
    assert compress.compress_run(tmp_path / 'run', data_dir=tmp_path / 'moved')[1]['test_images'] == 30
    assert [*filters.of_run(tmp_path / 'run', tmp_path / 'moved')] == [0]
    write(tmp_path / 'changed')
    negative = 255 - arrays()[input_data.TRAIN_IMAGES]
    (tmp_path / 'changed' / f'{input_data.TRAIN_IMAGES}.gz').write_bytes(gzip.compress(idx(negative), 1))
    refused('not the images that the run in .* has learned', tmp_path / 'run', tmp_path / 'other', tmp_path / 'changed')
