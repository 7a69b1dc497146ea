"""Attention-Based Guided Structured Sparsity of Deep Neural Networks, reproduced.

Torfi & Shirvani, 2018, https://arxiv.org/abs/1802.09902. A LeNet learns MNIST under the loss

    L = CE + lambda_g * sum_l sum_g ||W_l,g||_2 + lambda_v * sum_l 1 / Var_g(||W_l,g||_2^2)

where g runs over the groups of layer l: all weights that feed one output. The group lasso pulls whole groups to
zero; the inverse variance, the paper's attention, pulls the groups of a layer apart, so that some stay alive.

    python main.py --max_steps=100000                     the paper's run
    python main.py --dataset=mnist_5k --max_steps=500     nothing to download; 94% of the test digits in a minute
    python main.py --group_variance=0                     SSL: the group lasso alone
    python main.py --group_lasso=0 --group_variance=0     dense; with --random_sparsity=0.9: sparsely connected

The file follows the paper: flags, layers, losses, sparsity, net, training, evaluation.
"""

import copy
import functools
import math
import os
import re
import sys
import time
import zlib

import report  # before TensorFlow, whose start-up noise it keeps off the screen
import checkpoints
import input_data
from absl import app, flags, logging
import numpy as np
import tensorflow as tf

FLAGS = flags.FLAGS

# ---------------------------------------------------------------------------------------------------------- flags

FLAG_GROUPS = ('Data', 'Net', 'Sparsity', 'Training', 'Output')


def define_flags():
    """Defines the flags: in a function, so that a program with flags of its own can import this file."""
    data, net, sparsity, training, output = ({'module_name': group} for group in FLAG_GROUPS)
    not_negative = (lambda x: 0 <= x < 3.4e38), 'finite and at least 0'  # finite in float32

    flags.DEFINE_enum('dataset', 'mnist', input_data.DATASETS, 'The images to learn; mnist_5k needs no download.', **data)
    flags.DEFINE_string('data_dir', None, 'Folder of the files of mnist, fashion_mnist or cifar10, downloaded when '
                        'absent. None: a cache folder in your home.', **data)
    flags.DEFINE_boolean('fake_data', False, 'Learn made-up images instead of --dataset.', **data)

    define_widths(net)
    define_float('dropout', 0.8, lambda p: 1 - p < 1 and p <= 1, 'above 0 and at most 1',  # 1 - 1e-320 is 1, too
                 'Probability of KEEPING an output of fc1 and fc2 in training.', net)

    define_float('group_lasso', 0.001, *not_negative, 'lambda_g, the coefficient of the group lasso; 0 drops the term.',
                 sparsity)
    define_float('group_variance', 0.01, *not_negative, 'lambda_v, the coefficient of the inverse variance; 0 drops the '
                 'term, which leaves SSL. With both 0 the net is dense.', sparsity)
    define_float('sparsity_threshold', 0.001, *not_negative, 'A weight of this magnitude or less counts as zero, in '
                 'evaluation.', sparsity)
    define_float('random_sparsity', 0.0, lambda s: 0 <= s < 1, 'at least 0 and below 1', 'Share of the connections of '
                 'the four hidden layers to switch off at random for good: with both coefficients 0, Sparsely Connected '
                 'Nets.', sparsity)

    flags.DEFINE_integer('max_steps', 100000, 'Steps to train.', lower_bound=0, upper_bound=10**9, **training)
    define_learning_rates(training)
    flags.DEFINE_integer('batch_size', 100, 'Images a step.', lower_bound=1, upper_bound=100000, **training)
    flags.DEFINE_integer('seed', 0, 'Decides the initial weights, the order of the images, dropout, masks and '
                         '--fake_data.', lower_bound=0, upper_bound=2**31 - 1, **training)

    # absl.logging has a log_dir of its own.
    flags.DEFINE_string('log_dir', None, "The run's folder. None: logs/<data set>-<hash of all that changes the "
                        'weights> in the working directory.', allow_override=True, **output)
    flags.DEFINE_integer('eval_interval', 100, 'Steps between evaluations.', lower_bound=1, **output)
    flags.DEFINE_integer('checkpoint_interval', 250, 'Steps between checkpoints.', lower_bound=1, **output)
    define_float('target_accuracy', None, lambda a: a is None or 0 <= a <= 1, 'from 0 to 1', 'Exit with status 1 if the '
                 'accuracy on the whole test set, thresholded, ends below this share.', output)
    define_float('target_sparsity', None, lambda s: s is None or 0 <= s <= 1, 'from 0 to 1', 'Exit with status 1 if the '
                 'global sparsity, the share of all weights that count as zero, ends below this.', output)

    for name in ('data_dir', 'log_dir'):
        flags.register_validator(name, lambda folder: folder != '', 'must be the name of a folder')
    flags.register_multi_flags_validator(
        ['widths', 'group_variance'], lambda f: f['group_variance'] == 0 or '1' not in f['widths'],
        'one group has no variance: make every width at least 2, or give --group_variance=0')


