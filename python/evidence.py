"""What a method loses at a level of sparsity, out of the rows of compare.py, and how sure that is over the seeds.

A level between two strengths is interpolated; one that no two strengths enclose is missing.
"""

import functools
import itertools
import math
import statistics

import numpy as np
from scipy.special import stdtrit  # what scipy.stats.t.ppf calls; to import that takes a second more

from report import MEASURES
from rows import REGULARISED, alive, key, matching, text

OF_MASKS = ('mean_of_four', 'global_sparsity')  # measures by which SCN's level is the share of its masks
MACS_SAVED = 'macs_saved'  # our choice: what structured sparsity is for
PLAN = {  # the measures and levels, per cent, of _img/README.rst: the tables of intervals
    'mean_of_four': (MEASURES['mean_of_four'], (60, 70, 80, 90)),
    'mean_of_three': ('mean of conv2, fc1 and fc2', (60, 70, 80, 90)),
    'global_sparsity': (MEASURES['global_sparsity'], (92, 95, 97, 98)),
    MACS_SAVED: ('share of the multiply-accumulates saved', (50, 60, 70, 80, 90, 95)),
    'mean_of_five': (MEASURES['mean_of_five'], (50, 60, 70, 80))}
PAPER = {  # accuracy drop in points by level in per cent, read off the paper's figure to 0.02
    'scn': {50: 0.15, 60: 0.25, 70: 0.46, 80: 1.55, 90: 3.19},
    'ssl': {50: 0.11, 60: 0.15, 70: 0.38, 80: 0.91, 90: 1.61},
    'gss': {50: 0.25, 60: 0.23, 70: 0.44, 80: 0.51, 90: 0.62}}
PRIMARY = 0.975  # of the plan's intervals, for there are two
GRAIN = 0.5  # points of the mean of four: ten times what one weight of 20 filters of conv1 is


def variant(rows, retrain_steps=0):
    """The rows of whole nets at the default threshold: plain, or retrained for so many steps; no magnitude pruning."""
    return matching(rows, groups='', retrain_steps=retrain_steps, sparsity_threshold=0.001)


def series(variance):
    """Dict from each method to the group_variance of its rows, as in the CSV; `variance`, a float, is that of GSS."""
    return {'ssl': '0', 'gss': text(variance), 'scn': '0'}


def dense_nets(rows, seed, retrain_steps):
    """The rows of a seed's dense net, plain and retrained for so many steps; None for one that is not there."""
    dense = [row for row in rows if row['seed'] == seed and row['method'] == 'dense']
    return [next(iter(variant(dense, steps)), None) for steps in (0, retrain_steps)]


def points_lost(dense, row, part='test'):
    """Points of accuracy, float, by which a row is below that of the dense net, on test or validation images."""
    return 100 * (float(dense[f'{part}_accuracy']) - float(row[f'{part}_accuracy']))


def reached(row, measure, whole):
    """The level of sparsity that a row has, per cent; NaN where it does not say. `whole`: the row of the whole net."""
    if measure == MACS_SAVED:
        return 100 * (1 - float(row['macs']) / (float(whole['macs']) or math.nan))
    if measure == 'mean_of_three':
        return 100 * statistics.mean(float(row[f'zero_{layer}'] or math.nan) for layer in REGULARISED[1:])
    return 100 * float(row[measure])


def drop(rows, seed, method, variance, measure, level, retrain_steps=0, part='test'):
    """Accuracy lost against the dense net of the same seed, retrained likewise, at a level of sparsity.

    Args:
      rows: list of rows of one data set, net, length and schedule.
      seed, method, variance: str, each as in the CSV.
      measure: one of PLAN.
      level: float, per cent.
      retrain_steps: int, of which rows; 0: the plain ones.
      part: test or validation, whose images.

    Returns:
      Points, float, on the line between the first two neighbouring strengths that enclose the level; None if there are
      none. A random mask switches off the stated share of each layer, so by OF_MASKS the level is the mask's.
    """
    whole, dense = dense_nets(rows, seed, retrain_steps)
    if not dense or not whole or not float(whole['macs']):
        return None
    rows = variant([row for row in rows if (row['seed'], row['method'], row['group_variance']) == (
        seed, method, variance)], retrain_steps)
    if method == 'scn' and measure in OF_MASKS:
        return next((points_lost(dense, row, part) for row in rows
                     if row['random_sparsity'] == text(level / 100)), None)
    rows.sort(key=lambda row: (float(row['random_sparsity']), float(row['group_lasso'])))
    points = [(reached(row, measure, whole), points_lost(dense, row, part)) for row in rows]
    for (before, points_before), (after, points_after) in itertools.pairwise(points):
        if before <= level <= after or after <= level <= before:  # false if one is NaN
            weight = (level - before) / (after - before) if after != before else 0
            return points_before + weight * (points_after - points_before)
    return None


def drops(rows, variance, measure, levels, retrain_steps=0):
    """`drop` for each method, level and seed: dict from scn, ssl and gss to dicts from level to dicts from seed.

    Args:
      variance: float, lambda_v of GSS. The others are those of `drop`. A seed that does not reach a level is not there.
    """
    seeds = sorted({row['seed'] for row in rows}, key=int)
    return {method: {level: {seed: points for seed in seeds if (points := drop(
        rows, seed, method, of, measure, level, retrain_steps)) is not None} for level in levels}
            for method, of in series(variance).items()}


