"""The grid of compare.py as jobs: each run of main.py or retrain.py, its folder, its row, and what it waits for."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import checkpoints
import files
import main
import retrain
from rows import KEY, PLAIN, alive, key, method, row_of, text


def grid(seeds, lassos, variances, levels):
    """The runs, seed by seed, as dicts of the flags in which they differ."""
    for seed in seeds:
        strengths = [(0.0, 0.0, 0.0), *((lasso, variance, 0.0) for lasso in lassos for variance in (0.0, *variances)
                                        if lasso or variance),  # with neither it is the dense net
                     *((0.0, 0.0, level / 100) for level in levels)]
        for lasso, variance, share in strengths:
            yield {'group_lasso': lasso, 'group_variance': variance, 'random_sparsity': share, 'seed': seed}


@functools.cache
def is_readable(folder, step, changed):
    """checkpoints.is_readable, which takes a moment, once for each time at which the file has changed."""
    return checkpoints.is_readable(folder, step)


class Job:
    """One run of main.py: its command, its folder, and its row in the CSV.

    Attributes:
      key: as in `key`. name: str, of its folder. folder: pathlib.Path. command, data: lists of str, the
        latter its --data_dir, if it has one.
      settings: main.Settings that its results.json is to have.
      first: the Job whose net it starts from, or None.
    """
    first = None

    def __init__(self, run, shared, runs_dir, data_dir):
        """Names it; nothing is touched.

        Args:
          run: dict from `grid`. shared: dict of the rest of rows.FIRST. runs_dir, data_dir: absolute Paths, or None.
        """
        self.key = key({**PLAIN, **{name: text(value) for name, value in {**run, **shared}.items()}})
        used = [f'{word}-{run[name]:g}' for word, name in (
            ('lasso', 'group_lasso'), ('variance', 'group_variance'), ('share', 'random_sparsity')) if run[name]]
        common = '{dataset}-{widths}-steps-{steps}-rate-{learning_rate:g}-{final_learning_rate:g}'.format(**shared)
        self.name = '-'.join([method(run), *used, f'seed-{run["seed"]}'])
        self.folder = runs_dir / common / self.name
        self.settings = main.Settings(
            **run, widths=shared['widths'].split('-'), max_steps=shared['steps'], learning_rate=shared['learning_rate'],
            final_learning_rate=shared['final_learning_rate'], eval_interval=max(1, shared['steps'] // 10))
        self.data = [f'--data_dir={data_dir}'] if data_dir and shared['dataset'] != 'fake' else []
        data = ['--fake_data'] if shared['dataset'] == 'fake' else [f'--dataset={shared["dataset"]}', *self.data]
        arguments = {name: getattr(self.settings, name) for name in (
            *run, 'max_steps', 'learning_rate', 'final_learning_rate', 'eval_interval')}
        self.command = self.words(main, *data, f'--widths={shared["widths"].replace("-", ",")}', log_dir=self.folder,
                                  **arguments)

    @staticmethod
    def words(program, *more, **arguments):
        return [sys.executable, str(pathlib.Path(program.__file__).resolve()), *more,
                *(f'--{name}={value}' for name, value in arguments.items())]

    def found(self):
        """The row of what lies in its folder, and why that is none of this run; twice None without a finished run."""
        try:
            content = json.loads((self.folder / 'results.json').read_text())
            row, differs = row_of(content), self.differs(content)
            return row, differs and f'of another grid: {differs}'
        except (FileNotFoundError, NotADirectoryError):
            return None, None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            return None, f'its results.json cannot be used ({type(error).__name__}: {error})'

    def differs(self, content):
        """In which settings a run of this content is not this one, as text; empty: in none."""
        theirs, ours = content['settings'], dataclasses.asdict(self.settings)
        ours['widths'] = list(ours['widths'])
        found = [f'{name} ({theirs[name]} there, {value} here)' for name, value in ours.items()
                 if name not in ('eval_interval', 'checkpoint_interval') and theirs[name] != value]
        if not found and key(row_of(content)) != self.key:
            found = ['what it learned or started from']
        return ', '.join(found)

    def row(self):
        """The run's row, or None as long as it is not finished."""
        row, differs = self.found()
        return None if differs else row

    def can_start(self):
        return True

    def has_checkpoint(self):
        return any((self.folder / 'checkpoints').glob('step-*.index'))

    def is_kept(self):
        """Whether it is finished and its last checkpoint can be read, so that a retraining can start."""
        try:
            changed = os.stat(self.folder / 'checkpoints' / f'step-{self.settings.max_steps}.index').st_mtime_ns
        except OSError:
            return False
        return bool(self.row()) and is_readable(self.folder, self.settings.max_steps, changed)

    def is_running(self):
        """Whether a process is at it: one that outlived the program that started it, say."""
        return files.is_held(self.folder)

    def train(self):
        """Runs the command, its output in a file beside the folder; returns its exit status."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with open(f'{self.folder}.log', 'a') as log:
            process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                return process.wait()
            except BaseException:  # Ctrl-C, SIGTERM: the run writes its checkpoint
                process.terminate()
                process.wait()
                raise


class Retraining(Job):
    """A run of retrain.py, beside the run that it starts from."""

    def __init__(self, first, steps, groups=''):
        """`groups`, text, are those of largest norm to keep; empty: what the threshold leaves."""
        self.first, self.data = first, first.data
        columns = dict(zip(KEY, first.key, strict=True))
        self.key = key({**columns, 'groups': groups, 'retrain_steps': str(steps)})
        self.name = f'{first.name}-retrained-{steps}' + f'-groups-{groups}' * bool(groups)
        self.folder = first.folder.with_name(self.name)
        self.settings = dataclasses.replace(first.settings, **{**retrain.DEFAULTS, 'max_steps': steps},
                                            random_sparsity=0)
        self.command = self.words(retrain, *self.data, *([f'--groups={groups.replace("-", ",")}'] if groups else []),
                                  log_dir=first.folder, output_dir=self.folder, max_steps=steps,
                                  eval_interval=max(1, steps // 10))

    def can_start(self):
        """Whether it has begun, and can go on by itself, or its first run is there."""
        return self.has_checkpoint() or self.first.is_kept()

    def differs(self, content):
        start = content['start']  # the first run, as the retraining was started from it
        if not (found := super().differs(content)):
            found = self.first.differs({**content, 'settings': start['settings'], 'start': None,
                                        'results': {**content['results'], 'step': start['step']}})
        return found or ('a start that is a retraining' if 'start' in start else '')


def plan(runs, shared, runs_dir, data_dir, retrain_steps=0, baselines=False, rows=()):
    """All Jobs of a grid, each after what it starts from; and the names of the runs that left nothing to retrain.

    Args:
      runs: from `grid`. shared, runs_dir, data_dir: as in Job. rows: of the CSV, for the widths that a run has left.
    """
    found, dense, empty, known = {}, {}, [], {key(row): row for row in rows}
    for run in runs:
        job, kind = Job(run, shared, runs_dir, data_dir), method(run)
        found.setdefault(job.key, job)
        if kind == 'dense':
            dense[run['seed']] = job  # a grid has it before the seed's other runs
        if not retrain_steps:
            continue
        row = known.get(job.key) or job.row()
        left = row and alive(row)
        if left and '0' in left.split('-'):
            empty.append(job.name)
            continue
        later = [Retraining(job, retrain_steps)]
        if baselines and left and kind in ('ssl', 'gss'):  # as `evidence.baselines` seeks them
            later += [Job({**run, 'group_lasso': 0.0, 'group_variance': 0.0},
                          {**shared, 'widths': left, 'steps': shared['steps'] + retrain_steps}, runs_dir, data_dir),
                      Retraining(dense[run['seed']], retrain_steps, left)]
        for job in later:  # two runs may have left as much
            found.setdefault(job.key, job)
    return list(found.values()), empty


def to_do(jobs, rows):
    """What is to do: the Jobs; the keys of those among them that have a row; the folders that stand in the way.

    A Job has to be done without a row, and again if one without a row starts from it and its checkpoints are gone;
    unless its folder holds a run, which main.py does not begin anew.
    """
    known = set(map(key, rows))
    needed = {job.first.key: job.first for job in jobs if job.first and job.key not in known and job.first.key in known
              and not job.row() and not job.can_start()}
    lost = {first.key: first.folder for first in needed.values()
            if os.path.lexists(first.folder / 'settings.json') and not first.has_checkpoint()}
    again = needed.keys() - lost.keys()
    return [job for job in jobs if job.key not in known or job.key in again], again, [*lost.values()]
