"""From a table on disk to scaled data sets of graphs; all that is wrong with it is told first."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.batches import Dataset
from jaxmat.data.duplicates import describe_duplicates, find_duplicates
from jaxmat.data.findings import Findings
from jaxmat.data.fingerprint import fingerprint
from jaxmat.data.graphs import stored_graphs
from jaxmat.data.splits import Split
from jaxmat.data.store import GraphStore
from jaxmat.data.tables import LARGEST, Table
from jaxmat.data.targets import (
    TargetTransform,
    fit_transform,
    magnitude_shift,
    scaling_labels,
    unit_mismatch,
)
from jaxmat.errors import UserError, counted
from jaxmat.experiments.labelled import Labelled, Property, find_labelled
from jaxmat.experiments.splitting import find_split, split_groups
from jaxmat.experiments.workdir import FINDINGS, write_json
from jaxmat.models.network import make_trunk
from jaxmat.runtime.caches import cache_folder
from jaxmat.runtime.stopping import giving_up_at_once

_logger = logging.getLogger(__name__)

PARTS = Split._fields
_FEW = 10  # crystals of a part of which it is said that they are few
# Gigabytes of a step with one crystal from which on it is named.
_MUCH_MEMORY = 3.0
# Kilobytes of a step for each row of the kind that takes the most, and the width they are of:
# angles in the network of the paper, and bonds, where there are no angles, in the bond network.
_KILOBYTES = {"angles": (16.0, 256), "bonds": (25.0, 128)}


class SeenBefore(NamedTuple):
    """Test crystals that a model to start from has seen.

    Attributes:
        which: bool [crystals].
        labels: property → how many of them it has seen a label of.
    """

    which: np.ndarray
    labels: dict[str, int]


class Prepared(NamedTuple):
    """All that a training run needs of its data.

    Attributes:
        ids: of the crystals of each part.
        labels: in the properties' units, NaN where missing, of each part, [rows, properties].
        datasets: graphs and scaled targets of each part.
        transforms: property → unit and scaling, in the order of the columns.
        origin: JSON values that a model keeps of its training data; see `about.make_about`.
        left_out: crystals that were kept from it because others are tested on them, by reason.
        remarks: what is odd about the data.
        groups: of the crystals of each part, where groups stay together, else {}.
        seen_before: test crystals that the model to start from has seen; None: there is none, or
            it is not known.
    """

    ids: dict[str, tuple[str, ...]]
    labels: dict[str, np.ndarray]
    datasets: dict[str, Dataset]
    transforms: dict[str, TargetTransform]
    origin: dict[str, Any]
    left_out: dict[str, int] = {}
    remarks: Sequence[str] = ()
    groups: Mapping[str, Sequence[Hashable]] = {}
    seen_before: SeenBefore | None = None


@giving_up_at_once()
def read_labelled(config: ConfigDict, workdir: Path | None = None) -> Labelled:
    """Reads a table and keeps the usable, labelled rows; logs what is odd about it.

    Args:
        config: `data` of a config.
        workdir: gets rejected.csv, whether this goes well or not; None: it is not written.

    Raises:
        UserError: missing file, column or unit, too many unusable structures, no labels. All
            findings are in one message.
    """
    findings = Findings(config.path)
    labelled = find_labelled(config, workdir, findings)
    findings.tell()
    write_findings(workdir, findings)
    return labelled


@giving_up_at_once()
def prepare(
    config: ConfigDict,
    seed: int,
    settings: GraphSettings,
    workdir: Path | None = None,
    known: Mapping[str, TargetTransform] | None = None,
) -> Prepared:
    """Reads, splits and scales the data of a training run and builds its graphs.

    Args:
        config: `data` of a config.
        seed: of the training and validation parts.
        settings: how structures become graphs.
        workdir: gets rejected.csv, whether this goes well or not; None: it is not written.
        known: properties that the checkpoint to start from predicts.

    Raises:
        UserError: see `read_labelled`; a split, sizes, units or targets that do not fit. All
            findings are in one message.
    """
    findings = Findings(config.path)
    labelled = find_labelled(config, workdir, findings)
    split = _find_split(config, seed, labelled, findings)
    transforms = _find_transforms(config, labelled, split, known or {}, findings)
    findings.stop_if_refused()
    assert split is not None  # where it is missing it was refused

    table, labels = labelled.table, labelled.labels
    used = np.concatenate(split)
    graphs = make_graphs(config, table.take(used), settings)
    if duplicates := find_duplicates(table.contents, split, graphs, settings):
        findings.remarks.append(describe_duplicates(duplicates, table.ids))
    findings.remarks += _too_few(split)
    findings.remarks += _giants([table.ids[i] for i in used], graphs.sizes, settings)
    findings.tell()
    write_findings(workdir, findings)
    parts, ends = split._asdict(), np.cumsum([len(rows) for rows in split])
    groups = split_groups(config, labelled)
    return Prepared(
        ids={part: tuple(table.ids[i] for i in rows) for part, rows in parts.items()},
        labels={part: labels[rows] for part, rows in parts.items()},
        datasets={
            part: Dataset(graphs[end - len(rows) : end], _scaled(transforms, labels[rows]))
            for (part, rows), end in zip(parts.items(), ends.tolist(), strict=True)
        },
        transforms=transforms,
        origin={
            "path": config.path,
            "target": ", ".join(one.column for one in labelled.properties),
            "crystals": {part: len(rows) for part, rows in parts.items()},
            "fingerprint": fingerprint(table.take(split.train), labels[split.train]),
        },
        left_out=labelled.too_large | dict(config.get("left_out", {})),
        remarks=findings.remarks,
        groups={part: [groups[i] for i in rows] for part, rows in parts.items()} if groups else {},
    )


def write_findings(workdir: Path | None, findings: Findings) -> None:
    """Keeps what is odd about the data for the report of the run, where it has a directory."""
    if workdir:
        write_json(workdir / FINDINGS, findings.remarks)


def graph_settings(config: ConfigDict) -> GraphSettings:
    """Returns how structures become graphs for the network of a config.

    Args:
        config: with `graph` and `network`.

    Raises:
        UserError: a setting or a trunk that is not there.
    """
    return GraphSettings(**config.graph, angles=make_trunk(config.network.trunk).needs_angles)


def make_graphs(config: ConfigDict, table: Table, settings: GraphSettings) -> GraphStore:
    """Returns the graphs of a table's crystals, in order; those not built before are built.

    Args:
        config: `data` of a config.
        table: usable rows.
        settings: how structures become graphs.

    Raises:
        UserError: see `stored_graphs`.
    """
    folder = Path(config.graph_store) if config.graph_store else cache_folder("graphs")
    graphs = stored_graphs(table.ids, table.contents, settings, folder)
    bonds, angles = graphs.sizes[:, 1:].mean(axis=0)
    _logger.info(
        "%s, %.0f bonds and %.0f angles each", counted(len(graphs), "graph"), bonds, angles
    )
    return graphs


def _find_split(
    config: ConfigDict, seed: int, labelled: Labelled, findings: Findings
) -> Split | None:
    """Returns the split of the usable rows, None where there is none."""
    try:
        split = find_split(config, seed, labelled, findings)
    except UserError as problem:
        findings.refusals.append(str(problem))
        return None
    if empty := [part for part, rows in split._asdict().items() if not len(rows)]:
        sizes = ", ".join(f"{part} {len(rows)}" for part, rows in split._asdict().items())
        findings.refusals.append(
            f"the {' and '.join(empty)} part of the split is empty (crystals: {sizes})"
        )
    return split


def _find_transforms(
    config: ConfigDict,
    labelled: Labelled,
    split: Split | None,
    known: Mapping[str, TargetTransform],
    findings: Findings,
) -> dict[str, TargetTransform]:
    """Returns the scaling of each property's labels, as far as there is one."""
    found = {}
    for one, labels in zip(labelled.properties, labelled.labels.T, strict=True):
        source = known.get(one.name)
        if source and (mismatch := unit_mismatch(source, one.unit)):
            findings.refusals.append(mismatch)
        if split is None or findings.refusals:
            continue
        if source and (doubt := magnitude_shift(source, labels[split.train])):
            findings.remarks.append(doubt)
        try:
            found[one.name] = _fit_transform(config, one, labels, split, findings)
        except UserError as problem:
            findings.refusals.append(str(problem))
    return found


