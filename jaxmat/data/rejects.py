"""Rows that cannot be used: left out, counted and reported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxmat.crystals.checks import MAX_SITES
from jaxmat.data.findings import some
from jaxmat.data.tables import Table, TableRows
from jaxmat.errors import listed

# What differs from crystal to crystal in remarks of one kind.
_DETAILS = re.compile(r"(?<=: ).*|\(.*\)|\d[\d.]*")


class Rejected(NamedTuple):
    """A row that was left out.

    Attributes:
        id: of the row.
        place: where it stands in the table.
        reason: why; a word for the kind of problem, a colon and what it is.
    """

    id: str
    place: str
    reason: str


def take_usable(
    rows: TableRows, wanted: Sequence[int], max_sites: int = 0
) -> tuple[Table, list[int], list[Rejected]]:
    """Takes some rows of a table; those without a usable crystal are left out.

    Args:
        rows: the table.
        wanted: row numbers.
        max_sites: leave out crystals with more sites in the cell, without a reason; 0: none.

    Returns:
        The usable rows, their numbers in `rows`, and the others with the reason.
    """
    usable: list[int] = []
    rejected: list[Rejected] = []
    sites = rows.contents.sites.tolist()
    for row in wanted:
        if rows.reasons[row]:
            rejected.append(Rejected(rows.ids[row], rows.places[row], rows.reasons[row]))
        elif 0 < sites[row] <= (max_sites or MAX_SITES):
            usable.append(row)
    return rows.take(usable), usable, rejected


def describe_remarks(rows: TableRows, used: Sequence[int]) -> str | None:
    """Returns the remarks on the crystals that are used, each once with the first ids, or None.

    Args:
        rows: the table.
        used: row numbers.
    """
    found: dict[str, list[str]] = {}
    for row in used:
        for remark in rows.remarks[row]:
            found.setdefault(_DETAILS.sub("...", remark), []).append(rows.ids[row])
    if not found:
        return None
    most = sorted(found.items(), key=lambda item: -len(item[1]))
    lines = [f"{remark}: {len(ids)} ({some(ids)})" for remark, ids in most]
    return f"remarks on the crystals that are used:\n{listed(lines)}"


def describe_rejected(rejected: Sequence[Rejected], n_total: int) -> str:
    """Returns how many rows were left out, by the kind of problem, with the first ids of each.

    Args:
        rejected: the rows left out, at least one.
        n_total: rows of the table before that.
    """
    kinds: dict[str, list[str]] = {}
    for row in rejected:
        kinds.setdefault(row.reason.partition(":")[0], []).append(row.id)
    lines = [f"  {kind}: {len(ids)} ({some(ids)})" for kind, ids in kinds.items()]
    return "\n".join([f"{len(rejected)} of {n_total} rows cannot be used:", *lines])


def too_many_rejected(
    rejected: Sequence[Rejected], n_total: int, max_fraction: float
) -> str | None:
    """Returns why so many rows cannot be left out, or None if they can.

    Args:
        rejected: the rows left out.
        n_total: rows of the table before that.
        max_fraction: largest share of it that may be left out.
    """
    if not rejected or len(rejected) / n_total <= max_fraction:
        return None
    return (
        f"{describe_rejected(rejected, n_total)}\n"
        f"More than the fraction {max_fraction:g} (config.data.max_rejected_fraction) may not be "
        "left out; mend them or remove them:\n"
        f"{listed([f'{row.id}: {row.reason}' for row in rejected])}"
    )
