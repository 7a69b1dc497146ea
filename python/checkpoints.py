"""What keeps a run alive: its folder, with its settings and a lock; its checkpoints; and signals."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import signal
import sys
import threading

import numpy as np
import tensorflow as tf

import program
from program import RunError, first_line

# Settings that change no weight: the same run may be given others.
NOT_IDENTIFYING = ('max_steps', 'eval_interval', 'checkpoint_interval', 'sparsity_threshold')


def content(data):
    """SHA-256 of the training images and labels, in hexadecimal."""
    digest = hashlib.sha256()
    for array in data.train:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def identity(data, settings, start=None):
    """Whatever changes the weights, as a dict of plain values: settings, data by their content, a start by its hash."""
    # The length of a run decides its weights where the learning rate falls towards its end, and only there.
    constant = settings['final_learning_rate'] is None
    left_out = {*NOT_IDENTIFYING, 'final_learning_rate'} if constant else {*NOT_IDENTIFYING} - {'max_steps'}
    numbers = {name: [int(n) for n in value] if name == 'widths' else float(value)
               for name, value in settings.items() if name not in left_out}
    started = {'start': start['hash'], 'groups': start['groups']} if start else {}
    return {'dataset': data.name, 'train_sha256': content(data), **numbers, **started}


def default_log_dir(run_identity):
    """logs/<data set>-<short hash of the identity>, in the working directory."""
    digest = hashlib.sha256(json.dumps(run_identity, sort_keys=True).encode()).hexdigest()
    return pathlib.Path('logs', f'{run_identity["dataset"]}-{digest[:8]}')


def _brief(value):
    """A value of an identity as a person would type it; the start of a hash will do."""
    return f'{value:.10g}' if isinstance(value, float) else value[:16] if isinstance(value, str) else str(value)


def write_json(path, content):
    """Replaces the file in one move."""
    program.replace(path, json.dumps(content, indent=2) + '\n')


def read_newest(folder, checkpoint):
    """Reads the newest of a run's checkpoints that loads; touches no file.

    TensorFlow takes the path of a checkpoint as a pattern, and a folder's name may be one, such as run[12]. So here and
    where checkpoints are written and pruned, the run's folder is the working directory, 'checkpoints/step-N' the path.

    Args:
      folder: pathlib.Path of the run.
      checkpoint: tf.train.Checkpoint of the objects to restore, or of some of them.

    Returns:
      int, the step of the checkpoint; None if there is none, or a broken one of step 0, which loses nothing.

    Raises:
      RunError: there are checkpoints, and none can be read.
    """
    # By the files themselves: CheckpointManager knows none if its own state file is gone.
    found = {int(match[1]) for path in (folder / 'checkpoints').glob('step-*')
             if (match := re.match(r'step-(\d+)\.', path.name))}
    for step in sorted(found, reverse=True):
        path = f'checkpoints/step-{step}'
        try:
            with contextlib.chdir(folder):
                checkpoint.read(path).assert_existing_objects_matched().expect_partial()
            return step
        except Exception as error:  # a damaged file shows itself in many ways
            print(f'warning: {folder / path} cannot be read, the one before it is tried ({first_line(error)})',
                  file=sys.stderr)
    if max(found, default=0) > 0:
        raise RunError(f'none of the checkpoints in {folder / "checkpoints"} can be read. Give another folder.')
    return None


def is_readable(folder, step):
    """Whether a run's checkpoint of this step is there and whole."""
    try:
        with contextlib.chdir(folder):
            reader = tf.train.load_checkpoint(f'checkpoints/step-{step}')
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
        return True
    except Exception:  # see read_newest
        return False


