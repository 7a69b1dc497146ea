"""The paper's figure and the tables of the pages, out of the rows of compare.py."""

import itertools
import math
import operator
import statistics

import evidence
import pictures
import program
from evaluations import rst
from evidence import MACS_SAVED, PAPER, PLAN, PRIMARY, drops, interval, paired_differences, points_lost, series, variant
from rows import REGULARISED, key, method

CLAIMS = (  # of the paper, by the mean of four: words; a method, another, per cent; how compared
    ('GSS - SSL at 80%, points lost', 'gss', 'ssl', 80, operator.sub),
    ('GSS - SSL at 90%, points lost', 'gss', 'ssl', 90, operator.sub),
    ('SCN - SSL at 90%, points lost', 'scn', 'ssl', 90, operator.sub),
    ('points lost at 90%, SSL / GSS', 'ssl', 'gss', 90, operator.truediv))
VERDICTS = {  # by whether the interval, mean ± half, holds the paper's value, and 0
    (True, True): 'undecided, ± {:.2f}', (True, False): 'reproduced', (False, True): 'not reproduced'}
UNREACHED = 'not by all'  # seeds
IN_A_CELL = 4  # seeds at most; the values of more have a table of their own
BY_SEED = 'mean_of_four', MACS_SAVED  # measures that have it: those of the plan's two comparisons


# ---------------------------------------------------------------------------------------------------- what is said

def spread(values):
    """Mean and, of two or more, standard deviation, as text."""
    values = list(values)
    return f'{statistics.mean(values):.2f}' + (f' ± {statistics.stdev(values):.2f}' if len(values) > 1 else '')


def bounds(values, confidence=0.95, sign='+'):
    """Mean and t interval, if there are two values, as text: +0.12 [+0.03, +0.21]; with sign='' no plus signs."""
    if len(values) == 1:
        return f'{values[0]:{sign}z.2f}'
    mean, half = interval(values, confidence)
    return f'{mean:{sign}z.2f} [{mean - half:{sign}z.2f}, {mean + half:{sign}z.2f}]'


# ---------------------------------------------------------------------------------------------------------- tables

def claim_table(rows, variance):
    """Lines of the table: the paper's claims, what was measured, what follows from the interval.

    A claim that one of the seeds does not reach gets no line. Where the interval holds neither value it lies on the
    other side of 0 than the paper's, the opposite, or on the same, another size. A ratio gets no verdict, for it is of
    the values of a difference that has one.
    """
    found = drops(rows, variance, 'mean_of_four', (80, 90))
    seeds = {row['seed'] for row in variant(rows)}
    table = [('claim', 'paper', 'here', 'verdict')]
    for words, one, other, level, compared in CLAIMS:
        ours, theirs = found[one][level], found[other][level]
        if len(seeds) < 2 or not ours.keys() == theirs.keys() == seeds:
            continue
        ratio = compared is operator.truediv
        if ratio and not all(theirs.values()):  # nothing lost, of which there are no times
            continue
        paper = compared(PAPER[one][level], PAPER[other][level])
        values = [compared(ours[seed], theirs[seed]) for seed in seeds]
        mean, half = interval(values, PRIMARY)
        verdict = 'none' if ratio else VERDICTS.get((abs(paper - mean) <= half, abs(mean) <= half)) or (
            'the opposite' if mean * paper < 0 else 'another size')
        sign = '' if ratio else '+'
        table.append((words, f'{paper:{sign}.2f}', bounds(values, PRIMARY, sign), verdict.format(half)))
    return table


def interval_table(rows, variance, measure, levels=(), retrain_steps=0):
    """Lines of the table: what each method loses, and the paired difference, with 95% t intervals.

    At the levels of PLAN and at `levels`; what one of the seeds does not reach gets none. Of more seeds than a cell has
    room for there are no values here; `seed_table` has them.
    """
    levels = sorted({*PLAN[measure][1], *levels})
    found = drops(rows, variance, measure, levels, retrain_steps)
    seeds = {row['seed'] for row in variant(rows, retrain_steps)}

    def cell(lost):
        return bounds([*lost.values()], sign='') if lost and lost.keys() == seeds else UNREACHED

    table = [('level', 'SCN', 'SSL', 'GSS', 'GSS - SSL', 'p', 'GSS - SSL, by seed')]
    for level in levels:
        lost = [cell(found[name][level]) for name in ('scn', 'ssl', 'gss')]
        paired = [] if UNREACHED in lost[1:] else [*paired_differences(found, level).values()]
        table.append((f'{level:g}%', *lost, *((
            bounds(paired), f'{evidence.sign_flip(paired):.3f}' if len(paired) > 1 else 'none',
            ', '.join(f'{points:+z.2f}' for points in paired)) if paired else [UNREACHED] * 3)))
    table = [line for line in table if {UNREACHED} != {*line[1:]}]
    first = 1 if any(found['scn'].values()) else 2
    last = None if len(seeds) <= IN_A_CELL else -1
    return [(line[0], *line[first:last]) for line in table]


