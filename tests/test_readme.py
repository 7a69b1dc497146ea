"""The README says what the program does: commands, flags, names and the net's source."""

import dataclasses
import io
import math
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import textwrap

import docutils.core
import numpy as np
import pytest

import benchmark
import compare
import compress
import figure
import illustrate
import main
import pictures
import program
import retrain
from conftest import OUTSIDE, ROOT

README = (ROOT / 'README.rst').read_text()
WORDS = ' '.join(README.split())
LEVELS = [50.0, 60.0, 70.0, 80.0, 90.0]
COMMANDS = re.findall(r'^    (.*python .*)$', re.sub(r' *\\\n *', ' ', README), re.MULTILINE)  # a backslash goes on


def test_it_is_a_page_without_a_warning():
    warnings = io.StringIO()
    docutils.core.publish_string(README, writer='html5', settings_overrides={
        'warning_stream': warnings, 'syntax_highlight': 'none', 'embed_stylesheet': False})
    assert warnings.getvalue() == ''


def test_every_picture_is_there_is_small_and_is_made_by_a_command_of_the_readme():
    named = set(re.findall(r'_img/[a-z_0-9]+\.[a-z]+', README))
    assert {'_img/training.csv', '_img/idea.png', '_img/varianceloss.gif', '_img/comparison.csv'} <= named
    for name in [*named, *(path.relative_to(ROOT) for path in (ROOT / '_img').iterdir())]:
        assert 0 < (ROOT / name).stat().st_size < 1e6, name
    for tool in ('pictures.py --log_dir=', 'compare.py --figure', 'illustrate.py'):
        assert f'python python/{tool}' in README


def test_the_numbers_of_the_net_are_those_of_main():
    net = main.LeNet((28, 28, 1), main.Settings())
    weights, biases = (sum(v.shape.num_elements() for v in of.values()) for of in (net.weights, net.biases))
    assert f'{weights:,} weights and {biases:,} biases' in README
    _, activations = net.net(np.zeros((1, 28, 28, 1), np.float32), training_status=False)
    shapes = [' x '.join(map(str, main.max_pool_2x2(activations[name]).shape[1:])) for name in ('conv1', 'conv2')]
    outputs = [activations[name].shape[1] for name in ('fc1', 'fc2')]
    assert (f'to {shapes[0]} and {shapes[1]}; two dense layers (relu, dropout) of {outputs[0]} and {outputs[1]} '
            'outputs;') in WORDS


def test_every_flag_is_there_and_no_other(monkeypatch):
    ours = {flag.name for group in main.FLAG_GROUPS for flag in main.FLAGS.get_flags_for_module(group)}
    tools = set()
    monkeypatch.setattr(program, 'define', lambda group, kind, name, *_, **__: tools.add(name))
    for tool in (benchmark, compare, compress, illustrate, pictures, retrain):
        tool.define_flags()
    assert {'rounds', 'seeds', 'output_dir', 'curve', 'log_dir', 'widths'} < tools
    others = {'logdir', 'help', 'applications', 'sshlogin', 'array', 'wrap'}
    assert set(re.findall(r'--([a-z_0-9]+)', README)) - others == ours | tools


@pytest.mark.parametrize('command', [c for c in COMMANDS if 'main.py' in c])
def test_the_commands_parse(run_main, monkeypatch, command):
    made = []
    monkeypatch.setattr(main, 'main', lambda: made.append(main.Settings(**{
        field.name: main.FLAGS[field.name].value for field in dataclasses.fields(main.Settings)})))
    run_main(*shlex.split(command.split('main.py', 1)[1]))
    assert made


def test_the_example_for_your_own_model_runs_in_a_folder_of_its_own(tmp_path):
    start = README.index('.. code-block:: python', README.index('In your own model\n'))
    example = textwrap.dedent(re.match(r'.*\n\n((?:    .*\n|\n)+)', README[start:])[1])
    assert len([line for line in example.splitlines() if line]) <= 10
    (tmp_path / 'example.py').write_text(f'{example}\nprint("units:", small.layers[1].units)')
    shutil.copy(ROOT / 'python' / 'keras_pruning.py', tmp_path)
    done = subprocess.run([sys.executable, 'example.py'], cwd=tmp_path, env=OUTSIDE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout.split('units:')[1]) < 64 and (tmp_path / 'small.keras').exists()


