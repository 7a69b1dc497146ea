"""Trains what a run has left, without the penalties: the lasso's shrinkage goes, the zeros stay.

    python retrain.py --log_dir=RUN            into RUN/retrained, the folder of a run like any other
    python compress.py --log_dir=RUN/retrained

It starts from the newest checkpoint of RUN: the weights thresholded at RUN's threshold, the biases as they are, step 0,
a new Adam. What is zero in any of the five layers stays zero, by masks that the checkpoints hold. With --groups it
keeps, in place of what the threshold leaves, the groups of largest norm: magnitude pruning, for a dense RUN. The paper
has no such step. What is not given and has no default here is RUN's; with a --group_lasso it is pruning in rounds.

The same command continues a retraining that was stopped, also when RUN is gone.
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

import dataclasses
import hashlib
import os
import sys
import typing

import numpy as np
from absl import flags

import files
import load_run
import main
import program
import surroundings

FLAGS = flags.FLAGS
FLAG_GROUPS = ('Start', *main.FLAG_GROUPS)
DEFAULTS = {'group_lasso': 0.0, 'group_variance': 0.0, 'max_steps': 3000, 'learning_rate': 1e-3,
            'final_learning_rate': 1e-5}
OF_RUN = dict.fromkeys(('dropout', 'batch_size', 'seed', 'eval_interval', 'checkpoint_interval'))  # None: RUN's


@dataclasses.dataclass(frozen=True)
class Choice(program.Checked):
    """What is kept of RUN's net."""
    groups: tuple = program.setting(
        None, 'Start', 'How many groups of conv1, conv2, fc1 and fc2 to keep, those of largest norm; None: what the '
        'threshold leaves.', lambda groups: len(groups) == 4 and min(groups) >= 1,
        'four whole numbers of at least 1, such as 16,5,52,99')


class Start(typing.NamedTuple):
    """What a retraining starts from: `facts`, for settings.json, and arrays by layer.

    Without arrays it can only be continued. The facts are RUN's settings, identity, step and folder's name; `groups`
    as text; `hash`, SHA-256 of the step and the arrays; and `start`, if RUN is a retraining itself.
    """
    facts: dict
    weights: dict
    biases: dict


def define_flags():
    program.define_path('Start', 'log_dir', None, 'RUN, the folder of the run to start from. May be gone, or not be '
                        'given, if --output_dir holds a retraining.')
    program.define_settings(Choice)
    program.define_path('Data', 'data_dir', None, "Folder of RUN's data, if they have moved.")
    program.define_settings(main.Settings, (*DEFAULTS, *OF_RUN), **DEFAULTS, **OF_RUN)
    program.define_path('Output', 'output_dir', None, "The retraining's folder. None: retrained, in RUN.")
    main.define_shared()


def largest_groups(weight, count, layer):
    """The array with zeros in all but the `count` groups of largest norm; program.RunError if there are fewer."""
    norms = main.group_norms(weight).numpy()
    if count > len(norms):
        raise program.RunError(f'--groups: {layer} has {len(norms)} groups, not {count}. Give at most that.')
    return np.where(np.isin(np.arange(len(norms)), np.argsort(-norms, kind='stable')[:count]), weight, 0)


def has_chain(weights):
    """Whether a chain of weights, none of them zero, leads from the image to a logit: arrays by layer, in their order.
    """
    reached = np.ones(weights['conv1'].shape[2], bool)  # the channels
    for kernel in weights.values():  # fc1 has the channels of each place in turn
        reached = kernel.reshape(-1, len(reached), kernel.shape[-1])[:, reached].any(axis=(0, 1))
    return bool(reached.any())


def start_from(lenet, groups, facts, folder):
    """The Start that a run's net gives; program.RunError if no chain of weights is left from the image to a logit.

    Args:
      lenet: main.LeNet of the run.
      groups: four ints, or None: what the threshold leaves.
      facts: dict, the content of the run's settings.json.
      folder: pathlib.Path of the run.
    """
    if groups:
        weights = {name: weight.numpy() for name, weight in lenet.weights.items()}
        for name, count in zip(main.REGULARISED, groups, strict=True):
            weights[name] = largest_groups(weights[name], count, name)
    else:
        weights = {name: main.sparsify(weight, lenet.threshold).numpy() for name, weight in lenet.weights.items()}
    biases = {name: bias.numpy() for name, bias in lenet.biases.items()}
    if not has_chain(weights):
        raise program.RunError(f'--log_dir={folder}: no chain of weights is left from the image to a logit, and '
                               'nothing could learn. Give a run of weaker --group_lasso.')
    digest = hashlib.sha256(str(int(lenet.step)).encode())
    for name in sorted(weights):
        digest.update(weights[name].tobytes() + biases[name].tobytes())
    return Start({'folder': folder.name, 'step': int(lenet.step), 'hash': digest.hexdigest(), 'groups': text(groups),
                  'settings': facts['settings'], 'identity': facts['identity'],
                  **({'start': facts['start']} if 'start' in facts else {})}, weights, biases)