def paired_differences(found, level):
    """GSS minus SSL, points, by each seed that has both at the level; `found` is what `drops` returns."""
    ssl, gss = found['ssl'][level], found['gss'][level]
    return {seed: gss[seed] - ssl[seed] for seed in gss if seed in ssl}


def by_variance(rows, variances, levels):
    """What GSS of each lambda_v loses, plain, at shares of the multiply-accumulates saved.

    Args:
      variances: list of floats, of lambda_v; those without a row are left out. levels: list of floats, per cent.

    Returns:
      Dict from lambda_v to a dict from validation and test to lists by level of lists of points, or None where a level
      is not reached, by seed: those seeds alone that have rows of each lambda_v.
    """
    seeds = {variance: {row['seed'] for row in some} for variance in sorted(variances) if (
        some := matching(variant(rows), method='gss', group_variance=variance))}
    common = sorted(set.intersection(*seeds.values()), key=int) if seeds else []
    return {variance: {part: [[drop(rows, seed, 'gss', text(variance), MACS_SAVED, level, part=part)
                               for seed in common] for level in levels] for part in ('validation', 'test')}
            for variance in seeds if common}


def choice(found):
    """The lambda_v of _img/README.rst's plan, out of `by_variance`: that which loses least on the validation images.

    In the mean over levels and seeds, whose dense nets are the same for all: so it is the most accurate one. One that a
    seed does not have at a level cannot be chosen; None if that is so of all.
    """
    lost = {variance: [*itertools.chain(*of['validation'])] for variance, of in found.items()}
    means = {variance: statistics.mean(points) for variance, points in lost.items() if None not in points}
    return min(means, key=means.get, default=None)


def by_threshold(rows, variance, level):
    """Points lost by runs whose threshold was moved until the mean of four was `level` per cent, by thresholds.py.

    Against the dense net of the seed at the default threshold, as everywhere: the paper's figure compares methods, and
    against a run's own accuracy what its penalties cost would not count.

    Args:
      variance: float, lambda_v of GSS.

    Returns:
      Dict from (method, lambda_g as a float) to a dict from seed to points. A run that jumps over the level by more
      than GRAIN, for more of its weights are zero at any threshold, is not there.
    """
    found, of_methods = {}, {'dense': '0', 'ssl': '0', 'gss': text(variance)}  # not SCN, whose zeros are its masks'
    for row in sorted(rows, key=lambda row: -float(row['mean_of_four'])):  # the nearest comes last, and stays
        dense, _ = dense_nets(rows, row['seed'], 0)
        above = round(reached(row, 'mean_of_four', None) - level, 6)
        if (dense and 0 <= above <= GRAIN and row['sparsity_threshold'] != text(0.001) and row['retrain_steps'] == '0'
                and of_methods.get(row['method']) == row['group_variance']):
            found.setdefault((row['method'], float(row['group_lasso'])), {})[row['seed']] = points_lost(dense, row)
    return found


def interval(values, confidence=0.95):
    """Of a few floats: their mean, and the half width of its t interval."""
    return statistics.mean(values), (stdtrit(len(values) - 1, (1 + confidence) / 2)
                                     * statistics.stdev(values) / math.sqrt(len(values)))


def sign_flip(values):
    """Exact two-sided p of the hypothesis that each float might as well have the other sign.

    It is the share of all choices of signs whose sum is as far from 0 as that of the values, or farther.
    """
    def sums(some):
        return functools.reduce(lambda found, value: np.concatenate([found - value, found + value]), some, np.zeros(1))

    least, half = abs(sum(values)) - 1e-12, len(values) // 2  # less a bit, for the sums are rounded
    some, others = sums(values[:half]), np.sort(sums(values[half:]))  # any two, one of each, make one of the 2^n sums
    above = len(others) - np.searchsorted(others, least - some)
    below = np.searchsorted(others, -least - some, 'right')
    return min(1.0, float((above + below).sum()) / 2 ** len(values))  # all of them, and some twice, if the sum is 0


def baselines(rows, every, retrain_steps):
    """Yields for each plain row of SSL and GSS among `rows` a dict of what is compared, by the rows of `every` or None:

      run: the same run, retrained for so many steps.
      whole, dense: the dense net of its seed; that, retrained.
      fresh: a dense net that was always of the widths that the run has left, trained for the steps of both trainings.
      magnitude: the dense net of its seed, cut to as many groups, those of largest norm, and retrained.
    """
    known = {key(row): row for row in every}
    plain, again = {'group_lasso': '0', 'group_variance': '0'}, {'retrain_steps': str(retrain_steps)}
    for row in variant(rows):
        if row['method'] in ('ssl', 'gss'):
            differ = {
                'run': again,
                'whole': plain,
                'dense': plain | again,
                'fresh': plain | {'widths': alive(row), 'steps': str(int(row['steps']) + retrain_steps)},
                'magnitude': plain | again | {'groups': alive(row)}}
            yield row, {name: known.get(key(row | change)) for name, change in differ.items()}