@pytest.mark.parametrize('file', ['.ci/run', '.travis.yml', '.github/workflows/test.yml'])
def test_ci_runs_the_readmes_commands_the_slow_tests_and_the_linter_on_the_same_pythons(file):
    text = (ROOT / file).read_text()
    assert re.findall(r'"(3\.\d+)"', text) == ([] if file == '.ci/run' else ['3.11', '3.12', '3.13'])
    lines = [re.sub('^ *- (run: )?', '', line).split(' || exit 1')[0] for line in text.splitlines()]
    install, slow, lint, smoke = [line for line in lines if line.startswith('python ')]
    assert 'pytest' in install and install in COMMANDS
    assert slow == install.split(' && ')[1].replace('tests', '--slow -m slow tests')
    assert lint == 'python -m ruff check .'
    assert 'main.py' in smoke and smoke in COMMANDS


def measured(dataset='mnist', **columns):
    """The rows of a data set's comparison that have these values in these columns."""
    name = {'mnist': 'comparison.csv', 'cifar10': 'comparison_cifar10.csv'}[dataset]
    return figure.matching(figure.variant(compare.read(ROOT / '_img' / name)), dataset=dataset, **columns)


def grid(**columns):
    """The rows of the three seeds that the page is about; those of seeds 3 to 9 are being collected."""
    return [row for row in measured(widths='20-50-500-256', steps=10000, **columns) if int(row['seed']) < 3]


def test_the_tables_of_the_comparison_are_what_the_csv_gives():
    for table in (figure.run_table(measured(widths='20-50-500-256', steps=3000)),
                  figure.level_table(grid(), 0.01, 'mean_of_four', LEVELS)):
        assert figure.rst(table) in README


def test_the_pictures_are_of_the_csvs(tmp_path):
    for rows, end in ((grid(), ''), (measured('cifar10', steps=6000), '_cifar10')):
        figure.draw_drops(rows, 0.01, LEVELS, tmp_path / f'comparison{end}.png')
        figure.draw_alive(rows, 0.01, tmp_path / f'alive{end}.png')
    pictures.draw_curve(pictures.read_curve(ROOT / '_img' / 'training.csv'), tmp_path / 'training.png')
    drawn = {path.name: pictures.source(path) for path in tmp_path.iterdir()}
    assert len(set(drawn.values())) == len(drawn) == 5
    assert drawn == {name: pictures.source(ROOT / '_img' / name) for name in drawn}


def test_the_sparsities_of_the_papers_constants_are_those_of_the_curve():
    rows = {int(row['step']): row for row in pictures.read_curve(ROOT / '_img' / 'training.csv')}
    end = rows[max(rows)]
    assert f'--max_steps={max(rows)}``, seed 0' in WORDS
    assert (f'sparsity, {end["mean_of_five"]:.2%}; of the four regularised ones {end["mean_of_four"]:.2%}; global '
            f'{end["global_sparsity"]:.2%};') in WORDS
    of_five = [f'{rows[step]["mean_of_five"]:.1%}' for step in (0, 5000, 20000)]
    assert (f'that mean of five is {of_five[0]} at the start, {of_five[1]} after 5,000 steps, {of_five[2]} after '
            '20,000.') in WORDS


def test_the_table_of_cifar_10_is_what_the_csv_gives():
    table = figure.level_table(measured('cifar10', steps=6000), 0.01, 'mean_of_four', LEVELS)
    assert figure.rst(table) in README
    lengths = {row['steps']: f'{100 * float(row["validation_accuracy"]):.1f}%'
               for row in measured('cifar10', method='dense', seed=0)}
    assert (f'at {lengths["5000"]} of the validation images after 5,000 steps, at {lengths["6000"]} after 6,000, and '
            f'at {lengths["12000"]} after 12,000') in WORDS


