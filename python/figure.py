"""The paper's figure, out of the rows of compare.py: the accuracy that each method loses at a level of sparsity.

A level between two strengths is interpolated; one that no two strengths enclose is missing.
"""

import collections
import itertools
import math
import statistics

import scipy.stats

import pictures
from rows import REGULARISED, matching, method, text

# Not the paper's mean of five: its output layer is not regularised, so that it can hardly pass 80%.
MEASURES = {'mean_of_four': 'mean of the four regularised layers',
            'global_sparsity': 'global, the share of all weights'}
MACS_SAVED = 'macs_saved'  # our choice: what structured sparsity is for; a table, not in the picture
PLAN = {  # the measures and levels, per cent, of _img/README.rst: the tables of intervals
    'mean_of_four': ('mean of the four regularised layers', (60, 70, 80, 90)),
    'mean_of_three': ('mean of conv2, fc1 and fc2', (60, 70, 80, 90)),
    'global_sparsity': ('global, the share of all weights', (92, 95, 97, 98)),
    MACS_SAVED: ('share of the multiply-accumulates saved', (50, 60, 70, 80, 90, 95)),
    'mean_of_five': ("mean of the five layers, the paper's", (50, 60, 70, 80))}
PAPER = {  # accuracy drop in points by level in per cent, read off the paper's figure to 0.02
    'scn': {50: 0.15, 60: 0.25, 70: 0.46, 80: 1.55, 90: 3.19},
    'ssl': {50: 0.11, 60: 0.15, 70: 0.38, 80: 0.91, 90: 1.61},
    'gss': {50: 0.25, 60: 0.23, 70: 0.44, 80: 0.51, 90: 0.62}}
LEAST_NOISE = 0.1  # points: the sampling error of an accuracy of 99% on 10,000 images
TEST_IMAGES = {'mnist_5k': 1000, 'fake': 1000}  # 10,000 of the other data sets


def variant(rows, retrain_steps=0):
    """The rows of whole nets at the default threshold: plain, or retrained for so many steps; no magnitude pruning."""
    return matching(rows, groups='', retrain_steps=retrain_steps, sparsity_threshold=0.001)


# ---------------------------------------------------------------------------------------------------------- levels

def reached(row, measure, whole):
    """The level of sparsity that a row has, per cent; NaN where it does not say. `whole`: the row of the whole net."""
    if measure == MACS_SAVED:
        return 100 * (1 - float(row['macs']) / float(whole['macs']))
    if measure == 'mean_of_three':
        return 100 * statistics.mean(float(row[f'zero_{layer}'] or math.nan) for layer in REGULARISED[1:])
    return 100 * float(row[measure])


def drop(rows, seed, series, measure, level, retrain_steps=0):
    """Test accuracy lost against the dense net of the same seed, retrained likewise, at a level of sparsity.

    Args:
      rows: list of rows of one data set, net, length and schedule.
      seed: str.
      series: (method, group_variance), the latter as in the CSV.
      measure: one of PLAN.
      level: float, per cent.
      retrain_steps: int, of which rows; 0: the plain ones.

    Returns:
      Points, float, on the line between the first two neighbouring strengths that enclose the level; None if there are
      none. A random mask switches off the stated share of each layer, so there the level of sparsity is the mask's.
    """
    plain, rows = (variant([row for row in rows if row['seed'] == seed], steps) for steps in (0, retrain_steps))
    whole, dense = (next((row for row in of if row['method'] == 'dense'), None) for of in (plain, rows))
    rows = [row for row in rows if (row['method'], row['group_variance']) == series]
    if not dense or not whole or not float(whole['macs']):
        return None

    def lost(row):
        return 100 * (float(dense['test_accuracy']) - float(row['test_accuracy']))

    if series[0] == 'scn' and measure in MEASURES:
        return next((lost(row) for row in rows if math.isclose(100 * float(row['random_sparsity']), level)), None)
    rows.sort(key=lambda row: (float(row['random_sparsity']), float(row['group_lasso'])))
    points = [(reached(row, measure, whole), lost(row)) for row in rows]
    for (before, points_before), (after, points_after) in itertools.pairwise(points):
        if min(before, after) <= level <= max(before, after):
            part = (level - before) / (after - before) if after != before else 0
            return points_before + part * (points_after - points_before)
    return None


