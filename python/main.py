"""Attention-Based Guided Structured Sparsity of Deep Neural Networks, reproduced.

Torfi & Shirvani, 2018, https://arxiv.org/abs/1802.09902. A LeNet learns MNIST under the loss

    L = CE + lambda_g * sum_l sum_g ||W_l,g||_2 + lambda_v * sum_l 1 / Var_g(||W_l,g||_2^2)

where g runs over the groups of layer l: all weights that feed one output. The group lasso pulls whole groups to
zero; the inverse variance, the paper's attention, pulls the groups of a layer apart, so that some stay alive.

    python main.py --max_steps=100000                     the authors' own command; 4.4 hours on two cores with AVX-512
                                                          give 99.2%, mean of five 72.06%
    python main.py --dataset=mnist_5k --max_steps=500     nothing to download; 94.3%, mean of five 1.6%
    python main.py --group_variance=0                     SSL: the group lasso alone
    python main.py --group_lasso=0 --group_variance=0     dense; with --random_sparsity=0.9: sparsely connected

The file follows the paper: settings, losses, sparsity, net, evaluation, training, main.
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()  # what must be settled before TensorFlow is imported; for importers `train` checks it

import contextlib
import copy
import dataclasses
import math
import time
import zlib
from functools import cache, partial

import numpy as np
import tensorflow as tf
from absl import flags

import checkpoints
import files
import input_data
import loops
import program
import report
import surroundings

FLAGS = flags.FLAGS

# ------------------------------------------------------------------------------------------------------- settings

FLAG_GROUPS = ('Data', 'Net', 'Sparsity', 'Training', 'Output')


@dataclasses.dataclass(frozen=True)
class Settings(program.Checked):
    """All that makes a run, besides its data: one flag each; raises program.RunError for what is out of bounds.

    The paper has lambda_g and lambda_v as symbols. Their values, and all others that are not called ours, are those of
    the authors' program.
    """
    widths: tuple = program.setting(
        (64, 128, 512, 256), 'Net', 'Outputs of conv1, conv2, fc1 and fc2.', lambda widths: len(widths) == 4 and all(
            1 <= n < 10**6 for n in widths), 'four whole numbers from 1 to 999999, such as 64,128,512,256')
    dropout: float = program.setting(0.8, 'Net', 'Probability of KEEPING an output of fc1 and fc2 in training.',
                                     lambda p: 1 - p < 1 and p <= 1, 'above 0 and at most 1')  # 1 - p may round to 1
    group_lasso: float = program.not_negative(0.001, 'Sparsity', 'lambda_g, of the group lasso; 0 drops the term.')
    group_variance: float = program.not_negative(
        0.01, 'Sparsity', 'lambda_v, of the inverse variance; 0 drops the term: SSL. With both 0 the net is dense.')
    sparsity_threshold: float = program.not_negative(
        0.001, 'Sparsity', 'A weight of this magnitude or less counts as zero, in evaluation.', changes_weights=False)
    random_sparsity: float = program.setting(  # ours, for a baseline
        0.0, 'Sparsity', 'Share of the connections of the four hidden layers to switch off at random for good: with '
        'both coefficients 0, Sparsely Connected Nets.', lambda s: 0 <= s < 1, 'at least 0 and below 1')
    max_steps: int = program.count(100000, 'Training', 'Steps to train.', least=0, changes_weights=False)
    learning_rate: float = program.setting(0.0001, 'Training', "Adam's learning rate.", program.is_positive,
                                           'finite and above 0, at least 1.2e-38')
    final_learning_rate: float = program.not_negative(  # ours
        None, 'Training', 'The rate falls to this at --max_steps, along half a cosine; None: it is constant.')
    batch_size: int = program.count(100, 'Training', 'Images a step.', most=10**5)
    seed: int = program.count(  # ours; that of the authors is not known
        0, 'Training', 'Seed of weights, order of images, dropout, masks and --fake_data.', least=0, most=2**31 - 1)
    eval_interval: int = program.count(100, 'Output', 'Steps between evaluations.', changes_weights=False)
    checkpoint_interval: int = program.count(  # ours
        250, 'Output', 'Steps between checkpoints.', changes_weights=False)

    def __post_init__(self):
        super().__post_init__()
        if self.group_variance and 1 in self.widths:
            raise program.RunError('one group has no variance: make every one of --widths at least 2; '
                                   'main.py also takes --group_variance=0.')
        if (self.final_learning_rate or 0) > self.learning_rate:
            raise program.RunError('the rate falls: --final_learning_rate must be at most --learning_rate.')


def define_flags():
    """Defines the flags: in a function, so that a program with flags of its own can import this file."""
    program.define('Data', 'enum', 'dataset', 'mnist', 'The images to learn; mnist_5k needs no download.',
                   enum_values=input_data.DATASETS)
    program.define_path('Data', 'data_dir', None, 'Folder of the files of mnist, fashion_mnist or cifar10, downloaded '
                        'when absent. None: a cache folder in your home.')
    program.define('Data', 'boolean', 'fake_data', False, 'Learn made-up images instead of --dataset.')
    program.define_settings(Settings)
    program.define_path('Output', 'log_dir', None, "The run's folder. None: logs/<data set>-<hash of all that changes "
                        'the weights> in the working directory.')
    define_shared()


def define_shared():
    """The flags that are no settings and that retrain.py has, too."""
    program.define('Training', 'boolean', 'compiled', False, 'Have XLA compile the steps: for a GPU.')
    for name, what in (('target_accuracy', 'accuracy on the whole test set, thresholded,'),
                       ('target_sparsity', 'global sparsity, the share of all weights that count as zero,')):
        program.define('Output', 'float', name, None, f'Exit with status 1 if the {what} ends below this share.',
                       lambda share: 0 <= share <= 1, 'from 0 to 1')


# --------------------------------------------------------------------------------------------------------- losses

REGULARISED = ('conv1', 'conv2', 'fc1', 'fc2')  # l in the sums of the loss: neither the output layer nor any bias


def squared_group_norms(weight):
    """||W_g||_2^2 for each group: [..., outputs] to [outputs]."""
    return tf.reduce_sum(tf.square(weight), axis=list(range(len(weight.shape) - 1)))


def group_norms(weight):
    """||W_g||_2 for each group: [..., outputs] to [outputs]. The gradient of an all-zero group is 0, not NaN."""
    squared = squared_group_norms(weight)
    alive = squared > 0
    return tf.where(alive, tf.sqrt(tf.where(alive, squared, 1)), 0)  # the inner where keeps sqrt'(0) = inf out


def group_lasso(weights):
    """Group lasso, sum_l sum_g ||W_l,g||_2, a scalar: no coefficient, no factor sqrt(group size).

    `weights` is a list of float tensors W_l of any rank, outputs on the last axis; W_l,g is all that feeds output g.
    """
    return tf.add_n([tf.reduce_sum(group_norms(w)) for w in weights])


def group_variance(weights):
    """Attention, sum_l 1 / Var_g(||W_l,g||_2^2), a scalar: population variance over a layer's groups, no epsilon.

    It is inf, or by rounding very large, if a layer's norms are all equal (one group; all zero); in float32 its
    gradient overflows to inf or NaN even before, at a variance of some 1e-19.
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


