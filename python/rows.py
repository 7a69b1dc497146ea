"""The CSV of compare.py, one row a finished run: its columns, and how several programs read it and add to it at once.

Numbers count, not spellings: a file that a spreadsheet has written anew, with commas, holds the same rows.
"""

import csv
import fcntl
import functools
import os
import sys
import typing

import evaluations
import files
import program
from evaluations import text
from main import REGULARISED
from report import method

# The columns that tell a run of main.py from all others. A retrained row has its first run's, and those of PLAIN, which
# are as here in the rows of main.py at its default threshold.
FIRST = ('dataset', 'widths', 'seed', 'group_lasso', 'group_variance', 'random_sparsity', 'steps', 'learning_rate',
         'final_learning_rate')
PLAIN = {'groups': '', 'retrain_steps': '0', 'sparsity_threshold': '0.001'}
KEY = (*FIRST, *PLAIN)
ACCURACIES = {f'{part}_{name}': (part, name) for part in ('test', 'validation')
              for name in ('accuracy', 'accuracy_as_trained')}
COLUMNS = ['method', *FIRST, *ACCURACIES, 'mean_of_five', 'mean_of_four', 'global_sparsity', 'weights_left', 'macs',
           *(f'{name}_{layer}' for name in ('alive', 'norms') for layer in REGULARISED), *PLAIN,
           *(f'zero_{layer}' for layer in REGULARISED), 'device', 'seconds', 'versions']
MAY_BE_EMPTY = ('seconds', *(f'zero_{layer}' for layer in REGULARISED))
OF_THE_MACHINE = ('device', 'seconds', 'versions')  # these may differ between two rows of one run


# ---------------------------------------------------------------------------------------------------------- cells

def number(cell, most=program.FLOAT32_MAX):
    """A number of at least 0 as `text` writes it; ValueError if it is none."""
    if not 0 <= float(cell) <= most:  # NaN is not, either
        raise ValueError
    return text(float(cell))


def whole(cell):
    """The same of a whole number, which may be spelled 3.0."""
    number(cell)
    if float(cell) != int(float(cell)):
        raise ValueError
    return str(int(float(cell)))


def norms(cell):
    return ' '.join(map(number, cell.split()))


def one_line(cell):
    """Text without a line break, which would end the row."""
    if '\n' in cell or '\r' in cell:
        raise ValueError
    return cell


share = functools.partial(number, most=1)
KINDS = {name: number for name in COLUMNS} | {
    **dict.fromkeys(('method', 'dataset', 'widths', 'groups', 'device', 'versions'), one_line),
    **dict.fromkeys(('seed', 'steps', 'retrain_steps', 'weights_left', 'macs'), whole),
    **dict.fromkeys(('random_sparsity', *ACCURACIES, 'mean_of_five', 'mean_of_four', 'global_sparsity'), share)}
for _layer in REGULARISED:
    KINDS |= {f'alive_{_layer}': whole, f'norms_{_layer}': norms, f'zero_{_layer}': share}


# ----------------------------------------------------------------------------------------------------------- rows

def key(row):
    """What tells a row from all others."""
    return tuple(row[name] for name in KEY)


def alive(row):
    """The groups that a row has left, layer by layer, as in `widths` and `groups`: 20-18-61-124."""
    return '-'.join(row[f'alive_{layer}'] for layer in REGULARISED)


def matching(rows, **columns):
    """The rows that have these values in these columns."""
    return [row for row in rows if all(row[name] == text(value) for name, value in columns.items())]


def checked(row):
    """The row with its numbers as `text` writes them; ValueError, which says which and why, if a cell is none of its
    column.
    """
    found = {}
    for name in COLUMNS:
        try:
            found[name] = KINDS[name](row[name]) if row[name] or name not in MAY_BE_EMPTY else ''
        except (ValueError, OverflowError) as error:
            raise ValueError(f'{name} cannot be {row[name]!r}') from error
    return found


def row_of(content):
    """A row, dict from COLUMNS to strings, out of the content of a results.json; ValueError as `checked` has it."""
    results, start, layers = content['results'], content.get('start'), content['results']['layers']
    settings = start['settings'] if start else content['settings']  # those of the first run
    # Of before `starts`: one, as far as known.
    trained = content.get('starts', [{**content.get('versions', {}), 'device': content.get('device', 'cpu')}])

    def of_starts(texts):
        return ' | '.join(dict.fromkeys(texts))

    cells = {**settings, **results, 'method': method(settings), 'dataset': content['identity']['dataset'],
             'widths': '-'.join(map(str, settings['widths'])), 'steps': start['step'] if start else results['step'],
             'groups': start['groups'] if start else '', 'retrain_steps': results['step'] if start else 0,
             'sparsity_threshold': float(content['settings']['sparsity_threshold']),
             'device': of_starts(process['device'] for process in trained),
             # of a whole run alone, not of one that was resumed
             'seconds': content['seconds'] if content.get('steps_timed', results['step']) == results['step'] else '',
             'versions': of_starts('; '.join(f'{name} {value}' for name, value in process.items()
                                             if name not in ('step', 'device')) for process in trained),
             **{column: results[part][name] for column, (part, name) in ACCURACIES.items()}}
    for name in REGULARISED:
        cells |= {f'alive_{name}': layers[name]['groups_alive'],
                  f'norms_{name}': ' '.join(map(text, layers[name]['largest_norms'])),
                  f'zero_{name}': layers[name]['zero_share']}
    return checked({name: text(cells[name]) for name in COLUMNS})


