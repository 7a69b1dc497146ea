"""The CSV of compare.py through other programs' hands: spreadsheets, merges, full disks."""

import resource

import pytest

import compare
from conftest import ROOT
from program import RunError
from rows import COLUMNS, append, checked, read, written

SHIPPED = ROOT / '_img' / 'comparison.csv'


@pytest.fixture(scope='module')
def four():
    """Rows of different methods that were measured, with all cells."""
    return [row for row in read(SHIPPED) if row['seed'] == '3'][:4]


@pytest.fixture
def path(four, tmp_path):
    path = tmp_path / 'it.csv'
    path.write_text(written(four, header=True))
    return path


def as_spreadsheets_write(name, cell):
    """0.0 for 0, 1.00E-05, 3.0 for 3: what pandas and others make of a column of numbers."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    return f'{number:.5E}' if 0 < number < 1e-4 else f'{number:.12f}' if number < 1e5 else f'{number:.1f}'


@pytest.mark.parametrize('name', ['comparison.csv', 'comparison_cifar10.csv'])
def test_numbers_count_and_not_their_spellings(tmp_path, name):
    rows = read(ROOT / '_img' / name)
    spelled = [{column: as_spreadsheets_write(column, cell) for column, cell in row.items()} for row in rows]
    assert spelled != rows
    (tmp_path / 'it.csv').write_text(written(spelled, header=True).replace('\n', '\r\n'))
    found = read(tmp_path / 'it.csv')
    assert [{**row, 'device': '', 'versions': ''} for row in found] == [
        {**row, 'device': '', 'versions': ''} for row in rows]
    before = (tmp_path / 'it.csv').read_bytes()
    append(tmp_path / 'it.csv', rows[-1])  # that is there
    assert (tmp_path / 'it.csv').read_bytes() == before


@pytest.mark.parametrize('name, value', [('seed', '3.5'), ('macs', '1e999'), ('alive_fc1', 'six'),
                                         ('norms_fc2', '1,5 2'), ('zero_fc1', '1.5'), ('steps', ''),
                                         ('retrain_steps', ''), ('sparsity_threshold', '')])
def test_what_is_no_number_is_refused_by_name(path, four, name, value):
    path.write_text(written([four[0], {**four[1], name: value}], header=True))
    with pytest.raises(RunError, match=f'in the row of {four[1]["method"]}, seed .*, {name} cannot be '
                                       f"'{value}'\\. Mend"):
        read(path)


def test_a_file_from_excel_and_one_without_a_head(path, four):
    text = path.read_text()
    path.write_text('\ufeff' + text.replace('\n', '\n' + ',' * (len(COLUMNS) - 1) + '\n', 1).replace('\n', '\r\n'))
    assert read(path) == four  # its mark, and a row that was cleared
    append(path, new := {**four[0], 'seed': '99'})
    assert read(path) == [*four, new]
    for content, words in (('\n\n' + text, 'other columns'), ('\n', 'other columns'),
                           (text.replace(',', ';'), 'other columns'), ('mine,' + text, 'other columns .*mine')):
        path.write_text(content)
        with pytest.raises(RunError, match=words):
            append(path, new)
        assert path.read_text() == content


def test_a_full_disk_is_named(path, four):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        with pytest.raises(OSError, match='it.csv'):
            append(path, {**four[0], 'seed': '99'})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize('text', ['a\n', 'a\rb'])
def test_a_line_break_in_a_cell_is_refused(four, text):
    with pytest.raises(ValueError, match='versions cannot be'):
        checked({**four[0], 'versions': text})


def test_the_same_row_twice_counts_once_whatever_the_machine(path, four):
    again = {**four[1], 'seconds': '1', 'versions': 'others', 'device': 'A'}
    path.write_text(written([*four, again], header=True))
    assert read(path) == four


@pytest.mark.parametrize('change', [{'test_accuracy': '0.5'}, {'alive_fc1': '7', 'norms_fc1': '1 2'}])
def test_two_rows_of_one_run_that_differ_are_named(path, four, change):
    path.write_text(written([*four, {**four[1], **change}], header=True))
    with pytest.raises(RunError, match=f'lines 3 and 6 are rows of one run, .*another {", ".join(change)}. Remove one'):
        read(path)
    before = path.read_text()
    with pytest.raises(RunError, match='lines 3 and 6'):
        append(path, {**four[0], 'seed': '99'})
    assert path.read_text() == before


def test_a_merge_that_conflicted_is_named(path, four):
    first, *others = written(four).splitlines(keepends=True)
    for mark in ('<<<<<<< HEAD\n', '=======\n', '>>>>>>> other\n'):
        path.write_text(written([], header=True) + first + mark + ''.join(others))
        with pytest.raises(RunError, match='line 3 is the mark of a merge'):
            read(path)


def test_a_method_that_contradicts_its_coefficients_is_refused(path, four):
    for label in ('gss', 'SSL', 'ssl'):
        wrong = next(row for row in four if row['method'] != label)
        path.write_text(written([{**wrong, 'method': label}], header=True))
        with pytest.raises(RunError, match=f'line 2 says {label}, and its coefficients {wrong["method"]}'):
            read(path)


def test_more_cells_than_columns_are_refused(path):
    path.write_text(path.read_text().rstrip('\n') + ',1\n')
    with pytest.raises(RunError, match='line 5 has more cells'):
        read(path)


def test_a_whole_last_line_without_its_newline_is_a_row_and_a_cut_one_is_replaced_in_its_place(
        tmp_path, four, capsys):
    lines = [','.join(row[name] for name in COLUMNS) for row in four]
    for cut in (0, 1, 60, lines[1].rindex(',')):  # in the middle, as the earlier program left it by its next append
        path = tmp_path / f'{cut}.csv'
        path.write_text('\n'.join([','.join(COLUMNS), lines[0], lines[1][:cut], lines[2], lines[3][:-5]]))
        last = {**four[3], 'versions': four[3]['versions'][:-5]}
        assert read(path) == [four[0], four[2], last]
        assert ('line 3 is cut short' in capsys.readouterr().err) == (cut > 0)
        append(path, four[1])
        found = read(path)
        assert found == ([four[0], *four[1:3], last] if cut else [four[0], four[2], last, four[1]])
        assert path.read_text().endswith('\n') and capsys.readouterr().err == ''
        append(path, new := {**four[0], 'seed': '99'})
        assert read(path) == [*found, new]


def test_a_cut_line_of_another_run_stays(path, four):
    whole = path.read_text()
    path.write_text(whole.replace(',3,', ',77,', 1)[:len(written([], header=True)) + 40] + '\n'
                    + whole.split('\n', 2)[2])
    cut = path.read_text().splitlines()[1]
    append(path, new := {**four[0], 'seed': '98'})
    assert path.read_text().splitlines()[1] == cut and read(path) == [*four[1:], new]


def test_numbers_that_six_digits_do_not_tell_apart_are_refused(run_tool, tmp_path):
    with pytest.raises(SystemExit, match='^error: --group_lassos=0.001,0.0010000001: .* are one number'):
        run_tool(compare, '--group_lassos=0.001,0.0010000001', '--print_commands', f'--csv={tmp_path}/it.csv')