def define_float(name, default, valid, bounds, text, group):
    """Chained comparisons as bounds, because NaN passes absl's own."""
    flags.DEFINE_float(name, default, text, **group)
    flags.register_validator(name, valid, f'must be {bounds}')


def define_learning_rates(group, default=0.0001, final=None):
    define_float('learning_rate', default, lambda r: 0 < r < 3.4e38, 'finite and above 0', "Adam's learning rate.", group)
    define_float('final_learning_rate', final, lambda r: r is None or 0 <= r < 3.4e38, 'finite and at least 0', 'The rate '
                 'falls to this at --max_steps, along half a cosine; --max_steps then belongs to what makes a run. None: it '
                 'is constant.', group)
    flags.register_multi_flags_validator(
        ['learning_rate', 'final_learning_rate'],
        lambda f: f['final_learning_rate'] is None or f['final_learning_rate'] <= f['learning_rate'],
        'the rate falls: --final_learning_rate must be at most --learning_rate')


def define_widths(group, default='64,128,512,256'):
    flags.DEFINE_list('widths', default, 'Outputs of conv1, conv2, fc1 and fc2.', **group)
    flags.register_validator(
        'widths', lambda widths: len(widths) == 4 and all(re.fullmatch('[1-9][0-9]{0,5}', n) for n in widths),
        'must be four whole numbers from 1 to 999999, such as 64,128,512,256')


# --------------------------------------------------------------------------------------------------------- layers

REGULARISED = ('conv1', 'conv2', 'fc1', 'fc2')  # neither the output layer nor any bias is in the sums of the loss


def stream(seed, name, index=0):
    """The seed (int64 [2]) of one stateless random op: a pure function of the run's seed, the op's name, an index."""
    return tf.stack([seed << 32 | zlib.crc32(name.encode()), tf.cast(index, tf.int64)])