def zero_fraction(x):
    """The share of zeros in a tensor, float32: as tf.math has it, but for a tf.cond, which takes long to trace."""
    with tf.name_scope('zero_fraction'):
        zeros = tf.size(x) - tf.math.count_nonzero(x, dtype=tf.int32)
        return tf.cast(zeros, tf.float32) / tf.cast(tf.size(x), tf.float32)


def sparsity(weights, threshold):
    """The authors' measures of some tensors: the share of zeros, each tensor alike (float32); weights left (int64)."""
    thresholded = [sparsify(w, threshold) for w in weights]
    return (tf.reduce_mean([zero_fraction(w) for w in thresholded]),
            tf.add_n([tf.math.count_nonzero(w) for w in thresholded]))


def sparsity_figures(lenet):
    """All that is reported of the sparsity of a LeNet at its threshold, as a dict of plain numbers.

    The three measures of sparsity; weights left and in all; by layer the share of zeros, the groups, those alive (with
    any weight left) and the two largest norms, thresholded; the multiply-accumulates for one image without the dead
    groups, and with them. (compress.py cuts these groups, and also what nothing reads any more.)
    """
    layers = {}
    for name, weight in lenet.weights.items():
        kept = sparsify(weight, lenet.threshold)
        alive = tf.reduce_any(kept != 0, axis=list(range(len(kept.shape) - 1)))
        layers[name] = {'zero_share': float(sparsity([weight], lenet.threshold)[0]), 'groups': kept.shape[-1],
                        'groups_alive': int(tf.math.count_nonzero(alive)),
                        # one group may carry the whole variance
                        'largest_norms': sorted(group_norms(kept).numpy().tolist(), reverse=True)[:2]}
    mean_of_five, left = sparsity(list(lenet.weights.values()), lenet.threshold)
    mean_of_four, _ = sparsity(lenet.regularised(), lenet.threshold)
    total = sum(math.prod(w.shape) for w in lenet.weights.values())
    outputs = [layers[name]['groups_alive'] for name in REGULARISED]
    return {'mean_of_five': float(mean_of_five), 'mean_of_four': float(mean_of_four),
            'global_sparsity': 1 - int(left) / total, 'weights_left': int(left), 'weights': total, 'layers': layers,
            'macs': sum(macs(lenet.image_shape, outputs).values()),
            'macs_dense': sum(macs(lenet.image_shape, lenet.widths).values())}


