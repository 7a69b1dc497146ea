"""Files and folders: what a flag may name, locks, and files that are whole or not there."""

import contextlib
import fcntl
import os
import pathlib
import re
import secrets
import shutil
import time

from program import RunError


def local_folder(name, flag):
    """The folder that a flag names, as a pathlib.Path, with ~ expanded; raises RunError if it cannot be one."""
    if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', str(name)):
        raise RunError(f'--{flag}={name} is an address, and only local folders work. Give one as --{flag}.')
    if '\0' in str(name):
        raise RunError(f'--{flag}={str(name)!r} holds a NUL, and no path can. Give another.')
    try:
        str(name).encode()
        return pathlib.Path(name).expanduser()
    except UnicodeEncodeError as error:
        raise RunError(f'--{flag}={str(name)!a} is not in UTF-8, which TensorFlow needs. Give another.') from error
    except RuntimeError as error:
        raise RunError(f'--{flag}={name}: there is no such home folder. Give a --{flag} without ~.') from error


def resolved(name, flag):
    """`local_folder`, absolute and without links; Path.resolve would raise for those that go round in circles."""
    return pathlib.Path(os.path.realpath(local_folder(name, flag)))


def file_of(name, flag, suffix):
    """The file that a flag names, there or not, as a pathlib.Path; raises RunError if it cannot be a `suffix` one."""
    path = local_folder(name, flag)
    if path.suffix != suffix or path.exists() and not path.is_file():
        raise RunError(f'--{flag}={name} must be the name of a {suffix} file.')
    return path


def lock(path, kind=fcntl.LOCK_EX, flags=0, seconds=0.0):
    """The descriptor of a file or folder on which this process now has a lock, which dies with it.

    Args:
      path: pathlib.Path. kind: fcntl.LOCK_EX, or LOCK_SH to look. flags: of os.open, besides whether it writes.

    Raises:
      BlockingIOError: another process has had one for so many seconds.
      OSError: there is no such file, or this process may not open it.
    """
    # NFS gives an exclusive lock to those alone who may write; elsewhere who may read gets one, too.
    writes = kind == fcntl.LOCK_EX and not path.is_dir() and (os.access(path, os.W_OK) or not path.exists())
    number, end = os.open(path, (os.O_RDWR if writes else os.O_RDONLY) | flags, 0o666), time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(number, kind | fcntl.LOCK_NB)
            return number
        except OSError as error:  # one that is no BlockingIOError does not pass
            if time.monotonic() >= end or not isinstance(error, BlockingIOError):
                os.close(number)
                raise
            time.sleep(0.02)


def hold(folder, seconds=2.0):
    """Takes a folder for this process, as long as that keeps the descriptor that it returns.

    A file in it is locked, for a lock on a folder does not reach other NFS clients. That is tried for some
    seconds, since `is_held` looks by a lock. Raises BlockingIOError if another process has one.
    """
    return lock(folder / '.lock', flags=os.O_CREAT, seconds=seconds)


def is_held(folder):
    """Whether a process holds the folder, as far as can be told; the look itself keeps nobody off for long."""
    try:
        os.close(lock(folder / '.lock', kind=fcntl.LOCK_SH))
    except BlockingIOError:
        return True
    except OSError:  # not there
        pass
    return False


def _remove(place):
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path):
    """Has an OSError name this path, whatever file it was about."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextlib.contextmanager
def part_of(path, folder=False):
    """A hidden file, or folder, beside `path`, which takes its name in one move when it is whole, and goes if it fails.

    Its maker holds it. What makers that were killed have left beside the same `path` is removed first. A file takes the
    place of what `path`, a link, leads to.
    """
    path = path if folder else pathlib.Path(os.path.realpath(path))
    pattern = re.compile(rf'\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part')
    for left in [left for left in path.parent.iterdir() if pattern.fullmatch(left.name)]:
        with contextlib.suppress(OSError):  # at work, or gone
            number = lock(left)
            _remove(left)
            os.close(number)
    while True:
        part = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.part')
        part.mkdir() if folder else part.touch(exist_ok=False)
        try:
            number = lock(part)
        except (BlockingIOError, FileNotFoundError):  # another process removes it, as one that was left
            continue
        except OSError:  # a file system without locks, say: another part would fare no better
            _remove(part)
            raise
        if part.exists():
            break
        os.close(number)
    try:
        yield part
        if path.exists() and not folder:
            shutil.copymode(path, part)  # others may write to a CSV, too
        os.replace(part, path)
    except BaseException:
        _remove(part)
        raise
    finally:
        os.close(number)


def replace(path, text):
    """Writes a text file in one move: it is never half a file, and a full disk does not cost the one that was there."""
    with named(path), part_of(path) as part:
        part.write_text(text, newline='')


def shown(path):
    """An absolute pathlib.Path as a person would type it: without the working directory, if it lies in that."""
    return path.relative_to(pathlib.Path.cwd()) if path.is_relative_to(pathlib.Path.cwd()) else path