def test_the_verdict_on_cifar_10_is_what_the_csv_gives():
    rows, seeds = measured('cifar10', steps=6000), ('0', '1', '2')
    by_layers, by_macs, by_weights = (figure.drops(rows, 0.01, measure, LEVELS)
                                      for measure in ('mean_of_four', figure.MACS_SAVED, 'global_sparsity'))
    ssl, gss = by_layers['ssl'][90], by_layers['gss'][90]
    times = [f'{ssl[seed] / gss[seed]:.2f}' for seed in seeds]
    assert f'SSL loses {times[0]}, {times[1]} and {times[2]} times as much as GSS' in WORDS
    ssl, gss, scn = (statistics.mean(by_layers[name][90].values()) for name in ('ssl', 'gss', 'scn'))
    assert f'2.6 times at 90% became {ssl / gss:.1f}' in WORDS and scn < min(ssl, gss)
    assert f'about {ssl:.0f} points for SSL, {gss:.0f} for GSS and {scn:.0f} for random' in WORDS
    assert ssl > 20 * figure.PAPER['ssl'][90] and gss > 20 * figure.PAPER['gss'][90]
    verdicts = [line[-1] for line in figure.level_table(rows, 0.01, figure.MACS_SAVED, LEVELS)[1:]]
    assert verdicts == ['no difference seen'] * 2 + ['GSS loses less'] * 2 + ['no difference seen']
    ssl, gss = ([statistics.mean(by_macs[name][level].values()) for level in (70, 80)] for name in ('ssl', 'gss'))
    assert f'{gss[0]:.2f} and {gss[1]:.2f} points against {ssl[0]:.2f} and {ssl[1]:.2f}.' in WORDS
    ssl, gss = (statistics.mean(by_weights[name][90].values()) for name in ('ssl', 'gss'))
    assert f'{scn:.2f} points at 90% where SSL loses {ssl:.2f} and GSS {gss:.2f}.' in WORDS and scn > max(ssl, gss)

    def gained(lasso, *columns):
        """By GSS over SSL at equal lambda_g, in the sum of these columns: the least and the most of the seeds."""
        ssl, gss = ({row['seed']: sum(float(row[column]) for column in columns) for row in figure.matching(
            rows, method=name, group_lasso=lasso)} for name in ('ssl', 'gss'))
        return [pick(gss[seed] - ssl[seed] for seed in seeds) for pick in (min, max)]
    points = ['{:.2f} to {:.2f}'.format(*(100 * share for share in gained(lasso, 'test_accuracy')))
              for lasso in (0.016, 0.03, 0.05)]
    assert f'by {points[0]} points at 0.016, {points[1]} at 0.03 and {points[2]} at 0.05' in WORDS
    kept = [gained(lasso, *(f'alive_{layer}' for layer in main.REGULARISED))[0] for lasso in (0.016, 0.03, 0.05)]
    assert kept[0] < 0 < min(kept[1:])


def test_how_many_verdicts_a_t_test_would_leave():
    found = {}
    for dataset, rows in (('mnist', grid()), ('cifar10', measured('cifar10', steps=6000))):
        for measure in (*figure.MEASURES, figure.MACS_SAVED):
            drops = figure.drops(rows, 0.01, measure, LEVELS)
            for level in LEVELS:
                more = figure.paired_differences(drops, level)
                if 'GSS' in figure.verdict(more, figure.noise(rows)):
                    found[dataset, measure, level] = abs(statistics.mean(more)) / statistics.stdev(more) * math.sqrt(3)
    assert len(found) == 9 and [key for key, t in found.items() if t > 4.303] == [  # two degrees of freedom
        ('mnist', figure.MACS_SAVED, 60), ('mnist', figure.MACS_SAVED, 70)]
    assert ('of the nine on this page a paired t-test at 5% leaves two, at 60 and 70% of the MACs saved on MNIST'
            in WORDS)


def test_what_ssl_loses_with_half_of_the_multiply_accumulates():
    dense, ssl = (sorted(grid(**of), key=lambda row: row['seed']) for of in (
        {'method': 'dense'}, {'method': 'ssl', 'group_lasso': 0.001}))
    lost = [100 * (float(a['test_accuracy']) - float(b['test_accuracy'])) for a, b in zip(dense, ssl, strict=True)]
    left = statistics.mean(int(b['macs']) / int(a['macs']) for a, b in zip(dense, ssl, strict=True))
    assert f'SSL loses {figure.spread(lost)} with {left:.0%} left' in WORDS


def test_the_hours_of_the_grid_are_those_of_the_csv():
    rows = [row for row in grid() if row['group_variance'] in ('0', '0.01')]
    hours = sum(float(row['seconds'] or 0) for row in rows) / 3600
    assert f'All {len(rows)} rows are there: to repeat it, {hours:.0f} hours of one core' in WORDS


