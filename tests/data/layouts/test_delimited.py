"""CSV of spreadsheets and pandas: what is meant is read, what may be two things is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data.layouts.rows import Wanted
from jaxmat.data.tables import numeric_column, read_rows
from jaxmat.errors import UserError

CRYSTALS = [
    Structure(Lattice.cubic(4 + i), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]) for i in range(3)
]

Write = Callable[[str], Path]


def writer(folder: Path, prefix: str) -> Write:
    """Returns what writes tables beside the crystals, whose files are the prefix and a number."""
    for i, crystal in enumerate(CRYSTALS):
        crystal.to(str(folder / f"{prefix}{i}.cif"))

    def write_text(text: str) -> Path:
        path = folder / "labels.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path, "c")


@pytest.fixture
def numbered(tmp_path: Path) -> Write:
    return writer(tmp_path, "")


@pytest.mark.parametrize(
    "text",
    [
        "file;gap;;\r\nc0;1,5;;\r\nc1;2;;\r\nc2;;;\r\n;;;\r\n;;;\r\n",
        "sep=;\r\nfile;gap\r\nc0;1,5\r\nc1;2\r\nc2;\r\n",
        '"sep=;"\nfile;gap\nc0;1,5\nc1;2\nc2;\n',
        "file;gap (a, b, c)\nc0;1,5\nc1;2\nc2;\n".replace(" (a, b, c)", ""),
        "Na,file,gap\n1,c0.CIF,1.5\n2,C1.cif,2\n3,c2.Cif,\n".replace("C1", "c1"),
        "file\tgap\nc0\t1.5\nc1\t2\nc2\tN/A\n",
    ],
)
def test_tables_of_spreadsheets(write: Write, text: str) -> None:
    rows = read_rows(write(text))
    assert set(rows.reasons) == {""}
    np.testing.assert_array_equal(rows.columns["gap"], [1.5, 2, np.nan])


def test_commas_in_a_header_are_no_separators(write: Write) -> None:
    rows = read_rows(write("file;gap (PBE, eV, 0 K)\nc0;1,5\nc1;2,5\n"))
    assert rows.columns["gap (PBE, eV, 0 K)"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["0,5", "1.234", "-1.234.567,25"], [0.5, 1234, -1234567.25]),
        (["1", "2,5", "3"], [1, 2.5, 3]),
        (["0.5", "1.5", "2"], [0.5, 1.5, 2]),
        (["0.5", "1,234", "2"], None),  # a thousand, or one and a bit
        (["1.234", "0,5", "2"], None),
        (["1 234", "2", "3"], None),
    ],
)
def test_decimal_commas_and_thousands(write: Write, cells: list[str], values: object) -> None:
    rows = read_rows(write("file;gap\n" + "".join(f"c{i};{c}\n" for i, c in enumerate(cells))))
    if values is None:
        with pytest.raises(UserError, match="'gap' is not numeric"):
            numeric_column(rows, "gap")
    else:
        assert numeric_column(rows, "gap").tolist() == values


def test_a_comma_between_quotes_is_no_decimal_mark(write: Write) -> None:
    rows = read_rows(write('file,gap\nc0,"1,234"\nc1,2\n'))
    with pytest.raises(UserError, match="row c0 has '1,234'"):
        numeric_column(rows, "gap")


def test_columns_of_one_name_are_told_apart(write: Write) -> None:
    """One that nobody asks for does no harm; one that is asked for is named."""
    rows = read_rows(write("file,note,gap,note,k,k\nc0,x,1.5,y,1,2\n"))
    assert rows.columns["gap"].tolist() == [1.5]
    with pytest.raises(UserError, match=r"'k' does not exist.*k \(column 5\), k \(column 6\)"):
        numeric_column(rows, "k")


def test_ids_stay_as_they_are_written(write: Write) -> None:
    assert read_rows(write("ID,file,gap\n007,c0,1\n010,c1,2\n1e5,c2,3\n")).ids == (
        "007",
        "010",
        "1e5",
    )
    rows = read_rows(write("file,gap,code\nc0,1,007\nc1,2,010\n"), Wanted("code"))
    assert rows.ids == ("007", "010")


def test_structures_as_python_prints_dicts(write: Write) -> None:
    """That is what pandas writes for a column of dicts."""
    rows = "".join(f'{i},"{crystal.as_dict()}",{i}\n' for i, crystal in enumerate(CRYSTALS))
    found = read_rows(write("i,structure,gap\n" + rows))
    assert set(found.reasons) == {""}
    assert [content.lattice[0, 0] for content in found.contents] == [4, 5, 6]
    quoted = json.dumps(CRYSTALS[0].as_dict()).replace('"', '""')
    found = read_rows(write(f'structure,gap\n"{quoted}",1\n"{{\'lattice\': array([1])}}",2\n'))
    assert found.contents.sites[0] and "Python dict" in found.reasons[1]


def test_structures_as_pymatgen_prints_them_are_refused_by_name(write: Write) -> None:
    found = read_rows(write(f'structure,gap\n"{CRYSTALS[0]}",1\n'))
    assert "recognised: a structure as pymatgen prints it" in found.reasons[0]


def test_a_folder_without_a_table_has_no_labels(write: Write) -> None:
    folder = write("file,gap\nc0,1\n").parent
    with pytest.raises(UserError, match=r"(?s)no table id_prop.csv.*labels.csv"):
        read_rows(folder, Wanted(labels=("gap",)))
    (folder / "labels.csv").rename(folder / "ID_PROP.CSV")
    assert read_rows(folder, Wanted(labels=("gap",))).columns["gap"].tolist() == [1]


@pytest.mark.parametrize(
    "text",
    [
        ",file,gap\n0,2.cif,2\n1,0.cif,0\n2,1.cif,1\n",  # as pandas writes a shuffled frame
        "nsites,file,gap\n1,2.cif,2\n2,0.cif,0\n2,1.cif,1\n",
        "id,path,gap\n0,2.cif,2\n1,0.cif,0\n2,9.cif,1\n",  # one is missing
        "id,structures,gap\n0,2.cif,2\n1,0.cif,0\n2,1.cif,1\n",
        "class,id,gap\n1,2,2\n1,0,0\n2,1,1\n",
        "class,name,gap\n1,2,2\n1,0,0\n2,1,1\n",
    ],
)
def test_a_number_that_may_be_a_file_is_none_where_another_column_has_files(
    numbered: Write, text: str
) -> None:
    rows = read_rows(numbered(text))
    used = [i for i, reason in enumerate(rows.reasons) if not reason]
    found = [rows.contents[i].lattice[0, 0] for i in used]
    assert found == [6, 4, 5][: len(found)] and len(found) > 1
    missing = [why for why in rows.reasons if why]
    assert all("no file '9.cif'" in why for why in missing)


def test_files_of_another_machine_are_missing_and_not_guessed(numbered: Write) -> None:
    rows = read_rows(numbered(",file,gap\n0,/data/b.cif,2\n1,/data/a.cif,0\n"))
    assert len(rows.reasons) == 2 and all("no file" in why for why in rows.reasons)


def test_two_columns_of_files_are_told(numbered: Write) -> None:
    with pytest.raises(UserError, match="'index' and 'name' name different.*'file'|'name'"):
        read_rows(numbered(",name,gap\n0,2,2\n1,0,0\n2,1,1\n"))
    rows = read_rows(numbered("0,2\n1,0\n2,1\n"))  # CGCNN's has its files first, and no header
    assert [one.lattice[0, 0] for one in rows.contents] == [4, 5, 6]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('file\tTm\nc0\t"1,687"\nc1\t933\nc2\t"1,234"\n', "1,687"),
        ("file\tTm\nc0\t1,687\nc1\t933\nc2\t1,234\n", "1,687"),
        ('file;Tm;gap\nc0;"1,687";0.5\nc1;933;1.5\nc2;988;2\n', "1,687"),
        ("file;Tm;gap\nc0;1.234;1,5\nc1;987;0,5\nc2;2.500;0,1\n", r"1\.234 \(other.*1234\?"),
        ("file\tTm\tgap\nc0\t1.234\t1,5\nc1\t987\t0,5\n", r"1\.234 \(other.*1234\?"),
    ],
)
def test_marks_of_thousands_are_never_taken_for_decimals(
    write: Write, text: str, cell: str
) -> None:
    with pytest.raises(UserError, match=f"(?s)'Tm' is not numeric.*{cell}"):
        numeric_column(read_rows(write(text)), "Tm")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("file;gap\nc0;1,687\nc1;933\nc2;1,234\n", [1.687, 933, 1.234]),
        ("file\tgap\tx\nc0\t1,687\t0,5\nc1\t933\t1\nc2\t1,234\t2\n", [1.687, 933, 1.234]),
        ("file;gap;x\nc0;0.123;0,5\nc1;0.5;1\nc2;2.345;2\n", [0.123, 0.5, 2.345]),
        ("file;gap\nc0;1.687\nc1;2\nc2;1.234\n", [1.687, 2, 1.234]),
    ],
)
def test_other_columns_tell_the_decimal_mark(write: Write, text: str, values: list[float]) -> None:
    assert numeric_column(read_rows(write(text)), "gap").tolist() == values


def test_a_comma_in_a_text_is_left_alone(write: Write) -> None:
    rows = read_rows(write("file\tgap\tspecies\nc0\t1.5\t12,13\nc1\t2\t11,17\n"))
    assert rows.columns["species"].tolist() == ["12,13", "11,17"]
