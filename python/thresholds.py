"""One run's threshold moved until the mean of four is at a level: the knob that the authors' program has a flag for."""

import bisect
import decimal
import fractions
import json
import statistics

import numpy as np

import load_run
import main
from rows import row_of

DIGITS = decimal.Context(prec=6, rounding=decimal.ROUND_CEILING)  # of a number in a row


def threshold_at(weights, level):
    """The least threshold at which the zeros of some arrays, the mean share with each alike, are `level` per cent.

    It is the magnitude of a weight, found in exact fractions, then rounded up to the six digits of a row: main.py's
    --sparsity_threshold with that number gives the same zeros.

    Args:
      weights: list of float arrays. level: float above 0, at most 100.
    """
    layers = [np.sort(np.abs(weight), axis=None) for weight in weights]
    magnitudes = np.unique(np.concatenate(layers))

    def zeros(threshold):
        return statistics.mean(fractions.Fraction(int(np.searchsorted(layer, threshold, 'right')), layer.size)
                               for layer in layers)

    least = magnitudes[bisect.bisect_left(magnitudes, fractions.Fraction(level) / 100, key=zeros)]
    return float(DIGITS.create_decimal(float(least)))


def at_levels(job, levels, data_dir=None):
    """Yields the rows of a finished run: its own, and one at the threshold of each level of the mean of four.

    Each of these is what main.py would find with another --sparsity_threshold. Nothing is trained or written.

    Args:
      job: jobs.Job that is kept. levels: list of floats, per cent.
      data_dir: where the data are now; None: where the run had them.

    Raises:
      program.RunError: as load_run.load_data says.
    """
    content = json.loads((job.folder / 'results.json').read_text())
    yield row_of(content)
    facts, settings = load_run.load_facts(job.folder, 'runs_dir')
    data, _ = load_run.load_data(job.folder, facts, data_dir)
    lenet = load_run.load_net(job.folder, settings, data.train.images.shape[1:], 'runs_dir')
    weights = [weight.numpy() for weight in lenet.regularised()]
    for level in levels:
        lenet.threshold = threshold_at(weights, level)
        parts = {part: {**content['results'][part], 'accuracy': main.evaluate(lenet, *images)['accuracy']}
                 for part, images in (('test', data.test), ('validation', data.validation))}  # as trained: no threshold
        yield row_of({**content, 'settings': {**content['settings'], 'sparsity_threshold': lenet.threshold},
                      'results': {**content['results'], **main.sparsity_figures(lenet), **parts}})
