"""Pictures, drawn from CSV files alone.

As a command it copies the evaluations of a run to a CSV file, and draws what a CSV file holds; either can go without
the other:

    python pictures.py --log_dir=RUN --curve=training.csv --picture=training.png

The pictures of compare.py are drawn here too.
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

import functools
import hashlib
import json
import os
import statistics

from absl import flags

import evaluations
import files
import program
import surroundings

CURVES = ('step', 'test_accuracy', 'mean_of_five', 'mean_of_four', 'global_sparsity')  # of a run's evaluations.csv
HATCHES = {'scn': '', 'ssl': '///', 'gss': 'xxx'}  # so that black and white will do
GREYS = {'scn': '0.85', 'ssl': '0.65', 'gss': '0.4'}
TITLES = {'scn': 'Sparsely Connected Nets', 'ssl': 'SSL', 'gss': 'GSS'}


def pyplot():
    """matplotlib.pyplot, drawing into files alone; slow to import, and a run needs none of it."""
    import matplotlib
    matplotlib.use('agg')
    from matplotlib import pyplot
    return pyplot


def plainly(draw):
    """Has a function draw as matplotlib does by itself, whatever a matplotlibrc, as of the working directory, asks for.
    """
    @functools.wraps(draw)
    def drawn(*arguments, **options):
        with pyplot().style.context('default', after_reset=True):
            return draw(*arguments, **options)
    return drawn


def source(path):
    """The fingerprint that `save` has left in a PNG file, or None: another program's, or no PNG file."""
    from PIL import Image
    try:
        with Image.open(path) as image:
            return image.info.get('attention-guided-sparsity')
    except (OSError, ValueError, SyntaxError):
        return None


def check(path):
    """Raises program.RunError if somebody else's file stands where a picture is to go."""
    if os.path.lexists(path) and not source(path):
        raise program.RunError(f'{path} is there, and no picture of this program. Move it away, or name another.')


def save(figure, path, shown):
    """Writes a PNG file with the fingerprint of what it shows, so that one older than its CSV can be told.

    Args:
      shown: plain containers of the numbers.
    """
    check(path)
    fingerprint = hashlib.sha256(json.dumps(shown).encode()).hexdigest()
    figure.savefig(path, dpi=120, metadata={'attention-guided-sparsity': fingerprint})
    pyplot().close(figure)


def read_curve(path):
    """The rows of a CSV file of CURVES, dicts of floats; raises program.RunError if it is none."""
    try:
        rows = evaluations.read(path)
        if not rows or tuple(rows[0]) != CURVES:
            raise ValueError(f'it has no rows, or its columns are not {", ".join(CURVES)}')
        return [{name: float(cell) for name, cell in row.items()} for row in rows]
    except (ValueError, program.RunError) as error:
        raise program.RunError(f'--curve={path} is not the evaluations of a run ({error}). Give another.') from error


def write_curve(log_dir, path):
    """Copies the CURVES of a run's evaluations.csv.

    Args:
      log_dir: pathlib.Path of the run's folder.
      path: pathlib.Path of the file; one that is no such CSV is not replaced.

    Raises:
      program.RunError: there are no evaluations, or the file is somebody else's.
    """
    if path.exists():
        read_curve(path)
    found = log_dir / 'evaluations.csv'
    if not found.exists():
        raise program.RunError(f'--log_dir={log_dir} holds no evaluations.csv of a run. Give another.')
    rows = evaluations.read(found)
    files.replace(path, evaluations.lines([CURVES, *([row[name] for name in CURVES] for row in rows)]))


@plainly
def draw_curve(rows, picture):
    """Accuracy above, the three sparsities below, against the step.

    Args:
      rows: list of dicts from `read_curve`. picture: path of the PNG file to write.
    """
    plt = pyplot()
    figure, (above, below) = plt.subplots(2, sharex=True, figsize=(7, 5), layout='constrained')
    steps = [row['step'] for row in rows]
    above.plot(steps, [100 * row['test_accuracy'] for row in rows], color='black', linewidth=0.8)
    least = 90 if max(row['test_accuracy'] for row in rows) > 0.9 else 0
    above.set(ylabel='accuracy (%)', ylim=(least, 100), title='1,000 test images each time, weights thresholded')
    for name, title, style in (('global_sparsity', 'global: all weights', '-'),
                               ('mean_of_four', 'mean of the four regularised layers', '--'),
                               ('mean_of_five', "mean of the five layers, the paper's", ':')):
        below.plot(steps, [100 * row[name] for row in rows], style, color='black', label=title)
    below.set(xlabel='step', ylabel='sparsity (%)', xlim=(0, None), ylim=(0, None))
    below.legend()
    for axes in (above, below):
        axes.grid(alpha=0.3)
    save(figure, picture, rows)


