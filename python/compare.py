"""The paper's figure, measured: what accuracy each method loses at each level of sparsity.

    python compare.py                     trains the grid, one run of main.py after the other, and goes on where it was
    python compare.py --print_commands    prints the runs that are still to do, for other machines or several at once
    python compare.py --collect           takes the finished ones of these into the CSV
    python compare.py --figure            prints the tables of the pages, and draws what --picture and --alive name

The grid has, for each seed, the dense net; SSL and GSS at each strength of the group lasso; and Sparsely Connected Nets
at each level. All else is the same for all. With --retrain_steps each run is also retrained, by retrain.py, which makes
a row of its own; a retraining can start once its first run is finished. With --baselines each SSL and GSS run gets two
rows to stand beside: a dense net that was always as small as what it left, and the dense net cut by magnitude.
"""

if __name__ == '__main__':
    import program
    program.prepare()

import dataclasses
import datetime
import functools
import itertools
import json
import math
import os
import pathlib
import shlex
import subprocess
import sys
import time

from absl import flags

import checkpoints
import figure
import input_data
import main
import pictures
import program
import retrain
from rows import KEY, LATER, append, key, matching, method, read, row_of, text

FLAGS = flags.FLAGS
FLAG_GROUPS = ('Grid', 'Output')
EMPTY = ('group_lassos', 'levels')  # the lists that may be
PICTURES = {'picture': 'of the accuracy lost', 'alive': 'of the groups alive, in one layer'}


def define_flags():
    program.define('Grid', 'enum', 'dataset', 'mnist', 'As in main.py; fake: --fake_data.',
                   enum_values=[*input_data.DATASETS, 'fake'])
    program.define_path('Grid', 'data_dir', None, 'As in main.py.')
    program.define_settings(main.Settings, ('widths', 'max_steps', 'learning_rate', 'final_learning_rate'), 'Grid',
                            widths=(20, 50, 500, 256), max_steps=10000, learning_rate=0.001, final_learning_rate=1e-5)
    for name, default, what in (
            ('seeds', '0,1,2', 'Each run once a seed.'),
            ('group_lassos', '0.0001,0.0002,0.0005,0.001,0.002,0.004,0.008,0.015,0.03', 'lambda_g of SSL and of GSS; '
             '0: of GSS alone.'),
            ('group_variances', '0.01', 'lambda_v of GSS; SSL is always in.'),
            ('levels', '50,60,70,80,90', 'Per cent, of the random masks and of the figure; empty: neither.')):
        program.define('Grid', 'list', name, default, what)
    program.define('Grid', 'integer', 'retrain_steps', 0, 'Retrain each run for so many steps; 0: none.',
                   lambda n: 0 <= n <= 10**9, 'a whole number from 0 to 1000000000')
    program.define('Grid', 'boolean', 'baselines', False, 'For each SSL and GSS run that has a row, also: a dense net '
                   'of the widths that it left, for the steps that run and retraining took; and the dense net with as '
                   'many groups, those of largest norm, retrained.')
    program.define_path('Output', 'csv', '_img/comparison.csv', 'One row a finished run.')
    program.define_path('Output', 'runs_dir', 'logs/comparison', "The runs' folders.")
    for name, what in (('print_commands', 'Print the commands of the runs still to do, and train nothing.'),
                       ('collect', 'Take the finished runs of --runs_dir into --csv, and train nothing.'),
                       ('figure', 'Print the tables of --csv, and train nothing: of these --seeds and the first of '
                        '--group_variances, all strengths.')):
        program.define('Output', 'boolean', name, False, what)
    for name, what in PICTURES.items():
        program.define_path('Output', name, None, f'With --figure: the PNG file to draw, {what}. None: none.')


def numbers(name, number, valid, bounds):
    """The values of a list flag, of type `number`; raises program.RunError if they are none, or not `valid`."""
    def refuse(what):
        raise program.RunError(f'--{name}={",".join(FLAGS[name].value)}: {what}.')

    try:
        values = list(dict.fromkeys(map(number, FLAGS[name].value)))
    except ValueError:
        values = [math.nan]
    if not all(map(valid, values)) or not (values or name in EMPTY):
        refuse(f'must be {bounds}, separated by commas')
    same = [f'{a} and {b}' for a, b in itertools.combinations(values, 2) if text(a) == text(b)]
    if same:
        refuse(f'{same[0]} are one number in the six digits of a row and of a folder. Give one of them')
    return values


