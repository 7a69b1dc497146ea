"""The benchmark's arithmetic and its command; oneDNN's kernels against TensorFlow's own."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import benchmark
import input_data
import main
import program
import timing
from conftest import OUTSIDE, ROOT

# A step in a process of its own, with the kernels that the environment names.
STEP = """
import os, sys
import surroundings
surroundings.prepare()
import numpy, test_benchmark
print(os.environ['TF_ENABLE_ONEDNN_OPTS'])
numpy.savez(sys.argv[1], *test_benchmark.step())
"""


def step():
    """Logits, loss and gradients of a first step."""
    net = main.LeNet((28, 28, 1), main.Settings(widths=(8, 16, 32, 16)))
    images, labels = (a[:50] for a in input_data.read_data_sets(fake_data=True).train)
    with tf.GradientTape() as tape:
        logits, _ = net.net(images, training_status=True)
        loss = tf.add_n([main.cross_entropy(logits, labels), *main.penalties(net.regularised(), 0.001, 0.01).values()])
    return [logits, loss, *tape.gradient(loss, net.trainable_variables)]


def test_multiply_accumulates_and_operations_of_the_papers_net():
    of_layer = main.macs((28, 28, 1), (64, 128, 512, 256))
    assert of_layer == {'conv1': 28 * 28 * 25 * 64, 'conv2': 14 * 14 * 25 * 64 * 128, 'fc1': 6272 * 512,
                        'fc2': 512 * 256, 'softmax': 2560}
    assert benchmark.training_flop(of_layer, 100) == 200 * (2 * 1254400 + 3 * (40140800 + 3211264 + 131072 + 2560))


def test_rows_are_measured_in_turn_and_the_first_round_is_dropped():
    order = []
    rows = {name: lambda name=name: order.append(name) or len(order) for name in 'ab'}
    assert timing.in_turn(rows, 2) == {'a': [3, 5], 'b': [4, 6]}
    assert ''.join(order) == 'ababab'


PYTORCH = """
import pytorch_steps
step, net = pytorch_steps.make_step((64, 128, 512, 256), 100, 'cpu')
before = [p.detach().clone() for p in net.parameters()]
step()
print(sum(p.numel() for p in before), all((p != q).any() for p, q in zip(net.parameters(), before)))
"""


@pytest.mark.skipif(not importlib.util.find_spec('torch'), reason='PyTorch is not installed')
def test_pytorchs_net_is_the_same_size_and_learns():
    """In a process of its own, as pytorch_steps.py has to be."""
    done = subprocess.run([sys.executable, '-c', PYTORCH], cwd=ROOT / 'python', check=True, stdout=subprocess.PIPE,
                          text=True)
    assert done.stdout == f'{3551296 + 970} True\n'


FAKE = """
import sys
print('1.0 cuda', flush=True)
for line in sys.stdin:
    kind, count = line.split()
    print({'eager': 0.004, 'captured': 0.002}[kind] * int(count), flush=True)
"""


def test_pytorch_is_asked_for_its_steps_or_said_to_be_absent(monkeypatch, tmp_path, capsys):
    """By a stand-in: what benchmark.py says to pytorch_steps.py and makes of its answers; and one that ends."""
    (tmp_path / 'pytorch_steps.py').write_text(FAKE)
    monkeypatch.setattr(benchmark, '__file__', str(tmp_path / 'benchmark.py'))
    monkeypatch.setattr(benchmark.importlib.util, 'find_spec', lambda name: name)
    process, kinds = benchmark.start_pytorch(main.Settings())
    assert kinds == {'PyTorch': 'eager', 'PyTorch, CUDA graph': 'captured'}
    assert [float(benchmark.answer(process, kind, 5)) for kind in kinds.values()] == [0.02, 0.01]
    process.stdin.close()
    process.wait()
    with pytest.raises(program.RunError, match='^PyTorch has failed, see above. Mend it'):
        benchmark.answer(process)
    monkeypatch.setattr(benchmark.importlib.util, 'find_spec', lambda name: None)
    assert benchmark.start_pytorch(main.Settings()) == (None, {})
    assert capsys.readouterr().out == 'PyTorch 1.0 on cuda\n\nPyTorch is not installed: no row for it\n\n'


@pytest.mark.slow
def test_the_command_shows_every_row():
    environment = {name: value for name, value in os.environ.items() if name != benchmark.ONEDNN}
    done = subprocess.run([sys.executable, ROOT / 'python' / 'benchmark.py', '--rounds=2', '--steps=2',
                           '--widths=2,3,4,5', '--batch_size=6', '--compiled'],
                          capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert re.search(r'^versions: .*, oneDNN 1$', done.stdout, re.MULTILINE)
    assert f'; device: {benchmark.surroundings.device()}\n' in done.stdout
    for row in ('float32 matrix product', 'training step', 'training step, a call each', 'training step, compiled',
                "training step, TensorFlow's defaults", 'evaluation', "evaluation, TensorFlow's defaults"):
        numbers = re.search(rf'^{row} +([\d.]+) .* ([\d.]+)$', done.stdout, re.MULTILINE)
        assert float(numbers[1]) > 0 and float(numbers[2]) > 0
    assert ('PyTorch is not installed' in done.stdout) == (importlib.util.find_spec('torch') is None)
    assert re.search(r'^100,000 steps, .*: .*\d:\d\d:\d\d$', done.stdout, re.MULTILINE)


@pytest.mark.parametrize('argument', ['--rounds=1', '--steps=0', '--widths=1,2,3', '--batch_size=0'])
def test_bad_input_costs_one_line(run_tool, argument):
    with pytest.raises(SystemExit, match=f'^error: [^\\n]*{argument}[^\\n]*$'):
        run_tool(benchmark, argument)


@pytest.mark.slow
def test_onednns_kernels_give_tensorflows_values_and_gradients(tmp_path):
    """surroundings.py switches them on, unless the user has chosen: so a step differs from TensorFlow's defaults."""
    ours = os.environ[benchmark.ONEDNN]
    assert ours == OUTSIDE.get(benchmark.ONEDNN, '1')
    choice = '1' if ours == '0' else '0'
    environment = {**OUTSIDE, benchmark.ONEDNN: choice, 'PYTHONPATH': f'{ROOT / "python"}{os.pathsep}{ROOT / "tests"}'}
    done = subprocess.run([sys.executable, '-c', STEP, tmp_path / 'it.npz'], check=True, env=environment,
                          stdout=subprocess.PIPE, text=True)
    assert done.stdout == choice + '\n'
    theirs = list(np.load(tmp_path / 'it.npz').values())
    assert len(theirs) == 12  # logits, loss, ten gradients
    for found, value in zip(step(), theirs, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5 * np.abs(value).max())