def macs(image_shape, widths):
    """Multiply-accumulates for one image of (height, width, channels), by layer: no biases, whole windows at edges."""
    (height, width, channels), (conv1, conv2, fc1, fc2) = image_shape, widths
    full, half, quarter = (math.ceil(height / n) * math.ceil(width / n) for n in (1, 2, 4))  # pixels
    return {'conv1': full * 5 * 5 * channels * conv1, 'conv2': half * 5 * 5 * conv1 * conv2,
            'fc1': quarter * conv2 * fc1, 'fc2': fc1 * fc2, 'softmax': fc2 * input_data.CLASSES}


# ------------------------------------------------------------------------------------------------------------ net

def op_seed(seed, name, index=0):
    """The seed (int64 [2]) of one stateless random op: a pure function of the run's seed, the op's name, an index."""
    return tf.stack([seed << 32 | zlib.crc32(name.encode()), tf.cast(index, tf.int64)])


def max_pool_2x2(x):
    """Halves height and width, rounding up."""
    return tf.nn.max_pool2d(x, ksize=2, strides=2, padding='SAME')


class LeNet(tf.Module):
    """The paper's net for images of any shape: two convolutions, two dense layers, an output layer.

    `training_status`, a bool: True applies dropout and takes the weights as they are; False, for evaluation, applies
    none and takes the weights thresholded (the authors' program). Neither changes a variable.

    Attributes:
      weights, biases: dicts from layer name to float32 variable, outputs on the last axis.
      masks: dict from layer name to float32 tensor of zeros and ones: random connections', or what `hold_zeros` made.
      step: int64 scalar variable, the training steps done.
      image_shape, widths, threshold: as given.
      pool: what halves height and width; loops.py puts another here, and for `dropout`, where XLA compiles the step.
    """
    pool = staticmethod(max_pool_2x2)

    def __init__(self, image_shape, settings):
        """Creates the variables for images of (height, width, channels)."""
        super().__init__()
        self.image_shape, self.widths = tuple(image_shape), settings.widths
        self.keep_probability, self.threshold = settings.dropout, settings.sparsity_threshold
        self.random_sparsity, self.seed = settings.random_sparsity, settings.seed
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name='step')
        self.weights, self.biases, self.masks = {}, {}, {}
        self.net(tf.zeros([1, *image_shape]), training_status=False)  # each layer's first call creates its variables

    def parameters(self, layer_name, shape, training_status):
        """The layer's weights (masked; in evaluation thresholded) and biases; the first call creates them."""
        if layer_name not in self.weights:
            # Truncated normal of standard deviation 0.1; biases 0.1: the authors' program.
            initial = 0.1 * tf.random.stateless_truncated_normal(shape, op_seed(self.seed, f'{layer_name}/weights'))
            if self.random_sparsity and layer_name in REGULARISED:
                self.masks[layer_name] = self.random_mask(layer_name, shape)
                initial *= self.masks[layer_name]  # stored as zeros, for the penalties and the sparsity
            self.weights[layer_name] = tf.Variable(initial, name='weights')
            self.biases[layer_name] = tf.Variable(tf.fill(shape[-1:], 0.1), name='biases')
        weights = self.weights[layer_name]
        if layer_name in self.masks:
            weights = weights * self.masks[layer_name]  # so that no gradient reaches a connection that is off
        return (weights if training_status else sparsify(weights, self.threshold)), self.biases[layer_name]

    def random_mask(self, layer_name, shape):
        """Zeros at exactly the share `random_sparsity` of places, drawn from the seed, and ones elsewhere."""
        size = math.prod(shape)
        rank = tf.random.experimental.stateless_shuffle(tf.range(size), op_seed(self.seed, f'{layer_name}/mask'))
        return tf.reshape(tf.cast(rank >= round(self.random_sparsity * size), tf.float32), shape)

    def hold_zeros(self):
        """Masks that keep what is zero now, in any layer, at zero: variables, so that checkpoints hold them."""
        self.masks = {name: tf.Variable(tf.cast(weight != 0, tf.float32), trainable=False)
                      for name, weight in self.weights.items()}

    def nn_layer(self, x, outputs, layer_name, training_status, act=tf.nn.relu):
        """Dense layer: float32 [N, inputs] to [N, outputs]."""
        with tf.name_scope(layer_name):
            weights, biases = self.parameters(layer_name, [x.shape[-1], outputs], training_status)
            return act(tf.matmul(x, weights) + biases)

    def nn_conv_layer(self, x, outputs, layer_name, training_status, act=tf.nn.relu):
        """Convolution, 5x5, SAME: float32 [N, height, width, channels] to [N, height, width, outputs]."""
        with tf.name_scope(layer_name):
            weights, biases = self.parameters(layer_name, [5, 5, x.shape[-1], outputs], training_status)
            return act(tf.nn.conv2d(x, weights, strides=1, padding='SAME') + biases)

    def dropout(self, x, layer_name, training_status):
        """Dropout by a mask that is a pure function of seed, layer and step; none in evaluation."""
        if not training_status:
            return x
        with tf.name_scope(f'{layer_name}/'):  # the slash: in the layer's own scope
            seed = op_seed(self.seed, f'{layer_name}/dropout', self.step)
            return tf.nn.experimental.stateless_dropout(x, rate=1 - self.keep_probability, seed=seed)

    def net(self, x, training_status):
        """The forward pass; the shapes beside it are those at the default widths, 28x28 images.

        Takes images, float32 [N, height, width, channels] or flat; returns the logits, float32 [N, 10], and a dict from
        layer name to the layer's activations, before pooling and dropout.
        """
        conv1, conv2, fc1, fc2 = self.widths
        nn_layer, nn_conv_layer, dropout = (partial(layer, training_status=training_status) for layer in (
            self.nn_layer, self.nn_conv_layer, self.dropout))

        with tf.name_scope('reshape'):
            x_image = tf.reshape(x, [-1, *self.image_shape])                                # [N, 28, 28, 1]

        h_conv1 = nn_conv_layer(x_image, conv1, 'conv1')                                    # [N, 28, 28, 64]
        with tf.name_scope('pool1'):
            h_pool1 = self.pool(h_conv1)                                                    # [N, 14, 14, 64]

        h_conv2 = nn_conv_layer(h_pool1, conv2, 'conv2')                                    # [N, 14, 14, 128]
        with tf.name_scope('pool2'):
            h_pool2 = self.pool(h_conv2)                                                    # [N, 7, 7, 128]
            h_flat = tf.reshape(h_pool2, [-1, math.prod(h_pool2.shape[1:])])                # [N, 6272]

        h_fc1 = nn_layer(h_flat, fc1, 'fc1')                                                # [N, 512]
        h_drop1 = dropout(h_fc1, 'fc1')
        h_fc2 = nn_layer(h_drop1, fc2, 'fc2')                                               # [N, 256]
        h_drop2 = dropout(h_fc2, 'fc2')
        logits = nn_layer(h_drop2, input_data.CLASSES, 'softmax', act=tf.identity)          # [N, 10]
        return logits, {'conv1': h_conv1, 'conv2': h_conv2, 'fc1': h_fc1, 'fc2': h_fc2, 'softmax': logits}

    def regularised(self):
        """The weights that the loss regularises, in the paper's order."""
        return [self.weights[name] for name in REGULARISED]

    def at_threshold(self, threshold):
        """Another net on the same variables; at a threshold of 0 it is the net as trained."""
        other = copy.copy(self)
        other.threshold = threshold
        return other

    @tf.function(autograph=False)  # AutoGraph would take seconds to find no `if` and `for` of tensors in all this
    def measure(self, images, labels, training_status, threshold=None):
        """The figures of one batch: images, float32 [N, height, width, channels], and labels, int64 [N].

        Scalars: cross_entropy, float32; accuracy, float64, so that 0.9 is 0.9; zero_activations by layer, float32.
        `threshold`, a float32 scalar, stands for the net's own.
        """
        lenet = self if threshold is None else self.at_threshold(threshold)
        logits, activations = lenet.net(images, training_status)
        hits = tf.equal(tf.argmax(logits, axis=1), labels)
        return {'cross_entropy': cross_entropy(logits, labels), 'accuracy': tf.reduce_mean(tf.cast(hits, tf.float64)),
                'zero_activations': {name: zero_fraction(a) for name, a in activations.items()}}