def seed_table(rows, variance, measure, retrain_steps=0):
    """Lines of the table: GSS minus SSL, points lost, a line a seed, at those levels of PLAN that any seed reaches."""
    levels = PLAN[measure][1]
    found = drops(rows, variance, measure, levels, retrain_steps)
    paired = {level: of for level in levels if (of := paired_differences(found, level))}
    seeds = sorted({row['seed'] for row in variant(rows, retrain_steps)}, key=int) if paired else []
    return [('seed', *(f'{level}%' for level in paired)), *(
        (seed, *(f'{of[seed]:+z.2f}' if seed in of else 'not reached' for of in paired.values())) for seed in seeds)]


def baseline_table(rows, every, variance, retrain_steps):
    """Lines of the table: SSL and GSS, retrained, beside nets of their widths, means over the seeds that have all.

    Fresh and magnitude are those of `evidence.baselines`. All points lost are against the seed's retrained dense net;
    differences are paired by seed, with 95% t intervals, and a negative one speaks for the run.
    """
    found = {}
    for row, of in evidence.baselines(rows, every, retrain_steps):
        if series(variance)[row['method']] == row['group_variance'] and all(of.values()):
            found.setdefault((row['method'], float(row['group_lasso'])), []).append((
                evidence.reached(of['run'], MACS_SAVED, of['whole']),
                *(points_lost(of['dense'], of[name]) for name in ('run', 'fresh', 'magnitude'))))
    table = [('run, lambda_g (seeds)', 'MACs saved', 'run', 'fresh', 'run - fresh', 'magnitude', 'run - magnitude')]
    for kind, lasso in sorted(found, key=lambda run: (run[0] == 'gss', run[1])):
        saved, run, *others = zip(*found[kind, lasso], strict=True)
        table.append((f'{kind.upper()}, {lasso:g} ({len(run)})', f'{statistics.mean(saved):.1f}%',
                      f'{statistics.mean(run):.2f}', *(text for other in others for text in (
                          f'{statistics.mean(other):.2f}', bounds([*map(operator.sub, run, other)])))))
    return table


def variance_table(rows, variances):
    """Lines of the table: which of several lambda_v validation chooses, as the plan says; test describes.

    What is not reached by all seeds gets no number. All are of `evidence.by_variance`, with 95% t intervals.
    """
    levels = 80, 90
    found = evidence.by_variance(rows, variances, levels)
    chosen = evidence.choice(found)
    table = [('lambda_v (seeds)', *(f'validation, {level}%' for level in levels), 'mean', 'chosen',
              *(f'test, {level}%' for level in levels))]
    for variance, of in found.items() if len(found) > 1 else ():
        validation, test = ([UNREACHED if None in lost else bounds(lost, sign='') for lost in of[part]]
                            for part in ('validation', 'test'))
        mean = UNREACHED if UNREACHED in validation else bounds(
            [*map(statistics.mean, zip(*of['validation'], strict=True))], sign='')
        table.append((f'{variance:g} ({len(of["test"][0])})', *validation, mean, 'yes' if variance == chosen else 'no',
                      *test))
    return table


def threshold_table(rows, variance, levels):
    """Lines of the table: what one run loses whose threshold was moved to a level, means and 95% t intervals.

    Of the runs of `evidence.by_threshold`; a level that one of a run's seeds does not have gets none.
    """
    found = [evidence.by_threshold(rows, variance, level) for level in levels]
    table = [('run (seeds)', *(f'{level:g}%' for level in levels))]
    for kind, lasso in sorted({*itertools.chain(*found)}, key=lambda run: (('dense', 'ssl', 'gss').index(run[0]), run)):
        lost = [of.get((kind, lasso), {}) for of in found]
        seeds = set().union(*lost)
        name = f'{kind.upper()} {lasso:g}' if lasso else kind
        table.append((f'{name} ({len(seeds)})', *(
            bounds([*of.values()], sign='') if of.keys() == seeds else UNREACHED for of in lost)))
    return table


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


def show(rows, variances, levels, every=()):
    """Prints the tables of the pages, those that have a line.

    Args:
      rows, levels: those of `drops`. Without a level there is no figure: the tables of the runs alone.
      variances: list of floats: the first is lambda_v of GSS; of all of them `variance_table` is.
      every: list of rows, for nets of other widths, too: what `baseline_table` is of.
    """
    variance, *_ = variances
    tables = [(f'Claims of the paper, {PRIMARY:.1%} t intervals; level: mean of the four regularised layers',
               claim_table(rows, variance))] if levels else []
    for steps in sorted({int(row['retrain_steps']) for row in rows if not row['groups']}):
        after = f', after retraining for {steps:,} steps' if steps else ''
        for measure, (title, _) in PLAN.items() if levels else ():
            tables.append((f'Points lost{after}, mean and 95% t interval; level: {title}',
                           interval_table(rows, variance, measure, levels, steps)))
            if measure in BY_SEED and len({row['seed'] for row in variant(rows, steps)}) > IN_A_CELL:
                tables.append((f'GSS - SSL by seed{after}, points lost; level: {title}',
                               seed_table(rows, variance, measure, steps)))
        tables.append((f'All runs, means over the seeds{after}', run_table(rows, steps)))
        if steps:
            tables.append((f'Points lost{after}: runs, dense nets that were always as small, and dense nets cut by '
                           'magnitude; 95% t intervals', baseline_table(rows, every, variance, steps)))
    tables += [
        ('Points lost by lambda_v of GSS; level: share of the multiply-accumulates saved; validation chooses',
         variance_table(rows, variances)),
        ('Points lost where the threshold of one run was moved, 95% t intervals; level: mean of the four regularised '
         'layers', threshold_table(rows, variance, levels))]
    print('\n\n'.join(f'{title}\n\n{rst(table)}' for title, table in tables if len(table) > 1))


