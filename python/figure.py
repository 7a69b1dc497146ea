"""The paper's figure, out of the rows of compare.py: the accuracy that each method loses at a level of sparsity.

A level between two strengths is interpolated; one that no two strengths enclose is missing. As a command it prints the
table of the CSV that keras_applications.py writes:

    python figure.py _img/keras_applications.csv
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

import csv
import itertools
import math
import statistics
import sys

import scipy.stats

import pictures
import program
from report import MEASURES
from rows import REGULARISED, matching, method, text

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

    if series[0] == 'scn' and measure in OF_MASKS:
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


def paired_differences(found, level):
    """GSS minus SSL, points, of each seed that has both at the level; `found` is what `drops` returns."""
    ssl, gss = found['ssl'][level], found['gss'][level]
    return [gss[seed] - ssl[seed] for seed in gss if seed in ssl]


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


def bounds(values, confidence=0.95, sign='+'):
    """Mean and t interval, if there are two values, as text: +0.12 [+0.03, +0.21]; with sign='' no plus signs."""
    if len(values) == 1:
        return f'{values[0]:{sign}.2f}'
    mean, half = interval(values, confidence)
    return f'{mean:{sign}.2f} [{mean - half:{sign}.2f}, {mean + half:{sign}.2f}]'


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
            lines.append(f'GSS - SSL at {level}%: {bounds(paired, PRIMARY)}: {statement(paired, paper, PRIMARY)}')
    return lines


def claim_table(rows, variance):
    """Lines of the table: the paper's claims by the mean of four, what was measured, what follows from the interval.

    Reproduced: its interval holds the paper's value, and not that of no difference; and so on. A claim that one of the
    seeds does not reach gets none.
    """
    found = drops(rows, variance, 'mean_of_four', (80, 90))
    seeds = {row['seed'] for row in variant(rows)}
    claims = [(f'{one.upper()} - {other.upper()} at {level}%, points lost', one, other, level, lambda a, b: a - b, 0)
              for one, other, level in (('gss', 'ssl', 80), ('gss', 'ssl', 90), ('scn', 'ssl', 90))]
    claims.append(('SSL / GSS at 90%, times lost', 'ssl', 'gss', 90, lambda a, b: a / b, 1))
    table = [('claim', 'paper', 'here', 'verdict')]
    for words, one, other, level, compared, equal in claims:
        pair, paper = (found[one][level], found[other][level]), compared(PAPER[one][level], PAPER[other][level])
        if len(seeds) > 1 and pair[0].keys() == pair[1].keys() == seeds:
            values = [compared(pair[0][seed], pair[1][seed]) for seed in seeds]
            mean, half = interval(values, PRIMARY)
            verdict = {(True, True): 'undecided', (True, False): 'reproduced', (False, True): 'not reproduced',
                       (False, False): 'the opposite' if (mean - equal) * (paper - equal) < 0 else 'another size'}[
                           abs(paper - mean) <= half, abs(equal - mean) <= half]
            sign = '' if equal else '+'
            table.append((words, f'{paper:{sign}.2f}', bounds(values, PRIMARY, sign), verdict))
    return table


def interval_table(rows, variance, measure, levels=(), retrain_steps=0):
    """Lines of the table: what each method loses, and the paired difference, with 95% t intervals.

    At the levels of PLAN and at `levels`; what one of the seeds does not reach gets none.
    """
    levels = sorted({*PLAN[measure][1], *levels})
    found = drops(rows, variance, measure, levels, retrain_steps)
    seeds = {row['seed'] for row in variant(rows, retrain_steps)}

    def cell(lost):
        return bounds(list(lost.values()), sign='') if lost and lost.keys() == seeds else 'not by all'

    table = [('level', 'SCN', 'SSL', 'GSS', 'GSS - SSL', 'p', 'GSS - SSL, by seed')]
    for level in levels:
        of = {name: found[name][level] for name in ('scn', 'ssl', 'gss')}
        paired = paired_differences(found, level) if cell(of['ssl']) != 'not by all' != cell(of['gss']) else []
        table.append((f'{level:g}%', *map(cell, of.values()), *(
            (bounds(paired), f'{sign_flip(paired):.3f}' if len(paired) > 1 else 'none', ', '.join(
                f'{d:+.2f}' for d in paired)) if paired else ['not by all'] * 3)))
    table = [line for line in table if {'not by all'} != {*line[1:]}]
    if not any(found['scn'].values()):
        table = [(line[0], *line[2:]) for line in table]
    return table


# ----------------------------------------------------------------------------------------------------- what is shown

def run_table(rows, retrain_steps=0):
    """Lines of the table: each method and strength, means over the seeds, whose number stands in brackets."""
    rows = variant(rows, retrain_steps)

    def strength(row):
        return tuple(float(row[name]) for name in ('random_sparsity', 'group_variance', 'group_lasso'))

    table = [('method', 'lambda_g', 'lambda_v', 'accuracy (seeds)', 'mean of four, global', 'MACs', 'alive')]
    for (share, variance, lasso), some in itertools.groupby(sorted(rows, key=strength), strength):
        some = list(some)
        kind = method(some[0]) if method(some[0]) == 'dense' else method(some[0]).upper()
        means = {name: statistics.mean(float(row[name]) for row in some) for name in (
            'mean_of_four', 'global_sparsity', 'macs', *(f'alive_{layer}' for layer in REGULARISED))}
        table.append((kind + (f' {100 * share:g}%' if share else ''), f'{lasso:g}', f'{variance:g}',
                      spread(100 * float(row['test_accuracy']) for row in some) + f' ({len(some)})',
                      f'{means["mean_of_four"]:.3f}, {means["global_sparsity"]:.3f}', f'{means["macs"]:,.0f}',
                      '-'.join(f'{means[f"alive_{layer}"]:.0f}' for layer in REGULARISED)))
    return table


def fresh(rows, every):
    """The dense nets among `every` that were always of the widths that one of the SSL and GSS `rows` has left."""
    left = {(row['dataset'], row['seed'], '-'.join(row[f'alive_{layer}'] for layer in REGULARISED))
            for row in variant(rows) if row['method'] in ('ssl', 'gss')}
    rates = {(row['learning_rate'], row['final_learning_rate'], row['widths']) for row in rows}
    return [row for row in variant(every)
            if row['method'] == 'dense' and (row['dataset'], row['seed'], row['widths']) in left
            and any((row['learning_rate'], row['final_learning_rate']) == of[:2] and row['widths'] != of[2]
                    for of in rates)]


def rst(table):
    """A table, a list of tuples of str with the head first, as reStructuredText."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = '  '.join('=' * width for width in widths)
    head, *body = ('  '.join(map(str.ljust, line, widths)).rstrip() for line in table)
    return '\n'.join([rule, head, rule, *body, rule])


