"""The process around TensorFlow: its environment, settled before the import; and what the bits of a run depend on.

    if __name__ == '__main__':
        import surroundings
        surroundings.prepare()

    import tensorflow as tf
"""

import os
import platform
import re
import signal
import subprocess
import sys

from program import RunError


def prepare():
    """Settles what TensorFlow and Keras read from the environment while they are imported; call it before that.

    The numbers of a run depend on these:

    - oneDNN's kernels also on CPUs without AVX-512, where TensorFlow's own take twice as long for a convolution's input
      gradient (python/benchmark.py measures it), unless the user has chosen.
    - float32 as such on a GPU: TF32 would round each factor to 11 bits.
    - Keras as TensorFlow brings it: no other backend, no legacy Keras, and no keras.json, whose floatx would change the
      learning rate.
    - Of a GPU's memory what is needed, unless the user has chosen: TensorFlow would leave none to a second process.
    - No matplotlib backend of a notebook that has started this process.
    - No scikit-learn, pandas and matplotlib for Keras, which imports them where they are installed, for wrappers that
      no run needs: half the time of the start.

    In a notebook itself, TensorFlow may be there already, and the screen, Ctrl-C and matplotlib are the notebook's.
    """
    in_notebook = 'IPython' in sys.modules
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN and not in_notebook:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports, absl's too: no page of traceback
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
    for name in [name for name in os.environ if name.startswith('KERAS_')]:
        del os.environ[name]
    os.environ.update(KERAS_BACKEND='tensorflow', TF_USE_LEGACY_KERAS='0', KERAS_HOME=os.devnull,
                      NVIDIA_TF32_OVERRIDE='0')
    os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
    if in_notebook:
        return
    os.environ['MPLBACKEND'] = 'agg'
    _open_standard_files()
    _import_tensorflow_quietly()


def fix_arithmetic():
    """Has this process compute the same bits each time, on a GPU too, in float32; call it before the first op."""
    import tensorflow as tf
    tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # of XLA; `prepare` tells NVIDIA's libraries


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


def versions():
    """What the last bits of a run depend on besides its settings: versions, and what sums are split over."""
    import keras  # whose optimizer and schedule a step has
    import numpy
    import tensorflow
    return {'python': platform.python_version(), 'tensorflow': tensorflow.__version__, 'keras': keras.__version__,
            'numpy': numpy.__version__, 'cores': cores(),
            'oneDNN': os.environ.get('TF_ENABLE_ONEDNN_OPTS', "TensorFlow's default")}


def device():
    """What the arithmetic is done on: cpu, or the name of the first GPU."""
    import tensorflow as tf
    gpus = tf.config.list_physical_devices('GPU')
    return tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'gpu') if gpus else 'cpu'


# Environment variables that change bits on a CPU, all that we know: of those tried (thirty), with each of these the
# weights after 30 steps of the README's first command are others; TF_ENABLE_ONEDNN_OPTS stands in `versions`. The last
# changes those of a compiled run.
CHANGE_BITS = ('TF_NUM_INTRAOP_THREADS', 'ONEDNN_MAX_CPU_ISA', 'DNNL_MAX_CPU_ISA', 'TF_ONEDNN_ASSUME_FROZEN_WEIGHTS',
               'TF_XLA_FLAGS', 'XLA_FLAGS')


def conditions():
    """All that the last bits of a run depend on besides its settings, as far as we know, by name."""
    return {**versions(), 'processor': processor(), 'device': device(),
            **{name: os.environ[name] for name in CHANGE_BITS if name in os.environ}}


def processor():
    """The CPU's name, as far as the system tells."""
    try:
        with open('/proc/cpuinfo') as file:
            return re.search(r'model name\s*: (.*)', file.read())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()