# ---------------------------------------------------------------------------------------------------- what is drawn

def fresh(rows, every):
    """The dense nets among `every` that were always as small as what one of the SSL and GSS `rows` has left."""
    last = max(int(row['retrain_steps']) for row in rows)  # of 0, a run that keeps all would find its own dense net
    found = [of['fresh'] for _, of in evidence.baselines(rows, every, last) if of['fresh']] if last else []
    return [*{key(row): row for row in found}.values()]


def points(rows, measure, some, retrain_steps=0):
    """For each of `some` rows (level in per cent, points lost), by the dense nets of its seed among `rows`."""
    found = []
    for row in some:
        whole, dense = evidence.dense_nets(rows, row['seed'], retrain_steps)
        if whole and dense and not math.isnan(level := evidence.reached(row, measure, whole)):
            found.append((level, points_lost(dense, row)))
    return sorted(found)


def curves(rows, variance, measure, levels, small=()):
    """A panel of `pictures.draw_comparison`; `small` are rows of `fresh`, the others those of `drops`."""
    found, levels, seeds = {}, sorted({*PLAN[measure][1], *levels}), {row['seed'] for row in rows}
    last = max(int(row['retrain_steps']) for row in rows)
    for steps in sorted({0, last}):
        lost = drops(rows, variance, measure, levels, steps)
        for name, of in series(variance).items():
            if name == 'scn' and (steps or measure not in evidence.OF_MASKS):
                continue
            runs = [row for row in variant(rows, steps) if (row['method'], row['group_variance']) == (name, of)]
            means = [(level, *(interval(values) if len(values) > 1 else (values[0], None)))
                     for level, by_seed in lost[name].items()
                     if by_seed.keys() == seeds and (values := list(by_seed.values()))]
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
    (mean, half), paper = interval([*paired.values()], PRIMARY), PAPER['gss'][level] - PAPER['ssl'][level]
    if abs(mean) > half:
        said = f'GSS loses {"less" if mean < 0 else "more"} than SSL at {level}% zeros'
    else:
        said = f'{len(paired)} seeds do not tell GSS from SSL at {level}% zeros'
    return (f'{said}:\nGSS - SSL {bounds([*paired.values()], PRIMARY)} points ({PRIMARY:.1%}); '
            f"the paper's figure {paper:+.2f}")


def draw_drops(rows, variance, levels, path, small=()):
    """Draws the figure as the PNG file `path`; `small` are rows of `fresh`, the others those of `drops`."""
    pictures.draw_comparison(headline(rows, variance), {
        'multiply-accumulates saved (%)': curves(rows, variance, MACS_SAVED, levels, small),
        'zero weights (%), mean of the four layers': curves(rows, variance, 'mean_of_four', levels)}, path)


def draw_alive(rows, variance, path):
    """Draws the groups alive as the PNG file `path`, in the layer in which SSL and GSS differ most; else as `drops`."""
    alive = {layer: {'ssl': {}, 'gss': {}} for layer in REGULARISED}
    for row in sorted(variant(rows), key=lambda row: (float(row['group_lasso']), int(row['seed']))):
        if float(row['group_lasso']) and series(variance).get(row['method']) == row['group_variance']:
            for layer, of in alive.items():
                of[row['method']].setdefault(float(row['group_lasso']), []).append(int(row[f'alive_{layer}']))

    def apart(place):
        """How far the means differ in a layer at a strength, as a share of the layer; and that strength."""
        layer, at = place
        ssl, gss = alive[layer].values()
        most = max(max(counts) for of in (ssl, gss) for counts in of.values())
        return abs(statistics.mean(ssl[at]) - statistics.mean(gss[at])) / (most or 1), at

    if not any(alive['conv1'].values()):
        raise program.RunError('--alive: there are no rows of SSL or GSS. Give other --seeds or another --csv.')
    both = set.intersection(*map(set, alive['conv1'].values()))
    if not both:
        return pictures.draw_alive('Groups alive in conv1', alive['conv1'], path)
    layer, at = max(itertools.product(REGULARISED, both), key=apart)
    ssl, gss = (f'{statistics.mean(of[at]):.1f}' for of in alive[layer].values())
    pictures.draw_alive(f'{layer}: at lambda_g = {at:g} SSL keeps {ssl} groups in the mean, GSS {gss}',
                        alive[layer], path)