def application_table(path):
    """Lines of the table of a CSV of keras_applications.py: networks before and after they are cut.

    Raises program.RunError if it is no such file.
    """
    table = [('network', 'parameters, millions', 'MACs, millions', 'milliseconds', 'seconds to cut', 'difference')]
    try:
        with open(path, newline='') as file:
            for row in csv.DictReader(file):
                before_after = [' -> '.join(f'{int(row[name]) / 1e6:,.1f}' for name in (what, f'{what}_cut'))
                                for what in ('parameters', 'macs')]
                table.append((row['network'], *before_after, f'{row["milliseconds"]} -> {row["milliseconds_cut"]}',
                              row['seconds'], row['difference']))
        return table
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise program.RunError(f'{path} is no CSV of keras_applications.py ({error}). Give another.') from error


def show(rows, variance, levels):
    """Prints the tables of the pages.

    Args:
      rows, variance, levels: those of `drops`. Without a level there is no figure: the table of the runs alone.
    """
    if levels and len(claims := claim_table(rows, variance)) > 1:
        print(f'Claims of the paper, {PRIMARY:.1%} t intervals; level: mean of the four regularised layers\n\n'
              f'{rst(claims)}\n', *primary(rows, variance), sep='\n', end='\n\n')
    for steps in sorted({int(row['retrain_steps']) for row in rows if not row['groups']}):
        after = f', after retraining for {steps:,} steps' if steps else ''
        for measure, (title, _) in PLAN.items():
            table = interval_table(rows, variance, measure, levels, steps)
            if levels and len(table) > 1:
                print(f'Points lost{after}, mean and 95% t interval; level: {title}\n\n'
                      f'{rst(table)}\n')
        print(f'All runs, means over the seeds{after}\n\n{rst(run_table(rows, steps))}' + '\n' * bool(steps))


# ---------------------------------------------------------------------------------------------------- what is drawn

def points(rows, measure, some, retrain_steps=0):
    """For each of `some` rows (level in per cent, points lost), by the dense nets of its seed among `rows`."""
    found = []
    for row in some:
        of_seed = [dense for dense in rows if dense['seed'] == row['seed'] and dense['method'] == 'dense']
        whole, dense = (next(iter(variant(of_seed, steps)), None) for steps in (0, retrain_steps))
        dense = dense or whole
        if whole and not math.isnan(level := reached(row, measure, whole)):
            found.append((level, 100 * (float(dense['test_accuracy']) - float(row['test_accuracy']))))
    return sorted(found)


