"""What a program needs around its work: surroundings that TensorFlow can start in, a command line, errors of one line.

    if __name__ == '__main__':
        import program
        program.prepare()

    import tensorflow as tf
"""

import contextlib
import dataclasses
import errno
import fcntl
import os
import pathlib
import platform
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading


class RunError(Exception):
    """Something that the user can mend; the message says what, in one line, and what to do."""


class Interrupted(Exception):
    """A signal has ended the run, after a checkpoint; `status` is the exit status that a shell expects."""

    def __init__(self, number, step):
        super().__init__(f'stopped by {signal.Signals(number).name} at step {step:,}: '
                         'the same command continues from there.')
        self.status = 128 + number


class Stopped(SystemExit):
    """A signal has come where no run takes it as a request to stop."""

    def __init__(self, number):
        super().__init__(128 + number)
        self.number = number


def prepare():
    """Settles what TensorFlow and Keras read from the environment while they are imported; call it before that.

    The numbers of a run depend on the first of these lines:

    - oneDNN's kernels also on CPUs without AVX-512, where TensorFlow's own take twice as long for a convolution's input
      gradient (python/benchmark.py measures it), unless the user has chosen.
    - Keras as TensorFlow brings it: no other backend, no legacy Keras, and no keras.json, whose floatx would change the
      learning rate.
    - No matplotlib backend of a notebook that has started this process.
    - No scikit-learn, pandas and matplotlib for Keras, which imports them where they are installed, for wrappers that
      no run needs: half the time of the start.

    In a notebook itself, TensorFlow may be there already, and the screen, Ctrl-C and matplotlib are the notebook's.
    """
    in_notebook = 'IPython' in sys.modules
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN and not in_notebook:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, absl's too: no page of traceback
    from absl import flags
    for name in [*flags.FLAGS]:
        if flags.FLAGS[name] in _defined:  # by an earlier program of a notebook
            delattr(flags.FLAGS, name)
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
    for name in [name for name in os.environ if name.startswith('KERAS_')]:
        del os.environ[name]
    os.environ.update(KERAS_BACKEND='tensorflow', TF_USE_LEGACY_KERAS='0', KERAS_HOME=os.devnull)
    if in_notebook:
        return
    os.environ['MPLBACKEND'] = 'agg'
    _open_standard_files()
    _import_tensorflow_quietly()


def check_keras():
    """Raises RunError if Keras is not as `prepare` has it, in a process that did without."""
    import keras
    legacy = os.environ.get('TF_USE_LEGACY_KERAS', '0')
    for name, found, wanted in (("Keras's backend", keras.config.backend(), 'tensorflow'),
                                ("Keras's floatx", keras.config.floatx(), 'float32'),
                                ('TF_USE_LEGACY_KERAS', '1' if legacy.lower() == 'true' else legacy, '0')):
        if found != wanted:
            raise RunError(f'{name} is {found}, and a run needs {wanted}: choose that in keras.json or in the '
                           'environment, before Keras is imported.')


def _open_standard_files():
    """Whatever is closed of stdin, stdout and stderr is /dev/null: else the next file opened would take its place."""
    for number, name, mode in ((0, 'stdin', 'r'), (1, 'stdout', 'w'), (2, 'stderr', 'w')):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest number that is free
            setattr(sys, name, open(number, mode, closefd=False))


