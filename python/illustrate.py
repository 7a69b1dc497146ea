"""Pictures of the method: what it asks of a layer's groups, and what became of them in two real runs.

    python python/illustrate.py             draws idea.png, and varianceloss.gif from group_norms.csv beside it
    python python/illustrate.py --record    trains the two runs first, some minutes, and writes group_norms.csv anew

The two runs differ in lambda_v alone, which is 0 in the first. They learn mnist_5k, which needs no download.
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

import contextlib
import csv
import io
import itertools
import os
import sys
import tempfile

import numpy as np
import tensorflow as tf
from absl import flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

import evaluations
import files
import input_data
import main
import pictures
import program
import surroundings

FLAG_GROUPS = ('Runs', 'Output')
SHARED = ('widths', 'group_lasso', 'max_steps', 'learning_rate', 'final_learning_rate', 'seed')  # by the two runs
MOMENTS = 60  # after the start; each is a frame
COLUMNS = ['dataset', 'layer', 'group_lasso', 'group_variance', 'seed', 'step', 'test_accuracy', 'norms']
LEFT, RIGHT, DEAD = '#0072b2', '#d55e00', '0.6'  # the first two are told apart by the colour-blind, too


def define_flags():
    program.define('Runs', 'enum', 'layer', 'fc2', 'The layer whose groups are shown.', enum_values=main.REGULARISED)
    program.define_settings(
        main.Settings, (*SHARED, 'group_variance'), 'Runs', widths=(20, 50, 500, 256), group_lasso=0.01, max_steps=2000,
        learning_rate=0.001, final_learning_rate=1e-5)
    program.define('Output', 'boolean', 'record', False, 'Train the two runs and write the CSV file anew.')
    program.define_path('Output', 'folder', '_img', 'Where the pictures and the CSV file are.')


# ------------------------------------------------------------------------------------------------------- recording

def record(data, settings, layer):
    """Trains one run, and returns its rows of the CSV file: at each moment the group norms of one layer, thresholded.

    Moments are closer at the start, where the groups move faster. The run's own folder and lines are not kept. Raises
    program.RunError if a step is not finite.
    """
    rows, screen = [], sys.stdout

    def look(step, lenet):
        norms = main.group_norms(main.sparsify(lenet.weights[layer], settings.sparsity_threshold)).numpy()
        accuracy = main.evaluate(lenet, *data.test)['accuracy']
        print(f'lambda_v {settings.group_variance:g}, step {step:,}: test accuracy {accuracy:.4f}, {layer}: '
              f'{np.count_nonzero(norms)} of {len(norms)} groups alive, largest norms {largest(norms)}', file=screen)
        rows.append({'dataset': data.name, 'layer': layer, 'group_lasso': settings.group_lasso,
                     'group_variance': settings.group_variance, 'seed': settings.seed, 'step': step,
                     'test_accuracy': accuracy, 'norms': norms})

    moments = {round(settings.max_steps * (i / MOMENTS) ** 1.5) for i in range(MOMENTS + 1)}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        try:
            main.train(data, settings, folder, visits=moments, visit=look)
        except program.Interrupted as stop:  # it does not go on from there
            sys.exit(stop.status)
    return rows


def largest(norms):
    """The two largest norms, as text: one group may carry a layer's variance."""
    return ', '.join(f'{norm:.2f}' for norm in np.sort(norms)[:-3:-1])


def write(runs, path):
    """Writes the CSV file: a row a moment, one run after the other; norms with three digits, 0 for a dead group."""
    rows = [{**row, 'test_accuracy': f'{row["test_accuracy"]:.4f}',
             'norms': ' '.join(f'{norm:.3g}' for norm in row['norms'])} for row in itertools.chain(*runs)]
    files.replace(path, evaluations.lines([COLUMNS, *([row[name] for name in COLUMNS] for row in rows)]))


def read(path):
    """The two runs of the CSV file, lists of dicts; raises program.RunError if they are not there."""
    try:
        with open(path, newline='') as file:
            rows = [{**row, 'group_lasso': float(row['group_lasso']), 'group_variance': float(row['group_variance']),
                     'seed': int(row['seed']), 'step': int(row['step']), 'test_accuracy': float(row['test_accuracy']),
                     'norms': np.array(row['norms'].split(), float)} for row in csv.DictReader(file)]
        starts = [i for i, row in enumerate(rows) if row['step'] == 0]
        runs = [rows[start:end] for start, end in itertools.pairwise([*starts, len(rows)])]
        steps = [[(row['step'], len(row['norms'])) for row in run] for run in runs]
        if len(runs) != 2 or steps[0] != steps[1]:
            raise ValueError('its rows are not two runs with the same steps')
        for row in rows:
            if row['layer'] is None or not row['norms'].size or not (
                    np.all((0 <= row['norms']) & (row['norms'] < 1e6)) and 0 <= row['test_accuracy'] <= 1):
                raise ValueError(f'at step {row["step"]}')
        return runs
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise program.RunError(f'{path} does not hold the norms of two runs ({error}). Move it away, if it is there, '
                               'and give --record.') from error


