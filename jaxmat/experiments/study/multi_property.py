"""Pre-training on all properties of a study at once: one table, and no crystal of a test in it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxmat.crystals.content import Content
from jaxmat.data.contents import Contents
from jaxmat.data.duplicates import find_duplicates
from jaxmat.data.layouts.rows import Wanted
from jaxmat.data.splits import Split
from jaxmat.data.tables import Table, read_rows
from jaxmat.errors import UserError, listed
from jaxmat.experiments import defaults
from jaxmat.experiments.prepare import read_labelled
from jaxmat.experiments.protocols import settle
from jaxmat.experiments.study.cells import ALL, Pretraining, Run
from jaxmat.experiments.study.samples import IdLists, Samples, Seen, pretraining_split
from jaxmat.experiments.study.tables import TableFile, read_table, unite_tables, write_united
from jaxmat.experiments.workdir import has_work

UNION = "union.json.gz"


class UnionTable(NamedTuple):
    """A table of structures, each once, with the labels of several properties.

    Attributes:
        samples: of all tables of the study, by key.
        path: of the file.
        columns: property → column of its labels.
        ids: of the usable rows.
        sources: of each, "table:id" of the rows of single tables that it is.
        equal_to_tested: rows that are none of these, but equal to one that must not be seen.
        unseen: tables of which no crystal must be seen; of the others no test crystal.
        tested: from `digests_of_tests`, of the tables whose test crystals are not to be seen.
    """

    samples: Mapping[str, Samples]
    path: str
    columns: dict[str, str]
    ids: list[str]
    sources: list[list[str]]
    equal_to_tested: list[str]
    unseen: Sequence[str] = ()
    tested: Mapping[str, str] = MappingProxyType({})

    @property
    def size(self) -> int:
        """Number of its crystals."""
        return len(self.ids)

    def seen_by(self, run: Run, config: ConfigDict) -> Seen:
        """Returns what a pre-training on several properties sees.

        Args:
            run: the pre-training.
            config: of the study.

        Raises:
            UserError: see `union_split`, or no property is left.
        """
        assert isinstance(run, Pretraining)  # a cell is trained on one property
        split, left_out = union_split(self, run)
        columns = {key: name for key, name in self.columns.items() if key != run.left_out}
        if not columns:
            raise UserError(f"{self.path} has no property but {run.left_out} to pre-train on.")
        data = _data_config(self.path, columns, self.samples, settle(config, "data"))
        for key, one in data.properties.items():
            heavy_tail = self.samples[key].heavy_tail
            one.log = settle(config, "data", heavy_tail=heavy_tail)["log"]
        data.left_out.update(left_out)
        return Seen(data, split)


def find_union(
    tables: Mapping[str, TableFile], data: ConfigDict, workdir: Path, anew: bool = False
) -> Path:
    """Returns the union table of a study, which is made where the folder of tables has none.

    Args:
        tables: of the study.
        data: `data` of the study's config.
        workdir: of the study; gets tables/union.json.gz where it is made.
        anew: whether one that was made before is of other tables.

    Raises:
        UserError: a table cannot be used, or is not there.
    """
    given, made = Path(data.tables) / UNION, workdir / "tables" / UNION
    if given.is_file():
        return given
    keys = _united(data, tables)
    if anew or not made.is_file() or not set(keys) <= set(_columns(made)):
        made.parent.mkdir(parents=True, exist_ok=True)
        write_united(made, unite_tables({key: tables[key] for key in keys}, data))
    return made


def digests_of_tests(samples: Mapping[str, Samples]) -> dict[str, str]:
    """Returns what stands for the test crystals of each table, which must not be pre-trained on."""
    named = {key: sorted(_tested({key: one})) for key, one in samples.items()}
    return {k: hashlib.sha256("\n".join(ids).encode()).hexdigest() for k, ids in named.items()}


def refuse_begun(workdir: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuses to go on where crystals that are tested now may have been pre-trained on.

    Args:
        workdir: of the study.
        before: digests of the tests that were kept from pre-training.
        now: of those that are to be kept from it.

    Raises:
        UserError: a pre-training on several properties has begun.
    """
    places = (workdir / "pretrain").glob(f"pretrain-{ALL}[-_]*")
    if begun := sorted(place.name for place in places if has_work(place)):
        changed = sorted(k for k in now.keys() | before.keys() if now.get(k) != before.get(k))
        raise UserError(
            f"{workdir} has pre-trainings on several properties ({listed(begun)}) that were begun "
            f"with other tables or test crystals than there are now ({', '.join(changed)}): "
            "crystals that are tested now may have been trained on. Make the folder of tables as "
            "it was, or choose another --workdir."
        )


