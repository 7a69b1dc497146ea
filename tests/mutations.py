"""Mutations of python/, each caught by a test that has become cheaper: python tests/mutations.py [words of a test id]

Each is made in a copy of the repository, where its test alone is run; status 1 if one is not caught. To go when
the tests are as cheap as they shall be.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

MUTATIONS = [  # (test, old text, which one file of python/ holds, new text)
    # ---------------------------------------------------------------------------------------------- test_program.py
    ('test_program.py::test_the_start_leaves_out_what_keras_imports_for_wrappers',
     "for name in ('sklearn', 'pandas', 'matplotlib') if", "for name in ('matplotlib',) if"),
    ('test_program.py::test_the_start_leaves_out_what_keras_imports_for_wrappers',
     '            del sys.modules[name]\n', '            pass\n'),
    ('test_program.py::test_what_keras_and_matplotlib_read_changes_no_run',
     "TF_USE_LEGACY_KERAS='0', KERAS_HOME=os.devnull,", "TF_USE_LEGACY_KERAS='0',"),
    ('test_program.py::test_what_keras_and_matplotlib_read_changes_no_run',
     "if name.startswith('KERAS_')]", 'if False]'),
    ('test_program.py::test_all_three_standard_files_may_be_closed_and_nothing_is_left_in_the_home',
     'return len(os.sched_getaffinity(0)) if', 'return 1 + len(os.sched_getaffinity(0)) if'),
    ('test_program.py::test_all_three_standard_files_may_be_closed_and_nothing_is_left_in_the_home',
     '    _open_standard_files()\n    _import', '    _import'),
    ('test_program.py::test_importing_is_silent', 'import zlib\nfrom functools import cache',
     'import zlib\nimport mlxtend\nfrom functools import cache'),
    ('test_program.py::test_a_reader_that_has_gone_costs_no_traceback',
     'os.dup2(os.open(os.devnull, os.O_WRONLY), 1)', 'raise'),
    ('test_program.py::test_a_working_directory_that_is_gone_is_named',
     "            except FileNotFoundError as error:\n                raise RunError('the working",
     "            except IsADirectoryError as error:\n                raise RunError('the working"),
    ('test_program.py::test_ctrl_c_during_the_imports_costs_no_traceback',
     'signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C', 'pass  # Ctrl-C'),
    ('test_program.py::test_ctrl_c_during_the_imports_costs_no_traceback',
     'if signal.getsignal(signal.SIGINT) != signal.SIG_IGN and not in_notebook', 'if not in_notebook'),
    ('test_program.py::test_a_signal_that_comes_while_an_object_is_deleted_is_not_lost',
     'isinstance(lost.exc_value, SystemExit) and', 'isinstance(lost.exc_value, KeyboardInterrupt) and'),
    ('test_program.py::test_a_signal_that_comes_while_an_object_is_deleted_is_not_lost',
     'if signal.getsignal(number) == signal.SIG_DFL:  # as', 'if number == signal.SIGTERM:  # as'),
    ('test_program.py::test_a_notebook_runs_the_programs_one_after_the_other',
     'while _defined:', 'while False:'),
    ('test_program.py::test_a_notebook_runs_the_programs_one_after_the_other',
     "if hasattr(sys.stdout, 'reconfigure'):", 'if True:'),
    # ------------------------------------------------------------------------------------------------- test_main.py
    ('test_main.py::test_the_script_in_a_process_of_its_own',
     "raise program.RunError(f'{name} {figure:.4f} is", "print(f'{name} {figure:.4f} is"),
    ('test_main.py::test_the_script_in_a_process_of_its_own',
     'program.run(main, __doc__, FLAG_GROUPS)', 'main()'),
    ('test_main.py::test_the_default_folder_depends_on_what_changes_the_weights_and_on_nothing_else',
     "as zero, in evaluation.', changes_weights=False)", "as zero, in evaluation.')"),
    # ------------------------------------------------------------------------------------------ test_checkpoints.py
    ('test_checkpoints.py::test_kill_9_at_several_moments_changes_nothing',
     'run.restore(net=lenet, optimizer=optimizer,', 'run.restore(net=lenet,'),
    ('test_checkpoints.py::test_kill_9_at_several_moments_changes_nothing',
     '_start_session(self.folder / name, step)', '_start_session(self.folder / name, 0)'),
    ('test_checkpoints.py::test_a_signal_ends_with_a_checkpoint_and_until_then_another_run_is_refused',
     'raise program.Interrupted(run.signal, step)', 'break'),
    ('test_checkpoints.py::test_a_signal_ends_with_a_checkpoint_and_until_then_another_run_is_refused',
     'self.status = 128 + number', 'self.status = number'),
    ('test_checkpoints.py::test_the_first_signal_is_a_request_and_the_second_ends_the_process',
     'if signal.getsignal(number) != signal.SIG_IGN:\n', 'if number != signal.SIGHUP:\n'),
    ('test_checkpoints.py::test_a_signal_ends_with_a_checkpoint_and_until_then_another_run_is_refused',
     'kind=fcntl.LOCK_EX', 'kind=fcntl.LOCK_SH'),
    ('test_checkpoints.py::test_a_full_disk_costs_one_line_and_no_checkpoint',
     'except (tf.errors.OpError, OSError) as error:\n            with contextlib.suppress(OSError):  # an empty',
     'except OSError as error:\n            with contextlib.suppress(OSError):  # an empty'),
    ('test_checkpoints.py::test_a_larger_max_steps_extends_a_finished_run',
     'step % settings.checkpoint_interval == 0 or step == settings.max_steps:',
     'step % settings.checkpoint_interval == 0:'),
    ('test_checkpoints.py::test_it_says_when_a_run_goes_on_in_other_surroundings',
     'if before.get(name) != self._start.get(name)]', 'if before.get(name) == self._start.get(name)]'),
    ('test_checkpoints.py::test_a_run_of_before_the_starts_has_one',
     "for path in (folder / 'checkpoints').glob('step-*')\n",
     "for path in (folder / 'checkpoints').glob('step-*') if (folder / 'checkpoints/checkpoint').exists()\n"),
    ('test_checkpoints.py::test_a_run_of_before_the_starts_has_one',
     "[{'step': 0, **found['versions']}] if 'versions' in found else [])", '[])'),
    ('test_checkpoints.py::test_a_start_is_void_from_the_step_at_which_the_next_one_begins',
     "for start in self.facts['starts'] if start['step'] < step]", "for start in self.facts['starts']]"),
    ('test_checkpoints.py::test_what_killed_starts_have_left_goes_and_nothing_else',
     "if re.fullmatch(r'step-\\d+_temp', path.name):", "if path.name.endswith('_temp'):"),
    ('test_checkpoints.py::test_what_killed_starts_have_left_goes_and_nothing_else',
     '[old for old in found if old <= step][:-3]', 'found[:-3]'),
    ('test_checkpoints.py::test_a_damaged_checkpoint_is_passed_over_with_a_warning',
     'except Exception as error:  # a damaged file', 'except OSError as error:  # a damaged file'),
    ('test_checkpoints.py::test_a_falling_rate_continues_bit_for_bit_and_keeps_its_length',
     'run.restore(net=lenet, optimizer=optimizer,', 'run.restore(net=lenet,'),
    ('test_checkpoints.py::test_evaluations_that_are_made_again_have_one_row',
     'evaluations.Evaluations(path, step, self', 'evaluations.Evaluations(path, 0, self'),
    ('test_checkpoints.py::test_a_run_holds_no_more_the_longer_it_is',
     'self.steps, self.seconds = 0, 0.0\n        self._show',
     "self.kept = [*getattr(self, 'kept', ()), (sparsity, norms, test)]\n        self._show"),
    ('test_checkpoints.py::test_nothing_of_a_run_outlives_it_and_tensorflow_does_not_warn',
     '.get_concrete_function(*train_set, tf.TensorSpec([], tf.int32))', ''),
    # --------------------------------------------------------------------------------------------- test_compare.py
    ('test_compare.py::test_several_at_once_through_xargs_give_the_same_rows',
     'print(shlex.join(job.command))', "print(' '.join(job.command))"),
    ('test_compare.py::test_several_at_once_through_xargs_give_the_same_rows',
     "'learning_rate', 'final_learning_rate', 'eval_interval')}", "'learning_rate', 'eval_interval')}"),
    ('test_compare.py::test_kill_9_loses_no_row_and_doubles_none',
     'status = 0 if job.row() and job.key not in again else job.train()', 'status = job.train()'),
    ('test_compare.py::test_a_signal_reaches_the_run_which_writes_its_checkpoint',
     'process.terminate()', 'process.kill()'),
    ('test_compare.py::test_a_run_that_fails_is_named_and_the_others_go_on',
     'return process.wait()', 'return process.wait() and 2'),
    ('test_compare.py::test_a_run_that_fails_is_named_and_the_others_go_on',
     "(status {status}, see {job.folder}.log)'", "(status 0, see {job.folder}.log)'"),
    ('test_compare.py::test_retrainings_and_baselines_have_rows_of_their_own',
     "'steps': shared['steps'] + retrain_steps}", "'steps': shared['steps']}"),
    ('test_compare.py::test_retrainings_and_baselines_have_rows_of_their_own',
     "Retraining(dense[run['seed']], retrain_steps, left)", "Retraining(dense[run['seed']], retrain_steps)"),
    # ------------------------------------------------------------------------------------------- test_illustrate.py
    ('test_illustrate.py::test_recorded_norms_are_those_of_the_run',
     'main.group_norms(main.sparsify(', 'main.tf.abs(main.sparsify('),
    ('test_illustrate.py::test_one_command_records_and_draws',
     'for variance in (0, values[', 'for variance in (0.02, values['),
    ('test_illustrate.py::test_one_command_records_and_draws',
     'draw_animation(runs, drawn[1])', 'pass'),
    ('test_illustrate.py::test_bad_input_costs_one_line',
     'if settings[0] == settings[1]:', 'if False:'),
    ('test_illustrate.py::test_a_file_without_two_runs_is_refused',
     'if len(runs) != 2 or steps[0] != steps[1]:', 'if False:'),
    # -------------------------------------------------------------------------------------------- test_benchmark.py
    ('test_benchmark.py::test_onednns_kernels_give_tensorflows_values_and_gradients',
     "os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')", "os.environ['TF_ENABLE_ONEDNN_OPTS'] = '1'"),
    ('test_benchmark.py::test_onednns_kernels_give_tensorflows_values_and_gradients',
     "os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')", "os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')"),
    ('test_benchmark.py::test_the_command_shows_every_row', 'settings, count)) / count', 'settings, count)) * 0'),
    ('test_retrain.py::test_kill_9_changes_nothing',
     'run.restore(net=lenet, optimizer=optimizer,', 'run.restore(net=lenet,'),
    ('test_retrain.py::test_the_accuracy_of_a_retrained_compressed_net_is_numpys',
     'lenet.hold_zeros()', 'pass'),
    ('test_retrain.py::test_random_connections_stay_off', 'lenet.hold_zeros()', 'pass'),
    ('test_retrain.py::test_a_run_that_has_gone_on_is_known_and_another_is_refused',
     "begun['start']['identity'] != facts['identity']", 'False'),
    ('test_retrain.py::test_it_goes_on_to_the_bit_with_and_without_its_run',
     'run.restore(net=lenet, optimizer=optimizer,', 'run.restore(net=lenet,'),
    ('test_retrain.py::test_a_retraining_can_be_retrained',
     "**({'start': facts['start']} if 'start' in facts else {})}, weights", '}, weights'),
    # --------------------------------------------------------------------------------------------- test_compress.py
    ('test_compress.py::test_another_function_is_an_error_and_leaves_nothing',
     'if not largest <= bound:', 'if largest > bound:'),
    ('test_compress.py::test_a_run_with_nothing_left_is_exported_as_the_constant_that_it_is',
     "name == 'dense' or has_chain(net) for", 'True for'),
    ('test_readme.py::test_the_example_for_your_own_model_runs_in_a_folder_of_its_own',
     'def cut(model, threshold=1e-3)', 'def cut(model, limit=1e-3)'),
    ('test_loops.py::test_fifty_steps_give_the_ordinary_ones', 'x / lenet.keep_probability, 0)', 'x, 0)'),
    ('test_loops.py::test_the_bits_do_not_depend_on_the_steps_of_a_call',
     'draw(tf.constant(begun + done,', 'draw(tf.constant(done,'),
    ('test_loops.py::test_a_step_that_is_not_finite_stops_within_a_call_and_is_explained_as_ever',
     'tf.where(goes_on & finite, variable, value)', 'tf.where(goes_on, variable, value)'),
    ('test_loops.py::test_no_step_is_no_step', 'goes_on = finite & (i < count)', 'goes_on = finite'),
    ('test_compress.py::test_both_files_give_the_logits_without_this_code',
     'module.all = [variable.value for variable in net.variables]', 'module.all = []'),
    ('test_compress.py::test_data_that_have_moved_or_changed',
     "data_dir or facts['data'].get('data_dir')", "facts['data'].get('data_dir')"),
    ('test_compress.py::test_data_that_have_moved_or_changed',
     "if checkpoints.content(data) != facts['identity']['train_sha256']:", 'if False:'),
    ('test_compress.py::test_a_kill_on_the_way_leaves_no_half_output',
     'with files.part_of(path, folder=True) as part:\n            yield part',
     'part = path\n        part.mkdir(exist_ok=True)\n        yield part'),
]


def run(folder, test):
    """pytest's exit status for the test in the folder, with whatever it leaves behind ended: 1 if it fails."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, '-m', 'pytest', '-q', '-n0', '--slow', '-p', 'no:cacheprovider', f'tests/{test}',
             f'--basetemp={folder}.tmp'], cwd=folder, stdout=output, stderr=output, start_new_session=True)
        try:
            return process.wait(timeout=900)
        except subprocess.TimeoutExpired:
            return 'too long'
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            shutil.rmtree(f'{folder}.tmp', ignore_errors=True)


def mutate(folder, old, new):
    """Changes the one file of python/ that holds the text."""
    texts = {path: path.read_text() for path in (folder / 'python').glob('*.py')}
    path, = (path for path, text in texts.items() if old in text)
    if (found := texts[path].count(old)) != 1:
        raise ValueError(f'{found} times in {path.name}')
    path.write_text(texts[path].replace(old, new))


def main():
    missed = []
    for test, old, new in MUTATIONS:
        if any(word not in test for word in sys.argv[1:]):
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch) / 'copy'
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns('.git', '__pycache__', 'logs', '.*_cache'))
            try:
                mutate(folder, old, new)
                status = run(folder, test)
            except ValueError as error:
                status = f'no such text ({error})'
        said = {0: 'MISSED', 1: 'caught'}.get(status, f'NOT RUN: {status}')
        missed += [test] * (status != 1)
        print(f'{said:8} {time.monotonic() - started:5.0f} s  {test}  {old.strip().splitlines()[0]!r}', flush=True)
    sys.exit(bool(missed))


if __name__ == '__main__':
    main()