def text(groups):
    return '-'.join(map(str, groups or ()))


def find_start(folder, output, groups, data_dir):
    """What to start from or, where a retraining has begun, to continue: (Start; input_data.DataSets; their source).

    Args:
      folder: pathlib.Path of RUN, or None.
      output: pathlib.Path of the retraining, there or not.
      groups: four ints, or None. data_dir: path, or None.

    Raises:
      program.RunError: RUN is not there and nothing has begun; RUN is another than the one it has begun from; or what
        load_run.load_facts, load_data, load_net and `start_from` raise.
    """
    begun = os.path.lexists(output / 'settings.json') and load_run.load_facts(output, 'output_dir')[0]
    if begun and 'start' not in begun or not (begun or folder):
        raise program.RunError(f'--output_dir={output} holds no retraining. Give another, or, with the folder of a run '
                               'as --log_dir, a new one.')
    lenet, facts = None, begun
    if folder and (not begun or os.path.lexists(folder / 'settings.json')):
        facts, of_net = load_run.load_facts(folder)
        if begun and begun['start']['identity'] != facts['identity']:
            raise program.RunError(f'--output_dir={output} holds the retraining of another run than that of '
                                   f'--log_dir={folder}. Give another --output_dir.')
    data, source = load_run.load_data(output if facts is begun else folder, facts, data_dir)
    if facts is not begun:
        try:
            lenet = load_run.load_net(folder, of_net, data.train.images.shape[1:])
        except program.RunError:
            if not begun:
                raise
    step = lenet and int(lenet.step)
    if begun and step != begun['start']['step']:
        now = f'at step {step:,} by now' if lenet else 'not there any more' if folder else 'not given'
        print(f'the run to start from is {now}: what has begun from its step {begun["start"]["step"]:,} goes on')
        return Start({**begun['start'], 'groups': text(groups)}, {}, {}), data, source
    if step < of_net.max_steps:
        print(f'warning: the run in {folder} is not finished: it is at step {step:,} of {of_net.max_steps:,}',
              file=sys.stderr)
    return start_from(lenet, groups, facts, folder), data, source


def retrain():
    surroundings.fix_arithmetic()
    groups, given = Choice(FLAGS.groups).groups, {name: FLAGS[name].value for name in (*DEFAULTS, *OF_RUN)}
    if not (FLAGS.log_dir or FLAGS.output_dir):
        raise program.RunError('give the folder of a run as --log_dir, or that of a retraining as --output_dir.')
    folder = FLAGS.log_dir and files.resolved(FLAGS.log_dir, 'log_dir')
    output = files.resolved(FLAGS.output_dir or folder / 'retrained', 'output_dir')
    if folder and {folder, *(folder / name for name in ('checkpoints', 'train', 'test'))} & {output, *(
            parent for parent in output.parents if parent != folder)}:
        raise program.RunError(f'--output_dir={output} belongs to the run to start from. Give another.')
    data_dir = FLAGS.data_dir and str(files.local_folder(FLAGS.data_dir, 'data_dir').absolute())
    start, data, source = find_start(folder, output, groups, data_dir)
    of_run = start.facts['settings']
    try:
        settings = main.Settings(
            **{name: of_run[name] if value is None and name in OF_RUN else value for name, value in given.items()},
            widths=of_run['widths'], sparsity_threshold=of_run['sparsity_threshold'])
    except KeyError as error:
        raise program.RunError(f'the run to start from does not say its {error}. Give it as a flag.') from error
    figures, _ = main.train(data, settings, output, source, start, compiled=FLAGS.compiled)
    main.check_targets(figures, target_accuracy=FLAGS.target_accuracy, target_sparsity=FLAGS.target_sparsity)


if __name__ == '__main__':
    define_flags()
    program.run(retrain, __doc__, FLAG_GROUPS)
