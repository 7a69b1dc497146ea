"""How fast a training step and an evaluation are on this machine, and where the time goes.

    python benchmark.py

Each row is measured in turn with the others, a little at a time over several rounds, and its median stands in the table:

- this program's step and evaluation, the functions that `main.train` calls;
- "TensorFlow's defaults": the same without what report.py sets in the environment before it imports TensorFlow;
- PyTorch's step of the same net and loss, if PyTorch is installed (python -m pip install torch==2.13.0);
- the product of two float32 matrices, for what this machine can do.

TensorFlow reads its environment once, so the second and third have a process of their own, which waits while the others
work. The images are made up: no download, and the time is the same.
"""

import concurrent.futures
import datetime
import functools
import importlib.util
import multiprocessing
import os
import platform
import re
import signal
import statistics
import sys
import time

import report
import input_data
import main
from absl import app, flags
import tensorflow as tf

FLAGS = flags.FLAGS
ONEDNN = 'TF_ENABLE_ONEDNN_OPTS'  # set by report.py; empty, it leaves the choice to TensorFlow
MATRIX = 2048        # rows and columns: the products of a step are about as large


def define_flags():
    group = {'module_name': 'Benchmark'}
    flags.DEFINE_integer('rounds', 15, 'Rounds, each of which measures every row once.', lower_bound=2, **group)
    flags.DEFINE_integer('steps', 5, 'Training steps in a round.', lower_bound=1, **group)
    flags.DEFINE_integer('batch_size', 100, 'Images a step.', lower_bound=1, **group)
    main.define_widths(group)


def training_flop(lenet, batch_size):
    """Floating-point operations of one step's layers, two a multiply-accumulate.

    A layer's forward pass, the gradient by its weights and the gradient by its input cost the same; nobody asks for the
    gradient by the images.
    """
    of_layer = main.macs(lenet.image_shape, lenet.widths)
    return 2 * batch_size * (3 * sum(of_layer.values()) - of_layer['conv1'])


@functools.cache
def setting(batch_size, widths):
    """What there is to measure with, made once a process: net, optimizer, data, function of one batch."""
    data = input_data.read_data_sets(fake_data=True)
    lenet = main.LeNet(data.train.images.shape[1:], widths, 0.8, 0.001, 0.0, 0)
    optimizer = tf.keras.optimizers.Adam(0.0001, epsilon=1e-8)
    optimizer.build(lenet.trainable_variables)
    images, labels = map(tf.constant, data.train)
    return lenet, optimizer, data, lambda: main.batch(images, labels, lenet.step, batch_size, 0)


@functools.cache
def workload(name, batch_size, widths):
    """A row of the first table: a function of how many times to do it."""
    lenet, optimizer, data, next_batch = setting(batch_size, widths)
    if name == 'training':
        steps = main.training_loop(lenet, optimizer, next_batch, 0.001, 0.01)
        return lambda count: steps(tf.constant(count))
    if name == 'evaluation':
        return lambda count: [main.evaluate(lenet, *main.batch(*data.test, i, main.EVALUATED, 0)) for i in range(count)]
    if name == 'torch':
        return torch_steps(data.train, batch_size, widths)
    matrix = tf.random.stateless_normal([MATRIX, MATRIX], [0, 0])
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    return lambda count: [product() for _ in range(count)]


def torch_steps(train, batch_size, widths):
    """The training steps in PyTorch: same net, loss, optimizer and batch size, data resident too."""
    import torch
    from torch import nn
    conv1, conv2, fc1, fc2 = widths
    torch.set_num_threads(os.cpu_count())
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


