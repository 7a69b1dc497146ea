"""The paper's figure, out of the rows of compare.py: the accuracy that each method loses at a level of sparsity.

A level between two strengths is interpolated; one that no two strengths enclose is missing.
"""

import collections
import itertools
import math
import statistics

import pictures

# Not the paper's mean of five: its output layer is not regularised, so that it can hardly pass 80%.
MEASURES = {'mean_of_four': 'mean of the four regularised layers',
            'global_sparsity': 'global, the share of all weights'}
MACS_SAVED = 'macs_saved'  # our choice: what structured sparsity is for; a table, not in the picture
LAYERS = ('conv1', 'conv2', 'fc1', 'fc2')
PAPER = {  # accuracy drop in points by level in per cent, read off the paper's figure to 0.02
    'scn': {50: 0.15, 60: 0.25, 70: 0.46, 80: 1.55, 90: 3.19},
    'ssl': {50: 0.11, 60: 0.15, 70: 0.38, 80: 0.91, 90: 1.61},
    'gss': {50: 0.25, 60: 0.23, 70: 0.44, 80: 0.51, 90: 0.62}}
LEAST_NOISE = 0.1  # points: the sampling error of an accuracy of 99% on 10,000 images
TEST_IMAGES = {'mnist_5k': 1000, 'fake': 1000}  # 10,000 of the other data sets


def text(value):
    """A cell of the CSV."""
    return f'{value:.6g}' if isinstance(value, float) else str(value)


def matching(rows, **columns):
    """The rows, dicts as in the CSV, that have these values in these columns."""
    return [row for row in rows if all(row[name] == text(value) for name, value in columns.items())]


def method(run):
    """dense, scn, ssl or gss, by a run's settings or its row."""
    if float(run['random_sparsity']):
        return 'scn'
    return 'gss' if float(run['group_variance']) else 'ssl' if float(run['group_lasso']) else 'dense'


# ---------------------------------------------------------------------------------------------------------- levels

def drop(rows, seed, series, measure, level):
    """Test accuracy lost against the dense net of the same seed at a level of sparsity.

    Args:
      rows: list of rows of one data set, net, length and schedule.
      seed: str.
      series: (method, group_variance), the latter as in the CSV.
      measure: one of MEASURES, or MACS_SAVED: the share of the dense net's multiply-accumulates.
      level: float, per cent.

    Returns:
      Points, float, on the line between the first two neighbouring strengths that enclose the level; None if there are
      none. A random mask switches off the stated share of each layer, so there the level of sparsity is the mask's.
    """
    rows = [row for row in rows if row['seed'] == seed]
    dense = next((row for row in rows if row['method'] == 'dense'), None)
    rows = [row for row in rows if (row['method'], row['group_variance']) == series]
    if not dense or not float(dense['macs']):
        return None

    def lost(row):
        return 100 * (float(dense['test_accuracy']) - float(row['test_accuracy']))

    def reached(row):
        return 100 * (1 - float(row['macs']) / float(dense['macs']) if measure == MACS_SAVED else float(row[measure]))

    if series[0] == 'scn' and measure in MEASURES:
        return next((lost(row) for row in rows if math.isclose(100 * float(row['random_sparsity']), level)), None)
    rows.sort(key=lambda row: (float(row['random_sparsity']), float(row['group_lasso'])))
    points = [(reached(row), lost(row)) for row in rows]
    for (before, points_before), (after, points_after) in itertools.pairwise(points):
        if min(before, after) <= level <= max(before, after):
            part = (level - before) / (after - before) if after != before else 0
            return points_before + part * (points_after - points_before)
    return None


def drops(rows, variance, measure, levels):
    """`drop` for each method, level and seed: dict from scn, ssl and gss to dicts from level to dicts from seed.

    Args:
      variance: float, lambda_v of GSS. The others are those of `drop`.
    """
    series = {'scn': '0', 'ssl': '0', 'gss': text(variance)}
    seeds = sorted({row['seed'] for row in rows}, key=int)
    found = {name: {level: {seed: drop(rows, seed, (name, of), measure, level) for seed in seeds} for level in levels}
             for name, of in series.items()}
    return {name: {level: {seed: points for seed, points in of.items() if points is not None}
                   for level, of in by_level.items()} for name, by_level in found.items()}


def spread(values, form='.2f'):
    """Mean and standard deviation, as text."""
    values = list(values)
    deviation = f' ± {statistics.stdev(values):{form}}' if len(values) > 1 else ''
    return f'{statistics.mean(values):{form}}{deviation}' if values else 'out of range'


def noise(rows):
    """The sampling error of a dense net's test accuracy, points: a smaller difference says nothing."""
    dense = [row for row in rows if row['method'] == 'dense']
    if not dense:
        return LEAST_NOISE
    accuracy = statistics.mean(float(row['test_accuracy']) for row in dense)
    return max(LEAST_NOISE, 100 * math.sqrt(accuracy * (1 - accuracy) / TEST_IMAGES.get(dense[0]['dataset'], 10000)))