# ----------------------------------------------------------------------------------------------------- evaluation

EVALUATED = 1000  # test images of a periodic evaluation: the authors' program


def evaluate(lenet, images, labels, threshold=None, batch_size=200):
    """The figures of `measure`, as floats, for any number of images, `batch_size` (our choice) of them at a time."""
    threshold = tf.constant(lenet.threshold if threshold is None else threshold)
    parts = [(images[i:i + batch_size], labels[i:i + batch_size]) for i in range(0, len(labels), batch_size)]
    figures = [lenet.measure(*part, training_status=False, threshold=threshold) for part in parts]
    sizes = [len(part[1]) for part in parts]  # the last one may be smaller
    return tf.nest.map_structure(lambda *values: float(np.average(values, weights=sizes)), *figures)


def accuracies(lenet, data):
    """Dict from `test` and `validation` to accuracy and cross_entropy, thresholded, and accuracy_as_trained, floats."""
    figures = {}
    for part, dataset in (('test', data.test), ('validation', data.validation)):
        thresholded, as_trained = (evaluate(lenet, *dataset, threshold) for threshold in (None, 0.0))
        figures[part] = {'accuracy': thresholded['accuracy'], 'cross_entropy': thresholded['cross_entropy'],
                         'accuracy_as_trained': as_trained['accuracy']}
    return figures