def drops(rows, variance, measure, levels, retrain_steps=0):
    """`drop` for each method, level and seed: dict from scn, ssl and gss to dicts from level to dicts from seed.

    Args:
      variance: float, lambda_v of GSS. The others are those of `drop`.
    """
    series = {'scn': '0', 'ssl': '0', 'gss': text(variance)}
    seeds = sorted({row['seed'] for row in rows}, key=int)
    found = {name: {level: {seed: drop(rows, seed, (name, of), measure, level, retrain_steps) for seed in seeds}
                    for level in levels}
             for name, of in series.items()}
    return {name: {level: {seed: points for seed, points in of.items() if points is not None}
                   for level, of in by_level.items()} for name, by_level in found.items()}


def spread(values, form='.2f'):
    """Mean and standard deviation, as text."""
    values = list(values)
    deviation = f' ± {statistics.stdev(values):{form}}' if len(values) > 1 else ''
    return f'{statistics.mean(values):{form}}{deviation}' if values else 'out of range'


def noise(rows, retrain_steps=0):
    """The sampling error of a dense net's test accuracy, points: a smaller difference says nothing."""
    dense = [row for row in variant(rows, retrain_steps) if row['method'] == 'dense']
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


def level_table(rows, variance, measure, levels, retrain_steps=0):
    """Lines of the table: for each level each method's drop, the paper's, and the paired differences."""
    found, least = drops(rows, variance, measure, levels, retrain_steps), noise(rows, retrain_steps)
    seeds = len({row['seed'] for row in variant(rows, retrain_steps)})

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


# ------------------------------------------------------------------------------------------------------- intervals

def interval(values, confidence=0.95):
    """Of a few floats: their mean, and the half width of its t interval."""
    return statistics.mean(values), (scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1)
                                     * statistics.stdev(values) / math.sqrt(len(values)))


