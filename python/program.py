"""What a program needs around its work: errors of one line, settings that check themselves, a command line."""

import contextlib
import dataclasses
import errno
import os
import re
import signal
import sys
import threading


class RunError(Exception):
    """Something that the user can mend; the message says what, in one line, and what to do."""


class Interrupted(Exception):
    """A signal has ended the run, after a checkpoint or its end; `status` is the exit status that a shell expects."""

    def __init__(self, number, step, then='the same command continues from there'):
        super().__init__(f'stopped by {signal.Signals(number).name} at step {step:,}: {then}.')
        self.status = 128 + number


def first_line(error):
    """What an exception says, without the place and the pages that TensorFlow adds; its type if it says nothing."""
    said = re.sub(r'^\{\{function_node [^}]*\}\} ', '', str(error))
    return next(iter(said.splitlines()), type(error).__name__)


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

_defined = []  # names of flags


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
    _defined.append(name)
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
    if flags.FLAGS.find_module_defining_flag('log_dir') == 'absl.logging':  # of which nothing here takes notice
        delattr(flags.FLAGS, 'log_dir')
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
        sys.exit(f'error: {first_line(error)}. Give a smaller net or smaller batches if it was memory that ran '
                 'out; make room if it was the disk.')
    except KeyboardInterrupt:  # of a notebook
        sys.exit(128 + signal.SIGINT)


_signals = []  # that have come where no run takes them as a request to stop


def _stop(number, _):
    _signals.append(number)
    sys.exit(128 + number)  # so that what is open is closed


def _send_again(lost, hook=sys.unraisablehook):
    """Has a signal come once more if its exception was raised in a __del__, where Python drops it.

    TensorFlow's objects have many of these, and its converter collects garbage before it starts.
    """
    if isinstance(lost.exc_value, SystemExit) and _signals:
        threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, _signals[-1])).start()
    else:
        hook(lost)


def run(main, doc, groups):
    """Runs a program: `main`, a function without arguments, once the command line has been parsed."""
    from absl import app, flags, logging

    def parse(argv):
        with one_line_errors():
            parse_flags(doc, groups, argv)

    def call(_):
        if 'IPython' not in sys.modules:  # a notebook has its own
            sys.unraisablehook = _send_again
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) == signal.SIG_DFL:  # as `surroundings.prepare` has set SIGINT; not ignored
                    signal.signal(number, _stop)
        logging.set_verbosity(logging.ERROR)  # TensorFlow and TensorBoard tell of each file
        if hasattr(sys.stdout, 'reconfigure'):  # not in a notebook
            sys.stdout.reconfigure(line_buffering=True, errors='replace')  # a log file shows each line as it comes
        with one_line_errors():
            try:
                os.getcwd()
            except FileNotFoundError as error:
                raise RunError('the working directory is gone. Go to one that is there.') from error
            try:
                main()
            except Exception:  # TensorFlow may take the exception of a signal for a bad argument's
                if _signals:
                    sys.exit(128 + _signals[-1])
                raise

    try:
        app.run(call, flags_parser=parse)
    finally:  # in a notebook, the next program has flags of its own
        while _defined:
            delattr(flags.FLAGS, _defined.pop())
