"""The paper's figure, measured: what accuracy each method loses at each level of sparsity.

    python python/compare.py                     trains the grid, run after run of main.py, and goes on where it was
    python python/compare.py --print_commands    prints the runs still to do, for other machines or several at once
    python python/compare.py --collect           takes the finished ones of these into the CSV
    python python/compare.py --thresholds        takes them, with their thresholds moved, into a CSV of its own
    python python/compare.py --figure            prints the tables of the pages, draws what --picture and --alive name

The grid has, for each seed, the dense net; SSL and GSS at each strength of the group lasso; and Sparsely Connected Nets
at each level. All else is the same for all. With --retrain_steps each run is also retrained, by retrain.py, which makes
a row of its own; a retraining can start once its first run is finished. With --baselines each SSL and GSS run gets two
rows to stand beside: a dense net that was always as small as what it left, and the dense net cut by magnitude.
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

import itertools
import math
import os
import shlex
import sys
import time

from absl import flags

import figure
import files
import input_data
import main
import pictures
import program
import surroundings
import timing
from jobs import grid, plan, to_do
from rows import append, matching, read, text
from thresholds import at_levels

FLAGS = flags.FLAGS
FLAG_GROUPS = ('Grid', 'Output')
CSV, THRESHOLDS = '_img/comparison.csv', '_img/thresholds.csv'
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
            ('levels', '50,60,70,80,90', 'Per cent, of the random masks, the figure and --thresholds; empty: none.')):
        program.define('Grid', 'list', name, default, what)
    program.define('Grid', 'integer', 'retrain_steps', 0, 'Retrain each run for so many steps; 0: none.',
                   lambda n: 0 <= n <= 10**9, 'a whole number from 0 to 1000000000')
    program.define('Grid', 'boolean', 'baselines', False, 'For each SSL and GSS run that has a row, also: a dense net '
                   'of the widths that it left, for the steps that run and retraining took; and the dense net with as '
                   'many groups, those of largest norm, retrained.')
    program.define_path('Output', 'csv', None, f'One row a finished run. None: {CSV} or, with --thresholds, '
                        f'{THRESHOLDS}.')
    program.define_path('Output', 'runs_dir', 'logs/comparison', "The runs' folders.")
    for name, what in (('print_commands', 'Print the commands of the runs still to do, and train nothing.'),
                       ('collect', 'Take the finished runs of --runs_dir into --csv, and train nothing.'),
                       ('thresholds', 'Take the finished dense, SSL and GSS runs of --runs_dir into --csv as they are, '
                        'and at the thresholds at which the mean of four is at --levels, and train nothing.'),
                       ('figure', 'Print the tables of --csv, and train nothing: of these --seeds and the first of '
                        '--group_variances, all strengths; of several, also which one validation chooses.')):
        program.define('Output', 'boolean', name, False, what)
    for name, what in PICTURES.items():
        program.define_path('Output', name, None, f'With --figure: the PNG file to draw, {what}. None: none.')


def numbers(name, given, number, valid, bounds):
    """The values, of type `number`, of a list flag that has these texts; program.RunError if not all are `valid`."""
    def refuse(what):
        raise program.RunError(f'--{name}={",".join(given)}: {what}.')

    try:
        values = list(dict.fromkeys(map(number, given)))
    except ValueError:
        values = [math.nan]
    if not all(map(valid, values)) or not (values or name in EMPTY):
        refuse(f'must be {bounds}, separated by commas')
    same = [f'{a} and {b}' for a, b in itertools.combinations(values, 2) if text(a) == text(b)]
    if same:
        refuse(f'{same[0]} are one number in the six digits of a row and of a folder. Give one of them')
    return values


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
        print(f', {timing.clock(left)} left' if len(jobs) > 1 else '')


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
    """Takes what is finished into the CSV; returns (how many, how many are left, why others were not)."""
    taken = 0
    while True:  # a row may bring baselines
        jobs, again, _ = remaining()
        if not (found := [row for job in jobs if job.key not in again and (row := job.row())]):
            others = [f'{job.folder}: {reason}' for job in jobs if (reason := job.found()[1])]
            return taken, len(jobs) - len(again), others
        for row in found:
            append(path, row)
        taken += len(found)


def move_thresholds(jobs, levels, data_dir, path):
    """Takes those of the jobs that are kept into the CSV as `at_levels` has them; returns how many.

    What is not there is named on stderr. Raises program.RunError as `at_levels` does.
    """
    kept = [job for job in jobs if job.is_kept()]
    for job in jobs:
        if job not in kept:
            print(f'{job.name} is not finished, or its last checkpoint is gone', file=sys.stderr)
    for job in kept:
        for row in at_levels(job, levels, data_dir):
            append(path, row)
            print(f'{job.name}, threshold {row["sparsity_threshold"]}: mean of four {row["mean_of_four"]}, '
                  f'test accuracy {float(row["test_accuracy"]):.2%}')
    return len(kept)


# ----------------------------------------------------------------------------------------------------------- main

def compare():
    if FLAGS.print_commands + FLAGS.collect + FLAGS.thresholds + FLAGS.figure > 1:
        raise program.RunError('give only one of --print_commands, --collect, --thresholds and --figure.')
    seeds = numbers('seeds', FLAGS.seeds, int, lambda n: 0 <= n < 2**31, 'whole numbers from 0 to 2147483647')
    lassos = numbers('group_lassos', FLAGS.group_lassos, float, lambda x: x == 0 or program.is_positive(x),
                     'finite numbers of at least 0; those above, of at least 1.2e-38')
    variances = numbers('group_variances', FLAGS.group_variances, float, program.is_positive,
                        'finite numbers above 0, of at least 1.2e-38')
    levels = numbers('levels', FLAGS.levels, float, lambda x: 0 < x < 100, 'numbers between 0 and 100')
    checked = main.Settings(widths=FLAGS.widths, max_steps=FLAGS.max_steps, learning_rate=FLAGS.learning_rate,
                            final_learning_rate=FLAGS.final_learning_rate)
    shared = {'dataset': FLAGS.dataset, 'widths': '-'.join(map(str, checked.widths)), 'steps': checked.max_steps,
              'learning_rate': checked.learning_rate, 'final_learning_rate': checked.final_learning_rate}
    path = files.file_of(FLAGS.csv or (THRESHOLDS if FLAGS.thresholds else CSV), 'csv', '.csv')
    drawn = {name: files.file_of(FLAGS[name].value, name, '.png') for name in PICTURES if FLAGS[name].value}
    if drawn and not FLAGS.figure or 'picture' in drawn and not levels:
        raise program.RunError('--picture and --alive are drawn by --figure, the former at --levels: give these, too.')
    if len({*map(os.path.realpath, drawn.values())}) < len(drawn):
        raise program.RunError('--picture and --alive are two pictures: give two names.')
    for picture in drawn.values():
        pictures.check(picture)
    runs_dir, data_dir = (FLAGS[name].value and files.resolved(FLAGS[name].value, name)
                          for name in ('runs_dir', 'data_dir'))
    rows = read(path)
    if FLAGS.figure:
        every, rows = rows, [row for row in matching(rows, **shared) if int(row['seed']) in seeds]
        if not rows:
            raise program.RunError(f'--csv={path} has no rows of the data set, widths, steps, rates and seeds given. '
                                   'Give others.' if path.exists() else f'--csv={path} is not there. Give another.')
        if 'picture' in drawn:
            figure.draw_drops(rows, variances[0], levels, drawn['picture'], figure.fresh(rows, every))
        if 'alive' in drawn:
            figure.draw_alive(rows, variances[0], drawn['alive'])
        return figure.show(rows, variances, levels, every)
    if FLAGS.thresholds:
        if not levels:
            raise program.RunError('--thresholds are moved to --levels: give these, too.')
        if FLAGS.retrain_steps or FLAGS.baselines:
            raise program.RunError('--thresholds are those of plain runs: give no --retrain_steps and no --baselines.')
        surroundings.fix_arithmetic()  # as in a run
        jobs, _ = plan(grid(seeds, lassos, variances, ()), shared, runs_dir, data_dir)
        if not move_thresholds(jobs, levels, data_dir, path):
            raise program.RunError(f'--runs_dir={runs_dir} has no finished run of this grid. Give another.')
        return
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
        for other in others:
            print(f'not taken: {other}', file=sys.stderr)
        if others:
            raise program.RunError(f'{len(others)} finished runs were not taken. Give their flags, or move them away.')
    else:
        have = len(every) - len(todo) + len(again)
        print(f'{have} of {len(every)} runs have their rows in {path}; {len(todo)} to do')
        if failed := train_all(remaining, path):
            raise program.RunError('these runs failed: ' + ', '.join(failed))


if __name__ == '__main__':
    define_flags()
    program.run(compare, __doc__, FLAG_GROUPS)
