"""The script that makes the bundled tables: exact numbers, counted failures, stable bytes."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from types import ModuleType

import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data.formats.dicts import parse_dict
from jaxmat.data.formats.sites import one_atom_a_site

PATH = Path(__file__).parents[2] / "tools" / "make_bundled_tables.py"
CRYSTAL = Structure(Lattice.cubic(4.00000001), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.12345678, 0.5]])


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_bundled_tables", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def csv_text(header: list[str], rows: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows([header, *rows])
    return "# ref: someone, somewhere\n" + stream.getvalue()


def test_rows_are_exact_and_failures_counted(tool: ModuleType) -> None:
    source = next(source for source in tool.SOURCES if source.label == "e_form")
    literal = str(CRYSTAL.as_dict())
    rows = [["mp-1", literal, "-0.1"], ["mp-2", "{'broken': ", "1"], ["mp-3", literal, "0.3"]]
    text = csv_text(["material_id", "structure", "formation_energy_per_atom"], rows)
    table, n_unreadable = tool.make_table(text, source)
    assert n_unreadable == 1 and table["index"] == [0, 2]
    assert table["columns"] == ["structure", "e_form", "material_id"]
    assert [row[1:] for row in table["data"]] == [[-0.1, "mp-1"], [0.3, "mp-3"]]
    assert one_atom_a_site(parse_dict(table["data"][0][0]))[0].structure() == CRYSTAL


def test_a_column_without_a_name_is_skipped(tool: ModuleType) -> None:
    source = next(source for source in tool.SOURCES if source.label == "poly_total")
    row = ["0", "0", "6.23", CRYSTAL.to(fmt="poscar"), "mp-1"]
    text = csv_text(["idx", "poly_total", "poscar", "material_id"], [row])
    table, _ = tool.make_table(text, source)
    assert table["data"][0][1:] == [6.23, "mp-1"]
    assert one_atom_a_site(parse_dict(table["data"][0][0]))[0].structure() == CRYSTAL


def test_gzip_bytes_depend_on_the_content_alone(tool: ModuleType, tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        tool.write_gzip(tmp_path / name, b"content")
    first, second = ((tmp_path / name).read_bytes() for name in ("a.gz", "b.gz"))
    assert first == second and first[4:8] == bytes(4)