def _fit_transform(
    config: ConfigDict, one: Property, labels: np.ndarray, split: Split, findings: Findings
) -> TargetTransform:
    """Returns the scaling of one property's labels, [rows].

    Raises:
        UserError: there is none.
    """
    training = labels[split.train]
    training = training[~np.isnan(training)]
    if not training.size:
        raise UserError(f"property {one.name}: no crystal of the training part has a label")
    if np.ptp(training) == 0:
        findings.remarks.append(
            f"all {len(training)} training labels of {one.name} are {training[0]:g} {one.unit}: "
            "there is nothing to learn from them"
        )
    transform = fit_transform(
        scaling_labels(labels, split, config.scaling_labels),
        name=one.name,
        unit=one.unit,
        scaling=config.scaling,
        log=one.log,
    )
    scaled = transform.to_scaled(labels[np.concatenate(split)])
    if np.nanmax(np.abs(scaled)) > LARGEST:
        raise UserError(
            f"the labels to scale with hardly differ ({transform.scale:.3g} {one.unit}), and "
            f"others lie over {LARGEST:g} times as far from them: mend or remove these labels"
        )
    return transform


def _scaled(transforms: Mapping[str, TargetTransform], labels: np.ndarray) -> np.ndarray:
    """Returns scaled targets, [rows, properties]."""
    columns = zip(transforms.values(), labels.T, strict=True)
    return np.stack([transform.to_scaled(column) for transform, column in columns], axis=1)


def _too_few(split: Split) -> list[str]:
    """Returns what is said of parts that are too small to say much."""
    remarks = []
    if len(split.test) < _FEW:
        number = counted(len(split.test), "crystal")
        remarks.append(f"only {number} to test on: the error on so few says little")
    if len(split.validation) < _FEW:
        remarks.append(
            f"only {counted(len(split.validation), 'crystal')} to validate on, which hardly "
            "choose the checkpoint of a network; where there are fewer than 9 they do not tell how "
            "wide an interval has to be: leave-one-out errors do instead"
        )
    return remarks


def _giants(ids: Sequence[str], sizes: np.ndarray, settings: GraphSettings) -> list[str]:
    """Returns what is said of crystals that may not fit into memory."""
    kind = "angles" if settings.angles else "bonds"
    rows, (kilobytes, width) = sizes[:, 2 if settings.angles else 1], _KILOBYTES[kind]
    many = np.flatnonzero(rows * kilobytes / 1e6 >= _MUCH_MEMORY)
    if not many.size:
        return []
    largest = many[np.argmax(rows[many])]
    return [
        f"{_MUCH_MEMORY:g} GB or more of memory in a step for {counted(many.size, 'crystal')}, the "
        f"largest, {ids[largest]}, with {rows[largest]} {kind} (the median: {np.median(rows):.0f}) "
        f"about {rows[largest] * kilobytes / 1e6:.1f} GB at width {width}; config.data.max_sites "
        "leaves out large cells"
    ]
