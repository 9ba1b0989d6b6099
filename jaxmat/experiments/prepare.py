"""From a table on disk to scaled data sets of graphs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from pymatgen.core import Structure
from tqdm import tqdm

from jaxmat.crystals.graph import CrystalGraph, GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.fingerprint import fingerprint
from jaxmat.data.rejects import Rejected, check_rejections, reject_bad
from jaxmat.data.splits import Split, labelled_rows, random_split, read_split
from jaxmat.data.tables import Table, read_table
from jaxmat.data.targets import TargetTransform, fit_transform, scaling_labels
from jaxmat.errors import UserError

_logger = logging.getLogger(__name__)

PARTS = Split._fields


class Labelled(NamedTuple):
    """The usable rows of a table that carry a label of one property.

    Attributes:
        table: the rows.
        labels: in the property's unit, [rows].
        property: name of the property, fit to name a head.
        rejected: rows left out because of their structures.
    """

    table: Table
    labels: np.ndarray
    property: str
    rejected: list[Rejected]


class Prepared(NamedTuple):
    """All that a training run needs of its data.

    Attributes:
        ids: of the crystals of each part.
        labels: in the property's unit, of each part.
        datasets: graphs and scaled targets of each part.
        transform: property, unit and scaling.
        rejected: rows left out because of their structures.
        origin: JSON values that a model keeps of its training data; see `bundle.make_about`.
    """

    ids: dict[str, tuple[str, ...]]
    labels: dict[str, np.ndarray]
    datasets: dict[str, Dataset]
    transform: TargetTransform
    rejected: list[Rejected]
    origin: dict[str, Any]


def read_labelled(config: ConfigDict) -> Labelled:
    """Reads a table and keeps the usable, labelled rows.

    Args:
        config: `data` of a config.

    Raises:
        UserError: missing file, column or unit, too many unusable structures, no labels.
    """
    for field in ("path", "target", "unit"):
        if not config[field]:
            raise UserError(
                f"config.data.{field} is not set. A table needs --config.data.path=FILE "
                '--config.data.target=COLUMN --config.data.unit=UNIT ("1" if it has none).'
            )
    table = read_table(config.path)
    labels = table.column(config.target)
    labelled = labelled_rows(labels)
    if config.max_sites:
        small = [i for i in labelled if len(table.structures[i]) <= config.max_sites]
        labelled = np.array(small, dtype=np.int64)
    if not len(labelled):
        raise UserError(f"{config.path}: no row has a label in column {config.target!r}.")
    usable, rejected = reject_bad(table.take(labelled))
    check_rejections(rejected, len(labelled), config.max_rejected_fraction)
    return Labelled(
        table=usable,
        labels=usable.column(config.target),
        property=config.property or re.sub(r"\W+", "_", config.target).strip("_"),
        rejected=rejected,
    )


def prepare(config: ConfigDict, seed: int, settings: GraphSettings) -> Prepared:
    """Reads, splits and scales the data of a training run and builds its graphs.

    Args:
        config: `data` of a config.
        seed: of the training and validation parts.
        settings: how structures become graphs.

    Raises:
        UserError: see `read_labelled`; sizes or targets that do not fit.
    """
    labelled = read_labelled(config)
    table, labels = labelled.table, labelled.labels
    split = _split(config, seed, table)
    transform = fit_transform(
        scaling_labels(labels, split, config.scaling_labels),
        name=labelled.property,
        unit=config.unit,
        scaling=config.scaling,
        log=config.log,
    )
    used = np.concatenate(split)
    graphs = make_graphs([table.structures[i] for i in used], settings)
    graph_of = dict(zip(used.tolist(), graphs, strict=True))
    parts = split._asdict()
    return Prepared(
        ids={part: tuple(table.ids[i] for i in rows) for part, rows in parts.items()},
        labels={part: labels[rows] for part, rows in parts.items()},
        datasets={
            part: Dataset(
                [graph_of[i] for i in rows.tolist()], transform.to_scaled(labels[rows])[:, None]
            )
            for part, rows in parts.items()
        },
        transform=transform,
        rejected=labelled.rejected,
        origin={
            "path": config.path,
            "target": config.target,
            "crystals": {part: len(rows) for part, rows in parts.items()},
            "fingerprint": fingerprint(table.take(split.train), labels[split.train]),
        },
    )


def make_graphs(structures: list[Structure], settings: GraphSettings) -> list[CrystalGraph]:
    """Builds the graphs of crystals, showing progress where a terminal watches."""
    graphs: Iterable[CrystalGraph] = build_graphs(structures, settings)
    bar = tqdm(graphs, total=len(structures), desc="graphs", unit="crystal", disable=None)
    result = list(bar)
    angles = np.mean([len(graph.angle_cosine) for graph in result])
    _logger.info("%d graphs, %.0f angles each", len(result), angles)
    return result


def _split(config: ConfigDict, seed: int, table: Table) -> Split:
    if config.split:
        split = read_split(Path(config.split), table.ids)
    else:
        rows = len(table.ids)
        n_test = config.n_test or max(1, rows // 10)
        n_validation = config.n_validation or max(1, rows // 10)
        split = random_split(
            np.arange(rows),
            seed=seed,
            test_seed=config.test_seed,
            n_train=config.n_train or max(0, rows - n_test - n_validation),
            n_validation=n_validation,
            n_test=n_test,
        )
    if empty := [part for part, rows in split._asdict().items() if not len(rows)]:
        raise UserError(f"The {' and '.join(empty)} part of the split is empty.")
    return split
