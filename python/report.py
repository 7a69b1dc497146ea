"""What a run shows: terminal, TensorBoard, evaluations.csv, results.json; and why it stopped at a step not finite."""

import contextlib
import dataclasses
import json
import pathlib
import shlex
import sys
import time

import numpy as np
import tensorflow as tf

import checkpoints
import evaluations
import files
import surroundings
from timing import clock

REMEDIES = {
    'weights': 'a smaller --learning_rate',
    'group_variance': 'a smaller --group_lasso or --learning_rate, or --group_variance=0, for its groups have become '
                      'equal',
    'group_lasso': 'a smaller --group_lasso or --learning_rate',
    'cross_entropy': 'a smaller --learning_rate'}

MEASURES = {'mean_of_five': "mean of the five layers, the authors' own",
            'mean_of_four': 'mean of the four regularised layers',
            'global_sparsity': 'global, share of all weights'}

# What TensorBoard says beside its curves, by the first part of their tags; `train` is a batch, with the weights as they
# are, `test` a thousand images, with the weights thresholded.
DESCRIPTIONS = {
    'accuracy': 'Share of the images that are classified rightly.',
    'loss': 'Cross-entropy; lambda_g times the group lasso; lambda_v times the inverse variance; and their sum.',
    'zero_activations': "Share of a layer's outputs that are zero, before pooling and dropout.",
    'sparsity': 'Share of the weights that count as zero: the mean of five or of four layers, or of all weights.',
    'zero_weights': "Share of a layer's weights that count as zero.",
    'groups_alive': "A layer's groups that have any weight left.",
    'group_norms': "L2 norms of a layer's groups, as trained.",
    'macs': 'Multiply-accumulates for one image, without the dead groups.'}


def method(run):
    """dense, scn, ssl or gss, by a run's settings, or by its row in the CSV."""
    if float(run['random_sparsity']):
        return 'scn'
    return 'gss' if float(run['group_variance']) else 'ssl' if float(run['group_lasso']) else 'dense'


def explain(terms, variables):
    """Names the first of some terms that is not finite, or has a gradient that is not, and says what to do.

    Args:
      terms: dict from a name, which starts with a key of REMEDIES, to a function that computes the term.
      variables: what the gradient is taken by.
    """
    def is_finite(term):
        with tf.GradientTape() as tape:
            value = term()
        gradients = tape.gradient(value, variables)
        return np.isfinite([value, *(tf.nn.l2_loss(g) for g in gradients if g is not None)]).all()

    *_, last = terms
    name = next((name for name, term in terms.items() if not is_finite(term)), last)
    return f'{name}. Try {REMEDIES[name.split()[0]]}.'


