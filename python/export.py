"""The two nets of compress.py, dense and compressed, as files: written, loaded back, and timed side by side."""

import contextlib
import functools
import os
import statistics
import sys

import numpy as np
import tensorflow as tf
from ai_edge_litert import interpreter

import surroundings
import timing

FORMATS = {'SavedModel': ('dense', 'compressed'), 'TFLite': ('dense.tflite', 'compressed.tflite')}
CALLS = {1: 50, 100: 5}  # in a row, by batch size; a latency is the median over ROUNDS of their mean
ROUNDS = 15


@contextlib.contextmanager
def quiet():
    """Keeps what C++ prints off the screen: the converter counts, the interpreter greets. Errors are exceptions."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, 'w') as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def write(net, folder, name):
    """Writes a keras.Model as the SavedModel `name` and the TFLite file `name`.tflite, for batches of any size.

    Saved are the bare variables: from a SavedModel of the model itself TensorFlow 2.21 makes a TFLite file that answers
    NaN, and that of Keras's ExportArchive is 110 kB larger. Raises OSError if a file cannot be written.
    """
    images = tf.TensorSpec(net.input_shape, tf.float32, name='images')
    signature = tf.function(lambda images: {'logits': net(images)}, autograph=False).get_concrete_function(images)
    module = tf.Module()
    module.all = [variable.value for variable in net.variables]
    with contextlib.chdir(folder):  # for TensorFlow takes a path as a pattern, see checkpoints.read_newest
        try:
            tf.saved_model.save(module, name, signatures=signature)
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        with quiet():
            lite = tf.lite.TFLiteConverter.from_saved_model(name).convert()
    (folder / f'{name}.tflite').write_bytes(lite)


def load(path):
    """Loads what `write` wrote: a function from images, float32 [N, height, width, channels], to logits [N, 10]."""
    if path.is_dir():
        with contextlib.chdir(path.parent):
            loaded = tf.saved_model.load(path.name)
        return lambda images: loaded.signatures['serving_default'](images=tf.constant(images))['logits'].numpy()
    with quiet():
        lite = interpreter.Interpreter(str(path), num_threads=surroundings.cores())
    (of_images,), (of_logits,) = lite.get_input_details(), lite.get_output_details()
    shape = None

    def run(images):
        nonlocal shape
        if images.shape != shape:
            shape = images.shape
            lite.resize_tensor_input(of_images['index'], shape)
            with quiet():
                lite.allocate_tensors()
        lite.set_tensor(of_images['index'], images)
        lite.invoke()
        return lite.get_tensor(of_logits['index'])
    return run


def size(path):
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob('*')] if file.is_file())


def on_all(function, images, batch_size=200):
    """The logits of any number of images, float32 [N, 10]."""
    return np.concatenate([function(images[i:i + batch_size]) for i in range(0, len(images), batch_size)])


def latencies(functions, images):
    """Milliseconds of a call, from images to logits as NumPy arrays: dict from batch size (str) to dict by name.

    Dense and compressed take turns, each format by itself: right after TensorFlow, LiteRT took three times as long.
    """
    def calls(function, batch):
        return timing.timed(lambda: [function(batch) for _ in range(CALLS[len(batch)])])

    found = {}
    for number in CALLS:
        batch, seconds = np.resize(images, (number, *images.shape[1:])), {}
        for names in FORMATS.values():
            seconds |= timing.in_turn({name: functools.partial(calls, functions[name], batch) for name in names},
                                         ROUNDS)
        found[str(number)] = {name: 1e3 * statistics.median(taken) / CALLS[number] for name, taken in seconds.items()}
    if sys.stderr.isatty():
        print('\r', end='', file=sys.stderr)  # over what in_turn has shown
    return found
