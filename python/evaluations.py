"""evaluations.csv in a run's folder: what each periodic evaluation measured, one row each; and tables as text."""

import csv
import io

import files
import program


def text(value):
    """A cell: floats have six digits."""
    return f'{value:.6g}' if isinstance(value, float) else str(value)


def lines(rows):
    file = io.StringIO()
    csv.writer(file, lineterminator='\n').writerows(rows)
    return file.getvalue()


def rst(table):
    """A table, a list of tuples of str with the head first, as reStructuredText."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = '  '.join('=' * width for width in widths)
    head, *body = ('  '.join(map(str.ljust, line, widths)).rstrip() for line in table)
    return '\n'.join([rule, head, rule, *body, rule])


def parse(content):
    """The rows of evaluations, dicts from column to text, out of a text; ValueError, KeyError or csv.Error if not."""
    rows = list(csv.DictReader(io.StringIO(content)))
    for row in rows:
        if None in row or None in row.values() or str(int(row['step'])) != row['step']:
            raise ValueError(f'step {row["step"]}')
        float(row.get('seconds') or 0)
    return rows


def read(path):
    """The rows of a run's file, without a last line that was cut.

    Raises:
      program.RunError: the file is not what a run has written, or not there.
    """
    try:
        whole, newline, _ = path.read_text().rpartition('\n')
        return parse(whole + newline)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise program.RunError(f'{path} is not the evaluations of a run ({error}). Move it away, or put that of the '
                               'run there.') from error


class Evaluations:
    """The file of a run that starts or goes on.

    Attributes:
      step: int, of the last row, or None. seconds: float, of that row.
    """

    def __init__(self, path, step):
        """Takes out what is beyond `step`, where the run goes on. The row of `step` stays, threshold and seconds too.
        """
        self.path, rows = path, read(path) if path.exists() else []
        kept = [row for row in rows if int(row['step']) <= step] if step else []  # at 0 all is made again
        self.columns, self.step, self.seconds = (
            (list(kept[-1]), int(kept[-1]['step']), float(kept[-1].get('seconds') or 0)) if kept else (None, None, 0.0))
        if path.exists():
            files.replace(path, lines([self.columns, *(row.values() for row in kept)] if kept else []))

    def append(self, row):
        """Adds a row, a dict, unless that of its step is there."""
        if row['step'] == self.step:
            return
        if self.columns not in (None, list(row)):
            raise program.RunError(f'{self.path} has other columns than this program writes. Move it away.')
        with files.named(self.path), open(self.path, 'a', newline='') as file:  # a full disk's has no name
            file.write(lines([row] * (not self.columns) + [map(text, row.values())]))
        self.columns = list(row)