def _start_session(folder, step):
    """Has TensorBoard forget what an earlier process showed from `step` on: tf.summary cannot say so itself."""
    from tensorboard.compat.proto import event_pb2  # here, so that importing this module stays light
    start = event_pb2.Event(wall_time=time.time(), step=step,
                            session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
    folder.mkdir(exist_ok=True)
    # TensorBoard reads files by name: this one comes after those of earlier seconds and before the writer's.
    with tf.io.TFRecordWriter(str(folder / f'events.out.tfevents.{int(time.time())}')) as file:
        file.write(event_pb2.Event(wall_time=time.time(), file_version='brain.Event:2').SerializeToString())
        file.write(start.SerializeToString())


class Report:
    """Shows one run, from its settings to its final figures."""

    def __init__(self, run, data, lenet, step):
        """Prints the settings, traces the net and opens evaluations.csv and TensorBoard's files.

        Args:
          run: checkpoints.Run.
          data: input_data.DataSets.
          lenet: the net, with weights, biases, and measure(images, labels, training_status, threshold).
          step: int, where the run starts or continues.
        """
        from tqdm import tqdm
        self.run, self.folder, self.data, self.settings = run, run.folder, data, run.settings
        for title, shown in (('settings', run.facts['settings']), ('versions', surroundings.versions())):
            print(f'{title}: {", ".join(f"{name} {value}" for name, value in shown.items())}')
        if start := run.facts.get('start'):
            print(f'start: {start["folder"]}, step {start["step"]:,} of {start["settings"]["max_steps"]:,}, '
                  + (f'its groups of largest norm, {start["groups"]}' if start['groups'] else 'thresholded'))
        print(f'devices: {", ".join(device.name for device in tf.config.list_logical_devices())}')
        print(f'data: {data.name}, {len(data.train.labels):,} images to train, {len(data.validation.labels):,} to '
              f'validate, {len(data.test.labels):,} to test, each {"x".join(map(str, data.train.images.shape[1:]))}')
        print(f'parameters: {sum(w.shape.num_elements() for w in lenet.weights.values()):,} weights, '
              f'{sum(b.shape.num_elements() for b in lenet.biases.values()):,} biases')
        print(f'folder: {files.shown(self.folder)}' + (
            '' if not step else f', continued from step {step:,}' if step < self.settings.max_steps else
            f', finished before, at step {step:,}: nothing is left to train'))
        path = self.folder / 'evaluations.csv'
        if step and not path.exists():
            print(f'warning: {path} is not there, as in a run that an earlier version has begun: it will not have the '
                  f'evaluations before step {step:,}.', file=sys.stderr)
        self.evaluations = evaluations.Evaluations(path, step)
        # Traced here once for any number of images, so that no timing includes that.
        specs = [tf.TensorSpec([None, *array.shape[1:]], array.dtype) for array in data.train]
        more = {'train': {'training_status': True}, 'test': {'training_status': False, 'threshold': tf.TensorSpec([])}}
        self.writers = {}
        for name in more:
            graph = lenet.measure.get_concrete_function(*specs, **more[name]).graph
            _start_session(self.folder / name, step + bool(step % self.settings.eval_interval))
            self.writers[name] = tf.summary.create_file_writer(str(self.folder / name))
            with self.writers[name].as_default(step=0):
                if step == 0:
                    tf.summary.graph(graph)
                    tf.summary.image('images', getattr(data, name).images[:10], max_outputs=10)
        if step == 0:
            self._show_trial()
        self.first, self.started = step, time.perf_counter()
        self.steps, self.seconds, self.headed = 0, 0.0, False  # trained since the last evaluation; head of the table
        self.bar = tqdm(total=self.settings.max_steps, initial=step, file=sys.stdout, disable=None, leave=False,
                        bar_format='{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} steps')

    def _show_trial(self):
        """The run as a trial, among which TensorBoard compares; in the files of `test`, for its metrics stand there."""
        from tensorboard.plugins.hparams import api, plugin_data_pb2
        trial = {field.name: getattr(self.settings, field.name) for field in dataclasses.fields(self.settings)
                 if field.metadata['group'] != 'Output'}
        trial |= {'dataset': self.data.name, 'widths': ','.join(map(str, trial['widths']))}
        if trial['final_learning_rate'] is None:
            trial['final_learning_rate'] = trial['learning_rate']
        table = api.hparams_config_pb(
            [api.HParam(name) for name in trial],
            [api.Metric(tag) for tag in ('accuracy', 'macs', *(f'sparsity/{name}' for name in MEASURES))])
        plugin = table.value[0].metadata.plugin_data
        content = plugin_data_pb2.HParamsPluginData.FromString(plugin.content)
        for column in content.experiment.hparam_infos:  # those that differ come first, and the last ones are not shown
            column.differs = column.name in ('dataset', 'group_lasso', 'group_variance', 'random_sparsity', 'seed')
        plugin.content = content.SerializeToString()
        with self.writers['test'].as_default(step=0):
            tf.summary.experimental.write_raw_pb(table.SerializeToString(), step=0)
            api.hparams(trial, trial_id=f'{method(trial)} {self.folder}')

    def evaluation(self, step, train, test, penalties, sparsity, norms):
        """Shows one periodic evaluation: a line on the terminal, a row of evaluations.csv, everything in TensorBoard.

        What is of the weights alone stands in TensorBoard's files of `test`.

        Args:
          step: int, the steps done.
          train, test: dicts of scalars cross_entropy and accuracy, and zero_activations by layer.
          penalties: dict of the loss's other terms.
          sparsity: dict, the figures of the weights as in results.json.
          norms: dict from layer name to the norms of its groups.
        """
        speed = self.steps / self.seconds if self.seconds else 0
        if not self.headed:
            self.bar.write('  step  test accuracy  test CE  mean of five  weights left  images/s  time left',
                           file=sys.stdout)
            self.headed = True
        self.bar.write(
            f'{step:6d}  {test["accuracy"]:13.2%}  {test["cross_entropy"]:7.4f}  {sparsity["mean_of_five"]:12.4f}  '
            f'{sparsity["weights_left"]:12,d}' + (
                f'  {speed * self.settings.batch_size:8,.0f}  {clock((self.settings.max_steps - step) / speed):>9}'
                if speed else ''), file=sys.stdout)
        layers = {name: sparsity['layers'][name] for name in norms}
        self.evaluations.append({
            'step': step, 'threshold': self.settings.sparsity_threshold,
            **{f'{part}_{figure}': float(of[figure]) for part, of in (('train', train), ('test', test))
               for figure in ('cross_entropy', 'accuracy')},
            **{term: float(penalties[term]) if term in penalties else '' for term in ('group_lasso', 'group_variance')},
            **{name: sparsity[name] for name in (*MEASURES, 'weights_left', 'macs')},
            **{f'alive_{name}': layer['groups_alive'] for name, layer in layers.items()},
            **{f'norm_{rank}_{name}': float(norm) for name, layer in layers.items()
               for rank, norm in zip((1, 2), [*layer['largest_norms'], 0.0], strict=False)},
            'seconds': self.evaluations.seconds + time.perf_counter() - self.started,
            'images_per_second': speed * self.settings.batch_size or ''})
        self.steps, self.seconds = 0, 0.0
        self._show_curves(step, {'train': train, 'test': test}, penalties, sparsity, norms)

    def _show_curves(self, step, measured, penalties, sparsity, norms):
        """Writes TensorBoard's files; `measured` has `train` and `test`, all else is as in `evaluation`."""
        # Not by tf.summary.scalar and tf.summary.histogram, whose hundreds of small ops take five times as long.
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        scalars = {}
        for name, figures in measured.items():
            terms = {'cross_entropy': figures['cross_entropy'], **penalties}
            scalars[name] = {'accuracy': figures['accuracy'], **{f'loss/{term}': terms[term] for term in terms},
                             'loss/total': sum(map(float, terms.values())),
                             **{f'zero_activations/{layer}': x for layer, x in figures['zero_activations'].items()}}
        scalars['test'] |= {'macs': sparsity['macs'], **{f'sparsity/{name}': sparsity[name] for name in MEASURES}}
        for name, layer in sparsity['layers'].items():
            scalars['test'] |= {f'zero_weights/{name}': layer['zero_share'],
                                f'groups_alive/{name}': layer['groups_alive']}
        histograms = {'train': {}, 'test': {f'group_norms/{name}': values for name, values in norms.items()}}
        for name, writer in self.writers.items():
            with writer.as_default(step):
                for make, shown in ((scalar_pb, scalars[name]), (histogram_pb, histograms[name])):
                    for tag, value in shown.items():
                        summary = make(tag, value, description=DESCRIPTIONS[tag.split('/')[0]])
                        tf.summary.experimental.write_raw_pb(summary.SerializeToString())
            writer.flush()

    def progress(self, steps, seconds):
        """Moves the bar on by `steps`, which took `seconds`."""
        self.steps, self.seconds = self.steps + steps, self.seconds + seconds
        self.bar.update(steps)

    def end(self, figures):
        """Writes results.json, then prints the final table: the reader of the output may have gone by now."""
        seconds, path = time.perf_counter() - self.started, self.folder / 'results.json'
        timed = {'steps_timed': figures['step'] - self.first, 'seconds': round(seconds, 1)}
        if not timed['steps_timed']:  # if it was finished before, what that took still counts
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                before = json.loads(path.read_text())
                if before['results']['step'] == figures['step']:  # else it is of another end
                    timed = {'steps_timed': before.get('steps_timed', figures['step']), 'seconds': before['seconds']}
        checkpoints.write_json(path, {**self.run.facts, 'results': figures, **timed})
        self.close()
        print(f'\n{"layer":8}  {"zero weights":>12}  {"groups alive":>14}')
        for name, layer in figures['layers'].items():
            print(f'{name:8}  {layer["zero_share"]:12.2%}  {layer["groups_alive"]:5d} of {layer["groups"]:5d}')
        for share, title in MEASURES.items():
            print(f'sparsity, {title + ":":42} {figures[share]:7.2%}')
        print(f'weights left: {figures["weights_left"]:,} of {figures["weights"]:,}')
        print(f'multiply-accumulates an image: {figures["macs"]:,} without the dead groups, of '
              f'{figures["macs_dense"]:,}\n')
        print(f'{"accuracy":10}  {"images":>6}  {"thresholded":>11}  {"as trained":>10}')
        for part in ('test', 'validation'):
            print(f'{part:10}  {len(getattr(self.data, part).labels):6,d}  {figures[part]["accuracy"]:11.2%}  '
                  f'{figures[part]["accuracy_as_trained"]:10.2%}')
        print(f'\n{figures["step"] - self.first:,} of {figures["step"]:,} steps in {clock(seconds)}')
        folder = shlex.quote(str(files.shown(self.folder)))
        tool = pathlib.Path(__file__).with_name('compress.py' if 'start' in self.run.facts else 'retrain.py')
        print(f'figures: {files.shown(path)}')
        print(f'curves:  tensorboard --logdir={folder}')
        print(f'next:    python {shlex.quote(str(files.shown(tool.resolve())))} --log_dir={folder}')

    def close(self):
        """Takes the bar off the screen and closes TensorBoard's files."""
        self.bar.close()
        for writer in self.writers.values():
            writer.close()