class Layers(tf.Module):
    """The paper's layer helpers, and the state that they share.

    A layer's variables come into being when it is first called. `training_status` is a Python bool throughout: True
    applies dropout and takes the weights as they are; False, for evaluation, applies no dropout and takes the weights
    thresholded (the authors' program). Neither changes a variable.

    Attributes:
      weights, biases: dicts from layer name to float32 variable, outputs on the last axis.
      step: int64 scalar variable, the training steps done.
      zero_activations: dict from layer name to the share of zeros in its activations, float32 scalars; as symbolic as
        the latest call, and so valid inside the same tf.function alone.
    """

    def __init__(self, keep_probability, threshold, random_sparsity, seed):
        super().__init__()
        self.keep_probability, self.threshold = keep_probability, threshold
        self.random_sparsity, self.seed = random_sparsity, seed
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name='step')
        self.weights, self.biases, self.masks, self.zero_activations = {}, {}, {}, {}

    def parameters(self, layer_name, w_shape, b_shape, training_status):
        """The layer's weights (masked, or thresholded, as the case may be) and biases; creates them if need be."""
        if layer_name not in self.weights:
            # Truncated normal of 0.1, and 0.1: the authors' program.
            initial = 0.1 * tf.random.stateless_truncated_normal(w_shape, stream(self.seed, f'{layer_name}/weights'))
            if self.random_sparsity and layer_name in REGULARISED:
                self.masks[layer_name] = self.random_mask(layer_name, w_shape)
                initial *= self.masks[layer_name]
            self.weights[layer_name] = tf.Variable(initial, name='weights')
            self.biases[layer_name] = tf.Variable(tf.fill(b_shape, 0.1), name='biases')
        weights = self.weights[layer_name]
        if layer_name in self.masks:
            weights = weights * self.masks[layer_name]  # so that no gradient reaches a connection that is off
        return (weights if training_status else sparsify(weights, self.threshold)), self.biases[layer_name]

    def random_mask(self, layer_name, shape):
        """Zeros at exactly the share `random_sparsity` of places, drawn from the seed, and ones elsewhere."""
        size = math.prod(shape)
        rank = tf.random.experimental.stateless_shuffle(tf.range(size), stream(self.seed, f'{layer_name}/mask'))
        return tf.reshape(tf.cast(rank >= round(self.random_sparsity * size), tf.float32), shape)

    def nn_layer(self, input_tensor, input_dim, output_dim, layer_name, training_status=True, act=tf.nn.relu):
        """Dense layer: float32 [N, input_dim] to [N, output_dim]."""
        with tf.name_scope(layer_name):
            weights, biases = self.parameters(layer_name, [input_dim, output_dim], [output_dim], training_status)
            return self.observed(act(tf.matmul(input_tensor, weights) + biases), layer_name)

    def nn_conv_layer(self, input_tensor, w_shape, b_shape, layer_name, padding='SAME', training_status=True,
                      act=tf.nn.relu):
        """Convolution with stride 1: float32 [N, height, width, w_shape[2]] to [N, height, width, w_shape[3]]."""
        with tf.name_scope(layer_name):
            weights, biases = self.parameters(layer_name, w_shape, b_shape, training_status)
            return self.observed(act(tf.nn.conv2d(input_tensor, weights, strides=1, padding=padding) + biases),
                                 layer_name)

    def observed(self, activations, layer_name):
        """The activations, once the share of their zeros is noted."""
        self.zero_activations[layer_name] = tf.math.zero_fraction(activations)
        return activations

    def dropout(self, x, layer_name, training_status):
        """Dropout by a mask that is a pure function of seed, layer and step; none in evaluation."""
        if not training_status:
            return x
        with tf.name_scope(f'{layer_name}/'):  # the slash: in the layer's own scope
            seed = stream(self.seed, f'{layer_name}/dropout', self.step)
            return tf.nn.experimental.stateless_dropout(x, rate=1 - self.keep_probability, seed=seed)


def max_pool_2x2(x):
    """Halves height and width, rounding up."""
    return tf.nn.max_pool2d(x, ksize=2, strides=2, padding='SAME')


# --------------------------------------------------------------------------------------------------------- losses

def squared_group_norms(weight):
    """||W_g||_2^2 for each group: [..., outputs] to [outputs]."""
    return tf.reduce_sum(tf.square(weight), axis=list(range(len(weight.shape) - 1)))


def group_norms(weight):
    """||W_g||_2 for each group: [..., outputs] to [outputs]. The gradient of an all-zero group is 0, not NaN."""
    squared = squared_group_norms(weight)
    alive = squared > 0
    return tf.where(alive, tf.sqrt(tf.where(alive, squared, 1)), 0)  # the inner where keeps sqrt'(0) = inf out


def group_lasso(weights):
    """Group lasso, sum_l sum_g ||W_l,g||_2: no coefficient, no factor sqrt(group size).

    Args:
      weights: list of float tensors W_l of any rank with the outputs on the last axis; the group W_l,g is all that
        feeds output g. So it is for Keras's Dense and Conv1D to Conv3D. It is not for its transposed convolutions
        (outputs on the last axis but one), depthwise and separable ones (the last two axes together), EinsumDense
        and attention (heads and features), or the recurrent layers (the gates of a unit lie apart): transpose or
        reshape those first.

    Returns:
      Scalar of the weights' dtype.
    """
    return tf.add_n([tf.reduce_sum(group_norms(w)) for w in weights])


def group_variance(weights):
    """Attention, sum_l 1 / Var_g(||W_l,g||_2^2): population variance over a layer's groups, no epsilon.

    Args:
      weights: list of float tensors, as for `group_lasso`.

    Returns:
      Scalar of the weights' dtype. If the groups of a layer are all equal, of which a layer with one group and a layer
      of zeros are cases, it is inf, or very large by rounding; in float32 its gradient overflows to inf or NaN even
      before, at a variance of some 1e-19.
    """
    return tf.add_n([1 / tf.math.reduce_variance(squared_group_norms(w)) for w in weights])


