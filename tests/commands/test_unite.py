"""The program that unites tables: one file, the conflicts beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmat.commands.unite import check_output, choose_tables
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.study.tables import find_tables, unite_tables, write_united


def cubic(edge: float, element: str) -> dict[str, Any]:
    return {
        "@class": "Structure",
        "lattice": {"matrix": [[edge, 0, 0], [0, edge, 0], [0, 0, edge]]},
        "sites": [{"species": [{"element": element, "occu": 1}], "abc": [0, 0, 0]}],
    }


def write_tables(folder: Path) -> Path:
    """Two tables; the first has a blank label and two labels of silicon."""
    rows = {
        "gap": [
            [cubic(4.0, "Si"), 1.1, "mp-1"],
            [cubic(4.001, "Si"), 1.2, "mp-2"],
            [cubic(5.0, "Al"), None, "mp-3"],
        ],
        "shear": [[cubic(5.0, "Al"), 26.0, "mp-3"], [cubic(4.0, "Si"), 51.0, None]],
    }
    (folder / "splits").mkdir(parents=True)
    for key, data in rows.items():
        columns = ["structure", f"label of {key}", "material_id"]
        content = {"index": list(range(7, 7 + len(data))), "columns": columns, "data": data}
        (folder / f"{key}.json").write_text(json.dumps(content))
        about = {"target_column": columns[1], "unit": "eV" if key == "gap" else "GPa"}
        (folder / "splits" / f"{key}.json").write_text(json.dumps(about))
    return folder


def test_the_program_writes_the_table_and_the_conflicts(tmp_path, run_jaxmat):
    output = tmp_path / "union.json.gz"
    done = run_jaxmat(
        "unite", f"--tables={write_tables(tmp_path / 'tables')}", f"--output={output}"
    )
    assert done.returncode == 0, done.stderr
    assert "(2 rows merged into others); labels: gap 1, shear 2; conflicts: 1" in done.stderr
    table = read_table(output)
    assert table.ids == ("mp-1", "mp-3")
    assert table.columns["sources"].tolist() == ["gap:7,gap:8,shear:8", "shear:7"]
    np.testing.assert_array_equal(table.column("gap"), [1.1, np.nan])
    np.testing.assert_array_equal(table.column("shear"), [51.0, 26.0])
    assert (tmp_path / "conflicts.csv").read_text().splitlines() == [
        "property,id,kept,other,kept_label,other_label",
        "gap,mp-1,gap:7,gap:8,1.1,1.2",
    ]


def test_tables_are_united_in_the_order_of_the_properties(tmp_path):
    tables = choose_tables(find_tables(str(write_tables(tmp_path))), ["shear", "gap"])
    union = unite_tables(tables, defaults.data())
    assert list(union.table.columns) == ["shear", "gap", "sources"]
    assert union.table.columns["sources"].tolist() == ["shear:7", "shear:8,gap:7,gap:8"]


def test_a_folder_of_cgcnn_is_a_table_like_others(tmp_path):
    tables = write_tables(tmp_path)
    (tables / "shear.json").unlink()
    (tables / "shear").mkdir()
    (tables / "shear" / "one.json").write_text(json.dumps(cubic(4.0, "Si")))
    (tables / "shear" / "id_prop.csv").write_text("one,51\n")
    about = {"target_column": "target", "unit": "GPa"}
    (tables / "splits" / "shear.json").write_text(json.dumps(about))
    union = unite_tables(find_tables(str(tables)), defaults.data())
    assert union.table.columns["sources"].tolist() == ["gap:7,gap:8,shear:one"]


def test_mixed_material_ids_are_logged(tmp_path, caplog):
    tables = find_tables(str(write_tables(tmp_path)))
    content = json.loads((tmp_path / "shear.json").read_text())
    content["data"][0][2] = "mp-1"
    (tmp_path / "shear.json").write_text(json.dumps(content))
    unite_tables(tables, defaults.data())
    assert "mp-1: Si (gap:7), Al (shear:7)" in caplog.text


def test_what_is_wrong_with_several_tables_is_told_at_once(tmp_path):
    tables = find_tables(str(write_tables(tmp_path)))
    for key in tables:
        content = json.loads((tmp_path / f"{key}.json").read_text())
        content["data"][0][1] = "much"
        (tmp_path / f"{key}.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"(?s)gap\.json cannot be .*shear\.json cannot be used"):
        unite_tables(tables, defaults.data())


def test_a_file_of_splits_without_a_table_is_told(tmp_path, caplog):
    write_tables(tmp_path)
    (tmp_path / "shear.json").rename(tmp_path / "sheer.json")
    assert list(find_tables(str(tmp_path))) == ["gap"]
    assert "shear.json is left out: there is no table shear.* in" in caplog.text
    (tmp_path / "gap.json").unlink()
    with pytest.raises(UserError, match=rf"^{tmp_path} has no table NAME"):
        find_tables(str(tmp_path))


def test_all_tables_unless_some_are_named():
    tables = find_tables("bundled")
    assert choose_tables(tables, []) == tables
    assert list(choose_tables(tables, ["piezoelectric"])) == ["piezoelectric"]
    with pytest.raises(UserError, match="no table gap, hull among dielectric, piezo"):
        choose_tables(tables, ["gap", "dielectric", "hull"])


def test_conflicts_of_an_earlier_table_go(tmp_path):
    tables = find_tables(str(write_tables(tmp_path / "tables")))
    output = tmp_path / "union.json.gz"
    write_united(output, unite_tables(tables, defaults.data()))
    assert (tmp_path / "conflicts.csv").exists()
    write_united(output, unite_tables(choose_tables(tables, ["shear"]), defaults.data()))
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["tables", "union.json.gz"]


@pytest.mark.parametrize(
    ("output", "message"),
    [("union.csv", "has to end in .json.gz"), ("no/folder/union.json.gz", "there is no folder")],
)
def test_what_cannot_be_written_is_told_at_once(tmp_path, output, message):
    check_output(tmp_path / "union.json.gz")
    with pytest.raises(UserError, match=message):
        check_output(tmp_path / output)


def test_a_failure_to_write_is_a_mistake_to_mend(tmp_path):
    union = unite_tables(find_tables(str(write_tables(tmp_path / "tables"))), defaults.data())
    (tmp_path / "union.json.gz").mkdir()
    with pytest.raises(UserError, match="Cannot write .*union.json.gz"):
        write_united(tmp_path / "union.json.gz", union)