def read_union(path: Path, samples: Mapping[str, Samples], data: ConfigDict) -> UnionTable:
    """Reads a union table and finds what must not be trained on.

    Args:
        path: of the table, with a column `sources` of texts "table:id,table:id". Its labels are
            in columns named like a table, or like the column of a table.
        samples: of all tables of the study.
        data: `data` of the study's config; `united` says which labels are used.

    Raises:
        UserError: the table cannot be used, or the config names tables that are not there.
    """
    unseen, columns = _named(data, "unseen", samples), _find_columns(path, samples, data)
    # A small crystal may equal a tested one in a cell that is too large to be trained on.
    most, data = data.max_sites, ConfigDict({**data, "max_sites": 0})
    labelled = read_labelled(_data_config(str(path), columns, samples, data))
    sources = [str(text).split(",") for text in _sources(labelled.table, path)]
    tested = _tested(samples)
    mine = [row for row, names in enumerate(sources) if _kept_out(names, tested, unseen)]
    others = sorted(set(range(len(sources))) - set(mine))
    absent = {key: one for key, one in samples.items() if key not in columns}
    elsewhere = _kept_out_crystals(absent, unseen, data)
    contents = Contents.of([*labelled.table.contents, *elsewhere])
    duplicates = find_duplicates(
        contents,
        Split(
            train=np.array([*mine, *range(len(sources), len(contents))], np.int64),
            validation=np.array([], np.int64),
            test=np.array(others, np.int64),
        ),
        wide=True,
    )
    ids, sites = labelled.table.ids, labelled.table.contents.sites
    fits = (sites <= (most or sites.max())).tolist()
    return UnionTable(
        *(samples, str(path), columns),
        ids=[id for id, one in zip(ids, fits, strict=True) if one],
        sources=[names for names, one in zip(sources, fits, strict=True) if one],
        equal_to_tested=[ids[duplicate.row] for duplicate in duplicates if fits[duplicate.row]],
        unseen=unseen,
        tested=digests_of_tests(samples),
    )


def _named(data: ConfigDict, field: str, tables: Collection[str]) -> list[str]:
    """Returns the tables that a field of `data` names."""
    keys = defaults.split_names(data[field])
    if unknown := [key for key in keys if key not in tables]:
        raise UserError(
            f"config.data.{field}: no table {', '.join(unknown)}; there are {', '.join(tables)}."
        )
    return keys


def _united(data: ConfigDict, tables: Collection[str]) -> list[str]:
    """Returns the tables whose labels are pre-trained on at once."""
    return _named(data, "united", tables) or list(tables)


def _find_columns(path: Path, samples: Mapping[str, Samples], data: ConfigDict) -> dict[str, str]:
    there = _columns(path)
    keys = _united(data, samples)
    wanted = {key: key if key in there else samples[key].table.target for key in keys}
    found = {key: column for key, column in wanted.items() if column in there}
    if data.united and (missing := [key for key in keys if key not in found]):
        raise UserError(f"{path} has no labels of {', '.join(missing)} (config.data.united).")
    if shared := [key for key, name in found.items() if list(found.values()).count(name) > 1]:
        # Leaving out one of them would leave its labels in, under another name.
        raise UserError(
            f"{path}: the tables {', '.join(shared)} have one column of labels in common; name the "
            "columns of the union like the tables."
        )
    return found


def _columns(path: Path) -> Collection[str]:
    return read_rows(path, Wanted(labels=())).columns  # no crystal is read