@plainly
def draw_comparison(panels, paper, path):
    """Grouped bars of the accuracy drop by level, the paper's own values as outlined markers on them.

    Args:
      panels: dict from a panel's title to a dict from method to a dict from level, per cent, to the drops in points,
        one a seed; a level without drops gets no bar, one with fewer than others says so.
      paper: dict from method to a dict from level to its drop.
      path: of the PNG file to write.
    """
    plt = pyplot()
    figure, axes = plt.subplots(len(panels), figsize=(8, 3.4 * len(panels)), layout='constrained', squeeze=False)
    for panel, (title, methods) in zip(axes[:, 0], panels.items(), strict=True):
        levels = sorted({level for drops in methods.values() for level in drops})
        seeds = max(1, *(len(values) for drops in methods.values() for values in drops.values()))
        for i, (method, drops) in enumerate(methods.items()):
            places = [j + 0.27 * (i - 1) for j in range(len(levels))]
            known = [(place, drops[level]) for place, level in zip(places, levels, strict=True) if drops.get(level)]
            panel.bar([place for place, _ in known], [statistics.mean(values) for _, values in known], 0.25,
                      yerr=[statistics.stdev(values) if len(values) > 1 else 0 for _, values in known], capsize=3,
                      color=GREYS[method], hatch=HATCHES[method], edgecolor='black', linewidth=0.7,
                      label=TITLES[method])
            if marks := [(place, paper[method][level]) for place, level in zip(places, levels, strict=True)
                         if level in paper[method]]:
                panel.plot(*zip(*marks, strict=True), 'D', markersize=6, markerfacecolor='white',
                           markeredgecolor='black', label="the paper's figure" if i == 0 else None)
            for place, level in zip(places, levels, strict=True):
                if (found := len(drops.get(level, []))) < seeds:
                    note = f'{found} of\n{seeds} seeds' if found else 'out of\nrange'
                    panel.text(place, 0.01, note, transform=panel.get_xaxis_transform(), ha='center', fontsize=6)
        panel.axhline(0, color='black', linewidth=0.7)
        panel.set(title=f'level: {title}', ylabel='Accuracy drop (%)', xticks=range(len(levels)),
                  xticklabels=[f'{level:g}' for level in levels])
        panel.grid(axis='y', alpha=0.3)
    axes[-1, 0].set_xlabel('Sparsity level (%)')
    axes[0, 0].legend()
    save(figure, path, panels)


@plainly
def draw_alive(layers, path):
    """Groups alive against the strength of the group lasso, a panel a layer.

    Args:
      layers: dict from a layer's name to a dict from method to a dict from lambda_g to the groups alive, one number a
        seed.
      path: of the PNG file to write.
    """
    plt = pyplot()
    figure, axes = plt.subplots(1, len(layers), figsize=(2.5 * len(layers), 2.9), layout='constrained', sharex=True)
    for panel, (layer, methods) in zip(axes, layers.items(), strict=True):
        for (method, alive), style in zip(methods.items(), ('s--', 'o-'), strict=True):
            strengths = sorted(alive)
            means = [statistics.mean(alive[strength]) for strength in strengths]
            spread = [[mean - min(alive[strength]) for mean, strength in zip(means, strengths, strict=True)],
                      [max(alive[strength]) - mean for mean, strength in zip(means, strengths, strict=True)]]
            panel.errorbar(strengths, means, spread, fmt=style, color=GREYS[method] if method == 'ssl' else 'black',
                           markersize=4, capsize=2, linewidth=1, label=TITLES[method])
        panel.set(title=layer, xscale='log', xlabel='lambda_g', ylim=(0, None))
        ticks = sorted(set().union(*methods.values()))
        panel.set_xticks(ticks, [f'{strength:g}' for strength in ticks], rotation=90, fontsize=7)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    axes[0].set_ylabel('groups alive')
    axes[0].legend()
    save(figure, path, layers)


def define_flags():
    program.define_path('Pictures', 'log_dir', None, "A run's folder.")
    program.define_path('Pictures', 'curve', None, 'The .csv file.', required=True)
    program.define_path('Pictures', 'picture', None, 'The .png file to draw. None: none.')


def main():
    path = files.file_of(flags.FLAGS.curve, 'curve', '.csv')
    picture = flags.FLAGS.picture and files.file_of(flags.FLAGS.picture, 'picture', '.png')
    if not (picture or flags.FLAGS.log_dir):
        raise program.RunError('nothing to do: give the folder of a run as --log_dir, or a file to draw as --picture.')
    if picture:
        check(picture)
    if flags.FLAGS.log_dir:
        write_curve(files.local_folder(flags.FLAGS.log_dir, 'log_dir'), path)
    if picture:
        draw_curve(read_curve(path), picture)


if __name__ == '__main__':
    define_flags()
    program.run(main, __doc__, ['Pictures'])