def penalties(weights, lambda_g, lambda_v):
    """The loss's terms other than CE, by name, scaled. A coefficient of 0 leaves its term out, for 0 * inf is NaN."""
    terms = {}
    if lambda_g:
        terms['group_lasso'] = lambda_g * group_lasso(weights)
    if lambda_v:
        terms['group_variance'] = lambda_v * group_variance(weights)
    return terms


def cross_entropy(logits, labels):
    """CE, the mean softmax cross-entropy: logits float32 [N, classes], labels int64 [N]; scalar."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


# ------------------------------------------------------------------------------------------------------- sparsity

def sparsify(weight, threshold):
    """The tensor with zeros where |weight| <= threshold."""
    return tf.where(tf.abs(weight) <= threshold, tf.zeros_like(weight), weight)


def sparsity(weights, threshold):
    """What the paper reports.

    Args:
      weights: list of tensors of any shape.
      threshold: float, the magnitude up to which a weight counts as zero.

    Returns:
      (float32 scalar: unweighted mean over the list of the share of zeros; int64 scalar: number of weights left).
    """
    thresholded = [sparsify(w, threshold) for w in weights]
    return (tf.reduce_mean([tf.math.zero_fraction(w) for w in thresholded]),
            tf.add_n([tf.math.count_nonzero(w) for w in thresholded]))


def macs(image_shape, widths):
    """Multiply-accumulates of the forward pass for one image, by layer, as a dict of ints; biases are not counted.

    Args:
      image_shape: (height, width, channels). widths: outputs of conv1, conv2, fc1 and fc2.
    """
    (height, width, channels), (conv1, conv2, fc1, fc2) = image_shape, widths
    half, quarter = (math.ceil(height / n) * math.ceil(width / n) for n in (2, 4))  # positions after each pooling
    return {'conv1': height * width * 25 * channels * conv1, 'conv2': half * 25 * conv1 * conv2,
            'fc1': quarter * conv2 * fc1, 'fc2': fc1 * fc2, 'softmax': fc2 * input_data.CLASSES}


def sparsity_figures(lenet):
    """All that is reported of a net's sparsity, as a dict of plain numbers; `macs`: without the groups that are dead."""
    everything = list(lenet.weights.values())
    mean_of_five, left = sparsity(everything, lenet.threshold)
    mean_of_four, _ = sparsity(lenet.regularised(), lenet.threshold)
    total = sum(math.prod(w.shape) for w in everything)
    layers = {}
    for name, weight in lenet.weights.items():
        norms = group_norms(sparsify(weight, lenet.threshold))
        layers[name] = {'zero_share': float(sparsity([weight], lenet.threshold)[0]),
                        'groups_alive': int(tf.math.count_nonzero(norms)), 'groups': norms.shape[0],
                        'largest_norms': np.sort(norms)[:-3:-1].tolist()}  # two: one group may carry the variance
    alive = [layers[name]['groups_alive'] for name in REGULARISED]
    return {'mean_of_five': float(mean_of_five), 'mean_of_four': float(mean_of_four),
            'global_sparsity': 1 - int(left) / total, 'weights_left': int(left), 'weights': total, 'layers': layers,
            'macs': sum(macs(lenet.image_shape, alive).values()),
            'macs_dense': sum(macs(lenet.image_shape, lenet.widths).values())}


# ------------------------------------------------------------------------------------------------------------ net

