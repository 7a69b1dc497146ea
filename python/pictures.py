"""Pictures, drawn from CSV files alone.

As a command it copies the evaluations of a run to a CSV file, draws what a CSV file holds, and prints where the mean of
four passes 50 to 90%; a file that is there already needs no --log_dir:

    python pictures.py --log_dir=RUN --curve=training.csv --picture=training.png

The pictures of compare.py are drawn here too.
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

import contextlib
import csv
import hashlib
import json
import os
import statistics
import warnings

from absl import flags

import evaluations
import files
import program
import surroundings

MARK = 'attention-guided-sparsity'  # in each picture, by which `check` knows it
LEVELS = 50, 60, 70, 80, 90  # per cent, of the mean of four
CURVES = ('step', 'test_accuracy', 'mean_of_five', 'mean_of_four', 'global_sparsity')  # of a run's evaluations.csv
# Colours that the colour-blind tell apart (Okabe and Ito), and a marker each, so that black and white will do.
COLOURS = {'ssl': '#0072b2', 'gss': '#d55e00', 'scn': '#009e73', 'magnitude': '#cc79a7', 'fresh': 'black'}
MARKERS = {'ssl': 's', 'gss': 'o', 'scn': '^', 'magnitude': 'X', 'fresh': 'P'}
TITLES = {'ssl': 'SSL', 'gss': 'GSS', 'scn': 'SCN, random connections', 'magnitude': 'magnitude pruning, retrained',
          'fresh': 'always that small'}


def pyplot():
    """matplotlib.pyplot, drawing into files alone; slow to import, and a run needs none of it."""
    import matplotlib
    matplotlib.use('agg')
    from matplotlib import pyplot
    return pyplot


@contextlib.contextmanager
def plainly():
    """Decorates a function that draws: it does as matplotlib by itself, whatever a matplotlibrc asks for."""
    with pyplot().style.context('default', after_reset=True):
        yield


def fingerprint(shown):
    """SHA-256 of plain containers of numbers, to nine digits, for the last ones differ between machines."""
    rounded = json.loads(json.dumps(shown), parse_float=lambda digits: f'{float(digits):.9g}')
    return hashlib.sha256(json.dumps(rounded).encode()).hexdigest()


def source(path):
    """The fingerprint that this program has left in a PNG or GIF file; None: of another program, or no picture.

    MARK, of a GIF of an earlier version.
    """
    from PIL import Image
    try:
        with warnings.catch_warnings(action='ignore'), Image.open(path) as image:  # PIL warns of large ones
            comment = image.info.get('comment', b'') if image.format == 'GIF' else b''  # in a PNG file it is a str
            mark, _, of_gif = comment.decode('latin-1').partition(' ')
            return image.info.get(MARK) or (of_gif or MARK if mark == MARK else None)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def check(path):
    """Raises program.RunError if somebody else's file stands where a picture is to go."""
    if os.path.lexists(path) and not source(path):
        raise program.RunError(f'{path} is there, and no picture of this program. Move it away, or name another.')


def save(figure, path, shown, dpi=120):
    """Writes a PNG file with the fingerprint of what it shows, so that one older than its CSV can be told.

    Args:
      shown: plain containers of the numbers.
      dpi: int, pixels an inch of the figure; a page shows a picture 850 pixels wide.
    """
    check(path)
    with files.named(path), files.part_of(path) as part:
        figure.savefig(part, format='png', dpi=dpi, facecolor='white', metadata={MARK: fingerprint(shown)})
    pyplot().close(figure)


def read_curve(path, flag='curve'):
    """The rows of a CSV file of CURVES, dicts of floats; raises program.RunError, with the flag, if it is none."""
    try:
        rows = evaluations.parse(path.read_text(encoding='utf-8-sig'))
        if not rows or tuple(rows[0]) != CURVES:
            raise ValueError(f'it has no rows, or its columns are not {", ".join(CURVES)}')
        rows = [{name: float(cell) for name, cell in row.items()} for row in rows]
        steps = [row['step'] for row in rows]
        if steps != sorted({*steps}) or not all(0 <= row[name] <= 1 for row in rows for name in CURVES[1:]):
            raise ValueError('its steps do not rise, or a share is not from 0 to 1')
        return rows
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise program.RunError(f'--{flag}={path} is not the evaluations of a run ({error}). Give another.') from error


