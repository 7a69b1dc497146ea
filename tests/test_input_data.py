"""The readers on files written here, and the download against a server on loopback."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import pathlib
import pwd
import re
import shutil
import socket
import struct
import sys
import tarfile
import threading

import numpy as np
import pytest
import requests

import download
import files
import input_data
import program
from input_data import CIFAR10_ARCHIVE, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS

NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
PACKED = [f'{name}.gz' for name in NAMES]


def idx(array):
    """The bytes of an IDX file of unsigned bytes."""
    return struct.pack(f'>BBBB{array.ndim}I', 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def arrays(train=5020, test=30, size=(8, 7)):
    random = np.random.default_rng(0)
    return {TRAIN_IMAGES: random.integers(0, 256, (train, *size)), TRAIN_LABELS: random.integers(0, 10, train),
            TEST_IMAGES: random.integers(0, 256, (test, *size)), TEST_LABELS: random.integers(0, 10, test)}


def sha256(contents):
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


@pytest.fixture(scope='module')
def contents():
    return {name: idx(array) for name, array in arrays().items()}


@pytest.fixture
def folder(tmp_path, contents):
    for name, content in contents.items():
        (tmp_path / f'{name}.gz').write_bytes(gzip.compress(content, 1))
    return tmp_path


def test_files_that_are_there_are_read_split_and_scaled(folder, capsys):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    data = input_data.read_data_sets(folder)
    expected = arrays()
    assert [len(part.labels) for part in (data.train, data.validation, data.test)] == [20, 5000, 30]
    np.testing.assert_array_equal(data.validation.labels, expected[TRAIN_LABELS][:5000])
    np.testing.assert_array_equal(data.train.labels, expected[TRAIN_LABELS][5000:])
    np.testing.assert_allclose(data.train.images[..., 0], expected[TRAIN_IMAGES][5000:] / 255, rtol=1e-6)
    np.testing.assert_allclose(data.test.images[..., 0], expected[TEST_IMAGES] / 255, rtol=1e-6)
    for part in (data.train, data.validation, data.test):
        assert part.images.dtype == np.float32 and part.labels.dtype == np.int64 and part.images.shape[3] == 1
        assert part.images.min() >= 0 and part.images.max() <= 1
    warnings = capsys.readouterr().err.splitlines()  # valid, but not MNIST
    assert len(warnings) == 4 and all('not the one of mnist' in line for line in warnings)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


def unpack(folder, contents, dot=False):
    """Puts the unpacked files in place of the packed ones."""
    for name, content in contents.items():
        (folder / f'{name}.gz').unlink()
        (folder / (name.replace('-idx', '.idx') if dot else name)).write_bytes(content)


@pytest.mark.parametrize('dataset', ['mnist', 'fashion_mnist'])
@pytest.mark.parametrize('dot', [False, True], ids=['hyphen', 'dot'])
def test_unpacked_files_are_read_as_they_lie(folder, contents, monkeypatch, capsys, dot, dataset):
    monkeypatch.setitem(input_data.SHA256, dataset, sha256(contents))
    packed = input_data.read_data_sets(folder, dataset=dataset)
    unpack(folder, contents, dot)
    before = sorted(folder.iterdir())
    unpacked = input_data.read_data_sets(folder, dataset=dataset)
    for part, other in zip(packed[1:], unpacked[1:], strict=True):
        np.testing.assert_array_equal(part.images, other.images)
        np.testing.assert_array_equal(part.labels, other.labels)
    assert sorted(folder.iterdir()) == before
    assert capsys.readouterr().err == ''  # each is known under every name


def test_packed_files_with_a_dot_and_which_comes_first(folder, contents):
    for name in NAMES:
        (folder / f'{name}.gz').rename(folder / f'{name.replace("-idx", ".idx")}.gz')
        (folder / name).write_bytes(b'not asked for')
        (folder / name.replace('-idx', '.idx')).mkdir()
    assert len(input_data.read_data_sets(folder).test.labels) == 30


def test_a_folder_of_a_files_name_does_not_hide_the_file(folder, contents):
    unpack(folder, contents, dot=True)
    for name in NAMES:
        (folder / name).mkdir()
    assert len(input_data.read_data_sets(folder).test.labels) == 30


def broken(folder, name, content, raw=False):
    (folder / f'{name}.gz').write_bytes(content if raw else gzip.compress(content, 1))


def fails(folder, *words, **arguments):
    """The message, one line, of the DataError; whatever is in the folder stays as it is."""
    def files():
        return {path: path.is_file() and path.read_bytes() for path in folder.rglob('*')}

    before = files()
    with pytest.raises(input_data.DataError) as error:
        input_data.read_data_sets(folder, **arguments)
    message = str(error.value)
    assert all(str(word) in message for word in words) and '--data_dir' in message and '\n' not in message, message
    assert files() == before
    return message


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('damage, words', [
    (lambda c: (gzip.compress(c, 1)[:-20], True), 'cannot be read or unpacked'),
    (lambda c: (c, True), 'cannot be read or unpacked'),
    (lambda c: (b'', True), 'first bytes are missing'),
    (lambda c: (c[:6], False), 'no IDX file'),
    (lambda c: (c[:-1], False), 'bytes of data where its header'),
    (lambda c: (c + b'0', False), 'bytes of data where its header'),
    (lambda c: (b'\0\0\x0d' + c[3:], False), 'no IDX file of unsigned bytes'),
    (lambda c: (b'\0\0\x08\2' + c[4:], False), 'no IDX file of unsigned bytes'),
], ids=['cut short', 'not gzipped', 'empty', 'header cut', 'data cut', 'data too long', 'floats', 'dimensions'])
def test_a_broken_file_is_named_and_kept(folder, contents, name, damage, words):
    broken(folder, name, *damage(contents[name]))
    fails(folder, folder / f'{name}.gz:', words)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dot', [False, True], ids=['hyphen', 'dot'])
@pytest.mark.parametrize('damage, words', [
    (lambda c: b'', 'first bytes are missing'), (lambda c: c[:-1], 'bytes of data where its header'),
    (gzip.compress, 'first bytes are 1f8b'), (None, 'cannot be read'),
], ids=['empty', 'data cut', 'gzipped', 'a folder'])
def test_a_broken_unpacked_file_is_named_and_kept(folder, contents, name, dot, damage, words):
    unpack(folder, contents, dot)
    path = folder / (name.replace('-idx', '.idx') if dot else name)
    path.unlink()
    path.write_bytes(damage(contents[name])) if damage else path.mkdir()
    fails(folder, f'{path}:', words)


@pytest.mark.parametrize('change, named, words', [
    ({TRAIN_LABELS: np.zeros(5019)}, NAMES[:2], '5020 images but'),
    ({TEST_LABELS: np.zeros(31)}, NAMES[2:], '31 labels'),
    ({TEST_LABELS: np.full(30, 10)}, [TEST_LABELS], 'label 10 is outside 0..9'),
    ({TEST_IMAGES: np.zeros((30, 8, 8))}, [TRAIN_IMAGES, TEST_IMAGES], 'different sizes'),
    ({TRAIN_IMAGES: np.zeros((5000, 2, 2)), TRAIN_LABELS: np.zeros(5000)}, [], 'too few'),
    ({TEST_IMAGES: np.zeros((0, 8, 7)), TEST_LABELS: np.zeros(0)}, [], 'too few'),
    ({TRAIN_IMAGES: np.zeros((5020, 0, 7)), TEST_IMAGES: np.zeros((30, 0, 7))}, [], 'too few'),
], ids=['train counts', 'test counts', 'label', 'image sizes', 'no training set', 'no test set', 'no pixels'])
def test_files_that_do_not_fit_together(folder, change, named, words):
    for name, array in change.items():
        broken(folder, name, idx(array))
    fails(folder, words, folder, *(folder / f'{name}.gz' for name in named))


def test_mnist_5k_is_shuffled_real_and_split():
    data = input_data.read_data_sets(dataset='mnist_5k')
    assert [len(part.labels) for part in data[1:]] == [3500, 500, 1000]
    labels = np.concatenate([part.labels for part in data[1:]])
    np.testing.assert_array_equal(np.bincount(labels), [500] * 10)
    assert all(np.bincount(part.labels, minlength=10).min() > 0.6 * len(part.labels) / 10 for part in data[1:])
    assert data.train.images.shape == (3500, 28, 28, 1) and data.train.images.dtype == np.float32
    assert data.train.images.min() == 0 and data.train.images.max() == 1
    again = input_data.read_data_sets(dataset='mnist_5k', seed=7)
    np.testing.assert_array_equal(again.train.images, data.train.images)


def test_fake_data_is_a_function_of_the_seed():
    data, again, other = (input_data.read_data_sets(fake_data=True, seed=seed) for seed in (0, 0, 1))
    assert data.train.images.shape == (4000, 28, 28, 1) and data.train.images.dtype == np.float32
    assert 0 <= data.train.images.min() and data.train.images.max() <= 1
    np.testing.assert_array_equal(again.test.images, data.test.images)
    assert (other.test.images != data.test.images).any()
    assert np.bincount(np.concatenate([part.labels for part in data[1:]])).tolist() == [550] * 10


def test_the_real_files_pass_without_a_warning(capsys):
    if 'MNIST_DIR' not in os.environ:
        pytest.skip('MNIST_DIR, a folder with the four real files of MNIST, is not set')
    data = input_data.read_data_sets(os.environ['MNIST_DIR'])
    assert [len(part.labels) for part in data[1:]] == [55000, 5000, 10000]
    assert capsys.readouterr().err == ''


# ------------------------------------------------------------------------------------------------- CIFAR-10

BATCHES = [f'data_batch_{number}.bin' for number in range(1, 6)]
ALL = [*BATCHES, 'test_batch.bin']
IMAGES = 1004  # in each file here: 5,020 to train and to validate with, and so 20 to train with


@pytest.fixture(scope='module')
def records():
    """The six files: random bytes, each record's first one a label."""
    random = np.random.default_rng(0)
    files = {name: random.integers(0, 256, (IMAGES, 3073), np.uint8) for name in ALL}
    for array in files.values():
        array[:, 0] %= 10
    return files


