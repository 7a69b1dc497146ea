"""The filters of conv1 of a run, at its start and now: a CSV file and its picture.

    python python/filters.py --log_dir=RUN    reads them from RUN, and writes filters.csv and filters.png
    python python/filters.py                  draws the picture from the CSV file anew
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

import csv
import math
import os

import numpy as np
from absl import flags
from matplotlib.figure import Figure

import evaluations
import files
import load_run
import main
import pictures
import program


def define_flags():
    program.define_path('Filters', 'log_dir', None, "A run's folder, of grey images. None: draw what the CSV file has.")
    program.define_path('Filters', 'data_dir', None, "Folder of the run's data, if they have moved.")
    program.define_path('Filters', 'folder', '_img', 'Where the picture and the CSV file are.')


def of_run(folder, data_dir=None):
    """The thresholded filters of conv1 of a run: dict from step, 0 and the newest checkpoint's, to [N, height, width].

    Args:
      folder: pathlib.Path of the run. data_dir: where its data are now; None: where it had them.

    Raises:
      program.RunError: there is no run, it is a retraining, its data cannot be had, or it has learned colours.
    """
    facts, settings = load_run.load_facts(folder)
    if 'start' in facts:
        raise program.RunError(f'--log_dir={folder} is a retraining, whose start is not in its folder. Give that of a '
                               'run of main.py.')
    shape = load_run.load_data(folder, facts, data_dir)[0].train.images.shape[1:]
    if shape[-1] != 1:
        raise program.RunError(f'--log_dir={folder} has learned images with colours. Give a run of another data set.')
    nets = main.LeNet(shape, settings), load_run.load_net(folder, settings, shape)
    return {int(net.step): main.sparsify(net.weights['conv1'], net.threshold).numpy()[:, :, 0].transpose(2, 0, 1)
            for net in nets}


def write(filters, path):
    """Writes the CSV file of `of_run`: a line a filter and step, its weights row by row with three digits."""
    files.replace(path, evaluations.lines([['step', 'filter', 'weights'], *(
        [step, i, ' '.join(f'{weight:.3g}' for weight in weights.flat)]
        for step, of_step in filters.items() for i, weights in enumerate(of_step))]))


def read(path):
    """What `write` wrote; raises program.RunError if it is something else."""
    try:
        found = {}
        with open(path, newline='') as file:
            for row in csv.DictReader(file):
                weights = np.array(row['weights'].split(), float)
                side = math.isqrt(len(weights))
                found.setdefault(int(row['step']), []).append(weights.reshape(side, side))
        found = {step: np.array(of_step) for step, of_step in found.items()}
        if len({of_step.shape for of_step in found.values()}) != 1 or not np.isfinite([*found.values()]).all():
            raise ValueError('not the same filters at each step')
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise program.RunError(f'{path} does not hold the filters of a run ({error}). Move it away, if it is there, '
                               'and give --log_dir.') from error


@pictures.plainly()
def draw(filters, path):
    """Draws what `of_run` gives as a PNG file: a line of filters a step, each on its scale, the dead as crosses."""
    high = 0.42 + 0.55 * len(filters)
    figure = Figure(figsize=(8.5, high), dpi=120)
    for line, (step, of_step) in enumerate(filters.items()):
        bottom, side = (0.06 + 0.55 * (len(filters) - 1 - line)) / high, 7.4 / len(of_step)
        figure.text(0.012, bottom + 0.2 / high, f'step {step:,}', fontsize=9.5, va='center')
        most = np.quantile(np.abs(of_step[of_step != 0]), 0.97) if of_step.any() else 0
        for i, weights in enumerate(of_step):
            size = min(0.9 * side, 0.5)
            axes = figure.add_axes([(1 + i * side) / 8.5, bottom, size / 8.5, size / high])
            if weights.any():
                axes.imshow(weights, cmap='PuOr', vmin=-most, vmax=most)
            else:
                axes.plot([0.3, 0.7], [0.3, 0.7], [0.3, 0.7], [0.7, 0.3], color='0.5', linewidth=1)
                axes.set(xlim=(0, 1), ylim=(0, 1))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color='0.6', linewidth=0.6)
    alive = [int(sum(weights.any() for weights in of_step)) for of_step in filters.values()]
    figure.text(0.012, 1 - 0.2 / high, f'The filters of conv1: {alive[0]} at the start, {alive[-1]} alive at the end',
                fontsize=11.5, weight='bold', va='center')
    pictures.save(figure, path, [[step, of_step.tolist()] for step, of_step in filters.items()])


def filters():
    folder = files.local_folder(flags.FLAGS.folder, 'folder')
    path, picture = folder / 'filters.csv', folder / 'filters.png'
    if os.path.lexists(path) or not flags.FLAGS.log_dir:
        read(path)  # somebody else's is not replaced
    pictures.check(picture)
    if flags.FLAGS.log_dir:
        found = of_run(files.local_folder(flags.FLAGS.log_dir, 'log_dir'), flags.FLAGS.data_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write(found, path)
    draw(read(path), picture)


if __name__ == '__main__':
    define_flags()
    program.run(filters, __doc__, ['Filters'])