def write_curve(log_dir, path):
    """Copies the CURVES of a run's evaluations.csv.

    Args:
      log_dir: pathlib.Path of the run's folder.
      path: pathlib.Path of the file; one that is no such CSV is not replaced.

    Raises:
      program.RunError: there are no evaluations, or of several thresholds, or the file is somebody else's.
    """
    if path.exists():
        read_curve(path)
    found = log_dir / 'evaluations.csv'
    rows = evaluations.read(found) if found.exists() else ()
    if not rows or not rows[0].keys() >= {*CURVES}:
        raise program.RunError(f'--log_dir={log_dir} holds no evaluations.csv of a run, or one without a row. Give '
                               'another.')
    if len(thresholds := {row.get('threshold') for row in rows}) > 1:
        raise program.RunError(f'{found} has rows of several thresholds ({", ".join(sorted(thresholds))}), and a curve '
                               'is of one. Give another --log_dir.')
    files.replace(path, evaluations.lines([CURVES, *([row[name] for name in CURVES] for row in rows)]))


def ten(rows, place):
    """The slice of the ten evaluations around a place that are all 10,000 test images of MNIST once, if all are there.
    """
    first = min(place, max(0, len(rows) - 10)) // 10 * 10
    return slice(first, first + 10)


def accuracy(rows):
    """Mean over evaluations, per cent."""
    return 100 * statistics.mean(row['test_accuracy'] for row in rows)


def level_table(rows, dense=()):
    """Lines of the table: the first evaluation at which the mean of four reaches each of LEVELS, then the last one.

    An accuracy is that of `ten` evaluations.

    Args:
      rows, dense: lists of dicts from `read_curve`. The dense run's accuracies of the same steps stand beside.
    """
    places = [next((i for i, row in enumerate(rows) if 100 * row['mean_of_four'] >= level), None) for level in LEVELS]
    table = [('mean of four', 'mean of five', 'global', 'step', 'accuracy', *(('dense', 'lost') if dense else ()))]
    for place in [*(place for place in places if place is not None), len(rows) - 1]:
        row, ours, theirs = rows[place], rows[ten(rows, place)], dense[ten(rows, place)]
        line = (*(f'{row[name]:.1%}' for name in ('mean_of_four', 'mean_of_five', 'global_sparsity')),
                f'{row["step"]:,.0f}', f'{accuracy(ours):.2f}%')
        if [of['step'] for of in ours] == [of['step'] for of in theirs]:
            line += f'{accuracy(theirs):.2f}%', f'{accuracy(theirs) - accuracy(ours):.2f}'
        elif dense:
            line += ('not there',) * 2
        table.append(line)
    return table


@plainly()
def draw_curve(rows, picture):
    """Accuracy above, the three sparsities below, against the step.

    Args:
      rows: list of dicts from `read_curve`. picture: path of the PNG file to write.
    """
    plt = pyplot()
    figure, (above, below) = plt.subplots(2, sharex=True, figsize=(8.5, 5), layout='constrained')
    steps = [row['step'] for row in rows]
    above.plot(steps, [100 * row['test_accuracy'] for row in rows], color='black', linewidth=0.8)
    least = 90 if max(row['test_accuracy'] for row in rows) > 0.9 else 0
    last = accuracy(rows[ten(rows, len(rows) - 1)])
    figure.suptitle(f'After {steps[-1]:,.0f} steps: {rows[-1]["mean_of_four"]:.0%} zeros by the mean of four layers, '
                    f'{last:.1f}% of the test images right', fontsize=11.5, weight='bold')
    above.set(ylabel='accuracy (%)', ylim=(least, 100), title='1,000 test images each time, weights thresholded')
    for name, title, style in (('global_sparsity', 'global: all weights', '-'),
                               ('mean_of_four', 'mean of the four regularised layers', '--'),
                               ('mean_of_five', "mean of the five layers, the authors' own", ':')):
        below.plot(steps, [100 * row[name] for row in rows], style, color='black', label=title)
    below.set(xlabel='step', ylabel='sparsity (%)', xlim=(0, None), ylim=(0, None))
    below.legend()
    for axes in (above, below):
        axes.grid(alpha=0.3)
    save(figure, picture, rows)