class Run:
    """A context manager that holds a run's folder against other processes, and takes signals as requests to stop.

    They are SIGINT, SIGTERM and SIGHUP, of a closed terminal, unless they are ignored, as by nohup.

    Attributes:
      folder: pathlib.Path, absolute.
      facts: dict, the content of settings.json.
      undo: contextlib.ExitStack of what is to be done when the context is left.
      signal: int, the number of the signal that has come, or 0. A second one ends the process as usual.
    """

    def __init__(self, log_dir, data, settings, source=None, start=None):
        """Names the folder; nothing is touched before the context is entered.

        Args:
          log_dir: path of the folder, or None for `default_log_dir`.
          data: input_data.DataSets.
          settings: dict from the flags' names to their values.
          source: dict that says where the data came from.
          start: dict that says what the run starts from, as in retrain.Start; None: from fresh weights.

        Raises:
          RunError: log_dir cannot be the name of a folder.
        """
        run_identity = identity(data, settings, start)
        self.flag = 'output_dir' if start else 'log_dir'
        self.folder = program.resolved(log_dir or default_log_dir(run_identity), self.flag)
        self.facts = {'settings': settings, 'identity': run_identity, 'data': source,
                      'versions': program.surroundings(), 'device': program.device(),
                      **({'start': start} if start else {})}
        self.signal = 0

    def __enter__(self):
        """Raises RunError if the folder is in use, holds another run or others' files of our names, or is read-only."""
        with contextlib.ExitStack() as undo:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = os.open(self.folder, os.O_RDONLY)
                undo.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # dies with its process, however that dies
                self._claim()
            except BlockingIOError as error:
                raise RunError(f'--{self.flag}={self.folder} is in use by another run. Give another.') from error
            except OSError as error:
                raise RunError(f'--{self.flag}={self.folder} cannot be used ({error}). Give another.') from error
            if threading.current_thread() is threading.main_thread():  # the only one that may handle signals
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    if signal.getsignal(number) != signal.SIG_IGN:
                        undo.callback(signal.signal, number, signal.signal(number, self._receive))
            self.undo = undo.pop_all()
        return self

    def __exit__(self, *_):
        self.undo.close()

    def _receive(self, number, _):
        self.signal = number
        signal.signal(number, signal.SIG_DFL)

    def _claim(self):
        """Marks a new folder as this run's; raises RunError if it holds another run, or others' files of our names."""
        path, ours = self.folder / 'settings.json', self.facts['identity']
        if not os.path.lexists(path):
            names = ('results.json', 'train', 'test', 'checkpoints')
            if strangers := [name for name in names if os.path.lexists(self.folder / name)]:
                raise RunError(f'--{self.flag}={self.folder} holds {" and ".join(strangers)}, but not of a run of this '
                               f'program. Give another --{self.flag}.')
            write_json(path, self.facts)
            return
        try:
            found = json.loads(path.read_text())
            theirs, before = {**found['identity']}, {**found.get('versions', {})}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(f'{path} is not what a run wrote. Give another --{self.flag}.') from error
        differ = [f'{name} ({_brief(theirs.get(name))} there, {_brief(ours.get(name))} here)'
                  for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
        if differ:
            raise RunError(f'--{self.flag}={self.folder} holds a run with other settings: {", ".join(differ)}. '
                           f'Give another --{self.flag}.')
        if changed := [f'{name} {before[name]} then, {now} now' for name, now in self.facts['versions'].items()
                       if before.get(name, now) != now]:
            print(f'warning: {self.folder} was begun with {", ".join(changed)}: what follows is not bit for bit what '
                  'would have followed there.', file=sys.stderr)

    def restore(self, max_steps, *, may_begin=True, **objects):
        """Continues from the newest checkpoint that loads; a new run gets its first one.

        Args:
          max_steps: int, where the run is to end.
          may_begin: whether a new run may begin with the values that the objects have.
          objects: what checkpoints hold, by name: tf.Modules, optimizers.

        Returns:
          int, the step of the checkpoint; 0 in a new folder.

        Raises:
          RunError: there are checkpoints, and none can be read; there is none, and yet the run has made steps, or it
            may not begin; a new one cannot be written; TensorFlow's list of them is somebody else's; or the run has
            gone beyond max_steps.
        """
        folder, checkpoint = self.folder / 'checkpoints', tf.train.Checkpoint(**objects)
        with contextlib.chdir(self.folder):
            try:
                self._manager = tf.train.CheckpointManager(checkpoint, 'checkpoints', max_to_keep=3,
                                                           checkpoint_name='step')
                listed = self._manager.checkpoints  # it will delete the oldest of these
            except ValueError:  # UnicodeDecodeError is one
                listed = ['what is no list']
        if strangers := [path for path in listed if not re.fullmatch(r'checkpoints/step-\d+', path)]:
            raise RunError(f'{folder / "checkpoint"} lists {strangers[0]}, which is no checkpoint of this run. Move '
                           'that file away: nothing needs it.')
        step = read_newest(self.folder, checkpoint)
        if step is not None:
            if step > max_steps:
                raise RunError(f'{self.folder} holds this run at step {step}. Give a --max_steps of at least that.')
            return step
        made = [name for name in ('results.json', 'train', 'test', 'checkpoints/checkpoint')
                if (self.folder / name).exists()]
        if not list(folder.glob('step-*')) and (made or folder.is_dir() and not os.listdir(folder)):
            raise RunError(f'{self.folder} is the folder of a run ({", ".join(made) or "an empty checkpoints"}), but '
                           f'its checkpoints are gone. Put them back, or give another --{self.flag} to start anew.')
        if not may_begin:
            raise RunError(f'--{self.flag}={self.folder} holds no checkpoint that can be read, and the run that it '
                           'started from is not there as it was. Put one of them back, or give others.')
        self.save(0)
        return 0

    def save(self, step):
        """Writes the checkpoint of a step, and removes the oldest of more than three."""
        try:
            with contextlib.chdir(self.folder):  # see read_newest
                self._manager.save(checkpoint_number=step)
        except (tf.errors.OpError, OSError) as error:
            with contextlib.suppress(OSError):  # an empty folder would tell of checkpoints that are gone
                (self.folder / 'checkpoints').rmdir()
            raise RunError(f'the checkpoint of step {step} cannot be written ({first_line(error)}). The one '
                           'before it is intact: make room, and the same command continues from there.') from error
