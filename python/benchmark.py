"""How fast a training step and an evaluation are on this machine.

    python benchmark.py

Each row is measured in turn with the others, a little at a time over several rounds; its median stands in the table:

- this program's step and evaluation, the functions that `main.train` calls; the step also alone, a call each;
- the step compiled by XLA, as by main.py --compiled, where there is a GPU or --compiled is given;
- "TensorFlow's defaults": the same without oneDNN where TensorFlow does not choose it by itself, and not deterministic;
- PyTorch's step of the same net and loss, if PyTorch is installed (python -m pip install torch==2.13.0), and on a GPU
  its CUDA graph: pytorch_steps.py;
- the product of two float32 matrices, for what this machine can do.

TensorFlow reads its environment once, so its defaults have a process of their own, which waits while the others work;
so has PyTorch. The images are made up: no download, and the time is the same.
"""

if __name__ in ('__main__', '__mp_main__'):  # the latter in the other process
    import surroundings
    surroundings.prepare()

import concurrent.futures
import contextlib
import functools
import importlib.util
import multiprocessing
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys

import tensorflow as tf
from absl import flags

import input_data
import loops
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
    program.define('Benchmark', 'boolean', 'compiled', False, 'Measure the compiled step without a GPU, too.')
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
    if name == 'product':
        matrix = tf.random.stateless_normal([MATRIX, MATRIX], [0, 0])
        product = tf.function(lambda: tf.matmul(matrix, matrix))
        return lambda count: [product() for _ in range(count)]
    lenet, _, _, train_steps = main.assemble(data.train, settings, compiled=name == 'compiled')
    if name == 'evaluation':
        test = list(map(tf.constant, data.test))
        return lambda count: [main.evaluate(lenet, *input_data.batch(*test, i, main.EVALUATED, 0))
                              for i in range(count)]
    if name == 'single':
        return lambda count: [train_steps(1) for _ in range(count)]
    return train_steps


def start_pytorch(settings):
    """The process of pytorch_steps.py and, by title, the kinds of steps that it can do: none without PyTorch."""
    if not importlib.util.find_spec('torch'):
        print('PyTorch is not installed: no row for it\n')
        return None, {}
    script = pathlib.Path(__file__).with_name('pytorch_steps.py')
    process = subprocess.Popen([sys.executable, script, ','.join(map(str, settings.widths)), str(settings.batch_size)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               start_new_session=True)  # Ctrl-C ends this one, and so its input
    version, device = answer(process).split()
    print(f'PyTorch {version} on {device}\n')
    return process, {'PyTorch': 'eager', **({'PyTorch, CUDA graph': 'captured'} if device == 'cuda' else {})}


def answer(process, *words):
    """What it answers to a line of these words; without any, the line that it begins with."""
    if words:
        with contextlib.suppress(BrokenPipeError):  # it has died, and so it answers nothing
            print(*words, file=process.stdin, flush=True)
    if not (line := process.stdout.readline()):
        raise program.RunError('PyTorch has failed, see above. Mend it, or uninstall it, to do without its rows.')
    return line


def timed_workload(name, settings, count):
    """Seconds of `count` times a row of the table, in whatever process this is called in; all that is pickled."""
    return timing.timed(workload(name, settings), count)


def show_speeds(settings, rounds, steps, compiled):
    """Measures the rows in turn, and prints the table; `compiled`, a bool, is of that row."""
    shape = input_data.read_data_sets(fake_data=True).train.images.shape[1:]
    timed_workload('training', settings, 1)  # by now this process has read its environment
    os.environ[ONEDNN] = ''
    other = concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context('spawn'), signal.signal, (signal.SIGINT, signal.SIG_IGN))  # Ctrl-C ends this one
    pytorch, kinds = start_pytorch(settings)
    of_layer = main.macs(shape, settings.widths)
    training = training_flop(of_layer, settings.batch_size), settings.batch_size, steps
    evaluation = 2 * main.EVALUATED * sum(of_layer.values()), main.EVALUATED, 1
    rows = {  # title: (workload, the other process that does it, FLOP, images, how many in a round)
        'float32 matrix product': ('product', None, 2 * MATRIX**3, None, 1),
        'training step': ('training', None, *training),
        'training step, a call each': ('single', None, *training),
        **({'training step, compiled': ('compiled', None, *training[:2], loops.trip_count(settings))} if compiled
           else {}),
        "training step, TensorFlow's defaults": ('training', other, *training),
        **{f'training step, {title}': (kind, pytorch, *training) for title, kind in kinds.items()},
        'evaluation': ('evaluation', None, *evaluation),
        "evaluation, TensorFlow's defaults": ('evaluation', other, *evaluation)}

    def measure(name, process, flop, images, count):
        if process is other:
            return other.submit(timed_workload, name, settings, count).result() / count
        return float(answer(pytorch, name, count) if process else timed_workload(name, settings, count)) / count

    found = timing.in_turn({title: functools.partial(measure, *row) for title, row in rows.items()}, rounds)
    other.shutdown()
    if pytorch:
        pytorch.communicate()
    median = {title: statistics.median(taken) for title, taken in found.items()}
    print(f'\r{"":37}{"ms":>9}{"middle half":>19}{"images/s":>10}{"GFLOP/s":>9}{"of the product":>16}'
          f'{"time ratio":>12}')
    rate = 2 * MATRIX**3 / median['float32 matrix product']
    for title, (_, _, flop, images, _) in rows.items():
        quarters = statistics.quantiles(found[title], n=4)
        if title in ('float32 matrix product', 'training step', 'evaluation'):
            ours = median[title]
        print(f'{title:37}{1e3 * median[title]:9.2f}{1e3 * quarters[0]:9.2f} -{1e3 * quarters[2]:8.2f}'
              f'{images / median[title] if images else 0:10,.0f}{flop / median[title] / 1e9:9.0f}'
              f'{flop / median[title] / rate:16.0%}{median[title] / ours:12.2f}')
    run = 100000 * median['training step'] + 1000 * median['evaluation']
    print(f'\n100,000 steps, with an evaluation every 100: {timing.clock(run)}')


def benchmark():
    surroundings.fix_arithmetic()  # as in a run
    settings = main.Settings(widths=FLAGS.widths, batch_size=FLAGS.batch_size)
    device = surroundings.device()
    print(f'machine: {surroundings.processor()}, {surroundings.cores()} cores, {platform.system()}; device: {device}')
    print(f'versions: {", ".join(f"{name} {version}" for name, version in surroundings.versions().items())}')
    print(f'net: widths {",".join(map(str, settings.widths))}, batches of {settings.batch_size}; '
          f'medians of {FLAGS.rounds} rounds\n')
    show_speeds(settings, FLAGS.rounds, FLAGS.steps, FLAGS.compiled or device != 'cpu')


if __name__ == '__main__':
    define_flags()
    program.run(benchmark, __doc__, ['Benchmark'])
