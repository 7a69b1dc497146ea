"""Many training steps in one call: op by op, or compiled by XLA.

Op by op, a GPU waits: each step launches many small kernels, its indices come from the CPU, and whether it was finite
goes back there. Compiled, many steps are one program of fewer kernels that asks the host nothing meanwhile: what that
gains is in python/README.rst, "GPU". On a CPU it is the slower way. Both ways compute the same up to rounding;
neither's bits are the other's.

`ordinary` and `compiled` take:
  train_set: list of the training images and labels, tensors: arguments of each call, so that no graph keeps them alive.
  lenet: the net, with `dropout`, `pool`, `step`, `widths`, `keep_probability` and `trainable_variables`.
  optimizer: a keras.optimizers.Optimizer, built.
  step: function of a net, images, labels and cond, which trains on one batch if all is finite, and returns whether.
  settings: main.Settings.
They return the function of an int, `count`, which takes that many steps, but stops at the first that is not finite, and
returns whether all were, a bool scalar. It is traced here, not by a first call: several runs in one process would look
like retracing, and bring a warning.
"""

import copy
import math
import sys
from functools import partial

import tensorflow as tf

import input_data
import surroundings


def ordinary(train_set, lenet, optimizer, step, settings):
    """The steps op by op.

    A call for each step would take 1.14 times as long at widths 4,4,8,8 and 1.01 times at the default ones, on two
    cores (python/benchmark.py).
    """
    @tf.function(autograph=False)
    def train_steps(images, labels, count):
        def goes_on(done, finite):
            return (done < count) & finite

        def one_step(done, _):
            some, their = input_data.batch(images, labels, lenet.step, settings.batch_size, seed=settings.seed)
            return done + 1, step(lenet, images=some, labels=their)

        return tf.while_loop(goes_on, one_step, [0, True])[1]

    traced = train_steps.get_concrete_function(*train_set, tf.TensorSpec([], tf.int32))
    return lambda count: traced(*train_set, tf.constant(count))


def trip_count(settings):
    """How many steps each call of the compiled way has, an int.

    As many as fit the run's intervals, which end its calls: their greatest common divisor or, if that is above the
    most, as equal a part of it as there is. At least 16 and at most 256, but never more than 10^6 indices or 10^8
    elements of masks (our choice). A call takes the time of all, however few it is asked for: with intervals below 16
    most of it is lost.
    """
    most = max(1, min(256, 10**6 // settings.batch_size, 10**8 // (settings.batch_size * sum(settings.widths[2:]))))
    together = math.gcd(settings.eval_interval, settings.checkpoint_interval)
    return min(most, max(16, math.ceil(together / math.ceil(together / most))))


def compiled(train_set, lenet, optimizer, step, settings):
    """The steps compiled by XLA, `trip_count` of them a call.

    - XLA draws other random numbers of the same seed, and has no RandomIndexShuffle: `draw` goes before, on the CPU,
      which a GPU would ask for each seed.
    - The number of iterations is constant: else each one would ask the host whether to go on. Those beyond `count`, or
      after one that is not finite, change nothing.

    Keras's Adam is compiled as it is: TensorFlow's fused one, ResourceApplyAdam, gave as many fusions, on a CPU.

    XLA compiles at the first call, for seconds, at the paper's widths for many minutes on a CPU. It says so before, for
    no signal can reach a run meanwhile.
    """
    slower = ', and on a CPU they will be slower' if surroundings.device() == 'cpu' else ''
    print(f'XLA compiles the steps: Ctrl-C waits until it has{slower}', file=sys.stderr, flush=True)
    steps, scalar = trip_count(settings), tf.TensorSpec([], tf.int64)
    state = [*(variable.value for variable in optimizer.variables), *lenet.trainable_variables, lenet.step]

    @tf.function(autograph=False)
    def draw(first):
        with tf.device('CPU'):
            return (tf.reshape(input_data.indices(len(train_set[1]), first, settings.batch_size, settings.seed, steps),
                               [steps, settings.batch_size]),
                    kept(lenet, first + tf.range(steps, dtype=tf.int64), settings.batch_size))

    @tf.function(autograph=False, jit_compile=True)
    def train_steps(images, labels, index, masks, count, finite):
        def one_step(i, finite):
            goes_on = finite & (i < count)
            net = compilable(lenet, {name: mask[i] for name, mask in masks.items()})
            found = step(net, images=tf.gather(images, index[i]), labels=tf.gather(labels, index[i]),
                         cond=partial(apply_or_undo, goes_on, state))
            return i + 1, tf.where(goes_on, found, finite)

        return tf.while_loop(lambda i, _: i < steps, one_step, [tf.constant(0, tf.int64), finite])[1]

    draw = draw.get_concrete_function(scalar)
    traced = train_steps.get_concrete_function(*train_set, *draw.structured_outputs, scalar, tf.TensorSpec([], tf.bool))

    def call(count):
        begun, finite = int(lenet.step), tf.constant(True)
        for done in range(0, max(1, count), steps):
            with tf.device('CPU'):
                drawn = draw(tf.constant(begun + done, tf.int64))
            finite = traced(*train_set, *drawn, tf.constant(min(steps, count - done), tf.int64), finite)
        return finite
    return call


def kept(lenet, steps, batch_size):
    """What dropout keeps at some steps: int64 [N] to a dict from layer name to bool [N, batch_size, outputs]."""
    def of_one(step):
        net = copy.copy(lenet)
        net.step = step
        with tf.device('CPU'):
            return {name: net.dropout(tf.ones([batch_size, width]), name, training_status=True) != 0
                    for name, width in zip(('fc1', 'fc2'), lenet.widths[2:], strict=True)}

    return tf.map_fn(of_one, steps, fn_output_signature={'fc1': tf.bool, 'fc2': tf.bool})


def compilable(lenet, masks):
    """Another net on the same variables, for XLA, in training alone; `masks` is what `kept` has of one step."""
    net = copy.copy(lenet)
    net.pool = max_pool_2x2
    net.dropout = lambda x, layer_name, training_status: tf.where(masks[layer_name], x / lenet.keep_probability, 0)
    return net


def max_pool_2x2(x):
    """main.max_pool_2x2 and its gradient, bit for bit, of ops whose gradients XLA gives the same bits each time.

    Where several are the largest, the first gets the gradient, as there; tf.reduce_max would share it out.
    """
    x = tf.pad(x, [[0, 0], [0, x.shape[1] % 2], [0, x.shape[2] % 2], [0, 0]], constant_values=x.dtype.min)
    top, bottom = (tf.maximum(x[:, i::2, ::2], x[:, i::2, 1::2]) for i in (0, 1))
    return tf.maximum(top, bottom)


def apply_or_undo(goes_on, state, finite, apply, _):
    """Stands for tf.cond(finite, apply, lambda: False): applies always, then takes it back unless both bools hold.

    `state` has all variables that `apply` changes.
    """
    before = [variable.read_value() for variable in state]
    apply()
    for variable, value in zip(state, before, strict=True):
        variable.assign(tf.where(goes_on & finite, variable, value))
    return finite
