"""Which crystals a pre-training on several properties sees: never one of a test."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.experiments import defaults
from jaxmat.experiments.study.cells import ALL, Pretraining
from jaxmat.experiments.study.multi_property import (
    UnionTable,
    find_union,
    read_union,
    union_split,
)
from jaxmat.experiments.study.runs import open_study
from jaxmat.experiments.study.samples import Samples, pretraining_split, read_samples
from jaxmat.experiments.study.tables import TableFile, find_tables

KEYS = ("dc", "fe", "gv")
POOL, TEST = [str(i) for i in range(30)], ["90", "91", "92"]


def make_samples(key: str) -> Samples:
    return Samples(TableFile(key, f"{key}.json", key, "eV", {}), False, list(TEST), list(POOL))


SAMPLES = {key: make_samples(key) for key in KEYS}


@st.composite
def unions(draw: st.DrawFn) -> UnionTable:
    """All rows of all tables, merged at random, with some equal to tested ones."""
    names = [f"{key}:{id}" for key in KEYS for id in (*POOL, *TEST)]
    rows: dict[int, list[str]] = {}
    for name in names:
        rows.setdefault(draw(st.integers(0, 60)), []).append(name)
    ids = [f"row{i}" for i in rows]
    tested = [any(n.split(":")[1] in TEST for n in row) for row in rows.values()]
    free = [id for id, is_tested in zip(ids, tested, strict=True) if not is_tested]
    equal = draw(st.lists(st.sampled_from(free), unique=True, max_size=5)) if free else []
    columns = {key: key for key in KEYS}
    return UnionTable(SAMPLES, "union.json", columns, ids, list(rows.values()), equal)


@given(unions(), st.sampled_from(["", *KEYS]), st.integers(2, 40), st.integers(0, 3))
def test_no_crystal_of_a_test_is_seen(
    union: UnionTable, left_out: str, size: int, seed: int
) -> None:
    run = Pretraining(ALL, size, seed, left_out)
    parts, counts = union_split(union, run)
    sources = dict(zip(union.ids, union.sources, strict=True))
    used = [key for key in KEYS if key != left_out]
    drawn = {key: pretraining_split(SAMPLES[key], size, seed) for key in used}

    def names(part: str) -> set[str]:
        return {f"{key}:{id}" for key in used for id in drawn[key][part]}

    def tested(id: str, keys: Any) -> bool:
        return any(n.split(":")[1] in TEST and n.split(":")[0] in keys for n in sources[id])

    seen = parts["train"] + parts["validation"]
    assert len(set(seen + parts["test"])) == len(seen + parts["test"])
    assert not any(tested(id, KEYS) or id in union.equal_to_tested for id in seen)
    assert set(parts["test"]) <= {id for id in union.ids if tested(id, used)}
    for id in parts["train"]:
        assert names("train").intersection(sources[id])
        assert not names("validation").intersection(sources[id])
    for id in parts["validation"]:
        assert names("validation").intersection(sources[id])
    # Whatever was drawn is there, or it is known why not.
    wanted = names("train") | names("validation")
    missing = [id for id in union.ids if wanted.intersection(sources[id]) and id not in seen]
    assert sum(counts.values()) == len(missing)


def test_what_is_left_out_is_counted_by_reason() -> None:
    rows = [["dc:0", "fe:90"], ["dc:1", "fe:1"], ["fe:2"], ["gv:90"], ["fe:91", "gv:3"], ["fe:4"]]
    union = UnionTable(SAMPLES, "u.json", {k: k for k in KEYS}, list("abcdef"), rows, ["c"])
    parts, counts = union_split(union, Pretraining(ALL, 0, 0, left_out="gv"))
    assert sorted(parts["train"] + parts["validation"]) == ["b", "f"]
    assert parts["test"] == ["a", "e"]  # that of gv alone has no label to be tested with
    assert counts == {"test_crystals": 1, "equal_to_test_crystals": 1}


def test_of_an_unseen_table_no_crystal_is_seen_under_any_label() -> None:
    rows = [["dc:0", "fe:0"], ["dc:90"], ["fe:90"], ["fe:1"], ["fe:2"], ["fe:3"]]
    union = UnionTable(
        SAMPLES, "u.json", {k: k for k in KEYS}, list("abcdef"), rows, ["f"], unseen=["dc"]
    )
    parts, counts = union_split(union, Pretraining(ALL, 0, 0, left_out="dc"))
    assert sorted(parts["train"] + parts["validation"]) == ["d", "e"] and parts["test"] == ["c"]
    assert counts == {
        **{"test_crystals": 0, "equal_to_test_crystals": 1, "crystals_of_unseen_tables": 1}
    }


def test_a_small_cell_of_a_test_crystal_that_is_too_large_is_not_seen(tmp_path: Path) -> None:
    """Neither where the two are one row, nor where they are found to be equal."""
    large = salt(6.3, "K"), salt(5.6)
    small = [one.get_primitive_structure() for one in large]
    folder = write_tables(tmp_path, big=[large[0]], other=[salt(6.6, "Rb"), small[1]])
    (folder / "splits" / "big.json").write_text(
        json.dumps({"target_column": "y", "unit": "eV", "test": [0, 1]})
    )
    rows = [(small[0], ["big:0", "other:7"]), (small[1], ["other:1"]), (large[1], ["big:1"])]
    rows += [(salt(5.1, "Li").get_primitive_structure(), ["other:8"])]
    content = {
        "index": list(range(len(rows))),
        "columns": ["structure", "big", "other", "sources"],
        "data": [[s.as_dict(), 1.0, 2.0 + i, ",".join(n)] for i, (s, n) in enumerate(rows)],
    }
    (folder / "union.json").write_text(json.dumps(content))
    data = defaults.study("a title").data
    data.max_sites = 2
    tables = find_tables(str(folder))
    samples = {key: Samples(t, False, ["0"], ["1", "7", "8"]) for key, t in tables.items()}
    union = read_union(folder / "union.json", samples, data)
    assert union.ids == ["0", "1", "3"] and union.equal_to_tested == ["1"]
    parts, _ = union_split(union, Pretraining(ALL, 0, 0))
    assert parts["train"] + parts["validation"] == ["3"]


def test_the_config_names_the_properties_and_what_was_left_out() -> None:
    rows = [[f"dc:{id}", f"fe:{id}"] for id in (*POOL, *TEST)]
    samples = {"dc": make_samples("dc")._replace(heavy_tail=True), "fe": make_samples("fe")}
    columns = {"dc": "dc", "fe": "e"}
    union = UnionTable(samples, "u.json", columns, [r[0] for r in rows], rows, ["dc:5"])
    study = defaults.study("a title")
    study.data.update({"max_sites": 7, "scaling": "minmax"})
    config = union.seen_by(Pretraining(ALL, 0, 0), study).data
    assert config.path == "u.json" and config.max_sites == 7 and config.scaling == "minmax"
    assert config.properties.to_dict() == {
        "dc": {"target": "dc", "unit": "eV", "log": True},
        "fe": {"target": "e", "unit": "eV", "log": False},
    }
    assert config.left_out.to_dict() == {"test_crystals": 0, "equal_to_test_crystals": 1}
    one = union.seen_by(Pretraining(ALL, 0, 0, left_out="dc"), study).data
    assert list(one.properties) == ["fe"]


def salt(a: float, cation: str = "Na") -> Structure:
    """Rock salt; finding the sites by the space group would take seconds."""
    corners = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
    sites = [*corners, *(corners + [0.5, 0.5, 0.5])]
    return Structure(Lattice.cubic(a), [cation] * 4 + ["Cl"] * 4, sites)


def write_tables(folder: Path, **tables: list[Structure]) -> Path:
    """Tables whose first crystal is the test part."""
    (folder / "splits").mkdir()
    for key, structures in tables.items():
        content = {
            "index": list(range(len(structures))),
            "columns": ["structure", "y"],
            "data": [[s.as_dict(), i + 0.5] for i, s in enumerate(structures)],
        }
        (folder / f"{key}.json").write_text(json.dumps(content))
        about = {"target_column": "y", "unit": "eV", "test": [0]}
        (folder / "splits" / f"{key}.json").write_text(json.dumps(about))
    return folder


def test_crystals_equal_to_tested_ones_are_found_by_structure(tmp_path: Path) -> None:
    """In tables that are united, and in one that is not."""
    bulk = [salt(a, x) for x, a in (("Na", 5.6), ("K", 6.3), ("Rb", 6.6), ("Li", 5.1))]
    other = [salt(6.601, "Rb").get_primitive_structure(), salt(5.5, "Ag"), salt(6.3, "K")]
    flat = [salt(5.1, "Li").make_supercell([[1, 0, 0], [0, 2, 0], [0, 0, 1]], in_place=False)]
    folder = write_tables(tmp_path, bulk=bulk, other=other, flat=[*flat, salt(7.0, "Cs")])
    rows = [(s, f"bulk:{i}") for i, s in enumerate(bulk)]
    rows += [(s, f"other:{i}") for i, s in enumerate(other)]
    content = {
        "index": list(range(len(rows))),
        "columns": ["structure", "bulk", "other", "sources"],
        "data": [
            [s.as_dict(), *[1.0 if name.startswith(k) else None for k in ("bulk", "other")], [name]]
            for s, name in rows
        ],
    }
    (folder / "union.json").write_text(json.dumps(content))
    data = defaults.study("a title").data
    samples = {key: read_samples(t, data) for key, t in find_tables(str(folder)).items()}
    union = read_union(folder / "union.json", samples, data)
    assert union.columns == {"bulk": "bulk", "other": "other"}
    # Rb as the test of the other table, Li as the test of the flat one.
    assert sorted(union.equal_to_tested) == ["2", "3"]
    # The labels of one table alone; what the others test on is not trained on all the same.
    data.united = ("bulk",)
    one = read_union(folder / "union.json", samples, data)
    assert one.columns == {"bulk": "bulk"} and sorted(one.equal_to_tested) == ["2", "3"]
    seen, _ = union_split(one, Pretraining(ALL, 0, 0))
    assert seen["train"] + seen["validation"] == ["1"] and seen["test"] == ["0"]
    with pytest.raises(UserError, match="no property but bulk"):
        one.seen_by(Pretraining(ALL, 0, 0, left_out="bulk"), defaults.study("a title"))
    for wrong, words in (("bulk,flat", "no labels of flat"), ("bulk,dc", "no table dc")):
        data.united = (wrong,)
        with pytest.raises(UserError, match=words):
            read_union(folder / "union.json", samples, data)
    data.united = ()
    several = content["columns"]
    content["columns"] = ["structure", "y", "z", "sources"]
    (folder / "union.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="bulk, flat, other have one column of labels in common"):
        read_union(folder / "union.json", samples, data)
    content["columns"] = several
    del content["columns"][-1]
    content["data"] = [row[:-1] for row in content["data"]]
    (folder / "union.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="no column 'sources'"):
        read_union(folder / "union.json", samples, data)


def test_a_union_table_is_made_once_where_there_is_none(tmp_path: Path) -> None:
    folder = write_tables(
        tmp_path,
        bulk=[salt(5.6), salt(6.3, "K"), salt(5.1, "Li")],
        other=[salt(5.1, "Li"), salt(6.6, "Rb")],
    )
    data = defaults.study("a title").data
    data.tables = str(folder)
    tables = find_tables(str(folder))
    made = find_union(tables, data, tmp_path / "work")
    rows = read_table(made)
    assert sorted(rows.columns["sources"]) == ["bulk:0", "bulk:1", "bulk:2,other:0", "other:1"]
    assert np.count_nonzero(~np.isnan(rows.columns["bulk"])) == 3
    data.united = ("other",)
    alone = read_table(find_union(tables, data, tmp_path / "alone"))
    assert "bulk" not in alone.columns and sorted(alone.columns["sources"]) == [
        "other:0",
        "other:1",
    ]
    data.united = ()
    before = made.read_bytes()
    assert find_union(tables, data, tmp_path / "work") == made and made.read_bytes() == before
    (folder / "union.json.gz").write_bytes(before)
    assert find_union(tables, data, tmp_path / "work") == folder / "union.json.gz"


def test_a_table_that_comes_later_is_not_pre_trained_on_with_its_tests(tmp_path: Path) -> None:
    """The union is made anew; where pre-trainings on it have begun the study is refused."""
    (tmp_path / "tables").mkdir()
    bulk = [salt(5.6), salt(6.3, "K"), salt(5.1, "Li"), salt(6.6, "Rb")]
    folder = write_tables(
        tmp_path / "tables", bulk=bulk, other=[salt(5.5, "Ag"), salt(7.0, "Cs"), salt(5.9, "In")]
    )
    config = defaults.study("a title", sources=("all",), targets=("bulk",), target_sizes=(2,))
    config.data.tables = str(folder)
    workdir = tmp_path / "work"

    def trained_on() -> set[str]:
        union = open_study(config, workdir).union
        assert union is not None
        parts, _ = union_split(union, Pretraining(ALL, 0, 0))
        names = dict(zip(union.ids, union.sources, strict=True))
        return {
            name for part in ("train", "validation") for id in parts[part] for name in names[id]
        }

    assert trained_on() == {"bulk:1", "bulk:2", "bulk:3", "other:1", "other:2"}
    (folder / "splits" / "late.json").write_text((folder / "splits" / "bulk.json").read_text())
    content = json.loads((folder / "bulk.json").read_text())
    content["data"] = [[salt(a, x).as_dict(), 1.0] for a, x in ((6.3, "K"), (6.1, "Tl"), (5, "Cu"))]
    content["index"] = [0, 1, 2]
    (folder / "late.json").write_text(json.dumps(content))
    begun = workdir / "pretrain" / "pretrain-all_but_bulk-941-s0"
    begun.mkdir(parents=True)
    (begun / "metrics.jsonl").touch()
    with pytest.raises(UserError, match=r"pretrain-all_but_bulk.*\(late\)"):
        open_study(config, workdir)
    (begun / "metrics.jsonl").unlink()
    kept = workdir / "tables" / "all.json"
    content = json.loads(kept.read_text())
    del content["tested"]  # as earlier versions left it
    kept.write_text(json.dumps(content))
    now = {"bulk:2", "bulk:3", "other:1", "other:2", "late:1", "late:2"}
    assert trained_on() == now
    before = kept.read_bytes(), (workdir / "tables" / "union.json.gz").stat().st_mtime_ns
    assert trained_on() == now
    assert before == (kept.read_bytes(), (workdir / "tables" / "union.json.gz").stat().st_mtime_ns)


def test_a_union_table_that_was_given_may_not_change(tmp_path: Path) -> None:
    """Before anything is trained what it holds now is found out anew."""
    (tmp_path / "tables").mkdir()
    folder = write_tables(
        tmp_path / "tables", bulk=[salt(5.6), salt(6.3, "K")], other=[salt(5.5, "Ag"), salt(7.0)]
    )
    config = defaults.study("a title", sources=("all",), targets=("bulk",), target_sizes=(2,))
    workdir = tmp_path / "work"
    config.data.tables = str(folder)
    find_union(find_tables(str(folder)), config.data, tmp_path).replace(folder / "union.json.gz")
    before = open_study(config, workdir).union
    content = json.loads(gzip.decompress((folder / "union.json.gz").read_bytes()))
    content["index"], content["data"] = content["index"][:-1], content["data"][:-1]
    text = gzip.compress(json.dumps(content).encode())
    (folder / "union.json.gz").write_bytes(text)
    after = open_study(config, workdir).union
    assert before is not None and after is not None and after.ids == before.ids[:-1]
    (workdir / "cells" / "one").mkdir(parents=True)
    (workdir / "cells" / "one" / "metrics.jsonl").touch()
    (folder / "union.json.gz").write_bytes(gzip.compress(json.dumps(content, indent=1).encode()))
    with pytest.raises(UserError, match=r"the table all: .*union\.json\.gz"):
        open_study(config, workdir)