def union_split(union: UnionTable, run: Pretraining) -> tuple[IdLists, dict[str, int]]:
    """Returns the crystals of a pre-training on several properties, and how many are left out.

    They are the crystals of the pre-trainings on each property, with all labels that are known of
    them. A crystal that validates for one property validates for all. A test crystal of any table,
    or what equals one, is not trained or validated on, nor is any crystal of an unseen table.

    Args:
        union: its table.
        run: the pre-training.

    Returns:
        Ids of each part; crystals kept from training and validation by reason.

    Raises:
        UserError: see `pretraining_split`, or nothing is left.
    """
    samples = union.samples
    properties = [key for key in union.columns if key != run.left_out]
    drawn = {key: pretraining_split(samples[key], run.size, run.seed) for key in properties}
    wanted = {
        part: {f"{key}:{id}" for key, lists in drawn.items() for id in lists[part]}
        for part in ("train", "validation")
    }
    tested, tested_here = _tested(samples), _tested({key: samples[key] for key in properties})
    equal = set(union.equal_to_tested)
    parts: IdLists = {"train": [], "validation": [], "test": []}
    left_out = {"test_crystals": 0, "equal_to_test_crystals": 0}
    if union.unseen:
        left_out["crystals_of_unseen_tables"] = 0
    for id, sources in zip(union.ids, union.sources, strict=True):
        part = next((p for p in ("validation", "train") if not wanted[p].isdisjoint(sources)), None)
        if _kept_out(sources, tested, union.unseen):
            is_test = not tested.isdisjoint(sources)
            reason = "test_crystals" if is_test else "crystals_of_unseen_tables"
            left_out[reason] += part is not None
            part = None if tested_here.isdisjoint(sources) else "test"
        elif id in equal and part:
            left_out["equal_to_test_crystals"] += 1
            part = None
        if part:
            parts[part].append(id)
    _refuse_leaks(union, parts, tested)
    return parts, left_out


def _refuse_leaks(union: UnionTable, parts: IdLists, tested: set[str]) -> None:
    """Looks at the parts once more, however they came about."""
    sources = dict(zip(union.ids, union.sources, strict=True))
    if leaks := [
        f"{id} ({', '.join(sources[id])})"
        for part in ("train", "validation")
        for id in parts[part]
        if _kept_out(sources[id], tested, union.unseen) or id in union.equal_to_tested
    ]:
        raise UserError(f"{union.path}: test crystals would be trained on:\n{listed(leaks)}")


def _tested(samples: Mapping[str, Samples]) -> set[str]:
    """Returns the test crystals of tables as "table:id", those too large to be used among them."""
    return {
        f"{key}:{id}"
        for key, one in samples.items()
        for id in (*one.test, *one.table.lists.get("test", ()))
    }


def _kept_out(sources: Sequence[str], tested: set[str], unseen: Collection[str]) -> bool:
    """Whether a crystal is a tested one, or one of a table that must not be seen.

    Args:
        sources: where it is, as "table:id".
        tested: from `_tested`.
        unseen: tables.
    """
    tables = {name.partition(":")[0] for name in sources}
    return not (tested.isdisjoint(sources) and tables.isdisjoint(unseen))


def _kept_out_crystals(
    samples: Mapping[str, Samples], unseen: Collection[str], data: ConfigDict
) -> list[Content]:
    """Returns the crystals that must not be seen."""
    tested = _tested(samples)
    found: list[Content] = []
    for key, one in samples.items():
        table = read_table(one.table, data).table
        pairs = zip(table.ids, table.contents, strict=True)
        found += [c for id, c in pairs if _kept_out([f"{key}:{id}"], tested, unseen)]
    return found


def _sources(table: Table, path: Path) -> Sequence[str]:
    if "sources" not in table.columns:
        raise UserError(
            f"{path} has no column 'sources', which tells of what tables and ids its rows are; "
            "`jaxmat unite` makes such a table."
        )
    return list(table.columns["sources"])


def _data_config(
    path: str, columns: Mapping[str, str], samples: Mapping[str, Samples], data: Mapping[str, Any]
) -> ConfigDict:
    """Returns `data` of the config of a run on several properties, none on its logarithm."""
    config = defaults.multi_property().data
    config.update({name: data[name] for name in data if name in config and data[name] is not None})
    config.update(path=path, id_column="")
    for key, column in columns.items():
        about = {"target": column, "unit": samples[key].table.unit, "log": False}
        config.properties[key] = ConfigDict(about)
    return config