# --------------------------------------------------------------------------------------------------------- drawing

def pulls(norms, lambda_g, lambda_v):
    """Minus the derivatives of the two penalties together by the norms; positive: pulled away from zero."""
    one_weight_each = tf.Variable(norms[None])
    with tf.GradientTape() as tape:
        loss = sum(main.penalties([one_weight_each], lambda_g, lambda_v).values(), 0 * tf.reduce_sum(one_weight_each))
    return -tape.gradient(loss, one_weight_each)[0].numpy()


def squares(norms, width, across=1, dead_bins=1):
    """Lower left corners, [groups, 2], of a histogram of unit squares, one a group.

    Args:
      norms: float [groups]. width: float, of a bin. across: int, squares side by side in a bin.
      dead_bins: int, the width of the bin of the dead, left of zero, in bins of the others.

    Returns:
      x in the unit of `norms`, dead groups left of zero; y in squares.
    """
    corners = np.zeros([len(norms), 2])
    bins = np.where(norms > 0, np.floor(norms / width), -dead_bins)
    for place in np.unique(bins):
        inside = np.flatnonzero(bins == place)
        rank, side = np.arange(len(inside)), across * (dead_bins if place < 0 else 1)
        order = inside[np.argsort(norms[inside], kind='stable')]
        corners[order] = np.stack([width * (place + rank % side / across), rank // side], axis=1)
    return corners


def draw_squares(axes, corners, colours, width):
    """Draws `squares` of this width, in these colours, one a group, on axes that lose all but their x axis."""
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * [0.8 * width, 0.8]  # the rest is the gap
    axes.add_collection(PolyCollection(corners[:, None] + unit, facecolors=colours, linewidths=0))
    axes.spines[['left', 'top', 'right']].set_visible(False)
    axes.set_yticks([])


def arrow(axes, text, start, end, colour):
    """An arrow above the axes, from one share of their width to another, with its text on it."""
    axes.annotate('', (end, 1.05), (start, 1.05), 'axes fraction', 'axes fraction', annotation_clip=False, arrowprops={
        'arrowstyle': '-|>,head_width=0.35,head_length=0.7', 'color': colour, 'linewidth': 2.2, 'shrinkA': 0,
        'shrinkB': 0})
    axes.annotate(text, (end, 1.05), (0, 8), 'axes fraction', 'offset points', ha='left' if end < start else 'right',
                  color=colour, annotation_clip=False, fontsize=10)


def share_of_variance(norms):
    """The largest group's share of the sum of squares that the variance of the squared norms is."""
    squared_deviations = np.square(np.square(norms) - np.mean(np.square(norms)))
    return squared_deviations[np.argmax(norms)] / (squared_deviations.sum() or 1)


def draw_frame(runs, moment, last):
    """A frame as an RGB image, 850 pixels wide: the two runs at one moment, and what came of them if it is the last."""
    high, end, top = 505, max(1, runs[0][-1]['step']), max(row['norms'].max() for run in runs for row in run) or 1
    ticks = range(0, int(top) + 1, max(1, int(top) // 5))
    across, dead_bins, unit = 3, 3, top / 60
    rows = 1 + max(squares(row['norms'], across * unit, across, dead_bins)[:, 1].max() for run in runs for row in run)
    figure = Figure(figsize=(8.5, high / 100), dpi=100)
    for left, run in zip((20, 430), runs, strict=True):
        row = run[moment]
        norms, pull = row['norms'], pulls(row['norms'], row['group_lasso'], row['group_variance'])
        first, colour = np.argmax(norms), RIGHT if pull[np.argmax(norms)] > 0 else LEFT
        axes = figure.add_axes([left / 850, 92 / high, 400 / 850, 300 / high])
        # Squares of whole pixels have sharp edges: 80 of five pixels across, and as many upwards if they fit.
        axes.set(xlim=(-12 * unit, 68 * unit), ylim=(0, 300 / max(1, min(5, 300 // rows))))
        axes.set_xticks([-7.5 * unit, *ticks], ['dead', *ticks])
        corners = squares(norms, across * unit, across, dead_bins)
        draw_squares(axes, corners, np.where(norms == 0, DEAD, np.where(pull > 0, RIGHT, LEFT)), unit)
        axes.annotate(f'{norms[first]:.2f}', corners[first], (-6, 11) if pull[first] > 0 else (8, 0),
                      textcoords='offset points', fontsize=10, color=colour)
        if pull[first] > 0:  # one square alone is easily overlooked
            axes.plot(*corners[first] + [unit / 2, 0.5], 'o', markersize=12, markerfacecolor='none',
                      markeredgecolor=colour, clip_on=False)

        def write(x, y, text, axes=axes, **style):
            axes.text(x, y, text, transform=axes.transAxes, ha='right' if x else 'left', **{'fontsize': 10, **style})
        strong = {'fontsize': 12, 'weight': 'bold'} if last else {}
        both = row['group_variance'] > 0
        write(0, 1.18, 'Group lasso + variance' if both else 'Group lasso alone', fontsize=13, weight='bold')
        write(1, 1.18, rf'$\lambda_g$ = {row["group_lasso"]:g}'
              + rf', $\lambda_v$ = {row["group_variance"]:g}' * both, color='0.35')
        arrow(axes, 'lasso pulls all to zero', 0.4, 0, LEFT)
        if both:
            arrow(axes, 'variance pulls groups apart', 0.5, 1, RIGHT)
        write(1, 0.95, f'{np.count_nonzero(norms)} of {len(norms)} alive\ntest accuracy {row["test_accuracy"]:.1%}\n'
              f'largest: {largest(norms)}', va='top', linespacing=1.6, **strong)
        if both and last:
            write(1, 0.13, f'this group carries {share_of_variance(norms):.0%}\nof the variance', color=colour)
        write(1, -0.14, 'norm of the group')
    if last:
        figure.text(20 / 850, 475 / high, f'In the end the variance outpulls the lasso on {np.sum(pull > 0)} of '
                    f'{len(norms)} groups.', fontsize=13, weight='bold')
    else:
        figure.text(20 / 850, 475 / high, f'Layer {row["layer"]} learns. One square is one group: all weights that '
                    'feed one output.', fontsize=11)
    figure.text(20 / 850, 24 / high, f'step {row["step"]:,} of {end:,}', fontsize=10)
    figure.text(830 / 850, 24 / high, '■ here the variance pulls harder than the lasso', fontsize=10, ha='right',
                color=RIGHT)
    for upto, grey in ((end, '0.85'), (row['step'], '0.3')):
        figure.add_artist(Line2D([20 / 850, (20 + 810 * upto / end) / 850], [12 / high] * 2, color=grey, linewidth=3,
                                 solid_capstyle='butt'))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')


@pictures.plainly()
def draw_animation(runs, path):
    """Writes the GIF: every moment of the runs in 8.5 seconds, then the last one for 5, with what came of it."""
    frames = [draw_frame(runs, moment, last=False) for moment in range(len(runs[0]))]
    frames.append(draw_frame(runs, -1, last=True))
    # Sixteen levels a channel keep white white and leave few colours; the last frame has all of them.
    frames = [frame.point(lambda value: round(value / 17) * 17) for frame in frames]
    colours = Image.new('P', (1, 1))
    colours.putpalette([level for _, colour in sorted(frames[-1].getcolors(4096), reverse=True)[:256]
                        for level in colour])
    frames = [frame.quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    shown = pictures.fingerprint([[row['step'], row['norms'].tolist()] for run in runs for row in run])
    durations = [*[round(8500 / len(runs[0]), -1)] * len(runs[0]), 5000]  # milliseconds
    with files.named(path), files.part_of(path) as part:
        frames[0].save(part, 'GIF', save_all=True, append_images=frames[1:], duration=durations, loop=0,
                       comment=f'{pictures.MARK} {shown}')


@pictures.plainly()
def draw_idea(path):
    """Draws the idea as a PNG file, on made-up weights: a layer, its groups, how their norms lie, and the pulls.

    The arrows are to scale, for either penalty by itself: minus its derivatives by the norms.
    """
    norms = np.array([0.95, 0.6, 1.3, 1.05, 0.77, 1.62, 0.9, 1.15, 1.4, 0.47, 1.1, 0.85, 1.52, 0.7, 1.2, 1.0])
    weights = np.random.default_rng(0).standard_normal([10, len(norms)])
    weights *= norms / np.linalg.norm(weights, axis=0)
    shown = np.argmax(norms)
    colours = np.where(np.arange(len(norms)) == shown, '0', DEAD)
    figure = Figure(figsize=(8.5, 3.6), dpi=200)
    matrix, bars, spread, forces = (figure.add_axes(box) for box in (
        (0.04, 0.29, 0.25, 0.59), (0.365, 0.29, 0.25, 0.59), (0.685, 0.54, 0.305, 0.34), (0.685, 0.04, 0.305, 0.38)))
    for x, title in ((0.04, '1. Weights of a layer'), (0.365, '2. A group for each output'),
                     (0.685, '3. Distribution of the norms')):
        figure.text(x, 0.905, title, fontsize=11, weight='bold')
    for x in (0.3, 0.625):
        figure.text(x, 0.55, '→', fontsize=18, color='0.35')

    matrix.imshow(np.abs(weights), cmap='Greys', vmin=0, aspect='auto')
    matrix.add_patch(Rectangle((shown - 0.5, -0.5), 1, len(weights), fill=False, linewidth=2.5, clip_on=False))
    matrix.set(xticks=[], yticks=[], xlabel='outputs', ylabel='inputs')
    bars.bar(range(len(norms)), norms, 0.7, color=colours)
    bars.spines[['top', 'right']].set_visible(False)
    bars.set(xticks=[], yticks=[], xlabel='outputs', xlim=(-0.6, len(norms) - 0.4))
    bars.set_ylabel(r'$\Vert W_g\Vert_2$, norm of the group', labelpad=2)
    draw_squares(spread, squares(norms, 0.25), colours, 0.25)
    spread.set(xlim=(0, 2.6), ylim=(0, 4.9))
    spread.set_xticks([0, 1, 2], ['0: dead', 1, 2])

    forces.set(xlim=(0, 2.6), ylim=(0, 1))
    forces.axis('off')
    for y, text, colour, pull, longest in (
            (0.6, 'lasso pulls all to zero', LEFT, pulls(norms, 1, 0), 0.17),
            (0.07, 'variance pulls groups apart', RIGHT, pulls(norms, 0, 1), 0.9)):
        forces.text(0, y + 0.14, text, fontsize=10, color=colour)
        for group in np.argsort(norms)[[0, 3, 7, 12, 15]]:
            end = norms[group] + longest * pull[group] / np.abs(pull).max()
            forces.plot(norms[group], y, 'o', color=colour, markersize=3.5)
            forces.annotate('', (end, y), (norms[group], y), arrowprops={
                'arrowstyle': '-|>,head_width=0.2,head_length=0.35', 'color': colour, 'linewidth': 1.6, 'shrinkA': 0,
                'shrinkB': 0})
    for x, text, colour in ((0.04, 'loss  =  cross-entropy', 'black'),
                            (0.27, r'+  $\lambda_g\,\sum_g \Vert W_g\Vert_2$', LEFT),
                            (0.425, r'+  $\lambda_v\,/\,\mathrm{Var}_g(\Vert W_g\Vert_2^2)$', RIGHT)):
        figure.text(x, 0.07, text, fontsize=12, color=colour)
    pictures.save(figure, path, [norms.tolist(), weights.tolist()], dpi=200)


def illustrate():
    values = {name: flags.FLAGS[name].value for name in (*SHARED, 'group_variance', 'layer', 'record')}
    folder = files.local_folder(flags.FLAGS.folder, 'folder')
    path, drawn = folder / 'group_norms.csv', [folder / 'idea.png', folder / 'varianceloss.gif']
    if os.path.lexists(path):
        read(path)  # somebody else's is not replaced
    for picture in drawn:
        pictures.check(picture)
    if not values['record'] and (given := [name for name in values if name != 'record' and flags.FLAGS[name].present]):
        raise program.RunError(f'--{given[0]} is of the runs, and these are not trained anew. Give --record, too.')
    if values['record']:
        shared = {name: values[name] for name in SHARED}
        settings = [main.Settings(**shared, group_variance=variance) for variance in (0, values['group_variance'])]
        if settings[0] == settings[1]:
            raise program.RunError('the second run needs a --group_variance above 0.')
        surroundings.fix_arithmetic()
        folder.mkdir(parents=True, exist_ok=True)
        data = input_data.read_data_sets(dataset='mnist_5k')
        write([record(data, of_one, values['layer']) for of_one in settings], path)
    runs = read(path)
    draw_idea(drawn[0])
    draw_animation(runs, drawn[1])


if __name__ == '__main__':
    define_flags()
    program.run(illustrate, __doc__, FLAG_GROUPS)
