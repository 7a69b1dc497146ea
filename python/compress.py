"""Cuts out of a trained net what is dead: the same function, smaller and faster.

    python compress.py --log_dir=RUN

reads the newest checkpoint of a run and sets its weights to zero up to the run's threshold. An output (a filter of a
convolution, a neuron of a dense layer) stays if it lies on a chain of weights, none of them zero, from the image to a
logit. keras_pruning.cut does it, on the same net in Keras: what the dead still send, relu(bias) or, behind SAME
padding, a map that differs at the border, goes into what the next layer adds.

Written are the net as trained (dense) and what is left of it (compressed), each as a SavedModel and as a TFLite file of
ordinary dense operations, and compression.json, with all that the terminal shows. Before that, all four are loaded back
and run on the test set: if a logit differs by more than rounding, nothing is written.
"""

if __name__ == '__main__':
    import surroundings
    surroundings.prepare()

import contextlib
import math
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from keras import ops

import checkpoints
import export
import files
import keras_pruning
import load_run
import main
import program
import surroundings

FLAGS = flags.FLAGS
TOLERANCE = 1e-4  # of a logit, relative to the largest of them if that is above 1


def define_flags():
    program.define_path('Compress', 'log_dir', None, "The run's folder.", required=True)
    program.define_path('Compress', 'output_dir', None, "A new or empty folder. None: compressed in the run's folder.")
    program.define_path('Compress', 'data_dir', None, "Folder of the run's data, if they have moved.")


# ------------------------------------------------------------------------------------------------------------ net

def in_keras(weights, biases, image_shape):
    """main.LeNet in evaluation on dicts from layer name to array: a keras.Model, [N, *image_shape] to [N, 10]."""
    layers = keras.layers
    x = images = keras.Input(image_shape, name='images')
    for name, kernel in weights.items():
        if kernel.ndim == 4:
            x = layers.Conv2D(kernel.shape[-1], kernel.shape[:2], padding='same', activation='relu', name=name)(x)
            x = layers.MaxPooling2D(2, padding='same')(x)
        else:
            x = layers.Flatten()(x) if len(x.shape) == 4 else x
            x = layers.Dense(kernel.shape[-1], None if name == 'softmax' else 'relu', name=name)(x)
    model = keras.Model(images, x)
    for name, kernel in weights.items():
        model.get_layer(name).set_weights([kernel, biases[name]])
    return model


def compress(weights, biases, image_shape, threshold=0):
    """The net of `in_keras` without what is dead: a keras.Model of the same layers."""
    return keras_pruning.cut(in_keras(weights, biases, image_shape), threshold)


def has_chain(model):
    """Whether a chain of weights is left from the image to a logit in a net of `compress`."""
    return bool(ops.convert_to_numpy(model.get_layer('softmax').kernel).any())


# ------------------------------------------------------------------------------------------------------- figures

def largest_difference(name, found, wanted):
    """Of two arrays of logits; raises program.RunError if it is more than rounding."""
    largest, bound = np.abs(found - wanted).max(), TOLERANCE * max(1, np.abs(wanted).max())
    if not largest <= bound:  # NaN is not, either
        raise program.RunError(f"{name}: a logit differs by {largest:.2g} from that of the run's net, and at most "
                               f'{bound:.2g} can be rounding. Nothing has been written.')
    return float(largest)


def counts(nets):
    """Outputs, weights and multiply-accumulates of both nets, by layer and in all; nothing where no chain is left."""
    kernels = {layer: {name: net.get_layer(layer).kernel.shape for name, net in nets.items()}
               for layer in (*main.REGULARISED, 'softmax')}
    alive = {name: name == 'dense' or has_chain(net) for name, net in nets.items()}
    outputs = {layer: {name: shape[-1] * (alive[name] or layer == 'softmax') for name, shape in kernels[layer].items()}
               for layer in kernels}
    macs = {name: main.macs(net.input_shape[1:], [outputs[layer][name] for layer in main.REGULARISED])
            for name, net in nets.items()}
    layers = {layer: {
        'outputs': outputs[layer], 'macs': {name: macs[name][layer] for name in nets},
        'weights': {name: math.prod(kernels[layer][name]) * alive[name] for name in nets}} for layer in kernels}
    return {'architecture': {name: '-'.join(str(layers[layer]['outputs'][name]) for layer in main.REGULARISED)
                             for name in nets},
            'layers': layers,
            'in_all': {what: {name: sum(layer[what][name] for layer in layers.values()) for name in nets}
                       for what in ('weights', 'macs')}}