def sign_flip(values):
    """Exact two-sided p of the hypothesis that each float might as well have the other sign.

    It is the share of all choices of signs whose sum is as far from 0 as that of the values, or farther.
    """
    observed = abs(sum(values)) - 1e-12  # for the sums are rounded
    sums = [sum(map(math.prod, zip(values, signs, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(values))]
    return sum(abs(of) >= observed for of in sums) / len(sums)


def bounds(values, confidence=0.95):
    """Mean and t interval as text: 0.12 [0.03, 0.21]."""
    mean, half = interval(values, confidence)
    return f'{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]'


def statement(differences, paper, confidence):
    """What a primary comparison of _img/README.rst says: of the paper's difference, and of none, apart."""
    mean, half = interval(differences, confidence)
    outside = {name: abs(value - mean) > half for name, value in ((f"the paper's {paper:+.2f}", paper), ('0', 0.0))}
    if not any(outside.values()):
        return f'undecided: {" and ".join(outside)} are both inside, half width {half:.2f}'
    return ', '.join(f'{name} is {"outside" if is_outside else "inside"}' for name, is_outside in outside.items())


def primary(rows, variance):
    """Lines of the two primary comparisons of _img/README.rst, for seeds that all reach the level."""
    lines, found = [], drops(rows, variance, 'mean_of_four', (80, 90))
    for level in (80, 90):
        paired, paper = paired_differences(found, level), PAPER['gss'][level] - PAPER['ssl'][level]
        if len(paired) == len({row['seed'] for row in variant(rows)}) > 1:
            lines.append(f'GSS - SSL at {level}%: {bounds(paired, 0.975)}: {statement(paired, paper, 0.975)}')
    return lines


def interval_table(rows, variance, measure, retrain_steps=0, confidence=0.95):
    """Lines of the table: what SSL and GSS lose at the levels of PLAN, and the paired difference, with t intervals.

    A level that one of the seeds does not reach gets none.
    """
    levels = PLAN[measure][1]
    found = drops(rows, variance, measure, levels, retrain_steps)
    seeds = {row['seed'] for row in variant(rows, retrain_steps)}
    table = [('level', 'seeds', 'SSL', 'GSS', 'GSS - SSL', 'p', 'GSS - SSL, by seed')]
    for level in levels:
        ssl, gss = (found[name][level] for name in ('ssl', 'gss'))
        if len(seeds) > 1 and ssl.keys() == gss.keys() == seeds:
            paired = paired_differences(found, level)
            table.append((f'{level:g}%', str(len(seeds)), *(bounds([*of.values()], confidence) for of in (ssl, gss)),
                          bounds(paired, confidence), f'{sign_flip(paired):.3f}',
                          ', '.join(f'{d:+.2f}' for d in paired)))
        else:
            table.append((f'{level:g}%', str(len(seeds)), *['not by all'] * 5))
    return table


# ----------------------------------------------------------------------------------------------------- what is shown

def run_table(rows, retrain_steps=0):
    """Lines of the table: each method and strength, means over the seeds."""
    rows = variant(rows, retrain_steps)

    def strength(row):
        return tuple(float(row[name]) for name in ('random_sparsity', 'group_variance', 'group_lasso'))

    table = [('method', 'lambda_g', 'lambda_v', 'seeds', 'test accuracy', 'mean of four', 'global', 'weights left',
              'MACs', 'alive')]
    for (share, variance, lasso), some in itertools.groupby(sorted(rows, key=strength), strength):
        some = list(some)
        means = {name: statistics.mean(float(row[name]) for row in some) for name in (
            'mean_of_four', 'global_sparsity', 'weights_left', 'macs', *(f'alive_{layer}' for layer in REGULARISED))}
        table.append((method(some[0]) + (f' {100 * share:g}%' if share else ''), f'{lasso:g}', f'{variance:g}',
                      str(len(some)), spread(100 * float(row['test_accuracy']) for row in some),
                      f'{means["mean_of_four"]:.3f}', f'{means["global_sparsity"]:.3f}',
                      f'{means["weights_left"]:,.0f}', f'{means["macs"]:,.0f}',
                      '-'.join(f'{means[f"alive_{layer}"]:.0f}' for layer in REGULARISED)))
    return table


def rst(table):
    """A table, a list of tuples of str with the head first, as reStructuredText."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = '  '.join('=' * width for width in widths)
    head, *body = ('  '.join(map(str.ljust, line, widths)).rstrip() for line in table)
    return '\n'.join([rule, head, rule, *body, rule])


def show(rows, variance, levels):
    """Prints the tables of the README.

    Args:
      rows, variance, levels: those of `drops`. Without a level there is no figure: the table of the runs alone.
    """
    for steps in sorted({int(row['retrain_steps']) for row in rows if not row['groups']}):
        after = f', after retraining for {steps:,} steps' if steps else ''
        for measure, title in {**MEASURES, MACS_SAVED: 'share of the multiply-accumulates saved'}.items():
            if levels:
                print(f'Accuracy drop in points{after}; level: {title}\n\n'
                      f'{rst(level_table(rows, variance, measure, levels, steps))}\n')
        for measure, (title, _) in PLAN.items():
            if levels and measure == 'mean_of_four' and not steps:
                print(*primary(rows, variance), sep='\n', end='\n\n')  # with 97.5%, for there are two
            if levels:
                print(f'Points lost{after}, mean and 95% t interval; level: {title}\n\n'
                      f'{rst(interval_table(rows, variance, measure, steps))}\n')
        print(f'All runs, means over the seeds{after}\n\n{rst(run_table(rows, steps))}' + '\n' * bool(steps))


def draw_drops(rows, variance, levels, path):
    """Draws the figure as the PNG file `path`; the other arguments are those of `drops`."""
    panels = {title: {name: {level: list(points.values()) for level, points in of.items()}
                      for name, of in drops(rows, variance, measure, levels).items()}
              for measure, title in MEASURES.items()}
    pictures.draw_comparison(panels, PAPER, path)


def draw_alive(rows, variance, path):
    """Draws the groups alive as the PNG file `path`; the other arguments are those of `drops`."""
    alive = {layer: {name: collections.defaultdict(list) for name in ('ssl', 'gss')} for layer in REGULARISED}
    for row in variant(rows):
        if float(row['group_lasso']) and (row['method'], row['group_variance']) in (
                ('ssl', '0'), ('gss', text(variance))):
            for layer, of in alive.items():
                of[row['method']][float(row['group_lasso'])].append(int(row[f'alive_{layer}']))
    pictures.draw_alive(alive, path)