# ------------------------------------------------------------------------------------------------------- training

def adam(settings):
    """Adam with TensorFlow 1's epsilon, 1e-8, at a constant rate, or at one that falls along half a cosine."""
    rate = settings.learning_rate
    if settings.final_learning_rate is not None:
        rate = tf.keras.optimizers.schedules.CosineDecay(
            rate, max(1, settings.max_steps), alpha=settings.final_learning_rate / rate)
    return tf.keras.optimizers.Adam(rate, epsilon=1e-8)


def training_step(lenet, optimizer, images, labels, lambda_g, lambda_v, cond=tf.cond):
    """One step on one batch; returns whether loss and gradient were finite, a bool scalar. If not, nothing changes.

    `cond` is tf.cond, or what stands for it where XLA compiles the step, loops.apply_or_undo.
    """
    with tf.GradientTape() as tape:
        logits, _ = lenet.net(images, training_status=True)
        terms = penalties(lenet.regularised(), lambda_g, lambda_v)
        loss = tf.add_n([cross_entropy(logits, labels), *terms.values()])
    variables = lenet.trainable_variables
    gradients = tape.gradient(loss, variables)
    # Squared, as Adam stores a gradient: an infinite square there would be a NaN one step later.
    finite = tf.reduce_all(tf.math.is_finite([loss, *map(tf.nn.l2_loss, gradients)]))

    def apply():
        # As optimizer.apply_gradients, which keeps each run's graph and variables alive for good (TensorFlow 2.21).
        rate = optimizer.learning_rate
        for variable, gradient in zip(variables, gradients, strict=True):
            optimizer.update_step(gradient, variable, rate)
        optimizer.iterations.assign_add(1)
        lenet.step.assign_add(1)
        return True

    return cond(finite, apply, lambda: False)