def _import_tensorflow_quietly():
    """Imports TensorFlow and looks for devices, with the start-up noise, but not the errors, kept off the screen.

    Keras, which comes with it, is kept from what it imports only where it is installed, see `prepare`.

    TF_CPP_MIN_LOG_LEVEL alone leaves what is printed before TensorFlow reads it. The lines pass through a process of
    their own, so that the last words of a TensorFlow that aborts are heard.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    noise = r'WARNING: All log messages before|[IW]\d{4} |To enable the following instructions'
    if not (os.path.exists('/dev/nvidia0') or os.path.exists('/dev/dxg')):
        noise += r'|E\d{4} .*failed call to cuInit'  # no error on a machine without a GPU
    code = f'import re, sys\nfor line in sys.stdin:\n    re.match({noise!r}, line) or sys.stderr.write(line)'
    # A session of its own: Ctrl-C is not for it.
    quiet = subprocess.Popen([sys.executable, '-I', '-S', '-c', code], stdin=subprocess.PIPE, start_new_session=True)
    stderr = os.dup(2)
    os.dup2(quiet.stdin.fileno(), 2)
    unwanted = {name for name in ('sklearn', 'pandas', 'matplotlib') if name not in sys.modules}
    sys.modules.update(dict.fromkeys(unwanted))  # None there makes an import fail, as if it were not installed
    try:
        import tensorflow
        tensorflow.config.list_physical_devices()
    finally:
        for name in unwanted:
            del sys.modules[name]
        os.dup2(stderr, 2)
        os.close(stderr)
        quiet.communicate()


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()  # the former on Linux


def surroundings():
    """What the last bits of a run depend on besides its settings: versions, and what sums are split over."""
    import numpy
    import tensorflow
    return {'python': platform.python_version(), 'tensorflow': tensorflow.__version__, 'numpy': numpy.__version__,
            'cores': cores(), 'oneDNN': os.environ.get('TF_ENABLE_ONEDNN_OPTS', "TensorFlow's default")}


def device():
    """What the arithmetic is done on: cpu, or the name of the first GPU."""
    import tensorflow as tf
    gpus = tf.config.list_physical_devices('GPU')
    return tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'gpu') if gpus else 'cpu'


# Environment variables that change bits on a CPU, all that we know: of those tried (thirty), with each of these the
# weights after 30 steps of the README's first command are others; TF_ENABLE_ONEDNN_OPTS stands in `surroundings`.
CHANGE_BITS = ('TF_NUM_INTRAOP_THREADS', 'ONEDNN_MAX_CPU_ISA', 'DNNL_MAX_CPU_ISA', 'TF_ONEDNN_ASSUME_FROZEN_WEIGHTS',
               'TF_XLA_FLAGS')


def conditions():
    """All that the last bits of a run depend on besides its settings, as far as we know, by name."""
    return {**surroundings(), 'processor': processor(), 'device': device(),
            **{name: os.environ[name] for name in CHANGE_BITS if name in os.environ}}


def first_line(error):
    """What an exception says, without the place and the pages that TensorFlow adds; its type if it says nothing."""
    said = re.sub(r'^\{\{function_node [^}]*\}\} ', '', str(error))
    return next(iter(said.splitlines()), type(error).__name__)


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


def _locked(place):
    """The descriptor of a file or folder that this process now holds; None if another does, or it is gone."""
    try:
        number = os.open(place, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(number), os.stat(place)):
            return number
    except OSError:
        pass
    os.close(number)
    return None


def _remove(place):
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


@contextlib.contextmanager
def part_of(path, folder=False):
    """A hidden file, or folder, beside `path`, which takes its name in one move when it is whole, and goes if it fails.

    Its maker holds it. What makers that were killed have left beside the same `path` is removed first.
    """
    pattern = re.compile(rf'\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part')
    for left in [left for left in path.parent.iterdir() if pattern.fullmatch(left.name)]:
        if (number := _locked(left)) is not None:
            _remove(left)
            os.close(number)
    number = None
    while number is None:  # another process may remove it before it is held
        part = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.part')
        part.mkdir() if folder else part.touch(exist_ok=False)
        number = _locked(part)
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
    try:
        with part_of(path) as part:
            part.write_text(text, newline='')
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def shown(path):
    """An absolute pathlib.Path as a person would type it: without the working directory, if it lies in that."""
    return path.relative_to(pathlib.Path.cwd()) if path.is_relative_to(pathlib.Path.cwd()) else path


def processor():
    """The CPU's name, as far as the system tells."""
    try:
        with open('/proc/cpuinfo') as file:
            return re.search(r'model name\s*: (.*)', file.read())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


# ------------------------------------------------------------------------------------------------------- settings

FLOAT32_MAX = 3.4e38
FLOAT32_MIN = 1.2e-38  # the smallest normal one: what is below is 0 to TensorFlow, and trains nothing


def setting(default, group, text, valid, bounds, changes_weights=True):
    """A field of a dataclass of Checked settings.

    Args:
      group: str, the heading of its flag in --help. text: what --help says of it.
      valid: function of a value to bool. bounds: what it asks for, as text. Chained comparisons let no NaN through.
      changes_weights: whether runs that differ in it are different runs; it may be changed when a run goes on if not.
    """
    return dataclasses.field(default=default, metadata={
        'group': group, 'text': text, 'valid': valid, 'bounds': bounds, 'changes_weights': changes_weights})


def is_positive(x):
    """Whether float32 holds a number, and not as 0."""
    return FLOAT32_MIN <= x <= FLOAT32_MAX


def not_negative(default, group, text, **more):
    return setting(default, group, text, lambda x: x == 0 or is_positive(x),
                   'finite and at least 0; if above, at least 1.2e-38', **more)


def count(default, group, text, least=1, most=10**9, **more):
    """A whole number; the largest is far above any use, and keeps steps * batch size within int64."""
    return setting(default, group, text, lambda n: least <= n <= most, f'a whole number from {least} to {most}', **more)


def _whole(value):
    """An int of a str, an int or NumPy's equivalent; ValueError for anything that int() would round or guess at."""
    if str(int(value)) != str(value).strip():
        raise ValueError
    return int(value)


_KINDS = {int: _whole, float: float, tuple: lambda values: tuple(map(_whole, values))}