@contextlib.contextmanager
def new_folder(path):
    """A folder to fill, which gets its name at the end: without an error, and at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.part_of(path, folder=True) as part:
            yield part
    except OSError as error:
        raise program.RunError(f'--output_dir={path} cannot be written ({program.first_line(error)}). '
                               'Give another.') from error


def compress_run(log_dir, output_dir=None, data_dir=None):
    """Compresses the net of a run; the arguments are the flags of the same names.

    Returns:
      (pathlib.Path of the output folder; dict, the content of its compression.json).

    Raises:
      program.RunError: the run or the output folder cannot be used, or a net is not the same function.
    """
    folder = files.resolved(log_dir, 'log_dir')
    output = files.resolved(output_dir or folder / 'compressed', 'output_dir')
    if output == pathlib.Path.cwd():
        raise program.RunError(f'--output_dir={output} is the working directory, and a new one is to take its place. '
                               'Give another.')
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise program.RunError(f'--output_dir={output} is there, and not an empty folder. Move it away, or give '
                               'another.')
    tf.config.experimental.enable_tensor_float_32_execution(False)  # with TF32 a GPU's function would be another
    facts, settings = load_run.load_facts(folder)
    data, _ = load_run.load_data(folder, facts, data_dir)
    lenet = load_run.load_net(folder, settings, data.train.images.shape[1:])
    images, labels = data.test
    weights, biases = ({name: variable.numpy() for name, variable in variables.items()}
                       for variables in (lenet.weights, lenet.biases))
    nets = {'dense': in_keras(weights, biases, lenet.image_shape),
            'compressed': compress(weights, biases, lenet.image_shape, lenet.threshold)}
    if not has_chain(nets['compressed']):
        print('warning: no chain of weights is left from the image to a logit: the thresholded net answers every image '
              'alike, and so does the compressed one', file=sys.stderr)
    wanted = {name: export.on_all(lambda images, net=reference.net: net(images, training_status=False)[0], images)
              for name, reference in (('dense', lenet.at_threshold(0.0)), ('compressed', lenet))}
    with new_folder(output) as part:
        for name, net in nets.items():
            export.write(net, part, name)
        functions = {name: export.load(part / name) for names in export.FORMATS.values() for name in names}
        logits = {name: export.on_all(function, images) for name, function in functions.items()}
        differences = {name: largest_difference(name, found, wanted[name.removesuffix('.tflite')])
                       for name, found in logits.items()}
        accuracies = {name: float(np.mean(np.argmax(of_net, axis=1) == labels)) for name, of_net in (
            ('as_trained', wanted['dense']), ('thresholded', wanted['compressed']),
            ('compressed', logits['compressed']))}
        figures = {
            'run': str(folder), **({'start': facts['start']} if 'start' in facts else {}), 'step': int(lenet.step),
            'max_steps': settings.max_steps, 'dataset': data.name,
            'threshold': lenet.threshold, **counts(nets), 'accuracy': accuracies, 'test_images': len(labels),
            'largest_logit': float(np.abs(wanted['compressed']).max()), 'largest_difference': differences,
            'bytes': {name: export.size(part / name) for name in functions},
            'milliseconds': export.latencies(functions, images), 'versions': surroundings.versions(),
            'machine': f'{surroundings.processor()}, {surroundings.cores()} cores'}
        checkpoints.write_json(part / 'compression.json', figures)
    return output, figures


def show(figures):
    """Prints what compression.json holds."""
    run = files.shown(pathlib.Path(figures['run']))
    unfinished = ', UNFINISHED' if figures['step'] < figures['max_steps'] else ''
    print(f'run: {run}, step {figures["step"]:,} of {figures["max_steps"]:,}{unfinished}, '
          f'threshold {figures["threshold"]}')
    if start := figures.get('start'):
        print(f'retrained from: {start["folder"]}, step {start["step"]:,} of {start["settings"]["max_steps"]:,}')
    print(f'machine: {figures["machine"]}')
    print(f'architecture: {" -> ".join(figures["architecture"].values())}\n')
    print(f'{"layer":7}{"outputs":>15}{"weights":>25}{"multiply-accumulates":>29}')
    for name, layer in figures['layers'].items():
        print(f'{name:7}' + ''.join(f'{layer[what]["dense"]:{width},} -> {layer[what]["compressed"]:{width - 1},}'
                                    for what, width in (('outputs', 6), ('weights', 11), ('macs', 13))))
    in_all = figures['in_all']
    rows = {'weights': in_all['weights'].values(), 'multiply-accumulates': in_all['macs'].values()}
    for title, names in export.FORMATS.items():
        rows[f'{title}, bytes'] = [figures['bytes'][name] for name in names]
        for number, taken in figures['milliseconds'].items():
            rows[f'{title}, batch of {number}, ms'] = [taken[name] for name in names]
    print(f'\n{"in all":30}{"dense":>14}{"compressed":>14}{"ratio":>8}')
    for title, (dense, compressed) in rows.items():
        number_format = ',.2f' if title.endswith('ms') else ',d'
        print(f'{title:30}{dense:14{number_format}}{compressed:14{number_format}}'
              + (f'{dense / compressed:8.1f}' if compressed else ''))
    accuracy, difference = figures['accuracy'], figures['largest_difference']
    print(f'\naccuracy on all {figures["test_images"]:,} test images: as trained {accuracy["as_trained"]:.2%}, '
          f'thresholded {accuracy["thresholded"]:.2%}, compressed {accuracy["compressed"]:.2%}')
    print(f'largest difference of a logit from the thresholded net: SavedModel {difference["compressed"]:.1e}, TFLite '
          f'{difference["compressed.tflite"]:.1e}, of logits up to {figures["largest_logit"]:.1f}')


def compress_main():
    output, figures = compress_run(FLAGS.log_dir, FLAGS.output_dir, FLAGS.data_dir)
    show(figures)
    print(f'files: {files.shown(output)}')


if __name__ == '__main__':
    define_flags()
    program.run(compress_main, __doc__, ['Compress'])
