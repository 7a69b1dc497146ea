"""What keeps a run alive: its folder, with its settings and a lock; its checkpoints; and signals."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import threading

import numpy as np
import tensorflow as tf

import files
import surroundings
from program import RunError, first_line


def content(data):
    """SHA-256 of the training images and labels, in hexadecimal."""
    digest = hashlib.sha256()
    for array in data.train:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def identity(data, settings, start=None):
    """Whatever changes the weights, as a dict of plain values: settings, data by their content, a start by its hash."""
    # The length of a run decides its weights where the learning rate falls towards its end, and only there.
    falls = settings.final_learning_rate is not None
    names = [field.name for field in dataclasses.fields(settings) if field.metadata['changes_weights']]
    numbers = {name: getattr(settings, name) for name in (*names, 'max_steps')
               if falls or name not in ('max_steps', 'final_learning_rate')}
    numbers = {name: list(value) if name == 'widths' else float(value) for name, value in numbers.items()}
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
    files.replace(path, json.dumps(content, indent=2) + '\n')


def _files(folder):
    """The files of a run's checkpoints, by step: dict from int to list of paths; what else lies there is not ours."""
    found = {}
    for path in (folder / 'checkpoints').glob('step-*'):
        if match := re.fullmatch(r'step-(\d+)\.(index|data-\d+-of-\d+)', path.name):
            found.setdefault(int(match[1]), []).append(path)
    return found


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
    found = _files(folder)  # CheckpointManager knows none if its own state file is gone
    for step in sorted(found, reverse=True):
        path = f'checkpoints/step-{step}'
        try:
            with contextlib.chdir(folder):
                checkpoint.read(path).assert_existing_objects_matched().expect_partial()
            return step
        except Exception as error:  # a damaged file shows itself in many ways
            print(f'warning: {folder / path} cannot be read and is passed over ({first_line(error)})',
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
      folder: pathlib.Path, absolute. flag: str, the one that names it.
      settings: main.Settings.
      facts: dict, the content of settings.json.
      undo: contextlib.ExitStack of what is to be done when the context is left.
      signal: int, the number of the signal that has come, or 0. The same one again ends the process as usual.
    """

    def __init__(self, log_dir, data, settings, source=None, start=None):
        """Names the folder; nothing is touched before the context is entered.

        Args:
          log_dir: path of the folder, or None for `default_log_dir`.
          data: input_data.DataSets.
          settings: main.Settings.
          source: dict that says where the data came from.
          start: dict that says what the run starts from, as in retrain.Start; None: from fresh weights.

        Raises:
          RunError: log_dir cannot be the name of a folder.
        """
        run_identity = identity(data, settings, start)
        self.flag = 'output_dir' if start else 'log_dir'
        self.folder = files.resolved(log_dir or default_log_dir(run_identity), self.flag)
        self.settings, self._start = settings, None
        self.facts = {'settings': dataclasses.asdict(settings), 'identity': run_identity, 'data': source, 'starts': [],
                      **({'start': start} if start else {})}
        self.signal = 0

    def __enter__(self):
        """Raises RunError if the folder is in use, is read-only, or as `_look` does."""
        with contextlib.ExitStack() as undo:
            try:
                self._look()  # a folder that is refused gets no new file
                self.folder.mkdir(parents=True, exist_ok=True)
                undo.callback(os.close, files.hold(self.folder))
                if self._look():
                    write_json(self.folder / 'settings.json', self.facts)
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

    def _look(self):
        """Whether the folder is new; raises RunError if it cannot be this run's."""
        path, ours = self.folder / 'settings.json', self.facts['identity']
        if not os.path.lexists(path):
            names = ('results.json', 'evaluations.csv', 'train', 'test', 'checkpoints')
            if strangers := [name for name in names if os.path.lexists(self.folder / name)]:
                raise RunError(f'--{self.flag}={self.folder} holds {" and ".join(strangers)}, but not of a run of this '
                               f'program. Give another --{self.flag}.')
            return True
        try:
            found = json.loads(path.read_text())
            theirs = {**found['identity']}
            # Of before `starts`: one, for all that is known.
            starts = found.get('starts', [{'step': 0, **found['versions'], 'device': found.get('device', 'cpu')}]
                               if 'versions' in found else [])
            self.facts['starts'] = [{**start, 'step': int(start['step'])} for start in starts]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise RunError(f'{path} is not what a run wrote. Give another --{self.flag}.') from error
        differ = [f'{name} ({_brief(theirs.get(name))} there, {_brief(ours.get(name))} here)'
                  for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
        if differ:
            raise RunError(f'--{self.flag}={self.folder} holds a run with other settings: {", ".join(differ)}. '
                           f'Give another --{self.flag}.')
        made = [name for name in ('results.json', 'evaluations.csv', 'train', 'test', 'checkpoints/checkpoint')
                if (self.folder / name).exists()]
        folder = self.folder / 'checkpoints'
        # Before the first start an empty one is what a kill has left.
        emptied = self.facts['starts'] and folder.is_dir() and not os.listdir(folder)
        if not _files(self.folder) and (made or emptied):
            raise RunError(f'{self.folder} is the folder of a run ({", ".join(made) or "an empty checkpoints"}), but '
                           f'its checkpoints are gone. Put them back, or give another --{self.flag} to start anew.')
        return False

    def restore(self, *, may_begin=True, compiled=False, **objects):
        """Continues from the newest checkpoint that loads; a new run gets its first one. Writes settings.json.

        Args:
          may_begin: whether a new run may begin with the values that the objects have.
          compiled: whether XLA compiles the steps that follow.
          objects: what checkpoints hold, by name: tf.Modules, optimizers.

        Returns:
          int, the step of the checkpoint; 0 in a new folder.

        Raises:
          RunError: there are checkpoints, and none can be read; there is none, and the run may not begin; a new one
            cannot be written; the list that TensorFlow keeps of them is somebody else's; or the run has gone beyond
            max_steps.
        """
        step = self._read(tf.train.Checkpoint(**objects), may_begin)
        # What a start has trained from this step on is void.
        starts = self.facts['starts'] = [start for start in self.facts['starts'] if start['step'] < step]
        self._start = {'step': step, **surroundings.conditions(), **({'compiled': 'by XLA'} if compiled else {})}
        if starts and step < self.settings.max_steps:
            before = starts[-1]
            # Earlier versions did not note Keras's; those of before `starts` neither processor nor environment.
            names = {'compiled', *before, *(surroundings.CHANGE_BITS if 'processor' in before else ())} - {'step'}
            if changed := [f'{name} {before.get(name, "not set")} then, {self._start.get(name, "not set")} now'
                           for name in sorted(names) if before.get(name) != self._start.get(name)]:
                print(f'warning: {self.folder} was last trained with {", ".join(changed)}: what follows is not bit for '
                      'bit what would have followed there.', file=sys.stderr)
        write_json(self.folder / 'settings.json', self.facts)
        return step

    def has_trained(self):
        """Notes this start in settings.json, the first time."""
        if self._start:
            self.facts['starts'].append(self._start)
            self._start = None
            write_json(self.folder / 'settings.json', self.facts)

    def _read(self, checkpoint, may_begin):
        """`restore`, but for settings.json."""
        folder, max_steps = self.folder / 'checkpoints', self.settings.max_steps
        with contextlib.chdir(self.folder):
            try:
                self._manager = tf.train.CheckpointManager(checkpoint, 'checkpoints', max_to_keep=3,
                                                           checkpoint_name='step')
                listed = self._manager.checkpoints  # it will delete the oldest of these
                if not self._manager.latest_checkpoint and os.path.lexists('checkpoints/checkpoint'):
                    raise ValueError('TensorFlow passes over what it cannot parse')
            except ValueError:  # UnicodeDecodeError is one
                listed = ['what is no list']
        if strangers := [path for path in listed if not re.fullmatch(r'checkpoints/step-\d+', path)]:
            raise RunError(f'{folder / "checkpoint"} lists {strangers[0]}, which is no checkpoint of this run. Move '
                           'that file away: nothing needs it.')
        step = read_newest(self.folder, checkpoint)
        if step is not None:
            if step > max_steps:
                raise RunError(f'{self.folder} holds this run at step {step}. Give a --max_steps of at least that.')
            self._tidy(step, listed)
            return step
        if not may_begin:
            raise RunError(f'--{self.flag}={self.folder} holds no checkpoint that can be read, and the run that it '
                           'started from is not there as it was. Put one of them back, or give others.')
        self.save(0)
        return 0

    def _tidy(self, step, listed):
        """Removes what starts that were killed have left: halves of checkpoints, and older ones than the last three.

        `listed` are those that TensorFlow's list has, and removes by itself.
        """
        for path in (self.folder / 'checkpoints').iterdir():
            if re.fullmatch(r'step-\d+_temp', path.name):
                shutil.rmtree(path, ignore_errors=True)
        found = _files(self.folder)
        for old in sorted(old for old in found if old <= step)[:-3]:
            if f'checkpoints/step-{old}' not in listed:
                for path in found[old]:
                    path.unlink()

    def save(self, step):
        """Writes the checkpoint of a step, and removes the oldest of more than three."""
        try:
            with contextlib.chdir(self.folder):  # see read_newest
                self._manager.save(checkpoint_number=step)
        except (tf.errors.OpError, OSError) as error:
            with contextlib.suppress(OSError):  # an empty folder would tell of checkpoints that are gone
                (self.folder / 'checkpoints').rmdir()
            before = 'The one before it is intact: make' if step else 'Make'
            raise RunError(f'the checkpoint of step {step} in {self.folder} cannot be written ({first_line(error)}). '
                           f'{before} room, or the folder writable, and the same command continues.') from error