class Checked:
    """The base of a frozen dataclass of settings, which makes plain numbers of what it is given and checks them.

    Raises:
      RunError: a value is no number, or out of its bounds; the message names the flag.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, bounds = getattr(self, field.name), field.metadata['bounds']
            if value is None and field.default is None:
                continue
            try:
                number = _KINDS[field.type](value)
                valid = field.metadata['valid'](number)
            except (TypeError, ValueError, OverflowError):
                valid = False
            if not valid:
                shown = ','.join(map(str, value)) if isinstance(value, (list, tuple)) else value
                raise RunError(f'--{field.name}={shown}: must be {bounds}.')
            object.__setattr__(self, field.name, number)


# --------------------------------------------------------------------------------------------------- command line

_defined = []  # absl's flags that were defined here


def define_settings(settings, names=None, group=None, **defaults):
    """A flag for each setting, or for those of the `names`.

    Args:
      settings: a dataclass of Checked settings, which check the values.
      group: a heading for all of them, in place of their own.
      defaults: by name, in place of the settings' own.
    """
    for field in dataclasses.fields(settings):
        if names is None or field.name in names:
            default = defaults.get(field.name, field.default)
            kind = {tuple: 'list', int: 'integer', float: 'float'}[field.type]
            define(group or field.metadata['group'], kind, field.name,
                   ','.join(map(str, default)) if kind == 'list' and default else default, field.metadata['text'])


def define(group, kind, name, default, text, valid=None, bounds=None, **options):
    """A flag of absl's DEFINE_<kind>.

    Args:
      group: str, its heading in --help.
      valid: function of the value, if it is given, to bool. absl's own bounds let NaN through; a chained comparison
        does not.
      bounds: what `valid` asks for, as text.
      options: more arguments of absl's.
    """
    from absl import flags
    # allow_override: absl's logging has a log_dir, too.
    getattr(flags, f'DEFINE_{kind}')(name, default, help=text, module_name=group, allow_override=True, **options)
    _defined.append(flags.FLAGS[name])
    if valid:
        flags.register_validator(name, lambda value: value is None or valid(value), f'must be {bounds}')


def define_path(group, name, default, text, **options):
    define(group, 'string', name, default, text, lambda path: path != '', 'the name of a file or folder', **options)


def parse_flags(doc, groups, argv):
    """Parses a command line: --help shows the flags in their groups, and a bad flag costs one line.

    Args:
      doc: the program's docstring, for --help. groups: the headings of its flags.
      argv: the command line, the program's name first.
    """
    from absl import flags
    if {'-h', '-help', '--help', '--helpshort'} & set(argv[1:]):
        print(doc, *map(flags.FLAGS.module_help, groups), sep='\n', flush=True)
        sys.exit()
    try:
        stray = flags.FLAGS(argv)[1:]
    except (flags.Error, UnicodeDecodeError) as error:  # the latter of a --flagfile
        sys.exit(f'error: {str(error).rstrip(".")}. See --help.')
    if stray:
        sys.exit(f'error: unexpected argument {stray[0]}. See --help.')


@contextlib.contextmanager
def one_line_errors():
    """Ends the program with one line on stderr, and a status, for whatever its user can mend."""
    import tensorflow as tf
    try:
        yield
    except BrokenPipeError:  # whoever read the output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.status)
    except RunError as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        sys.exit(f'error: {error}' + '. Make room on that disk.' * (error.errno in (errno.ENOSPC, errno.EDQUOT)))
    except tf.errors.PermissionDeniedError as error:
        sys.exit(f'error: {first_line(error)}. Give a folder that you may write to.')
    except tf.errors.ResourceExhaustedError as error:
        sys.exit(f'error: {first_line(error)}. Give smaller --widths or a smaller --batch_size if it was memory that '
                 'ran out; make room if it was the disk.')
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


_signals = []  # that have come to `_stop`


def _stop(number, _):
    _signals.append(number)
    raise Stopped(number)


def _send_again(lost, hook=sys.unraisablehook):
    """Has a signal come once more if its exception was raised in a __del__, where Python drops it.

    TensorFlow's objects have many of these, and its converter collects garbage before it starts.
    """
    if isinstance(lost.exc_value, (Stopped, KeyboardInterrupt)):
        number = getattr(lost.exc_value, 'number', signal.SIGINT)
        threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, number)).start()
    else:
        hook(lost)


def run(main, doc, groups):
    """Runs a program: `main`, a function without arguments, once the command line has been parsed."""
    from absl import app, logging

    def parse(argv):
        with one_line_errors():
            parse_flags(doc, groups, argv)

    def call(_):
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # `prepare` has set it
            signal.signal(signal.SIGINT, signal.default_int_handler)  # so that what is open is closed
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL and 'IPython' not in sys.modules:  # likewise
                signal.signal(number, _stop)
        if 'IPython' not in sys.modules:
            sys.unraisablehook = _send_again
        logging.set_verbosity(logging.ERROR)  # TensorFlow and TensorBoard tell of each file
        if hasattr(sys.stdout, 'reconfigure'):  # not in a notebook
            sys.stdout.reconfigure(line_buffering=True)  # a log file shows each line as it comes
        with one_line_errors():
            try:
                os.getcwd()
            except FileNotFoundError as error:
                raise RunError('the working directory is gone. Go to one that is there.') from error
            try:
                main()
            except Exception:  # TensorFlow may take the exception of a signal for a bad argument's
                if _signals:
                    raise Stopped(_signals[0]) from None
                raise

    app.run(call, flags_parser=parse)
