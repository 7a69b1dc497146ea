"""What a run shows: terminal, TensorBoard, settings.json and results.json. Import it before TensorFlow."""

import datetime
import hashlib
import json
import os
import pathlib
import platform
import re
import shlex
import sys
import tempfile
import time


def _import_tensorflow():
    """Imports TensorFlow and looks for devices, with the start-up noise, but not the errors, kept off the screen.

    TF_CPP_MIN_LOG_LEVEL alone leaves what is printed before TensorFlow reads it.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    noise = r'WARNING: All log messages before|[IW]\d{4} |To enable the following instructions'
    if not os.path.exists('/dev/nvidia0'):
        noise += r'|E\d{4} .*failed call to cuInit'  # no error on a machine without a GPU
    stderr = os.dup(2)
    with tempfile.TemporaryFile('w+') as log:
        os.dup2(log.fileno(), 2)
        try:
            import tensorflow
            tensorflow.config.list_physical_devices()
            return tensorflow
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            sys.stderr.writelines(line for line in log if not re.match(noise, line))


tf = _import_tensorflow()
import numpy as np
from tensorboard.plugins.hparams import api as hparams
from tqdm import tqdm

# Settings that change no weight: the same run may be given others.
NOT_IDENTIFYING = ('max_steps', 'eval_interval', 'sparsity_threshold')


class RunError(Exception):
    """A run that cannot start or go on; the message says why and what to do."""


def identity(data, settings):
    """Whatever changes the weights, as a dict of plain values: settings, and the data by their content."""
    content = hashlib.sha256()
    for array in data.train:
        content.update(np.ascontiguousarray(array))
    numbers = {name: [int(n) for n in value] if name == 'widths' else float(value)
               for name, value in settings.items() if name not in NOT_IDENTIFYING}
    return {'dataset': data.name, 'train_sha256': content.hexdigest(), **numbers}


def default_log_dir(run_identity):
    """logs/<data set>-<short hash of the identity>, in the working directory."""
    digest = hashlib.sha256(json.dumps(run_identity, sort_keys=True).encode()).hexdigest()
    return pathlib.Path('logs', f'{run_identity["dataset"]}-{digest[:8]}')


def _write_json(path, content):
    """Replaces the file in one move, so that it is never half a file."""
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    part.write_text(json.dumps(content, indent=2) + '\n')
    os.replace(part, path)


class Report:
    """Shows one run, from its settings to its final figures."""

    def __init__(self, log_dir, data, settings, lenet, graphs):
        """Prints the settings and opens the run's folder.

        Args:
          log_dir: path of the folder, or None for `default_log_dir`.
          data: input_data.DataSets.
          settings: dict from the flags' names to their values.
          lenet: the net, for its weights' shapes.
          graphs: dict from `train` and `test` to the tf.Graph of the forward pass in training and in evaluation.

        Raises:
          RunError: the folder holds a run with other settings, or cannot be written.
        """
        run_identity = identity(data, settings)
        self.folder = pathlib.Path(log_dir or default_log_dir(run_identity)).expanduser().resolve()
        self.facts = {
            'settings': {**settings, 'widths': list(settings['widths'])}, 'identity': run_identity,
            'data': {part: len(getattr(data, part).labels) for part in ('train', 'validation', 'test')},
            'versions': {'python': platform.python_version(), 'tensorflow': tf.__version__, 'numpy': np.__version__},
            'devices': [device.name for device in tf.config.list_logical_devices()]}
        self._claim_folder()
        weights = sum(w.shape.num_elements() for w in lenet.weights.values())
        biases = sum(b.shape.num_elements() for b in lenet.biases.values())
        for title, facts in self.facts.items():
            if title != 'identity':
                shown = facts if isinstance(facts, list) else [f'{name} {value}' for name, value in facts.items()]
                print(f'{title}: {data.name + ", " if title == "data" else ""}{", ".join(shown)}')
        print(f'parameters: {weights:,} weights, {biases:,} biases')
        print(f'folder: {self.folder}')
        self.writers = {name: tf.summary.create_file_writer(str(self.folder / name)) for name in graphs}
        for name, writer in self.writers.items():
            with writer.as_default(step=0):
                tf.summary.graph(graphs[name])
                tf.summary.image('images', getattr(data, name).images[:10], max_outputs=10)
                # A trial of its own for each writer, or TensorBoard shows the mean of their accuracies.
                hparams.hparams({'dataset': data.name, **settings, 'widths': str(settings['widths'])},
                                trial_id=f'{self.folder.name}/{name}')
        self.started = time.perf_counter()
        self.steps, self.seconds = 0, 0.0  # trained since the last evaluation
        self.bar = tqdm(total=settings['max_steps'], file=sys.stdout, disable=None, leave=False,
                        bar_format='{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} steps')

    def _claim_folder(self):
        """Writes settings.json, unless what is in the folder would suffer from this run."""
        settings, results = self.folder / 'settings.json', self.folder / 'results.json'
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if settings.exists():
                theirs, ours = json.loads(settings.read_text())['identity'], self.facts['identity']
                differ = [f'{name} ({theirs.get(name)} there, {ours.get(name)} here)'
                          for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
                if differ:
                    raise RunError(f'--log_dir={self.folder} holds a run with other settings: {", ".join(differ)}. '
                                   'Give another --log_dir.')
                steps = json.loads(results.read_text())['results']['step'] if results.exists() else 0
                if steps > self.facts['settings']['max_steps']:
                    raise RunError(f'--log_dir={self.folder} holds this run with {steps} steps. Give another --log_dir, '
                                   f'or a --max_steps of at least {steps}.')
            elif strangers := [name for name in ('results.json', 'train', 'test') if (self.folder / name).exists()]:
                raise RunError(f'--log_dir={self.folder} holds {" and ".join(strangers)}, but not of a run of this '
                               'program. Give another --log_dir.')
            _write_json(settings, self.facts)
        except OSError as error:
            raise RunError(f'--log_dir={self.folder} cannot be used ({error}). Give another --log_dir.') from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise RunError(f'{settings} or {results} is not what a run wrote. Give another --log_dir.') from error

    def evaluation(self, step, train, test, penalties, sparsity, norms):
        """Shows one periodic evaluation: one line on the terminal, and everything in TensorBoard.

        Args:
          step: int, the steps done.
          train, test: dicts of scalars cross_entropy and accuracy, and zero_activations by layer.
          penalties: dict of the loss's other terms.
          sparsity: dict from `main.sparsity_figures`.
          norms: dict from layer name to the norms of its groups.
        """
        speed = self.steps / self.seconds if self.seconds else 0
        left = (self.facts['settings']['max_steps'] - step) / speed if speed else 0
        tqdm.write(
            f'step {step:6d}  test accuracy {test["accuracy"]:7.2%}  cross-entropy {test["cross_entropy"]:7.4f}  '
            f'sparsity {sparsity["mean_of_five"]:.4f}  weights left {sparsity["weights_left"]:9,d}'
            + (f'  {speed * self.facts["settings"]["batch_size"]:6,.0f} images/s  '
               f'{datetime.timedelta(seconds=round(left))} left' if speed else ''), file=sys.stdout)
        self.steps, self.seconds = 0, 0.0
        for name, figures in (('train', train), ('test', test)):
            terms = {'cross_entropy': figures['cross_entropy'], **penalties}
            with self.writers[name].as_default(step):
                for term, value in terms.items():
                    tf.summary.scalar(f'loss/{term}', value)
                tf.summary.scalar('loss/total', sum(map(float, terms.values())))
                tf.summary.scalar('accuracy', figures['accuracy'])
                for measure in ('mean_of_five', 'mean_of_four', 'all_weights'):
                    tf.summary.scalar(f'sparsity/{measure}', sparsity[measure])
                for layer, of_layer in sparsity['layers'].items():
                    tf.summary.scalar(f'zero_weights/{layer}', of_layer['zero_share'])
                    tf.summary.scalar(f'groups_alive/{layer}', of_layer['groups_alive'])
                    tf.summary.scalar(f'zero_activations/{layer}', figures['zero_activations'][layer])
                    tf.summary.histogram(f'group_norms/{layer}', norms[layer])
            self.writers[name].flush()

    def progress(self, steps, seconds):
        """Moves the bar on by `steps`, which took `seconds`."""
        self.steps, self.seconds = self.steps + steps, self.seconds + seconds
        self.bar.update(steps)

    def end(self, figures):
        """Prints the final table, writes results.json and closes TensorBoard's files."""
        self.bar.close()
        for writer in self.writers.values():
            writer.close()
        print(f'\n{"layer":8}  {"zero weights":>12}  {"groups alive":>14}')
        for name, layer in figures['layers'].items():
            print(f'{name:8}  {layer["zero_share"]:12.2%}  {layer["groups_alive"]:5d} of {layer["groups"]:5d}')
        for title, share in (('mean of the five layers, as in the paper', 'mean_of_five'),
                             ('mean of the four regularised layers', 'mean_of_four'),
                             ('share of all weights', 'all_weights')):
            print(f'sparsity, {title + ":":42} {figures[share]:7.2%}')
        print(f'weights left: {figures["weights_left"]:,} of {figures["weights"]:,}\n')
        print(f'{"accuracy":10}  {"images":>6}  {"thresholded":>11}  {"as trained":>10}')
        for part in ('test', 'validation'):
            print(f'{part:10}  {self.facts["data"][part]:6,d}  {figures[part]["accuracy"]:11.2%}  '
                  f'{figures[part]["accuracy_as_trained"]:10.2%}')
        seconds = time.perf_counter() - self.started
        _write_json(self.folder / 'results.json', {**self.facts, 'results': figures, 'seconds': round(seconds, 1)})
        print(f'\n{figures["step"]:,} steps in {datetime.timedelta(seconds=round(seconds))}')
        print(f'figures: {self.folder / "results.json"}')
        print(f'curves:  tensorboard --logdir={shlex.quote(str(self.folder))}')