def parts(batch_size, widths):
    """The rows of the second table: dict from the name of a part of a training step to a function that does it once."""
    lenet, optimizer, _, next_batch = setting(batch_size, widths)
    height, width, channels = lenet.image_shape
    weights, variables = lenet.weights, lenet.trainable_variables
    random = functools.partial(tf.random.stateless_normal, seed=[0, 0])
    images, labels = next_batch()
    maps1, maps2 = random([batch_size, height, width, widths[0]]), random([batch_size, 14, 14, widths[1]])
    pooled1, flat = main.max_pool_2x2(maps1), random([batch_size, 49 * widths[1]])

    def convolution(x, w):
        return tf.nn.conv2d(x, w, strides=1, padding='SAME')

    def gradient(function, sources, *upstream):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            value = function()
        return tape.gradient(value, sources, *upstream)

    def bias_relu_pool(maps, bias):
        up = main.max_pool_2x2(maps)
        return lambda: gradient(lambda: main.max_pool_2x2(tf.nn.relu(maps + bias)), [maps, bias], up)

    def dense():
        x = flat
        for name in ('fc1', 'fc2'):
            x = lenet.dropout(lenet.nn_layer(x, *weights[name].shape, name), name, training_status=True)
        return main.cross_entropy(lenet.nn_layer(x, *weights['softmax'].shape, 'softmax', act=tf.identity), labels)

    of_dense = [v for name in ('fc1', 'fc2', 'softmax') for v in (weights[name], lenet.biases[name])]
    w1, w2 = weights['conv1'], weights['conv2']
    functions = {
        'drawing the batch': next_batch,
        'conv1: forward': lambda: convolution(images, w1),
        'conv1: gradient by the weights': lambda: gradient(lambda: convolution(images, w1), w1, maps1),
        'conv1: bias, relu, max-pool, their gradients': bias_relu_pool(maps1, lenet.biases['conv1']),
        'conv2: forward': lambda: convolution(pooled1, w2),
        'conv2: gradient by the weights': lambda: gradient(lambda: convolution(pooled1, w2), w2, maps2),
        'conv2: gradient by the input': lambda: gradient(lambda: convolution(pooled1, w2), pooled1, maps2),
        'conv2: bias, relu, max-pool, their gradients': bias_relu_pool(maps2, lenet.biases['conv2']),
        'dense layers, dropout, cross-entropy, their gradients': lambda: gradient(dense, [flat, *of_dense]),
        'group lasso, inverse variance, their gradients': lambda: gradient(
            lambda: tf.add_n(list(main.penalties(lenet.regularised(), 0.001, 0.01).values())), lenet.regularised()),
        'is all finite?': lambda: [tf.math.is_finite(tf.reduce_sum(v)) for v in variables],
        'Adam': lambda: optimizer.apply_gradients(zip(map(tf.identity, variables), variables)),
    }
    return {name: tf.function(function, autograph=False) for name, function in functions.items()}


def timed(function, *arguments):
    """Seconds that a call takes."""
    started = time.perf_counter()
    function(*arguments)
    tf.test.experimental.sync_devices()  # a GPU works on after the call
    return time.perf_counter() - started


def timed_workload(name, batch_size, widths, count):
    """Seconds of `count` times a row of the first table, in whatever process this is called in; all that is pickled."""
    return timed(workload(name, batch_size, widths), count)


def in_turn(rows, rounds):
    """Lists of seconds by row: every row once a round, the first of the `rounds` + 1 for warming up."""
    found = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, row in rows.items():
            found[name].append(row())
            if sys.stderr.isatty():
                print(f'\rround {number} of {rounds} ', end='', file=sys.stderr, flush=True)
    return {name: taken[1:] for name, taken in found.items()}