def test_the_drops_by_global_sparsity_are_those_of_the_csv():
    rows = grid()
    _, *table = figure.level_table(rows, 0.01, 'global_sparsity', LEVELS)
    assert {line[-1] for line in table} == {'no difference seen'}
    drops = figure.drops(rows, 0.01, 'global_sparsity', LEVELS)
    more = [[drops['gss'][level][seed] - lost for seed, lost in drops['ssl'][level].items()] for level in LEVELS]
    means = [statistics.mean(of) for of in more]
    assert min(map(min, more)) > 0
    assert f'in every seed at all five, by {min(means):.2f} to {max(means):.2f} points' in WORDS
    at_80, at_90 = ([line[column] for column in (1, 2, 3)] for line in table[-2:])
    assert (f'at 90% SCN lose {at_90[0]} points, SSL {at_90[1]} and GSS {at_90[2]}; at 80% {at_80[0]}, {at_80[1]} and '
            f'{at_80[2]}.') in WORDS


def test_the_drops_by_multiply_accumulates_are_those_of_the_csv():
    _, *table = figure.level_table(grid(), 0.01, figure.MACS_SAVED, LEVELS)
    assert [line[-1] for line in table] == 4 * ['GSS loses more'] + ['no difference seen']
    ssl, gss = ([line[column].split()[0] for line in table[:4]] for column in (2, 3))
    assert (f'GSS loses more than SSL in every seed at 50, 60, 70 and 80% saved: {gss[0]}, {gss[1]}, {gss[2]} and '
            f'{gss[3]} points against {ssl[0]}, {ssl[1]}, {ssl[2]} and {ssl[3]}.') in WORDS


def test_the_drops_at_another_lambda_v_are_those_of_the_csv():
    found = figure.drops(grid(seed=0), 1, 'mean_of_four', [50, 60, 70, 80])
    gss, ssl = (['{:.2f}'.format(*of.values()) for of in found[name].values() if of] for name in ('gss', 'ssl'))
    assert len(gss) == 3 and (f'GSS loses {gss[0]}, {gss[1]} and {gss[2]} points at 50, 60 and 70% where SSL loses '
                              f'{ssl[0]}, {ssl[1]} and {ssl[2]}; 80% is not reached') in WORDS


def test_the_drops_at_the_default_widths_are_those_of_the_csv():
    rows = measured(widths='64-128-512-256')
    assert figure.rst(figure.run_table(rows)) in README
    ssl, gss = (figure.drops(rows, 0.01, 'mean_of_four', [85, 88, 90])[name] for name in ('ssl', 'gss'))
    assert f'At 90% SSL loses {ssl[90]["0"]:.2f}, where in the paper GSS loses {figure.PAPER["gss"][90]}' in WORDS
    (less, more), (less_88, more_88) = ((gss[level]['0'], ssl[level]['0']) for level in (85, 88))
    assert f'{less:.2f} and {more:.2f} points at 85%, {less_88:.2f} and {more_88:.2f} at 88%' in WORDS
    assert more - less == pytest.approx(0.1, abs=0.04) == more_88 - less_88


def test_the_largest_norm_is_where_the_readme_says():
    rows = measured(group_lasso=0.004, group_variance=0.01)
    assert len(rows) >= 3 and '(4 lambda_v / lambda_g * G^2 / (G - 1))^(1/5)' in README
    for row in rows:
        for layer, groups in zip(('fc1', 'fc2'), map(int, row['widths'].split('-')[2:]), strict=True):
            largest = float(row[f'norms_{layer}'].split()[0])
            assert math.isclose(largest, (4 * 0.01 / 0.004 * groups**2 / (groups - 1))**0.2, rel_tol=0.01)
            if row['widths'] == '20-50-500-256':
                assert f'{largest:.2f}' in README


def test_the_names_in_the_map_exist():
    table = README[README.index('From the paper to the program'):README.index('Beside it stand')]
    names = [name for name in re.findall('``([A-Za-z_.0-9]+)``', table) if not name.startswith(('-', 'python'))]
    assert len(names) >= 15
    for name in names:
        thing = main
        for part in name.split('.'):
            thing = getattr(thing, part)
