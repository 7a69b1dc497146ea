"""How fast a training step and an evaluation are on this machine.

    python benchmark.py

Each row is measured in turn with the others, a little at a time over several rounds; its median stands in the table:

- this program's step and evaluation, the functions that `main.train` calls;
- "TensorFlow's defaults": the same without what surroundings.prepare sets before TensorFlow is imported;
- PyTorch's step of the same net and loss, if PyTorch is installed (python -m pip install torch==2.13.0);
- the product of two float32 matrices, for what this machine can do.

TensorFlow reads its environment once, so the second and third have a process of their own, which waits while the others
work. The images are made up: no download, and the time is the same.
"""

if __name__ in ('__main__', '__mp_main__'):  # the latter in the other process
    import surroundings
    surroundings.prepare()

import concurrent.futures
import functools
import importlib.util
import multiprocessing
import os
import platform
import signal
import statistics

import tensorflow as tf
from absl import flags

import input_data
import main
import program
import surroundings
import timing

FLAGS = flags.FLAGS
ONEDNN = 'TF_ENABLE_ONEDNN_OPTS'  # set by surroundings.prepare; empty, it leaves the choice to TensorFlow
MATRIX = 2048        # rows and columns: the products of a step are about as large


def define_flags():
    program.define('Benchmark', 'integer', 'rounds', 15, 'Rounds, each of which measures every row once.',
                   lambda n: 2 <= n <= 10**6, 'from 2 to 1000000')
    program.define('Benchmark', 'integer', 'steps', 5, 'Training steps in a round.', lambda n: 1 <= n <= 10**6,
                   'from 1 to 1000000')
    program.define_settings(main.Settings, ('widths', 'batch_size'), 'Benchmark')


def training_flop(of_layer, batch_size):
    """Floating-point operations of one step's layers, two a multiply-accumulate.

    A layer's forward pass, the gradient by its weights and the gradient by its input cost the same; nobody asks for the
    gradient by the images.

    Args:
      of_layer: dict from `main.macs`.
    """
    return 2 * batch_size * (3 * sum(of_layer.values()) - of_layer['conv1'])


@functools.cache
def workload(name, settings):
    """A row of the table, made once a process: a function of how many times to do it."""
    data = input_data.read_data_sets(fake_data=True)
    if name == 'torch':
        return torch_steps(data.train, settings.batch_size, settings.widths)
    if name == 'product':
        matrix = tf.random.stateless_normal([MATRIX, MATRIX], [0, 0])
        product = tf.function(lambda: tf.matmul(matrix, matrix))
        return lambda count: [product() for _ in range(count)]
    lenet, _, _, train_steps = main.assemble(data.train, settings)
    if name == 'evaluation':
        test = list(map(tf.constant, data.test))
        return lambda count: [main.evaluate(lenet, *input_data.batch(*test, i, main.EVALUATED, 0))
                              for i in range(count)]
    if name == 'single':
        return lambda count: [train_steps(1) for _ in range(count)]
    return train_steps


def torch_steps(train, batch_size, widths):
    """The training steps in PyTorch: same net, loss, optimizer and batch size, data resident too."""
    import torch
    from torch import nn
    conv1, conv2, fc1, fc2 = widths
    torch.set_num_threads(surroundings.cores())
    hidden = [nn.Conv2d(1, conv1, 5, padding=2), nn.Conv2d(conv1, conv2, 5, padding=2),
              nn.Linear(7 * 7 * conv2, fc1), nn.Linear(fc1, fc2)]
    net = nn.Sequential(hidden[0], nn.ReLU(), nn.MaxPool2d(2), hidden[1], nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        hidden[2], nn.ReLU(), nn.Dropout(0.2), hidden[3], nn.ReLU(), nn.Dropout(0.2),
                        nn.Linear(fc2, input_data.CLASSES))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0001)
    images, labels = torch.tensor(train.images).permute(0, 3, 1, 2).contiguous(), torch.tensor(train.labels)

    def steps(count):
        for _ in range(count):
            index = torch.randint(len(labels), (batch_size,))
            loss = nn.functional.cross_entropy(net(images[index]), labels[index])
            for layer in hidden:
                squared = layer.weight.flatten(1).square().sum(1)
                loss = loss + 0.001 * squared.sqrt().sum() + 0.01 / squared.var(unbiased=False)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return steps