class LeNet(Layers):
    """The paper's net for images of any shape: two convolutions, two dense layers, an output layer."""

    def __init__(self, image_shape, widths, keep_probability, threshold, random_sparsity, seed):
        """Creates the variables.

        Args:
          image_shape: (height, width, channels). widths: outputs of conv1, conv2, fc1 and fc2.
          keep_probability: float in (0, 1], of dropout. threshold: float >= 0, for evaluation.
          random_sparsity: float in [0, 1), share of the connections of the four regularised layers to switch off.
          seed: int in [0, 2^31).
        """
        super().__init__(keep_probability, threshold, random_sparsity, seed)
        self.image_shape, self.widths = tuple(image_shape), tuple(widths)
        self.net(tf.zeros([1, *image_shape]), training_status=False)

    def regularised(self):
        """The weights that the loss regularises, in the paper's order."""
        return [self.weights[name] for name in REGULARISED]

    def net(self, x, training_status):
        """Images, float32 [N, height, width, channels] or flat, to logits, float32 [N, 10]."""
        height, width, channels = self.image_shape
        conv1, conv2, fc1, fc2 = self.widths

        with tf.name_scope('reshape'):
            x_image = tf.reshape(x, [-1, height, width, channels])

        h_conv1 = self.nn_conv_layer(x_image, [5, 5, channels, conv1], [conv1], 'conv1',
                                     training_status=training_status)
        with tf.name_scope('pool1'):
            h_pool1 = max_pool_2x2(h_conv1)                                       # [N, 14, 14, 64]

        h_conv2 = self.nn_conv_layer(h_pool1, [5, 5, conv1, conv2], [conv2], 'conv2',
                                     training_status=training_status)
        with tf.name_scope('pool2'):
            h_pool2 = max_pool_2x2(h_conv2)                                       # [N, 7, 7, 128]
            features = math.prod(h_pool2.shape[1:])
            h_flat = tf.reshape(h_pool2, [-1, features])                          # [N, 6272]

        h_fc1 = self.nn_layer(h_flat, features, fc1, 'fc1', training_status=training_status)
        h_fc1 = self.dropout(h_fc1, 'fc1', training_status)

        h_fc2 = self.nn_layer(h_fc1, fc1, fc2, 'fc2', training_status=training_status)
        h_fc2 = self.dropout(h_fc2, 'fc2', training_status)

        return self.nn_layer(h_fc2, fc2, input_data.CLASSES, 'softmax', training_status=training_status,
                             act=tf.identity)

    def at_threshold(self, threshold):
        """The same net on the same variables, thresholded elsewhere in evaluation; at 0 it is the net as trained."""
        other = copy.copy(self)
        other.threshold = threshold
        return other


# ------------------------------------------------------------------------------------------------------- training

EVALUATED = 1000  # test images of a periodic evaluation: the authors' program


def batch(images, labels, step, batch_size, seed):
    """The images and labels of one step (int, or int64 scalar), a pure function of (seed, step).

    Each epoch takes all of `images` and `labels` in an order of its own; a batch may run across the end of an epoch.
    The periodic evaluation takes its test images likewise, its number in place of the step (the authors' program).
    """
    position = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    size = tf.shape(labels, tf.int64)[0]
    epoch, place = position // size, position % size
    seeds = tf.stack([tf.fill([batch_size], tf.cast(seed, tf.int64)), epoch, tf.zeros_like(epoch)], axis=1)
    # With the 4 rounds that are TensorFlow's default, the orders of successive epochs resemble each other.
    index = tf.raw_ops.RandomIndexShuffle(index=place, max_index=size - 1, seed=seeds, rounds=16)
    return tf.gather(images, index), tf.gather(labels, index)


def training_step(lenet, optimizer, images, labels, lambda_g, lambda_v):
    """One step of the optimizer on one batch.

    Returns:
      bool scalar: whether the loss and its gradient were finite. If not, nothing was changed.
    """
    with tf.GradientTape() as tape:
        logits = lenet.net(images, training_status=True)
        terms = penalties(lenet.regularised(), lambda_g, lambda_v)
        loss = tf.add_n([cross_entropy(logits, labels), *terms.values()])
    variables = lenet.trainable_variables
    gradients = tape.gradient(loss, variables)
    finite = tf.reduce_all(tf.math.is_finite([tf.reduce_sum(t) for t in (loss, *gradients)]))

    def apply():
        optimizer.apply_gradients(zip(gradients, variables))
        lenet.step.assign_add(1)
        return True

    return tf.cond(finite, apply, lambda: False)


def training_loop(lenet, optimizer, next_batch, lambda_g, lambda_v):
    """A function that takes `count` steps, an int32 scalar, in one call, and returns whether all were finite.

    It stops at the first that is not. What it does between two calls costs the host nothing, which counts on a GPU.
    """
    @tf.function(autograph=False)  # reading all that is called here for Python's own if and for would take seconds
    def train_steps(count):
        def one_step(done, _):
            return done + 1, training_step(lenet, optimizer, *next_batch(), lambda_g, lambda_v)
        return tf.while_loop(lambda done, finite: (done < count) & finite, one_step, [0, True])[1]
    return train_steps