@plainly()
def draw_comparison(title, panels, path):
    """Accuracy lost against sparsity, a panel a measure: every run a point, the means over the seeds as curves.

    Args:
      title: str.
      panels: dict from the words under a panel to a dict from a curve, (one of TITLES, 'plain', 'retrained' or
        'paper'), to a dict of `runs`, a list of (sparsity in per cent, points lost), and `means`, a list of (sparsity,
        points, half width of the interval or None).
      path: of the PNG file to write.
    """
    plt, shown = pyplot(), {}
    figure, axes = plt.subplots(1, len(panels), figsize=(8.5, 4.3), layout='constrained', sharey=True, squeeze=False)
    for panel, (words, curves) in zip(axes[0], panels.items(), strict=True):
        measured = [name for name, curve in curves.items() if name[1] != 'paper' and curve['means']]
        for (method, kind), curve in curves.items():
            fill = COLOURS[method] if kind == 'plain' else 'white'
            style = {'color': COLOURS[method], 'markeredgecolor': COLOURS[method], 'markerfacecolor': fill}
            label = TITLES[method] + {'plain': '', 'retrained': ', retrained', 'paper': ' in the paper'}[kind]
            if curve['runs']:
                marks, = panel.plot(*zip(*curve['runs'], strict=True), MARKERS[method], markersize=3.5, alpha=0.55,
                                    **style)
                shown.setdefault(label, marks)
            if not curve['means']:
                continue
            level, points, half = zip(*curve['means'], strict=True)
            if kind == 'paper':
                shown[label], = panel.plot(level, points, 'D:', linewidth=1, markersize=6.5, zorder=4, **style)
                continue
            aside = measured.index((method, kind)) - (len(measured) - 1) / 2  # so that no interval covers another
            shown[label] = panel.errorbar(
                [x + aside for x in level], points, [of or 0 for of in half], fmt='--' if kind == 'retrained' else '-',
                marker=MARKERS[method], markersize=5.5, capsize=3, linewidth=1.3, zorder=3, **style)
        panel.axhline(0, color='black', linewidth=0.7)
        panel.set(xlabel=words, xlim=(45, 101))
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel('accuracy lost (percentage points)')
    figure.legend(shown.values(), shown.keys(), loc='outside lower center', ncols=3, fontsize=9.5)
    figure.suptitle(title, fontsize=11.5, weight='bold')
    save(figure, path, [title, [[words, [[*name, curve] for name, curve in curves.items()]]
                                for words, curves in panels.items()]])


@plainly()
def draw_alive(title, methods, path):
    """Groups alive in one layer against the strength of the group lasso: every run a point, the means as curves.

    Args:
      title: str.
      methods: dict from ssl and gss to a dict from lambda_g to the groups alive, one number a seed.
      path: of the PNG file to write.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8.5, 3.8), layout='constrained')
    strengths = sorted(set().union(*methods.values()))
    for (method, alive), aside in zip(methods.items(), (-0.07, 0.07), strict=True):
        style = {'color': COLOURS[method], 'marker': MARKERS[method]}
        places = [strengths.index(strength) + aside for strength in alive]
        axes.plot([place for place, counts in zip(places, alive.values(), strict=True) for _ in counts],
                  [count for counts in alive.values() for count in counts], linestyle='', markersize=6, alpha=0.55,
                  **style)
        means = sorted(zip(places, map(statistics.mean, alive.values()), strict=True))
        axes.plot(*zip(*means, strict=True), linewidth=1.5, markersize=3, label=f'{TITLES[method]}, mean', **style)
    axes.set_xticks(range(len(strengths)), [f'{strength:g}' for strength in strengths])
    axes.set(xlabel='lambda_g, strength of the group lasso', ylabel='groups alive', ylim=(0, None))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    axes.set_title(title, fontsize=11.5, weight='bold')
    save(figure, path, [title, methods])


def define_flags():
    program.define_path('Pictures', 'log_dir', None, "A run's folder.")
    program.define_path('Pictures', 'curve', None, 'The .csv file.', required=True)
    program.define_path('Pictures', 'dense', None, 'The .csv file of the dense run, whose accuracies stand beside. '
                        'None: none.')
    program.define_path('Pictures', 'picture', None, 'The .png file to draw. None: none.')


def main():
    path = files.file_of(flags.FLAGS.curve, 'curve', '.csv')
    dense = flags.FLAGS.dense and files.file_of(flags.FLAGS.dense, 'dense', '.csv')
    picture = flags.FLAGS.picture and files.file_of(flags.FLAGS.picture, 'picture', '.png')
    if picture:
        check(picture)
    dense = read_curve(dense, 'dense') if dense else ()
    if flags.FLAGS.log_dir:
        write_curve(files.local_folder(flags.FLAGS.log_dir, 'log_dir'), path)
    rows = read_curve(path)
    if picture:
        draw_curve(rows, picture)
    print(evaluations.rst(level_table(rows, dense)))


if __name__ == '__main__':
    define_flags()
    program.run(main, __doc__, ['Pictures'])
