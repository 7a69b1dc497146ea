"""The IDX reader on files written here, and the download against a server on loopback."""

import gzip
import hashlib
import http.server
import os
import socket
import struct
import threading
import time

import numpy as np
import pytest

import input_data
from input_data import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS

NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


def idx(array):
    """The bytes of an IDX file of unsigned bytes."""
    return struct.pack(f'>BBBB{array.ndim}I', 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def arrays(train=5020, test=30, size=(28, 28)):
    random = np.random.default_rng(0)
    return {TRAIN_IMAGES: random.integers(0, 256, (train, *size)), TRAIN_LABELS: random.integers(0, 10, train),
            TEST_IMAGES: random.integers(0, 256, (test, *size)), TEST_LABELS: random.integers(0, 10, test)}


@pytest.fixture(scope='module')
def contents():
    return {name: idx(array) for name, array in arrays().items()}


@pytest.fixture
def folder(tmp_path, contents):
    for name, content in contents.items():
        (tmp_path / name).write_bytes(gzip.compress(content, 1))
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


def broken(folder, name, content, raw=False):
    (folder / name).write_bytes(content if raw else gzip.compress(content))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('damage, words', [
    (lambda c: (gzip.compress(c)[:-20], True), 'cannot be read or unpacked'),
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
    damaged = (folder / name).read_bytes()
    with pytest.raises(input_data.DataError) as error:
        input_data.read_data_sets(folder)
    assert str(folder / name) in str(error.value) and words in str(error.value)
    assert '\n' not in str(error.value) and '--data_dir' in str(error.value)
    assert (folder / name).read_bytes() == damaged


@pytest.mark.parametrize('change, named, words', [
    ({TRAIN_LABELS: np.zeros(5019)}, NAMES[:2], '5020 images but'),
    ({TEST_LABELS: np.zeros(31)}, NAMES[2:], '31 labels'),
    ({TEST_LABELS: np.full(30, 10)}, [TEST_LABELS], 'label 10 is outside 0..9'),
    ({TEST_IMAGES: np.zeros((30, 28, 27))}, [TRAIN_IMAGES, TEST_IMAGES], 'different sizes'),
    ({TRAIN_IMAGES: np.zeros((5000, 2, 2)), TRAIN_LABELS: np.zeros(5000)}, [], 'too few'),
    ({TEST_IMAGES: np.zeros((0, 28, 28)), TEST_LABELS: np.zeros(0)}, [], 'too few'),
    ({TRAIN_IMAGES: np.zeros((5020, 0, 28)), TEST_IMAGES: np.zeros((30, 0, 28))}, [], 'too few'),
], ids=['train counts', 'test counts', 'label', 'image sizes', 'no training set', 'no test set', 'no pixels'])
def test_files_that_do_not_fit_together(folder, change, named, words):
    for name, array in change.items():
        broken(folder, name, idx(array))
    with pytest.raises(input_data.DataError, match=words) as error:
        input_data.read_data_sets(folder)
    assert all(str(folder / name) in str(error.value) for name in named) and str(folder) in str(error.value)


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


# ------------------------------------------------------------------------------------------------- download

@pytest.fixture
def server(contents, monkeypatch):
    """Mirrors on loopback: /good/, /wrong/ (other bytes), /cut/ (half of the bytes), /slow/ (none), /no/ (404)."""
    asked, release = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            mirror, name = self.path.strip('/').split('/')
            body = gzip.compress(contents[name] if mirror != 'wrong' else b'something else', 9)
            if mirror == 'slow':
                release.wait(20)
            self.send_response(404 if mirror == 'no' else 200)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body[:len(body) // 2] if mirror == 'cut' else body)

        def log_message(self, *_):
            pass

    for variable in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(input_data, 'TIMEOUT_SECONDS', 0.5)
    monkeypatch.setitem(input_data.SHA256, 'mnist',
                        {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()

        def use(*mirrors):
            monkeypatch.setitem(input_data.MIRRORS, 'mnist', tuple(
                mirror if '//' in mirror else f'http://127.0.0.1:{httpd.server_port}/{mirror}/' for mirror in mirrors))
        use.asked = asked
        yield use
        release.set()
        httpd.shutdown()


@pytest.fixture
def closed_port():
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        return f'http://127.0.0.1:{unused.getsockname()[1]}/'


def test_absent_files_are_downloaded_once(server, tmp_path, capsys):
    server('good')
    folder = tmp_path / 'new' / 'folder'
    data = input_data.read_data_sets(folder)
    assert len(data.train.labels) == 20 and sorted(os.listdir(folder)) == sorted(NAMES)
    assert server.asked == [f'/good/{name}' for name in NAMES]
    input_data.read_data_sets(folder)
    assert len(server.asked) == 4
    assert capsys.readouterr().err == ''  # no warning, and no bar where there is no terminal


@pytest.mark.parametrize('first', ['no', 'wrong', 'cut', 'slow'])
def test_the_next_mirror_is_asked(server, tmp_path, first):
    server(first, 'good')
    assert len(input_data.read_data_sets(tmp_path).test.labels) == 30
    assert sorted(os.listdir(tmp_path)) == sorted(NAMES)


def test_a_file_that_is_there_is_not_asked_for(server, folder):
    server('good')
    (folder / TEST_LABELS).unlink()
    input_data.read_data_sets(folder)
    assert server.asked == [f'/good/{TEST_LABELS}']


def test_without_any_mirror_the_message_says_why_and_the_ways_out(server, closed_port, tmp_path):
    server(closed_port, 'no', 'wrong', 'cut', 'slow')
    started = time.monotonic()
    with pytest.raises(input_data.DataError) as error:
        input_data.read_data_sets(tmp_path / 'absent')
    assert time.monotonic() - started < 10
    message = str(error.value)
    for words in (closed_port, 'refused', '404', 'wrong content', 'cut after', 'timed out', *NAMES,
                  '--dataset=mnist --data_dir=DIR', '--dataset=mnist_5k', '--fake_data'):
        assert words in message
    assert not (tmp_path / 'absent').exists()


def test_a_host_with_many_silent_addresses_does_not_take_longer(tmp_path, monkeypatch):
    """urllib tries each address of a host in turn, each with the whole timeout."""
    monkeypatch.setattr(input_data, 'TIMEOUT_SECONDS', 0.3)
    monkeypatch.setattr(input_data.urllib.request, 'urlopen', lambda url, timeout: time.sleep(20 * timeout))
    started = time.monotonic()
    with pytest.raises(input_data.DataError, match='timed out: no answer within 0.3 seconds'):
        input_data.read_data_sets(tmp_path)
    assert time.monotonic() - started < 5


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    server('good')
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(input_data.DataError, match='cannot be written') as error:
        input_data.read_data_sets(tmp_path / 'file' / 'folder')
    assert str(tmp_path / 'file') in str(error.value)


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(input_data.DataError, match='--data_dir=.*file is no folder'):
        input_data.read_data_sets(tmp_path / 'file')


def test_a_disk_that_fills_up_leaves_no_half_file(server, tmp_path, monkeypatch):
    server('good')
    monkeypatch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(input_data.DataError, match='No space left'):
        input_data.read_data_sets(tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_default_folder_is_in_the_home(server, tmp_path, monkeypatch):
    server('good')
    monkeypatch.setenv('HOME', str(tmp_path))
    input_data.read_data_sets()
    assert sorted(os.listdir(tmp_path / '.cache' / 'attention-guided-sparsity' / 'mnist')) == sorted(NAMES)