# ----------------------------------------------------------------------------------------------------------- grid

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
      key: as in `key`. name: str, of its folder. folder: pathlib.Path. command: list of str.
      settings: main.Settings that its results.json is to have.
      first: the Job whose net it starts from, or None.
    """
    first = None

    def __init__(self, run, shared, runs_dir, data_dir):
        """Names it; nothing is touched.

        Args:
          run: dict from `grid`. shared: dict of the rest of rows.FIRST. runs_dir, data_dir: absolute Paths, or None.
        """
        self.key = key({**LATER, **{name: text(value) for name, value in {**run, **shared}.items()}})
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
        """The row of what lies in its folder, and how that differs from this run; twice None without a finished run."""
        try:
            content = json.loads((self.folder / 'results.json').read_text())
            return row_of(content), self.differs(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # whatever a file may hold
            return None, None

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
        """Whether a process is at it, or at a retraining in it: one that outlived the program that started it, say."""
        return any(map(checkpoints.is_held, (self.folder, self.folder / 'retrained')))

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
        start = content['start']
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
        job = Job(run, shared, runs_dir, data_dir)
        some, kind, row = [job], method(run), known.get(job.key) or retrain_steps and job.row()
        alive = row and '-'.join(row[f'alive_{layer}'] for layer in main.REGULARISED)
        if kind == 'dense':
            dense[run['seed']] = job
        if alive and '0' in alive.split('-'):
            empty += [job.name] * bool(retrain_steps)
        elif retrain_steps:
            some.append(Retraining(job, retrain_steps))
            if baselines and alive and kind in ('ssl', 'gss'):
                some += [Job({**run, 'group_lasso': 0.0, 'group_variance': 0.0},
                             {**shared, 'widths': alive, 'steps': shared['steps'] + retrain_steps}, runs_dir, data_dir),
                         Retraining(dense[run['seed']], retrain_steps, alive)]
        found |= {job.key: job for job in some if job.key not in found}
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


# -------------------------------------------------------------------------------------------------------- running

def train_all(remaining, path):
    """Trains what is to do, job by job, those first that no other process is at; returns what failed, as texts.

    Args:
      remaining: function without arguments: what `to_do` gives by the rows that the CSV has now.
      path: pathlib.Path of the CSV.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    open(path, 'a').close()  # better now than after the first run
    failed, started, done = {}, time.monotonic(), 0
    while True:
        jobs, again, _ = remaining()
        jobs = [job for job in jobs if job.key not in failed]
        ready = [job for job in jobs if job.row() or job.can_start()]
        if not ready:
            if jobs:
                failed['waiting'] = f'{len(jobs)} retrainings had nothing to start from'
            return list(failed.values())
        job = next((job for job in ready if not job.is_running()), None)
        if job is None:  # an earlier call was killed, and its run lives on
            time.sleep(1)
            continue
        print(f'{done + 1} of {done + len(jobs)}: {job.name}', end='', flush=True)
        status = 0 if job.row() and job.key not in again else job.train()
        if (row := job.row()) and (job.key not in again or job.is_kept()):
            append(path, row)
            print(f', test accuracy {float(row["test_accuracy"]):.2%}, mean of four {row["mean_of_four"]}, '
                  f'global sparsity {row["global_sparsity"]}, MACs {int(row["macs"]):,}', end='')
        elif job.is_running():  # another process was faster
            print()
            continue
        else:
            failed[job.key] = f'{job.name} (status {status}, see {job.folder}.log)'
            print(f', FAILED with status {status}', end='')
        done += 1
        left = (time.monotonic() - started) / done * (len(jobs) - 1)
        print(f', {datetime.timedelta(seconds=round(left))} left' if len(jobs) > 1 else '')


def print_commands(jobs, again):
    """Prints the commands of the jobs that can start now; on stderr, what is printed again and what has to wait."""
    waiting = 0
    for job in jobs:
        if job.key in again:
            print(f'{job.name} is printed again: its row stays, but no checkpoint of it is there for a row that starts '
                  'from it', file=sys.stderr)
        if job.key in again or not job.row():
            if job.can_start():
                print(shlex.join(job.command))
            else:
                waiting += 1
    if waiting:
        print(f'{waiting} retrainings wait for the run that they start from: print again when that is finished',
              file=sys.stderr)


