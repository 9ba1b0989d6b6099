"""Rows that cannot be used: left out, counted and reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pymatgen.core import Structure

from jaxmat.crystals.checks import find_problem
from jaxmat.data.findings import some
from jaxmat.data.tables import Table, TableRows
from jaxmat.errors import UserError, listed


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


def read_usable(
    rows: TableRows, wanted: Sequence[int], max_sites: int = 0
) -> tuple[Table, list[int], list[Rejected]]:
    """Reads some rows of a table; those without a usable structure are left out.

    Args:
        rows: the table.
        wanted: row numbers.
        max_sites: leave out crystals with more sites in the cell, without a reason; 0: none.

    Returns:
        The usable rows, their numbers in `rows`, and the others with the reason.
    """
    structures: list[Structure] = []
    usable: list[int] = []
    rejected: list[Rejected] = []
    for row in wanted:
        try:
            structure = rows.readers[row]()
        except UserError as error:
            problem: str | None = f"unreadable: {error}"
        else:
            if max_sites and len(structure) > max_sites:
                continue
            problem = find_problem(structure)
        if problem is None:
            structures.append(structure)
            usable.append(row)
        else:
            rejected.append(Rejected(rows.ids[row], rows.places[row], problem))
    return rows.with_structures(structures, usable), usable, rejected


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