def show_speeds(batch_size, widths, rounds, steps):
    """Measures and prints the first table; returns the seconds of a training step."""
    lenet = setting(batch_size, widths)[0]
    timed_workload('training', batch_size, widths, 1)  # by now this process has read its environment
    os.environ[ONEDNN] = ''
    other = concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context('spawn'), signal.signal, (signal.SIGINT, signal.SIG_IGN))  # Ctrl-C ends this one
    training = training_flop(lenet, batch_size), batch_size, steps
    evaluation = 2 * main.EVALUATED * sum(main.macs(lenet.image_shape, lenet.widths).values()), main.EVALUATED, 1
    rows = {  # title: (workload, in the other process?, FLOP, images, how many in a round)
        'float32 matrix product': ('product', False, 2 * MATRIX**3, None, 1),
        'training step': ('training', False, *training),
        "training step, TensorFlow's defaults": ('training', True, *training),
        'training step, PyTorch': ('torch', True, *training),
        'evaluation': ('evaluation', False, *evaluation),
        "evaluation, TensorFlow's defaults": ('evaluation', True, *evaluation)}
    if not importlib.util.find_spec('torch'):
        del rows['training step, PyTorch']
        print('PyTorch is not installed: no row for it\n')

    def measure(name, elsewhere, flop, images, count):
        arguments = name, batch_size, widths, count
        taken = other.submit(timed_workload, *arguments).result() if elsewhere else timed_workload(*arguments)
        return taken / count

    found = in_turn({title: functools.partial(measure, *row) for title, row in rows.items()}, rounds)
    other.shutdown()
    median = {title: statistics.median(taken) for title, taken in found.items()}
    print(f'\r{"":37}{"ms":>8}{"middle half":>15}{"images/s":>10}{"GFLOP/s":>9}{"of the product":>16}{"time ratio":>12}')
    rate = 2 * MATRIX**3 / median['float32 matrix product']
    for title, (_, elsewhere, flop, images, _) in rows.items():
        quarters = statistics.quantiles(found[title], n=4)
        if not elsewhere:
            ours = median[title]
        print(f'{title:37}{1e3 * median[title]:8.1f}{1e3 * quarters[0]:8.1f} -{1e3 * quarters[2]:5.0f}'
              f'{images / median[title] if images else 0:10,.0f}{flop / median[title] / 1e9:9.0f}'
              f'{flop / median[title] / rate:16.0%}{median[title] / ours:12.2f}')
    run = 100000 * median['training step'] + 1000 * median['evaluation']
    print(f'\n100,000 steps, with an evaluation every 100: {datetime.timedelta(seconds=round(run))}')
    return median['training step']


def show_parts(batch_size, widths, rounds, step):
    """Measures and prints the second table; `step`: seconds of a whole training step."""
    functions = parts(batch_size, widths)
    found = in_turn({name: functools.partial(timed, function) for name, function in functions.items()}, rounds)
    median = {name: statistics.median(taken) for name, taken in found.items()}
    print(f'\r\n{"parts of a training step, each by itself":54}{"ms":>8}{"of the step":>13}')
    for name, taken in [*median.items(), ('sum', sum(median.values()))]:
        print(f'{name:54}{1e3 * taken:8.1f}{taken / step:13.0%}')


def processor():
    """The CPU's name, as far as the system tells."""
    try:
        return re.search(r'model name\s*: (.*)', open('/proc/cpuinfo').read())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def benchmark(_):
    tf.config.experimental.enable_op_determinism()  # as in a run
    arguments = FLAGS.batch_size, tuple(map(int, FLAGS.widths)), FLAGS.rounds
    print(f'machine: {processor()}, {os.cpu_count()} cores, {platform.system()}, '
          f'{len(tf.config.list_physical_devices("GPU"))} GPUs')
    print(f'versions: {", ".join(f"{name} {version}" for name, version in report.versions().items())}; '
          f'{ONEDNN}={os.environ[ONEDNN]}')
    print(f'net: widths {",".join(FLAGS.widths)}, batches of {FLAGS.batch_size}; medians of {FLAGS.rounds} rounds\n')
    with report.one_line_errors():
        show_parts(*arguments, show_speeds(*arguments, FLAGS.steps))


if __name__ == '__main__':
    define_flags()
    app.run(benchmark, flags_parser=functools.partial(report.parse_flags, __doc__, ['Benchmark']))