def timed_workload(name, settings, count):
    """Seconds of `count` times a row of the table, in whatever process this is called in; all that is pickled."""
    return timing.timed(workload(name, settings), count)


def show_speeds(settings, rounds, steps):
    """Measures the rows in turn, and prints the table."""
    shape = input_data.read_data_sets(fake_data=True).train.images.shape[1:]
    timed_workload('training', settings, 1)  # by now this process has read its environment
    os.environ[ONEDNN] = ''
    other = concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context('spawn'), signal.signal, (signal.SIGINT, signal.SIG_IGN))  # Ctrl-C ends this one
    of_layer = main.macs(shape, settings.widths)
    training = training_flop(of_layer, settings.batch_size), settings.batch_size, steps
    evaluation = 2 * main.EVALUATED * sum(of_layer.values()), main.EVALUATED, 1
    rows = {  # title: (workload, in the other process?, FLOP, images, how many in a round)
        'float32 matrix product': ('product', False, 2 * MATRIX**3, None, 1),
        'training step': ('training', False, *training),
        'training step, a call each': ('single', False, *training),
        "training step, TensorFlow's defaults": ('training', True, *training),
        'training step, PyTorch': ('torch', True, *training),
        'evaluation': ('evaluation', False, *evaluation),
        "evaluation, TensorFlow's defaults": ('evaluation', True, *evaluation)}
    if not importlib.util.find_spec('torch'):
        del rows['training step, PyTorch']
        print('PyTorch is not installed: no row for it\n')

    def measure(name, elsewhere, flop, images, count):
        arguments = name, settings, count
        taken = other.submit(timed_workload, *arguments).result() if elsewhere else timed_workload(*arguments)
        return taken / count

    found = timing.in_turn({title: functools.partial(measure, *row) for title, row in rows.items()}, rounds)
    other.shutdown()
    median = {title: statistics.median(taken) for title, taken in found.items()}
    print(f'\r{"":37}{"ms":>8}{"middle half":>15}{"images/s":>10}{"GFLOP/s":>9}{"of the product":>16}'
          f'{"time ratio":>12}')
    rate = 2 * MATRIX**3 / median['float32 matrix product']
    for title, (_, _, flop, images, _) in rows.items():
        quarters = statistics.quantiles(found[title], n=4)
        if title in ('float32 matrix product', 'training step', 'evaluation'):
            ours = median[title]
        print(f'{title:37}{1e3 * median[title]:8.1f}{1e3 * quarters[0]:8.1f} -{1e3 * quarters[2]:5.0f}'
              f'{images / median[title] if images else 0:10,.0f}{flop / median[title] / 1e9:9.0f}'
              f'{flop / median[title] / rate:16.0%}{median[title] / ours:12.2f}')
    run = 100000 * median['training step'] + 1000 * median['evaluation']
    print(f'\n100,000 steps, with an evaluation every 100: {timing.clock(run)}')


def benchmark():
    tf.config.experimental.enable_op_determinism()  # as in a run
    settings = main.Settings(widths=FLAGS.widths, batch_size=FLAGS.batch_size)
    print(f'machine: {surroundings.processor()}, {surroundings.cores()} cores, {platform.system()}, '
          f'{len(tf.config.list_physical_devices("GPU"))} GPUs')
    print(f'versions: {", ".join(f"{name} {version}" for name, version in surroundings.versions().items())}')
    print(f'net: widths {",".join(map(str, settings.widths))}, batches of {settings.batch_size}; '
          f'medians of {FLAGS.rounds} rounds\n')
    show_speeds(settings, FLAGS.rounds, FLAGS.steps)


if __name__ == '__main__':
    define_flags()
    program.run(benchmark, __doc__, ['Benchmark'])
