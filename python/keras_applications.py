"""The smallest network of each family of keras.applications, cut: what keras_pruning.py --applications does."""

import argparse
import csv
import math
import time
import warnings

import keras
import numpy as np

import evaluations
import files
import keras_pruning
import program

APPLICATIONS = ('Xception VGG16 ResNet50 ResNet50V2 InceptionV3 InceptionResNetV2 MobileNet MobileNetV2 '
                'MobileNetV3Small DenseNet121 NASNetMobile EfficientNetB0 EfficientNetV2B0 ConvNeXtTiny').split()
SIZES = {'MobileNetV3Small': {'input_shape': (224, 224, 3)}}  # by default free


def application(name, share=0.4, **options):
    """A network of keras.applications with fresh weights: a share of filters and gammas zero, the constants random."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    options = {**SIZES.get(name, {}), **options}
    model = getattr(keras.applications, name)(weights=None, classifier_activation=None, **options)
    for layer in model.layers[:-1]:
        for variable in layer.weights:
            value, kind = keras.ops.convert_to_numpy(variable), variable.name
            if kind in ('kernel', 'pointwise_kernel', 'gamma') and type(layer) not in keras_pruning.DEPTHWISE:
                variable.assign(value * (random.random(value.shape[-1]) >= share))
            elif kind in ('bias', 'beta', 'moving_mean'):
                variable.assign(random.normal(0, 0.1, value.shape))
    return model


def macs(model):
    """Multiply-accumulates of one sample in dense layers and convolutions; windows at the border count in full."""
    counted = keras_pruning.KERNELS + keras_pruning.DEPTHWISE
    return sum(math.prod(layer.output.shape[1:-1]) * math.prod(variable.shape) for layer in model.layers
               for variable in layer.weights if type(layer) in counted and variable.name.endswith('kernel'))


def measure(name, rounds=5):
    """One row: a network before and after it is cut. Milliseconds of an image are medians of calls in turn."""
    model, start = application(name), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        small = keras_pruning.cut(model, threshold=0)
    seconds, milliseconds = time.perf_counter() - start, {id(model): [], id(small): []}
    images = np.random.default_rng(1).random((1, *model.input_shape[1:])).astype(model.input.dtype)
    wanted, found = (keras.ops.convert_to_numpy(net(images)) for net in (model, small))
    difference = np.abs(found - wanted).max() / max(1, np.abs(wanted).max())
    for _ in range(rounds + 1):  # the first one compiles
        for net in (model, small):
            start = time.perf_counter()
            net.predict_on_batch(images)
            milliseconds[id(net)].append(1e3 * (time.perf_counter() - start))
    before, after = ({'parameters': net.count_params(), 'macs': macs(net),
                      'milliseconds': f'{np.median(milliseconds[id(net)][1:]):.1f}'} for net in (model, small))
    return {'network': name, **before, **{f'{key}_cut': value for key, value in after.items()},
            'seconds': f'{seconds:.1f}', 'difference': f'{difference:.1e}'}


def application_table(path):
    """Lines of the table of a CSV of keras_applications.py: networks before and after they are cut.

    Raises program.RunError if it is no such file.
    """
    table = [('network', 'parameters, millions', 'MACs, millions', 'milliseconds', 'seconds to cut', 'difference')]
    try:
        with open(path, newline='') as file:
            for row in csv.DictReader(file):
                if None in row.values():
                    raise ValueError(f'the row of {row["network"]} is cut')
                before_after = [' -> '.join(f'{int(row[name]) / 1e6:,.1f}' for name in (what, f'{what}_cut'))
                                for what in ('parameters', 'macs')]
                table.append((row['network'], *before_after, f'{row["milliseconds"]} -> {row["milliseconds_cut"]}',
                              row['seconds'], row['difference']))
        if len(table) == 1:
            raise ValueError('it has no rows')
        return table
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise program.RunError(f'{path} is no CSV of keras_applications.py ({error}). Give another.') from error


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--applications', action='store_true', required=True,
                        help='cut a network of each family of keras.applications, with fresh weights')
    parser.add_argument('--csv', default='_img/keras_applications.csv', help='the file to write')
    arguments, rows = parser.parse_args(), []
    with program.one_line_errors():
        path = files.file_of(arguments.csv, 'csv', '.csv')
        if path.exists():
            application_table(path)  # somebody else's is not replaced
        path.parent.mkdir(parents=True, exist_ok=True)
        for name in APPLICATIONS:
            row = measure(name)
            rows.append(row)
            print(', '.join(f'{key} {value:,}' if isinstance(value, int) else f'{key} {value}'
                            for key, value in row.items()), flush=True)
            keras.utils.clear_session()
        files.replace(path, evaluations.lines([row, *(of.values() for of in rows)]))
        print(evaluations.rst(application_table(path)))