def assemble(train_set, settings, start=None, compiled=False):
    """All that trains, at step 0: (LeNet; its optimizer; its next batch, a function; its steps, a function of `count`).

    `train_set` is an input_data.DataSet; `start` and `compiled` are as in `train`. The last function returns whether
    all steps were finite, a bool scalar, and stops at the first that is not.
    """
    lenet, optimizer = LeNet(train_set.images.shape[1:], settings), adam(settings)
    if start:
        for variables, values in ((lenet.weights, start.weights), (lenet.biases, start.biases)):
            for name, value in values.items():
                variables[name].assign(value)
        lenet.hold_zeros()  # where nothing was assigned, a checkpoint brings the masks
    optimizer.build(lenet.trainable_variables)
    train_set = list(map(tf.constant, train_set))
    batch = partial(input_data.batch, *train_set, step=lenet.step, batch_size=settings.batch_size, seed=settings.seed)
    step = partial(training_step, optimizer=optimizer, lambda_g=settings.group_lasso, lambda_v=settings.group_variance)
    loop = loops.compiled if compiled else loops.ordinary
    # Traced by the first call, for that takes seconds, and the run's folder may be refused before.
    traced = cache(partial(loop, train_set, lenet, optimizer, step, settings))
    return lenet, optimizer, batch, lambda count: traced()(count)


def terms_by_layer(lenet, images, labels, lambda_g, lambda_v):
    """The loss taken apart for `report.explain`: functions by name, in the order in which these are suspected."""
    def penalty(layer, name):
        return penalties([lenet.weights[layer]], lambda_g, lambda_v)[name]

    terms = {'weights': lambda: tf.add_n([tf.reduce_sum(v) for v in lenet.trainable_variables])}
    for layer in REGULARISED:
        for name, coefficient in (('group_variance', lambda_v), ('group_lasso', lambda_g)):
            if coefficient:
                terms[f'{name} of {layer}'] = partial(penalty, layer, name)
    return {**terms, 'cross_entropy': lambda: cross_entropy(lenet.net(images, training_status=True)[0], labels)}