def curves(rows, variance, measure, levels, small=()):
    """A panel of `pictures.draw_comparison`; `small` are rows of `fresh`, the others those of `drops`."""
    found, levels = {}, sorted({*PLAN[measure][1], *levels})
    last = max(int(row['retrain_steps']) for row in rows)
    for steps in sorted({0, last}):
        lost = drops(rows, variance, measure, levels, steps)
        for name, of in (('ssl', '0'), ('gss', text(variance)), ('scn', '0')):
            if name == 'scn' and (steps or measure not in OF_MASKS):
                continue
            runs = [row for row in variant(rows, steps) if (row['method'], row['group_variance']) == (name, of)]
            means = [(level, *(interval(values) if len(values) > 1 else (values[0], None)))
                     for level, by_seed in lost[name].items() if (values := list(by_seed.values()))
                     and by_seed.keys() == {row['seed'] for row in runs}]
            if runs:
                found[name, 'retrained' if steps else 'plain'] = {
                    'runs': points(rows, measure, runs, steps), 'means': means}
    pruned = [row for row in rows if row['groups'] and int(row['retrain_steps']) == last]
    for name, some in (('magnitude', pruned), ('fresh', small if measure == MACS_SAVED else ())):
        if shown := points(rows, measure, some, last):
            found[name, 'plain'] = {'runs': shown, 'means': []}
    if measure == 'mean_of_four':
        found |= {(name, 'paper'): {'runs': [], 'means': [(level, drop, None) for level, drop in of.items()]}
                  for name, of in PAPER.items()}
    return found


def headline(rows, variance):
    """What came out, by the primary comparison at 90%, as the title of a picture."""
    level = 90
    paired = paired_differences(drops(rows, variance, 'mean_of_four', [level]), level)
    if len(paired) < 2 or len(paired) < len({row['seed'] for row in variant(rows)}):
        return 'Accuracy lost against sparsity'
    (mean, half), paper = interval(paired, PRIMARY), PAPER['gss'][level] - PAPER['ssl'][level]
    if abs(mean) > half:
        said = f'GSS loses {"less" if mean < 0 else "more"} than SSL at {level}% zeros'
    else:
        said = f'{len(paired)} seeds do not tell GSS from SSL at {level}% zeros'
    return f"{said}:\nGSS - SSL {mean:+.2f} ± {half:.2f} points; the paper's figure {paper:+.2f}"


def draw_drops(rows, variance, levels, path, small=()):
    """Draws the figure as the PNG file `path`; `small` are rows of `fresh`, the others those of `drops`."""
    pictures.draw_comparison(headline(rows, variance), {
        'multiply-accumulates saved (%)': curves(rows, variance, MACS_SAVED, levels, small),
        'zero weights (%), mean of the four layers': curves(rows, variance, 'mean_of_four', levels)}, path)


def draw_alive(rows, variance, path):
    """Draws the groups alive as the PNG file `path`, in the layer in which SSL and GSS differ most; else as `drops`."""
    alive = {layer: {name: {} for name in ('ssl', 'gss')} for layer in REGULARISED}
    for row in sorted(variant(rows), key=lambda row: (float(row['group_lasso']), int(row['seed']))):
        if float(row['group_lasso']) and (row['method'], row['group_variance']) in (
                ('ssl', '0'), ('gss', text(variance))):
            for layer, of in alive.items():
                of[row['method']].setdefault(float(row['group_lasso']), []).append(int(row[f'alive_{layer}']))

    def apart(layer):
        """The most that the means differ at one strength, as a share of the layer; and where."""
        ssl, gss = alive[layer].values()
        most = max(max(counts) for of in (ssl, gss) for counts in of.values())
        return max((abs(statistics.mean(ssl[at]) - statistics.mean(gss[at])) / (most or 1), at)
                   for at in ssl.keys() & gss.keys())

    both = [layer for layer, (ssl, gss) in ((layer, of.values()) for layer, of in alive.items())
            if ssl.keys() & gss.keys()]
    if not both:
        return pictures.draw_alive('Groups alive in conv1', alive['conv1'], path)
    layer = max(both, key=apart)
    at = apart(layer)[1]
    means = [f'{statistics.mean(of[at]):.1f}' for of in alive[layer].values()]
    pictures.draw_alive(f'{layer}: at lambda_g = {at:g} SSL keeps {means[0]} groups in the mean, GSS {means[1]}',
                        alive[layer], path)


if __name__ == '__main__':
    with program.one_line_errors():
        if len(sys.argv) != 2:
            raise program.RunError('give one CSV of keras_applications.py, such as _img/keras_applications.csv.')
        print(rst(application_table(sys.argv[1])))
