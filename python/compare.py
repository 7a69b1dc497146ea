"""The paper's figure, measured: what accuracy each method loses at each level of sparsity.

    python compare.py                     trains the grid, one run of main.py after the other, and goes on where it was
    python compare.py --print_commands    prints the runs that are still to do, for other machines or several at once
    python compare.py --collect           takes the finished ones of these into the CSV
    python compare.py --figure            draws the CSV, and prints the tables of the README

The grid has, for each seed, the dense net; SSL and GSS at each strength of the group lasso; and Sparsely Connected Nets
at each level. All else is the same for all.
"""

if __name__ == '__main__':
    import program
    program.prepare()

import collections
import csv
import datetime
import fcntl
import io
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

from absl import flags

import figure
import input_data
import main
import program

FLAGS = flags.FLAGS
FLAG_GROUPS = ('Grid', 'Output')
KEY = ('dataset', 'widths', 'seed', 'group_lasso', 'group_variance', 'random_sparsity', 'steps', 'learning_rate',
       'final_learning_rate')  # the columns that tell a run from all others
EMPTY = ('group_lassos', 'levels')  # the lists that may be
COLUMNS = ['method', *KEY, *(f'{part}_{name}' for part in ('test', 'validation') for name in (
    'accuracy', 'accuracy_as_trained')), 'mean_of_five', 'mean_of_four', 'global_sparsity', 'weights_left', 'macs',
    *(f'{name}_{layer}' for name in ('alive', 'norms') for layer in main.REGULARISED), 'seconds', 'versions']


def define_flags():
    program.define('Grid', 'enum', 'dataset', 'mnist', 'As in main.py; fake: --fake_data.',
                   enum_values=[*input_data.DATASETS, 'fake'])
    program.define_path('Grid', 'data_dir', None, 'As in main.py.')
    program.define_settings(main.Settings, ('widths', 'max_steps', 'learning_rate', 'final_learning_rate'), 'Grid',
                            widths=(20, 50, 500, 256), max_steps=10000, learning_rate=0.001, final_learning_rate=1e-5)
    for name, default, text in (
            ('seeds', '0,1,2', 'Each run once a seed.'),
            ('group_lassos', '0.0001,0.0002,0.0005,0.001,0.002,0.004,0.008,0.015,0.03', 'lambda_g of SSL and of GSS.'),
            ('group_variances', '0.01', 'lambda_v of GSS; SSL is always in.'),
            ('levels', '50,60,70,80,90', 'Per cent, of the random masks and of the figure; empty: neither.')):
        program.define('Grid', 'list', name, default, text)
    program.define_path('Output', 'csv', '_img/comparison.csv', 'One row a finished run. Pictures go beside it: of '
                        'NAME.csv, NAME.png and alive_NAME.png; of comparison_X.csv, comparison_X.png and alive_X.png.')
    program.define_path('Output', 'runs_dir', 'logs/comparison', "The runs' folders.")
    for name, text in (('print_commands', 'Print the commands of the runs still to do, and train nothing.'),
                       ('collect', 'Take the finished runs of --runs_dir into --csv, and train nothing.'),
                       ('figure', 'Draw --csv, print its tables, and train nothing: of these --seeds and the first of '
                        '--group_variances, all strengths.')):
        program.define('Output', 'boolean', name, False, text)


def numbers(name, number, valid, bounds):
    """The values of a list flag, of type `number`; raises program.RunError if they are none, or not `valid`."""
    try:
        values = list(dict.fromkeys(map(number, FLAGS[name].value)))
        if all(map(valid, values)) and (values or name in EMPTY):
            return values
    except ValueError:
        pass
    raise program.RunError(f'--{name}={",".join(FLAGS[name].value)}: must be {bounds}, separated by commas.')


# ----------------------------------------------------------------------------------------------------------- grid

def grid(seeds, lassos, variances, levels):
    """The runs, seed by seed, as dicts of the flags in which they differ."""
    for seed in seeds:
        strengths = [(0.0, 0.0, 0.0), *((lasso, variance, 0.0) for lasso in lassos for variance in (0.0, *variances)),
                     *((0.0, 0.0, level / 100) for level in levels)]
        for lasso, variance, share in strengths:
            yield {'group_lasso': lasso, 'group_variance': variance, 'random_sparsity': share, 'seed': seed}