def explain(lenet, images, labels, lambda_g, lambda_v):
    """Names what is not finite in this step, a term of the loss or its gradient, and says what to do."""
    def broken(term):
        with tf.GradientTape() as tape:
            value = term()
        gradients = tape.gradient(value, lenet.trainable_variables)
        return not all(np.isfinite(t).all() for t in (value, *gradients) if t is not None)

    if broken(lambda: tf.add_n([tf.reduce_sum(v) for v in lenet.trainable_variables])):
        return 'the weights. Try a smaller --learning_rate.'
    for name in REGULARISED:
        weights = [lenet.weights[name]]
        if lambda_v and broken(lambda: lambda_v * group_variance(weights)):
            return (f'the group variance of {name}: its groups have become equal. Try a smaller --group_lasso, '
                    '--random_sparsity or --learning_rate, or --group_variance=0.')
        if lambda_g and broken(lambda: lambda_g * group_lasso(weights)):
            return f'the group lasso of {name}. Try a smaller --group_lasso or --learning_rate.'
    return 'the cross-entropy. Try a smaller --learning_rate.'


def train(data, log_dir=None, source=None, *, max_steps=100000, learning_rate=0.0001, sparsity_threshold=0.001, dropout=0.8,
          group_lasso=0.001, group_variance=0.01, random_sparsity=0.0, widths=(64, 128, 512, 256), batch_size=100,
          final_learning_rate=None, seed=0, eval_interval=100, checkpoint_interval=250):
    """Trains the net, or continues to; evaluates on the way and at the end; writes all of it into the run's folder.

    Args:
      data: input_data.DataSets.
      log_dir: the run's folder; None: checkpoints.default_log_dir.
      source: dict of the arguments of input_data.read_data_sets that gave `data`, for compress.py to find them again.
      The others are the flags of the same names.

    Returns:
      Dict of the final figures, as in results.json.

    Raises:
      checkpoints.RunError: the folder or its checkpoints cannot be used, or the loss is no longer finite.
      checkpoints.Interrupted: by SIGINT or SIGTERM, after a checkpoint.
    """
    # First of all, while the arguments are the only local names.
    settings = {name: value for name, value in locals().items() if name not in ('data', 'log_dir', 'source')}
    lenet = LeNet(data.train.images.shape[1:], widths, dropout, sparsity_threshold, random_sparsity, seed)
    rate = learning_rate if final_learning_rate is None else tf.keras.optimizers.schedules.CosineDecay(
        learning_rate, max(1, max_steps), alpha=final_learning_rate / learning_rate)
    optimizer = tf.keras.optimizers.Adam(rate, epsilon=1e-8)  # TensorFlow 1's epsilon
    optimizer.build(lenet.trainable_variables)
    images, labels = map(tf.constant, data.train)
    test, test_size = [*map(tf.constant, data.test)], min(EVALUATED, len(data.test.labels))

    def next_batch():
        return batch(images, labels, lenet.step, batch_size, seed)

    train_steps = training_loop(lenet, optimizer, next_batch, group_lasso, group_variance)
    with checkpoints.Run(log_dir, data, settings, {'data': source, 'versions': report.versions()}) as run:
        step, steps_per_call = run.restore(net=lenet, optimizer=optimizer), 1
        if step > max_steps:
            raise checkpoints.RunError(f'{run.folder} holds this run at step {step}. Give a --max_steps of at least that.')
        # Traced here once for any number of images, and train_steps too, so that no timing includes that.
        specs = [tf.TensorSpec([None, *array.shape[1:]], array.dtype) for array in (images, labels)]
        graphs = {name: measure.get_concrete_function(lenet, *specs, training_status=name == 'train').graph
                  for name in ('train', 'test')}
        train_steps(tf.constant(0))
        show = report.Report(run.folder, run.facts, data, lenet, graphs, step)
        run.undo.callback(show.close)
        while True:
            if step % eval_interval == 0:
                show.evaluation(step, train=measure(lenet, *next_batch(), training_status=True),
                                test=evaluate(lenet, *batch(*test, step // eval_interval, test_size, seed)),
                                penalties=penalties(lenet.regularised(), group_lasso, group_variance),
                                sparsity=sparsity_figures(lenet),
                                norms={name: group_norms(weight) for name, weight in lenet.weights.items()})
            if step == max_steps:
                break
            count = min(steps_per_call, max_steps - step, eval_interval - step % eval_interval,
                        checkpoint_interval - step % checkpoint_interval)
            started = time.perf_counter()
            finite = bool(train_steps(tf.constant(count)))
            seconds = time.perf_counter() - started
            if not finite:
                raise checkpoints.RunError(f'at step {int(lenet.step)} this is no longer finite: '
                                           + explain(lenet, *next_batch(), group_lasso, group_variance))
            step += count
            steps_per_call = max(1, int(count / seconds))  # about a second's worth, so that signals need not wait
            show.progress(count, seconds)
            if run.signal or step % checkpoint_interval == 0 or step == max_steps:
                run.save(step)
            if run.signal:
                raise checkpoints.Interrupted(run.signal, step)

        figures = {'step': step, **sparsity_figures(lenet), **accuracies(lenet, data)}
        if not math.isfinite(figures['test']['cross_entropy']):
            raise checkpoints.RunError('the weights are no longer finite. Try a smaller --learning_rate.')
        show.end(figures)
    return figures


# ----------------------------------------------------------------------------------------------------- evaluation

@tf.function(autograph=False)
def measure(lenet, images, labels, training_status):
    """Dict of scalars for one batch: cross_entropy; accuracy, float64, so that 0.9 is 0.9; zero_activations by layer."""
    logits = lenet.net(images, training_status)
    hits = tf.equal(tf.argmax(logits, axis=1), labels)
    return {'cross_entropy': cross_entropy(logits, labels), 'accuracy': tf.reduce_mean(tf.cast(hits, tf.float64)),
            'zero_activations': dict(lenet.zero_activations)}


def evaluate(lenet, images, labels, batch_size=200):
    """The figures of `measure`, as floats, for any number of images: dropout off, weights thresholded."""
    parts = [(images[i:i + batch_size], labels[i:i + batch_size]) for i in range(0, len(labels), batch_size)]
    figures = [measure(lenet, *part, training_status=False) for part in parts]
    sizes = [len(part[1]) for part in parts]  # the last one may be smaller
    return tf.nest.map_structure(lambda *values: float(np.average(values, weights=sizes)), *figures)


def accuracies(lenet, data):
    """Accuracy on all images of the test and the validation set, thresholded and as trained."""
    figures, as_trained = {}, lenet.at_threshold(0.0)
    for part, dataset in (('test', data.test), ('validation', data.validation)):
        thresholded = evaluate(lenet, *dataset)
        figures[part] = {'accuracy': thresholded['accuracy'], 'cross_entropy': thresholded['cross_entropy'],
                         'accuracy_as_trained': evaluate(as_trained, *dataset)['accuracy']}
    return figures


# ----------------------------------------------------------------------------------------------------------- main

def main(_):
    logging.set_verbosity(logging.WARNING)
    tf.config.experimental.enable_op_determinism()  # same seed, same run, on a GPU too; for the whole process, so here
    sys.stdout.reconfigure(line_buffering=True)  # a log file shows each line as it comes
    with report.one_line_errors():
        source = {name: FLAGS[name].value for name in ('data_dir', 'fake_data', 'dataset', 'seed')}
        if FLAGS.data_dir:
            source['data_dir'] = os.path.abspath(os.path.expanduser(FLAGS.data_dir))
        mnist = input_data.read_data_sets(**source)
        settings = {name: FLAGS[name].value for name in train.__kwdefaults__}  # each has a flag of its name
        settings['widths'] = [int(n) for n in FLAGS.widths]
        figures = train(mnist, FLAGS.log_dir, source, **settings)
    for flag, name, figure in (('target_accuracy', 'test accuracy', figures['test']['accuracy']),
                               ('target_sparsity', 'global sparsity', figures['global_sparsity'])):
        if FLAGS[flag].value is not None and figure < FLAGS[flag].value:
            sys.exit(f'error: {name} {figure:.4f} is below --{flag}={FLAGS[flag].value}')
    return 0


if __name__ == '__main__':
    define_flags()
    app.run(main, flags_parser=functools.partial(report.parse_flags, __doc__, FLAG_GROUPS))
