"""What a run shows: terminal, TensorBoard, settings.json and results.json. Import it before TensorFlow.

As a command it writes the evaluations of a run to NAME.csv, and draws them as NAME.png; without --log_dir it draws anew
what NAME.csv holds:

    python report.py --log_dir=RUN --curve=NAME
"""

import contextlib
import csv
import datetime
import functools
import os
import platform
import pathlib
import shlex
import subprocess
import sys
import time


def _import_tensorflow():
    """Imports TensorFlow and looks for devices, with the start-up noise, but not the errors, kept off the screen.

    TF_CPP_MIN_LOG_LEVEL alone leaves what is printed before TensorFlow reads it. The lines pass through a process of
    their own, so that the last words of a TensorFlow that aborts are heard.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    # oneDNN's kernels also on CPUs without AVX-512: TensorFlow's own take twice as long for a convolution's input
    # gradient. python/benchmark.py measures what it brings.
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
    noise = r'WARNING: All log messages before|[IW]\d{4} |To enable the following instructions'
    if not (os.path.exists('/dev/nvidia0') or os.path.exists('/dev/dxg')):
        noise += r'|E\d{4} .*failed call to cuInit'  # no error on a machine without a GPU
    code = f'import re, sys\nfor line in sys.stdin:\n    re.match({noise!r}, line) or sys.stderr.write(line)'
    quiet = subprocess.Popen([sys.executable, '-I', '-S', '-c', code], stdin=subprocess.PIPE)
    stderr = os.dup(2)
    os.dup2(quiet.stdin.fileno(), 2)
    try:
        import tensorflow
        tensorflow.config.list_physical_devices()
        return tensorflow
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        quiet.communicate()


tf = _import_tensorflow()
import checkpoints
import input_data
from absl import app, flags, logging
import numpy as np
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import api as hparams
from tqdm import tqdm


def versions():
    """What a run's last bits depend on, besides its settings: versions, and what the sums are split over."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()  # the former on Linux
    return {'python': platform.python_version(), 'tensorflow': tf.__version__, 'numpy': np.__version__, 'cores': cores,
            'oneDNN': os.environ.get('TF_ENABLE_ONEDNN_OPTS')}


def parse_flags(doc, groups, argv):
    """Parses a command line: --help shows the flags in their groups, and a bad flag costs one line.

    Args:
      doc: the program's docstring, for --help. groups: the module names under which its flags are defined.
      argv: the command line, the program's name first.
    """
    if {'-h', '-help', '--help', '--helpshort'} & set(argv[1:]):
        print(doc, *map(flags.FLAGS.module_help, groups), sep='\n')
        sys.exit()
    try:
        stray = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        sys.exit(f'error: {str(error).rstrip(".")}. See --help.')
    if stray:
        sys.exit(f'error: unexpected argument {stray[0]}. See --help.')


@contextlib.contextmanager
def one_line_errors():
    """Ends the program with one line on stderr, and a status, for whatever its user can mend."""
    try:
        yield
    except BrokenPipeError:  # whoever read the output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except checkpoints.Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.status)
    except (input_data.DataError, checkpoints.RunError, OSError) as error:
        sys.exit(f'error: {error}')
    except tf.errors.ResourceExhaustedError as error:
        sys.exit(f'error: {checkpoints.first_line(error)}. Give smaller --widths or a smaller --batch_size if it was memory '
                 'that ran out; make room if it was the disk.')
    except KeyboardInterrupt:  # before the training, which has a handler of its own
        sys.exit(130)