def verdict(differences, least):
    """What the differences GSS minus SSL say, points, one a seed: nothing below `least` or where seeds disagree."""
    if len(differences) < 3:
        return 'too few seeds'
    for word, sign in (('GSS loses less', -1), ('GSS loses more', 1)):
        if all(sign * d > 0 for d in differences) and sign * statistics.mean(differences) > least:
            return word
    return 'no difference seen'


def paired_differences(found, level):
    """GSS minus SSL, points, of each seed that has both at the level; `found` is what `drops` returns."""
    ssl, gss = found['ssl'][level], found['gss'][level]
    return [gss[seed] - ssl[seed] for seed in gss if seed in ssl]


def level_table(rows, variance, measure, levels):
    """Lines of the table: for each level each method's drop, the paper's, and the paired differences."""
    found, least, seeds = drops(rows, variance, measure, levels), noise(rows), len({row['seed'] for row in rows})

    def cell(points):
        return spread(points.values()) + (f' ({len(points)} of {seeds})' if 0 < len(points) < seeds else '')

    table = [('level', 'SCN', 'SSL', 'GSS', 'paper: SCN, SSL, GSS', 'GSS - SSL, by seed', 'verdict')]
    for level in levels:
        paired = paired_differences(found, level)
        table.append((f'{level:g}%', *(cell(found[name][level]) for name in ('scn', 'ssl', 'gss')),
                      ', '.join(f'{PAPER[name][level]:.2f}' if level in PAPER[name] and measure in MEASURES else 'none'
                                for name in PAPER),
                      ', '.join(f'{d:+.2f}' for d in paired) or 'none', verdict(paired, least)))
    return table


def run_table(rows):
    """Lines of the table: each method and strength, means over the seeds."""
    def strength(row):
        return tuple(float(row[name]) for name in ('random_sparsity', 'group_variance', 'group_lasso'))

    table = [('method', 'lambda_g', 'lambda_v', 'seeds', 'test accuracy', 'mean of four', 'global', 'weights left',
              'MACs', 'alive')]
    for (share, variance, lasso), some in itertools.groupby(sorted(rows, key=strength), strength):
        some = list(some)
        means = {name: statistics.mean(float(row[name]) for row in some) for name in (
            'mean_of_four', 'global_sparsity', 'weights_left', 'macs', *(f'alive_{layer}' for layer in LAYERS))}
        table.append((method(some[0]) + (f' {100 * share:g}%' if share else ''), f'{lasso:g}', f'{variance:g}',
                      str(len(some)), spread(100 * float(row['test_accuracy']) for row in some),
                      f'{means["mean_of_four"]:.3f}', f'{means["global_sparsity"]:.3f}',
                      f'{means["weights_left"]:,.0f}', f'{means["macs"]:,.0f}',
                      '-'.join(f'{means[f"alive_{layer}"]:.0f}' for layer in LAYERS)))
    return table


def rst(table):
    """A table, a list of tuples of str with the head first, as reStructuredText."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = '  '.join('=' * width for width in widths)
    head, *body = ('  '.join(map(str.ljust, line, widths)).rstrip() for line in table)
    return '\n'.join([rule, head, rule, *body, rule])


def show(rows, variance, levels, path):
    """Draws the pictures beside the CSV file at `path`, a pathlib.Path, and prints the tables of the README.

    Args:
      rows, variance, levels: those of `drops`. Without a level there is no figure: the table of the runs alone.
    """
    if levels:
        draw(rows, variance, levels, path)
        for measure, title in {**MEASURES, MACS_SAVED: 'share of the multiply-accumulates saved'}.items():
            print(f'Accuracy drop in points; level: {title}\n\n{rst(level_table(rows, variance, measure, levels))}\n')
    print(f'All runs, means over the seeds\n\n{rst(run_table(rows))}')


def draw(rows, variance, levels, path):
    """Draws the two pictures; the arguments are those of `show`."""
    alive_path = path.with_name(f'alive_{path.stem}.png'.replace('alive_comparison', 'alive'))
    pictures.check(alive_path)  # before the first is drawn
    panels = {title: {name: {level: list(points.values()) for level, points in of.items()}
                      for name, of in drops(rows, variance, measure, levels).items()}
              for measure, title in MEASURES.items()}
    pictures.draw_comparison(panels, PAPER, path.with_suffix('.png'))
    alive = {layer: {name: collections.defaultdict(list) for name in ('ssl', 'gss')} for layer in LAYERS}
    for row in rows:
        if (row['method'], row['group_variance']) in (('ssl', '0'), ('gss', text(variance))):
            for layer, of in alive.items():
                of[row['method']][float(row['group_lasso'])].append(int(row[f'alive_{layer}']))
    pictures.draw_alive(alive, alive_path)