def collect(remaining, path):
    """Takes what is finished into the CSV; returns (how many, how many are left, what lies in folders but is other)."""
    taken = 0
    while True:  # a row may bring baselines
        jobs, again, _ = remaining()
        if not (found := [row for job in jobs if job.key not in again and (row := job.row())]):
            others = [f'{job.folder}: {differs}' for job in jobs if (differs := job.found()[1])]
            return taken, len(jobs) - len(again), others
        for row in found:
            append(path, row)
        taken += len(found)


# ----------------------------------------------------------------------------------------------------------- main

def compare():
    if FLAGS.print_commands + FLAGS.collect + FLAGS.figure > 1:
        raise program.RunError('give only one of --print_commands, --collect and --figure.')
    seeds = numbers('seeds', int, lambda n: 0 <= n < 2**31, 'whole numbers from 0 to 2147483647')
    lassos = numbers('group_lassos', float, lambda x: x == 0 or program.is_positive(x),
                     'finite numbers of at least 0; those above, of at least 1.2e-38')
    variances = numbers('group_variances', float, program.is_positive, 'finite numbers above 0, of at least 1.2e-38')
    levels = numbers('levels', float, lambda x: 0 < x < 100, 'numbers between 0 and 100')
    checked = main.Settings(widths=FLAGS.widths, max_steps=FLAGS.max_steps, learning_rate=FLAGS.learning_rate,
                            final_learning_rate=FLAGS.final_learning_rate)
    shared = {'dataset': FLAGS.dataset, 'widths': '-'.join(map(str, checked.widths)), 'steps': checked.max_steps,
              'learning_rate': checked.learning_rate, 'final_learning_rate': checked.final_learning_rate}
    path = program.file_of(FLAGS.csv, 'csv', '.csv')
    drawn = {name: program.file_of(FLAGS[name].value, name, '.png') for name in PICTURES if FLAGS[name].value}
    if drawn and not FLAGS.figure or 'picture' in drawn and not levels:
        raise program.RunError('--picture and --alive are drawn by --figure, the former at --levels: give these, too.')
    for picture in drawn.values():
        pictures.check(picture)
    runs_dir, data_dir = (FLAGS[name].value and program.resolved(FLAGS[name].value, name)
                          for name in ('runs_dir', 'data_dir'))
    rows = read(path)
    if FLAGS.figure:
        every, rows = rows, [row for row in matching(rows, **shared) if int(row['seed']) in seeds]
        if not rows:
            raise program.RunError(f'--csv={path} has no rows of the data set, widths, steps, rates and seeds given.')
        if 'picture' in drawn:
            figure.draw_drops(rows, variances[0], levels, drawn['picture'], figure.fresh(rows, every))
        if 'alive' in drawn:
            figure.draw_alive(rows, variances[0], drawn['alive'])
        return figure.show(rows, variances[0], levels)
    if FLAGS.baselines and not FLAGS.retrain_steps:
        raise program.RunError('--baselines stand beside retrained rows: give --retrain_steps, such as 3000, too.')

    def jobs(rows):
        return plan(grid(seeds, lassos, variances, levels), shared, runs_dir, data_dir, FLAGS.retrain_steps,
                    FLAGS.baselines, rows)

    def remaining():
        rows = read(path)
        return to_do(jobs(rows)[0], rows)

    every, empty = jobs(rows)
    todo, again, lost = to_do(every, rows)
    for name in empty:
        print(f'{name} cannot be retrained, nor have baselines: a layer has no group left', file=sys.stderr)
    for folder in lost:
        print(f'{folder} has lost its checkpoints, and rows that start from it are missing: move it away, and it is '
              'trained again', file=sys.stderr)
    if FLAGS.print_commands:
        print_commands(todo, again)
    elif FLAGS.collect:
        taken, left, others = collect(remaining, path)
        print(f'{taken} rows added to {path}; {left} runs of this grid are still to do')
        if others:
            raise program.RunError('not taken, for they are not of this grid: ' + '; '.join(others))
    else:
        have = len(every) - len(todo) + len(again)
        print(f'{have} of {len(every)} runs have their rows in {path}; {len(todo)} to do')
        if failed := train_all(remaining, path):
            raise program.RunError('these runs failed: ' + ', '.join(failed))


if __name__ == '__main__':
    define_flags()
    program.run(compare, __doc__, FLAG_GROUPS)