@pytest.fixture
def cifar(tmp_path, records, monkeypatch):
    """A folder for --data_dir, with the folder of the six files in it."""
    monkeypatch.setattr(input_data, 'CIFAR10_IMAGES', IMAGES)
    (tmp_path / 'cifar-10-batches-bin').mkdir()
    for name, array in records.items():
        (tmp_path / 'cifar-10-batches-bin' / name).write_bytes(array.tobytes())
    return tmp_path


def packable(records):
    return [(name, array.tobytes()) for name, array in records.items()]


def tar(files, prefix='cifar-10-batches-bin/'):
    """The bytes of a .tar.gz of files, pairs of name and bytes, or a TarInfo's type in their place."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w:gz', compresslevel=0) as archive:
        for name, content in files:
            member = tarfile.TarInfo(prefix + name)
            if isinstance(content, bytes) and len(content) > 1:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content, '/etc/passwd'
                archive.addfile(member)
    return packed.getvalue()


@pytest.fixture(scope='module')
def archive(records):
    return tar([('readme.html', b'<html>'), *reversed(packable(records))])


def clear(folder):
    shutil.rmtree(folder / 'cifar-10-batches-bin')
    return folder / 'cifar-10-binary.tar.gz'


def is_right(data, records):
    """Against the records one pixel at a time: label, then 1,024 red, 1,024 green, 1,024 blue, rows first."""
    assert data.name == 'cifar10' and [len(part.labels) for part in data[1:]] == [20, 5000, IMAGES]
    rows = np.concatenate([records[name] for name in BATCHES])
    for part, expected in zip(data[1:], (rows[:20], rows[20:], records['test_batch.bin']), strict=True):
        assert part.images.dtype == np.float32 and part.images.shape == (len(expected), 32, 32, 3)
        assert part.labels.dtype == np.int64
        np.testing.assert_array_equal(part.labels, expected[:, 0])
        for image, row, column, channel in np.random.default_rng(1).integers(0, (len(expected), 32, 32, 3), (200, 4)):
            pixel = expected[image, 1 + 1024 * channel + 32 * row + column]
            np.testing.assert_allclose(part.images[image, row, column, channel], pixel / 255, rtol=1e-6)


def read_cifar(folder):
    return input_data.read_data_sets(folder, dataset='cifar10')


def test_cifar10_as_a_folder_as_six_files_and_as_the_archive(cifar, records, archive, capsys):
    is_right(read_cifar(cifar), records)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 6 and all('a valid file, but not the one of cifar10' in line for line in warnings)
    is_right(read_cifar(cifar / 'cifar-10-batches-bin'), records)

    path = clear(cifar)
    path.write_bytes(archive)
    capsys.readouterr()
    is_right(read_cifar(cifar), records)
    assert str(path) in capsys.readouterr().err
    assert os.listdir(cifar) == [path.name] and path.read_bytes() == archive  # nothing unpacked to the disk


def test_the_parts_of_a_large_set_are_no_copies():
    images = np.zeros((6, 2, 2, 1), np.float32)
    parts = input_data._split('', images, np.zeros(6), 3, 2)[1:]
    assert [np.shares_memory(part.images, images) for part in parts] == [True] * 3


def test_the_published_files_of_cifar10_give_no_warning(cifar, records, monkeypatch, capsys):
    monkeypatch.setitem(input_data.SHA256, 'cifar10', sha256(records))
    read_cifar(cifar)
    assert capsys.readouterr().err == ''


def test_the_archives_paths_play_no_part(cifar, records):
    path = clear(cifar)
    for prefix in ('', './', '../../', '/cifar/'):
        path.write_bytes(tar([('._test_batch.bin', b'macOS'), *packable(records), *packable(records)[:1]], prefix))
        is_right(read_cifar(cifar), records)
        assert os.listdir(cifar) == [path.name] and not (cifar.parent.parent / 'test_batch.bin').exists()


@pytest.mark.parametrize('where', ['cifar-10-batches-bin', '.'])
def test_the_missing_ones_of_a_set_are_named_and_not_downloaded(cifar, monkeypatch, where):
    monkeypatch.setattr(input_data, '_download', lambda *_: pytest.fail('asked for'))
    place = cifar / where
    if where == '.':
        for path in (cifar / 'cifar-10-batches-bin').iterdir():
            path.rename(cifar / path.name)
    for name in ('data_batch_2.bin', 'test_batch.bin'):
        (place / name).unlink()
    message = fails(cifar, f'{place}: data_batch_2.bin, test_batch.bin missing', dataset='cifar10')
    assert 'data_batch_1.bin' not in message


DAMAGE = {
    'empty': (lambda r: b'', 'not the 3085292 bytes'),
    'a byte short': (lambda r: r.tobytes()[:-1], 'not the 3085292 bytes'),
    'a byte long': (lambda r: r.tobytes() + b'0', 'not the 3085292 bytes'),
    'half of the images': (lambda r: r[:IMAGES // 2].tobytes(), 'not the 3085292 bytes'),
    'a label of 10': (lambda r: b'\x0a' + r.tobytes()[1:], 'label 10 is outside 0..9'),
}


@pytest.mark.parametrize('name', ['data_batch_1.bin', 'test_batch.bin'])
@pytest.mark.parametrize('damage, words', DAMAGE.values(), ids=DAMAGE)
def test_a_broken_file_of_cifar10_is_named_and_kept(cifar, records, name, damage, words):
    path = cifar / 'cifar-10-batches-bin' / name
    path.write_bytes(damage(records[name]))
    fails(cifar, path, words, dataset='cifar10')


def test_a_folder_and_a_dangling_link_in_place_of_a_file_of_cifar10(cifar):
    path = cifar / 'cifar-10-batches-bin' / 'data_batch_3.bin'
    path.unlink()
    path.symlink_to(cifar / 'nowhere')
    fails(cifar, path, 'No such file', dataset='cifar10')
    path.unlink()
    path.mkdir()
    fails(cifar, path, 'Is a directory', dataset='cifar10')


@pytest.mark.parametrize('make', [os.mkfifo, lambda path: path.symlink_to('/dev/zero')], ids=['pipe', 'device'])
def test_what_would_be_read_for_ever_is_named(folder, cifar, make):
    path = folder / PACKED[0]
    path.unlink()
    make(path)
    fails(folder, path, 'No regular file')
    path = cifar / 'cifar-10-batches-bin' / 'data_batch_3.bin'
    path.unlink()
    make(path)
    fails(cifar, path, 'No regular file', dataset='cifar10')
    path = clear(cifar)
    make(path)
    fails(cifar, path, 'No regular file', dataset='cifar10')


@pytest.mark.parametrize('damage, words', [
    (lambda files, whole: b'', 'cannot be read or unpacked'),
    (lambda files, whole: b'<html>404</html>', 'cannot be read or unpacked'),
    (lambda files, whole: whole[:len(whole) // 2], 'cannot be read or unpacked'),
    (lambda files, whole: whole[:10000] + b'?' * 99 + whole[10099:], 'cannot be read or unpacked'),
    (lambda files, whole: gzip.compress(gzip.decompress(whole)[:5_000_000], 0), 'cannot be read or unpacked'),
    (lambda files, whole: gzip.compress(b'no tar' * 1000), 'cannot be read or unpacked'),
    (lambda files, whole: tar(files[:4]), ': data_batch_5.bin, test_batch.bin missing'),
    (lambda files, whole: tar([*files[:5], ('test_batch.bin', tarfile.SYMTYPE)]), ': test_batch.bin missing'),
    (lambda files, whole: tar([*files[:5], ('test_batch.bin', tarfile.LNKTYPE)]), ': test_batch.bin missing'),
    (lambda files, whole: tar([*files[:5], ('test_batch.bin', tarfile.DIRTYPE)]), ': test_batch.bin missing'),
    (lambda files, whole: tar([*files[:5], ('test_batch.bin', files[5][1][:-1])]), 'test_batch.bin: not the'),
], ids=['empty', 'a page', 'cut short', 'damaged', 'tar cut short', 'no tar', 'files missing', 'a link', 'a hard link',
        'a folder', 'a short file'])
def test_a_broken_archive_of_cifar10_is_named_and_kept(cifar, records, archive, damage, words):
    path = clear(cifar)
    path.write_bytes(damage(packable(records), archive))
    fails(cifar, path, words, 'Move the file away', dataset='cifar10')


def test_the_real_images_of_cifar10():
    if 'CIFAR10_DIR' not in os.environ:
        pytest.skip('CIFAR10_DIR, a folder with the real images of CIFAR-10, is not set')
    data = read_cifar(os.environ['CIFAR10_DIR'])
    assert [part.images.shape for part in data[1:]] == [(n, 32, 32, 3) for n in (45000, 5000, 10000)]
    labels = np.concatenate([data.train.labels, data.validation.labels])
    assert np.bincount(labels).tolist() == [5000] * 10 and np.bincount(data.test.labels).tolist() == [1000] * 10
    means = [np.mean(part.images, axis=(0, 1, 2), dtype=np.float64) for part in data[1:3]]
    # The published mean of the training set, by channel: red, green, blue.
    np.testing.assert_allclose(0.9 * means[0] + 0.1 * means[1], [0.49139968, 0.48215841, 0.44653091], atol=1e-6)


# ------------------------------------------------------------------------------------------------- the folder

@pytest.mark.parametrize('name', ['gs://bucket/mnist', 's3://b/x', 'http://host/x', 'file:///tmp/x', 'hdfs://h'])
@pytest.mark.parametrize('dataset', ['mnist', 'cifar10'])
def test_addresses_are_refused(name, dataset):
    with pytest.raises(program.RunError, match=f'^--data_dir={name} .*only local folders work.*$'):
        input_data.read_data_sets(name, dataset=dataset)


@pytest.mark.parametrize('name', ['a:b', 'C:\\x', 'x/a://b', 'gs:', ':', '/a//b', 'gs:/x'])
def test_names_that_only_look_like_addresses_are_folders(name):
    assert files.local_folder(name, 'log_dir') == pathlib.Path(name)


def test_a_home_that_is_not_there_is_one_line(monkeypatch):
    with pytest.raises(program.RunError, match='^--data_dir=~nosuchuser/x: .*without ~.$'):
        input_data.read_data_sets('~nosuchuser/x')
    with pytest.raises(program.RunError, match='^--log_dir=~nosuchuser/x: .*'):
        files.local_folder('~nosuchuser/x', 'log_dir')

    monkeypatch.delenv('HOME')
    monkeypatch.setattr(pwd, 'getpwuid', lambda _: {}['no entry'])
    for dataset in ('mnist', 'fashion_mnist', 'cifar10'):
        with pytest.raises(program.RunError, match='^--data_dir=~/.cache/.*no such home folder.* without ~.$'):
            input_data.read_data_sets(dataset=dataset)


# ------------------------------------------------------------------------------------------------- download

@pytest.fixture
def server(contents, records, archive, monkeypatch):
    """Mirrors on loopback: /good/, /wrong/ (bytes), /cut/ (half of them), /slow/ (none), /trickle/, /no/ (404)."""
    asked, release = [], threading.Event()
    files = {CIFAR10_ARCHIVE: archive, **{f'{name}.gz': gzip.compress(contents[name], 9) for name in NAMES}}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            mirror, name = self.path.strip('/').split('/')
            body = gzip.compress(b'something else') if mirror == 'wrong' else files[name]
            if mirror == 'slow':
                release.wait(60)
            self.send_response(404 if mirror == 'no' else 200)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            for i in range(0, 60000 if mirror == 'trickle' else 0, 200):
                self.wfile.write(body[i:i + 200])
                if release.wait(0.1):
                    return
            self.wfile.write(body[:len(body) // 2] if mirror in ('cut', 'trickle') else body)

        def log_message(self, *_):
            pass

        def handle(self):
            with contextlib.suppress(ConnectionError):  # whoever asked has gone
                super().handle()

    for variable in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(download, 'TIMEOUT_SECONDS', 2)
    monkeypatch.setattr(input_data, 'CIFAR10_IMAGES', IMAGES)
    monkeypatch.setattr(input_data, 'SHA256', {
        'mnist': sha256(contents), 'cifar10': sha256(records), CIFAR10_ARCHIVE: hashlib.sha256(archive).hexdigest()})
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()

        def use(*mirrors):
            host = f'http://127.0.0.1:{httpd.server_port}'
            urls = [mirror if '//' in mirror else f'{host}/{mirror}/' for mirror in mirrors]
            for dataset in ('mnist', 'cifar10'):
                monkeypatch.setitem(input_data.MIRRORS, dataset, urls)
        use.asked = asked
        yield use
        release.set()
        httpd.shutdown()


@pytest.fixture
def closed_port():
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        return f'http://127.0.0.1:{unused.getsockname()[1]}/'


def test_absent_files_are_downloaded_once_to_the_home(server, tmp_path, monkeypatch, capsys):
    server('good')
    monkeypatch.setenv('HOME', str(tmp_path))
    folder = tmp_path / '.cache' / 'attention-guided-sparsity' / 'mnist'
    data = input_data.read_data_sets()
    assert len(data.train.labels) == 20 and sorted(os.listdir(folder)) == sorted(PACKED)
    assert server.asked == [f'/good/{name}' for name in PACKED]
    input_data.read_data_sets(folder)
    assert len(server.asked) == 4
    (folder / 'other').touch()
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # a download has the permissions of any other
    assert capsys.readouterr().err == ''  # no warning, no log of the library's, and no bar where there is no terminal


def test_on_a_terminal_there_is_a_bar(server, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    server('good')
    monkeypatch.setattr(sys, 'stderr', Terminal())
    input_data.read_data_sets(tmp_path)
    assert all(f'/good/{name}: 100%' in sys.stderr.getvalue() for name in PACKED)
    assert sys.stderr.getvalue().count('\n') == len(PACKED)  # and nothing else


@pytest.mark.parametrize('first', ['no', 'wrong', 'cut', 'slow', 'trickle'])
def test_the_next_mirror_is_asked_for_the_missing_file_alone(server, folder, first):
    server(first, 'good')
    (folder / f'{TRAIN_IMAGES}.gz').unlink()
    assert len(input_data.read_data_sets(folder).test.labels) == 30
    assert server.asked == [f'/{mirror}/{TRAIN_IMAGES}.gz' for mirror in (first, 'good')]
    assert sorted(os.listdir(folder)) == sorted(PACKED)


def test_the_archive_of_cifar10_is_downloaded_once_and_kept(server, records, archive, tmp_path, capsys):
    server('no', 'wrong', 'good')
    is_right(read_cifar(tmp_path), records)
    path = tmp_path / CIFAR10_ARCHIVE
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == archive
    is_right(read_cifar(tmp_path), records)
    assert server.asked == [f'/{mirror}/{path.name}' for mirror in ('no', 'wrong', 'good')]
    assert capsys.readouterr().err == ''


def test_without_any_mirror_the_message_says_why_and_the_ways_out(server, closed_port, tmp_path):
    server(closed_port, 'no', 'wrong', 'cut', 'slow', 'trickle')
    with pytest.raises(input_data.DataError) as error:
        input_data.read_data_sets(tmp_path / 'absent')
    message = str(error.value)
    for words in (closed_port, 'refused', '404', 'wrong content', 'IncompleteRead', 'timed out', *NAMES,
                  '--dataset=mnist --data_dir=DIR', '--dataset=mnist_5k', '--fake_data'):
        assert words in message
    assert re.search('/trickle/.*: timed out: [1-9][0-9]* bytes in', message)
    assert os.listdir(tmp_path / 'absent') == []
    with pytest.raises(input_data.DataError, match=f'Ways out: put {CIFAR10_ARCHIVE} into a folder DIR'):
        read_cifar(tmp_path / 'absent')


def test_a_host_with_many_silent_addresses_does_not_take_longer(tmp_path, monkeypatch):
    """requests tries each address of a host in turn, each with the whole timeout."""
    release = threading.Event()

    def get(*_, **__):
        release.wait(60)
        raise OSError('the last address, too, was silent')

    monkeypatch.setattr(download, 'TIMEOUT_SECONDS', 0.3)
    monkeypatch.setattr(requests, 'get', get)
    with pytest.raises(input_data.DataError, match='timed out: 0 bytes in') as error:
        input_data.read_data_sets(tmp_path)
    release.set()
    assert 'the last address' not in str(error.value)


@pytest.mark.parametrize('name, words', [('file/folder', '{}/file.*cannot be written|cannot be written.*{}/file'),
                                         ('file', '--data_dir={}/file is no folder')])
def test_a_folder_that_cannot_be_made_or_is_a_file_is_named(server, tmp_path, name, words):
    server('good')
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(input_data.DataError, match=words.format(tmp_path, tmp_path)):
        input_data.read_data_sets(tmp_path / name)


def test_a_disk_that_fills_up_leaves_no_half_file(server, tmp_path, monkeypatch):
    server('good')
    monkeypatch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(input_data.DataError, match='No space left'):
        input_data.read_data_sets(tmp_path)
    assert os.listdir(tmp_path) == []