# ----------------------------------------------------------------------------------------------------------- file

class Line(typing.NamedTuple):
    """A line of the file: as it stands; its row; or, where it has too few cells for one, as a full disk cuts it, them.
    """
    text: str
    row: dict = None
    cells: list = None


def parse(path, content):
    """The Lines of the text of a CSV after the head, those of blank cells empty.

    Raises:
      program.RunError: the columns are others, a cell is none of its column, a merge has left its marks, or two rows of
        one run differ.
    """
    def refuse(what):
        raise program.RunError(f'--csv={path}{what}')

    head, *texts = content.removeprefix('\ufeff').split('\n')  # the mark by which Excel knows UTF-8
    columns = next(csv.reader([head]), [])
    if columns != COLUMNS and content:
        differ = sorted({*columns} ^ {*COLUMNS}) or ['another order']
        refuse(f' has other columns than this program writes ({differ[0]}). Give another.')
    lines, found = [], {}
    for place, line in enumerate(texts, 2):
        if line.startswith(('<<<<<<<', '|||||||', '=======', '>>>>>>>')):
            refuse(f', line {place} is the mark of a merge that conflicted. Keep the right rows, and remove the marks.')
        cells = next(csv.reader([line]), [])
        if not any(cells):
            lines.append(Line(''))
            continue
        if len(cells) > len(COLUMNS):
            refuse(f', line {place} has more cells than there are columns. Mend or remove it.')
        if len(cells) < len(COLUMNS):
            lines.append(Line(line, cells=cells))
            continue
        row = dict(zip(COLUMNS, cells, strict=True))
        try:
            row = checked(row)
        except ValueError as error:
            refuse(f', line {place}: in the row of {row["method"]}, seed {row["seed"]}, {error}. Mend or remove that '
                   'row, or give another file.')
        if row['method'] != method(row):
            refuse(f', line {place} says {row["method"]}, and its coefficients {method(row)}. Mend or remove it.')
        before, first = found.setdefault(key(row), (row, place))
        differ = [name for name in COLUMNS if row[name] != before[name] and name not in OF_THE_MACHINE]
        if differ:
            refuse(f', lines {first} and {place} are rows of one run, {row["method"]}, seed {row["seed"]}, with '
                   f'another {", ".join(differ)}. Remove one.')
        lines.append(Line(line, row))
    return lines


@functools.cache
def warn(message):
    """Once a process."""
    print(f'warning: {message}', file=sys.stderr)


def read(path):
    """The rows of the CSV, each once, without lines that a full disk has cut; none if there is no such file.

    Raises program.RunError as `parse` does.
    """
    try:
        with open(path, newline='') as file:
            lines = parse(path, file.read())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise program.RunError(f'--csv={path} cannot be read ({error}). Give another.') from error
    rows = {}
    for place, line in enumerate(lines, 2):
        if line.row:
            rows.setdefault(key(line.row), line.row)
        elif line.text:
            warn(f'--csv={path}, line {place} is cut short, and no row: {line.text[:60]}')
    return list(rows.values())


def written(rows, header=False):
    """Rows as CSV text."""
    return evaluations.lines([COLUMNS] * header + [[row[name] for name in COLUMNS] for row in rows])


def is_start(cells, wanted):
    """Whether cells, the last of which may be cut, are the first of those wanted."""
    *whole, last = cells
    return whole == wanted[:len(whole)] and wanted[len(whole)].startswith(last)


def append(path, row):
    """Adds the row, unless it is there, while other processes may do the same.

    In one write, at the end; or in the place of a cut line that may be what was left of this row, in one move: a new
    file takes the place of the old, line by line the same but for that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with files.named(path), open(path, 'a+', newline='') as file:  # to close it writes, too
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path))):
                continue  # replaced while this process waited: that lock holds nobody off any more
            file.seek(0)
            before = file.read()
            lines = parse(path, before)
            if any(line.row and key(line.row) == key(row) for line in lines):
                return
            wanted = [row[name] for name in COLUMNS]
            cut = next((i for i, line in enumerate(lines) if line.cells and is_start(line.cells, wanted)), None)
            if cut is None:
                file.write('\n' * (before != '' and not before.endswith('\n')) + written([row], header=not before))
                return
            kept = [written([row]) if i == cut else f'{line.text}\n' for i, line in enumerate(lines) if line.text]
            return files.replace(path, written([], header=True) + ''.join(kept))