class Job:
    """One run of main.py: its command, its folder, and its row in the CSV."""

    def __init__(self, run, shared, runs_dir, data_dir, place):
        """Names it; nothing is touched.

        Args:
          run: dict from `grid`. shared: dict of what else is in KEY. runs_dir, data_dir: absolute Paths, or None.
          place: str, which one of how many it is.
        """
        self.place = place
        self.key = key({name: figure.text(value) for name, value in {**run, **shared}.items()})
        used = [f'{word}-{run[name]:g}' for word, name in (
            ('lasso', 'group_lasso'), ('variance', 'group_variance'), ('share', 'random_sparsity')) if run[name]]
        common = '{dataset}-{widths}-steps-{steps}-rate-{learning_rate:g}-{final_learning_rate:g}'.format(**shared)
        self.name = '-'.join([figure.method(run), *used, f'seed-{run["seed"]}'])
        self.folder = runs_dir / common / self.name
        arguments = {'widths': shared['widths'].replace('-', ','), **run, 'max_steps': shared['steps'],
                     'learning_rate': shared['learning_rate'], 'final_learning_rate': shared['final_learning_rate'],
                     'eval_interval': max(1, shared['steps'] // 10), 'log_dir': self.folder}
        data = ['--fake_data'] if shared['dataset'] == 'fake' else [
            f'--dataset={shared["dataset"]}', *([f'--data_dir={data_dir}'] if data_dir else [])]
        self.command = [sys.executable, str(pathlib.Path(main.__file__).resolve()), *data,
                        *(f'--{name}={value}' for name, value in arguments.items())]

    def row(self):
        """The run's row, or None as long as it is not finished."""
        try:
            row = row_of(json.loads((self.folder / 'results.json').read_text()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # whatever a file may hold
            return None
        return row if key(row) == self.key else None

    def is_running(self):
        """Whether a process holds the folder: one on this machine that outlived the program that started it, say."""
        try:
            folder = os.open(self.folder, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(folder)

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


def jobs(runs, shared, runs_dir, data_dir, rows):
    """The Jobs of the runs that have no row yet."""
    runs, known = list(runs), set(map(key, rows))
    every = [Job(run, shared, runs_dir, data_dir, f'run {i} of {len(runs)}') for i, run in enumerate(runs, 1)]
    return [job for job in every if job.key not in known]


# ------------------------------------------------------------------------------------------------------------ CSV

def key(row):
    """What tells a row from all others."""
    return tuple(row[name] for name in KEY)


def row_of(content):
    """A row, dict from COLUMNS to strings, out of the content of a results.json."""
    settings, results, layers = content['settings'], content['results'], content['results']['layers']
    cells = {**settings, **results, 'method': figure.method(settings), 'dataset': content['identity']['dataset'],
             'widths': '-'.join(map(str, settings['widths'])), 'steps': results['step'],
             # of a whole run alone, not of one that was resumed
             'seconds': content['seconds'] if content.get('steps_timed', results['step']) == results['step'] else '',
             'versions': '; '.join(f'{name} {version}' for name, version in content['versions'].items())}
    for part in ('test', 'validation'):
        cells |= {f'{part}_{name}': results[part][name] for name in ('accuracy', 'accuracy_as_trained')}
    for name in main.REGULARISED:
        cells |= {f'alive_{name}': layers[name]['groups_alive'],
                  f'norms_{name}': ' '.join(map(figure.text, layers[name]['largest_norms']))}
    return {name: figure.text(cells[name]) for name in COLUMNS}


def strange(row):
    """The name of the first cell that is not a number as `row_of` writes it, or None; texts are not looked at."""
    for name in COLUMNS:
        if name in ('method', 'dataset', 'widths', 'seconds', 'versions') or name.startswith('norms_'):
            continue
        is_share = 'accuracy' in name or 'sparsity' in name or name.startswith('mean_')
        is_whole = name in ('seed', 'steps', 'weights_left', 'macs') or name.startswith('alive_')
        try:
            valid = 0 <= (int if is_whole else float)(row[name]) <= (1 if is_share else program.FLOAT32_MAX)
        except ValueError:
            valid = False
        if not valid:
            return name
    return None


def read(path):
    """The rows of the CSV, without one that a full disk may have cut; none if there is no such file."""
    try:
        with open(path, newline='') as file:
            rows = csv.DictReader(file)
            if rows.fieldnames not in (None, COLUMNS):
                raise program.RunError(f'--csv={path} has other columns than this program writes. Give another.')
            rows = [row for row in rows if None not in row.values()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise program.RunError(f'--csv={path} cannot be read ({error}). Give another.') from error
    for row in rows:
        if name := strange(row):
            raise program.RunError(f'--csv={path}: in the row of {row["method"]}, seed {row["seed"]}, {name} cannot be '
                                   f'{row[name] or "empty"}. Mend or remove that row, or give another file.')
    return rows


def append(path, row):
    """Adds the row, in one write and unless it is there; other processes may do the same at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a+', newline='') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if key(row) in map(key, read(path)):
            return
        file.seek(0)
        before, lines = file.read(), io.StringIO()
        writer = csv.DictWriter(lines, COLUMNS, lineterminator='\n')
        if not before:
            writer.writeheader()
        elif not before.endswith('\n'):
            lines.write('\n')
        writer.writerow(row)
        file.write(lines.getvalue())


# -------------------------------------------------------------------------------------------------------- running

def train_all(jobs, path):
    """Trains the jobs in turn, those first that no other process is at; returns the names of those that failed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    open(path, 'a').close()  # better now than after the first run
    todo, failed, started, done = collections.deque(jobs), [], time.monotonic(), 0
    while todo:
        job = next((job for job in todo if not job.is_running()), None)
        if job is None:  # an earlier call was killed, and its run lives on
            time.sleep(1)
            continue
        todo.remove(job)
        print(f'{job.place}: {job.name}', end='', flush=True)
        status = 0 if job.row() else job.train()
        done += 1
        if row := job.row():
            append(path, row)
            print(f', test accuracy {float(row["test_accuracy"]):.2%}, mean of four {row["mean_of_four"]}, '
                  f'global sparsity {row["global_sparsity"]}, MACs {int(row["macs"]):,}', end='')
        elif job.is_running():  # another process was faster
            todo.append(job)
        else:
            failed.append(f'{job.name} (status {status}, see {job.folder}.log)')
            print(f', FAILED with status {status}', end='')
        left = (time.monotonic() - started) / done * len(todo)
        print(f', {datetime.timedelta(seconds=round(left))} left' if todo else '')
    return failed


# ----------------------------------------------------------------------------------------------------------- main

def compare():
    if FLAGS.print_commands + FLAGS.collect + FLAGS.figure > 1:
        raise program.RunError('give only one of --print_commands, --collect and --figure.')
    seeds = numbers('seeds', int, lambda n: 0 <= n < 2**31, 'whole numbers from 0 to 2147483647')
    lassos, variances = (numbers(name, float, lambda x: 0 < x < program.FLOAT32_MAX, 'finite numbers above 0')
                         for name in ('group_lassos', 'group_variances'))
    levels = numbers('levels', float, lambda x: 0 < x < 100, 'numbers between 0 and 100')
    checked = main.Settings(widths=FLAGS.widths, max_steps=FLAGS.max_steps, learning_rate=FLAGS.learning_rate,
                            final_learning_rate=FLAGS.final_learning_rate)
    shared = {'dataset': FLAGS.dataset, 'widths': '-'.join(map(str, checked.widths)), 'steps': checked.max_steps,
              'learning_rate': checked.learning_rate, 'final_learning_rate': checked.final_learning_rate}
    path = program.csv_file(FLAGS.csv, 'csv')
    runs_dir, data_dir = (FLAGS[name].value and program.resolved(FLAGS[name].value, name)
                          for name in ('runs_dir', 'data_dir'))
    rows = read(path)
    if FLAGS.figure:
        rows = [row for row in figure.matching(rows, **shared) if int(row['seed']) in seeds]
        if not rows:
            raise program.RunError(f'--csv={path} has no rows of the data set, widths, steps, rates and seeds given.')
        return figure.show(rows, variances[0], levels, path)
    runs = list(grid(seeds, lassos, variances, levels))
    todo = jobs(runs, shared, runs_dir, data_dir, rows)
    if FLAGS.print_commands:
        print(*(shlex.join(job.command) + '\n' for job in todo if not job.row()), sep='', end='')
    elif FLAGS.collect:
        found = [row for job in todo if (row := job.row())]
        for row in found:
            append(path, row)
        print(f'{len(found)} rows added to {path}; {len(todo) - len(found)} runs of this grid are still to do')
    else:
        print(f'{len(runs) - len(todo)} of {len(runs)} runs have their rows in {path}; {len(todo)} to do')
        if failed := train_all(todo, path):
            raise program.RunError('these runs failed: ' + ', '.join(failed))


if __name__ == '__main__':
    define_flags()
    program.run(compare, __doc__, FLAG_GROUPS)