def _start_session(folder, step):
    """Has TensorBoard forget what an earlier process showed from `step` on: tf.summary cannot say so itself."""
    start = event_pb2.Event(wall_time=time.time(), step=step,
                            session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
    folder.mkdir(exist_ok=True)
    # TensorBoard reads files by name: this one comes after those of earlier seconds and before the writer's.
    with tf.io.TFRecordWriter(str(folder / f'events.out.tfevents.{int(time.time())}')) as file:
        file.write(event_pb2.Event(wall_time=time.time(), file_version='brain.Event:2').SerializeToString())
        file.write(start.SerializeToString())


class Report:
    """Shows one run, from its settings to its final figures."""

    def __init__(self, folder, facts, data, lenet, graphs, step):
        """Prints the settings, writes settings.json and opens TensorBoard's files.

        Args:
          folder: pathlib.Path of the run's folder.
          facts: dict of dicts, the content of settings.json.
          data: input_data.DataSets.
          lenet: the net, for its weights' shapes.
          graphs: dict from `train` and `test` to the tf.Graph of the forward pass in training and in evaluation.
          step: int, where the run starts or continues.
        """
        self.folder, self.facts, self.data, settings = folder, facts, data, facts['settings']
        checkpoints.write_json(folder / 'settings.json', facts)
        for title in ('settings', 'versions'):
            print(f'{title}: {", ".join(f"{name} {value}" for name, value in facts[title].items())}')
        print(f'devices: {", ".join(device.name for device in tf.config.list_logical_devices())}')
        print(f'data: {data.name}, {len(data.train.labels):,} images to train, {len(data.validation.labels):,} to '
              f'validate, {len(data.test.labels):,} to test, each {"x".join(map(str, data.train.images.shape[1:]))}')
        print(f'parameters: {sum(w.shape.num_elements() for w in lenet.weights.values()):,} weights, '
              f'{sum(b.shape.num_elements() for b in lenet.biases.values()):,} biases')
        print(f'folder: {folder}' + (f', continued from step {step:,}' if step else ''))
        self.writers = {}
        for name, graph in graphs.items():
            _start_session(folder / name, step)
            self.writers[name] = tf.summary.create_file_writer(str(folder / name))
            with self.writers[name].as_default(step=0):
                if step == 0:
                    tf.summary.graph(graph)
                    tf.summary.image('images', getattr(data, name).images[:10], max_outputs=10)
                    # A trial of its own for each writer, or TensorBoard shows the mean of their accuracies.
                    shown = {key: value for key, value in settings.items() if value is not None}
                    hparams.hparams({'dataset': data.name, **shown, 'widths': str(settings['widths'])},
                                    trial_id=f'{folder.name}/{name}')
        self.started = time.perf_counter()
        self.steps, self.seconds = 0, 0.0  # trained since the last evaluation
        self.bar = tqdm(total=settings['max_steps'], initial=step, file=sys.stdout, disable=None, leave=False,
                        bar_format='{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} steps')

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
                for measure in ('mean_of_five', 'mean_of_four', 'global_sparsity'):
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
        """Writes results.json, then prints the final table: the reader of the output may have gone by now."""
        seconds = time.perf_counter() - self.started
        checkpoints.write_json(self.folder / 'results.json',
                               {**self.facts, 'results': figures, 'seconds': round(seconds, 1)})
        self.close()
        print(f'\n{"layer":8}  {"zero weights":>12}  {"groups alive":>14}')
        for name, layer in figures['layers'].items():
            print(f'{name:8}  {layer["zero_share"]:12.2%}  {layer["groups_alive"]:5d} of {layer["groups"]:5d}')
        for title, share in (('mean of the five layers, as in the paper', 'mean_of_five'),
                             ('mean of the four regularised layers', 'mean_of_four'),
                             ('global, share of all weights', 'global_sparsity')):
            print(f'sparsity, {title + ":":42} {figures[share]:7.2%}')
        print(f'weights left: {figures["weights_left"]:,} of {figures["weights"]:,}')
        print(f'multiply-accumulates an image: {figures["macs"]:,} without the dead groups, of {figures["macs_dense"]:,}\n')
        print(f'{"accuracy":10}  {"images":>6}  {"thresholded":>11}  {"as trained":>10}')
        for part in ('test', 'validation'):
            print(f'{part:10}  {len(getattr(self.data, part).labels):6,d}  {figures[part]["accuracy"]:11.2%}  '
                  f'{figures[part]["accuracy_as_trained"]:10.2%}')
        print(f'\n{figures["step"]:,} steps in {datetime.timedelta(seconds=round(seconds))}')
        print(f'figures: {self.folder / "results.json"}')
        print(f'curves:  tensorboard --logdir={shlex.quote(str(self.folder))}')

    def close(self):
        """Takes the bar off the screen and closes TensorBoard's files."""
        self.bar.close()
        for writer in self.writers.values():
            writer.close()


CURVES = {'test_accuracy': 'accuracy', 'mean_of_five': 'sparsity/mean_of_five', 'mean_of_four': 'sparsity/mean_of_four',
          'global_sparsity': 'sparsity/global_sparsity'}  # columns of the CSV file, and TensorBoard's names


def write_curve(log_dir, path):
    """Writes the evaluations of a run as CSV, as TensorBoard shows them: without what a restart has made void."""
    from tensorboard.backend.event_processing import plugin_event_accumulator  # the reader that TensorBoard uses
    events = plugin_event_accumulator.EventAccumulator(str(log_dir / 'test'), size_guidance={'tensors': 0})  # 0: all
    try:
        events.Reload()
        columns = [{event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}
                   for tag in CURVES.values()]
    except Exception as error:  # DirectoryDeletedError, KeyError, DataLossError
        raise checkpoints.RunError(f'--log_dir={log_dir} holds no evaluations of a run.') from error
    with open(path, 'w', newline='') as file:
        rows = csv.writer(file, lineterminator='\n')
        rows.writerow(['step', *CURVES])
        rows.writerows([step, *(f'{column[step]:.6g}' for column in columns)] for step in sorted(columns[0]))


def draw_curve(path, picture):
    """Draws what `write_curve` wrote: accuracy above, the three sparsities below, against the step."""
    from matplotlib import pyplot  # slow to import, and a run needs none of it
    with open(path, newline='') as file:
        rows = list(csv.DictReader(file))
    steps = [int(row['step']) for row in rows]
    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(7, 5), layout='constrained')
    above.plot(steps, [100 * float(row['test_accuracy']) for row in rows], color='black', linewidth=0.8)
    above.set(ylabel='accuracy (%)', ylim=(90, 100), title='the next 1,000 test images, weights thresholded')
    for name, title, style in (('global_sparsity', 'all weights', '-'), ('mean_of_four', 'mean of the four regularised layers', '--'),
                               ('mean_of_five', "mean of the five layers, the paper's", ':')):
        below.plot(steps, [100 * float(row[name]) for row in rows], style, color='black', label=title)
    below.set(xlabel='step', ylabel='sparsity (%)', xlim=(0, None), ylim=(0, None))
    below.legend()
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)
    pyplot.close(figure)


def main(_):
    logging.set_verbosity(logging.ERROR)  # the reader reports each file, and each restart, as news
    path, picture = (pathlib.Path(f'{flags.FLAGS.curve}.{suffix}') for suffix in ('csv', 'png'))
    with one_line_errors():
        if flags.FLAGS.log_dir:
            write_curve(pathlib.Path(flags.FLAGS.log_dir), path)
        draw_curve(path, picture)


if __name__ == '__main__':
    flags.DEFINE_string('log_dir', None, "A run's folder.", allow_override=True, module_name='Report')
    flags.DEFINE_string('curve', None, 'Where to write, without .csv and .png.', required=True, module_name='Report')
    app.run(main, flags_parser=functools.partial(parse_flags, __doc__, ['Report']))