def train(data, settings, log_dir=None, source=None, start=None, visits=(), visit=None, compiled=False):
    """Trains the net, or continues to; evaluates on the way and at the end; writes all of it into the run's folder.

    Args:
      data: input_data.DataSets. settings: Settings.
      log_dir: the run's folder; None: checkpoints.default_log_dir.
      source: dict of the arguments of input_data.read_data_sets that gave `data`, by which the tools find them again.
      start: retrain.Start, weights and biases to start from, zeros held; None: fresh ones.
      visits, visit: steps, and a function of step and LeNet that is called after each of them.
      compiled: whether XLA compiles the steps, see loops.py.

    Returns:
      (dict of the final figures, as in results.json; the LeNet).

    Raises:
      program.RunError: the folder or its checkpoints cannot be used, or the loss is no longer finite.
      program.Interrupted: by a signal, after a checkpoint.
    """
    surroundings.check_keras()
    lambdas = settings.group_lasso, settings.group_variance
    lenet, optimizer, train_batch, train_steps = assemble(data.train, settings, start, compiled)
    test_batch = partial(input_data.batch, *map(tf.constant, data.test), seed=settings.seed,
                         batch_size=min(EVALUATED, len(data.test.labels)))

    with checkpoints.Run(log_dir, data, settings, source, start and start.facts) as run:
        step = run.restore(net=lenet, optimizer=optimizer, may_begin=not start or bool(start.weights),
                           compiled=compiled)
        steps_per_call = least = loops.trip_count(settings) if compiled else 1
        if step < settings.max_steps:
            train_steps(0)  # the first call optimises the graph; no timing includes that
        show = run.undo.enter_context(contextlib.closing(report.Report(run, data, lenet, step)))
        while True:
            if step % settings.eval_interval == 0:
                show.evaluation(step, train=lenet.measure(*train_batch(), training_status=True),
                                test=evaluate(lenet, *test_batch(step=step // settings.eval_interval)),
                                penalties=penalties(lenet.regularised(), *lambdas), sparsity=sparsity_figures(lenet),
                                norms={name: group_norms(weight) for name, weight in lenet.weights.items()})
            if step in visits:
                visit(step, lenet)
            if step == settings.max_steps:
                break
            until = [interval - step % interval for interval in (settings.eval_interval, settings.checkpoint_interval)]
            until += [place - step for place in visits if place > step]
            count = min(steps_per_call, settings.max_steps - step, *until)
            started = time.perf_counter()
            if not train_steps(count):
                raise program.RunError(f'at step {int(lenet.step)} this is no longer finite: ' + report.explain(
                    terms_by_layer(lenet, *train_batch(), *lambdas), lenet.trainable_variables))
            seconds = time.perf_counter() - started
            step += count
            # About a second's worth, so that signals need not wait.
            steps_per_call = max(least, int(count / seconds) // least * least)
            run.has_trained()
            show.progress(count, seconds)
            if run.signal or step % settings.checkpoint_interval == 0 or step == settings.max_steps:
                run.save(step)
            if run.signal:
                raise program.Interrupted(run.signal, step)

        figures = {'step': step, **sparsity_figures(lenet), **accuracies(lenet, data)}
        if not math.isfinite(figures['test']['cross_entropy']):
            raise program.RunError('the weights are no longer finite. Try a smaller --learning_rate.')
        show.end(figures)
        if run.signal:  # since the last step
            raise program.Interrupted(run.signal, step, 'the run is finished, no target was checked')
    return figures, lenet


# ----------------------------------------------------------------------------------------------------------- main

def check_targets(figures, **targets):
    """Raises program.RunError if a final figure is below its target; None is no target."""
    for flag, name, figure in (('target_accuracy', 'test accuracy', figures['test']['accuracy']),
                               ('target_sparsity', 'global sparsity', figures['global_sparsity'])):
        if targets[flag] is not None and figure < targets[flag]:
            raise program.RunError(f'{name} {figure:.6f} is below --{flag}={targets[flag]}')


def main():
    surroundings.fix_arithmetic()
    settings = Settings(**{field.name: FLAGS[field.name].value for field in dataclasses.fields(Settings)})
    data_dir, log_dir = (FLAGS[name].value and str(files.local_folder(FLAGS[name].value, name).absolute())
                         for name in ('data_dir', 'log_dir'))
    source = {'dataset': FLAGS.dataset, 'data_dir': data_dir, 'fake_data': FLAGS.fake_data, 'seed': FLAGS.seed}
    figures, _ = train(input_data.read_data_sets(**source), settings, log_dir, source, compiled=FLAGS.compiled)
    check_targets(figures, target_accuracy=FLAGS.target_accuracy, target_sparsity=FLAGS.target_sparsity)


if __name__ == '__main__':
    define_flags()
    program.run(main, __doc__, FLAG_GROUPS)
