"""Rows whose structure cannot be used: taken out, counted and reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxmat.crystals.checks import find_problem
from jaxmat.data.tables import Table
from jaxmat.errors import UserError, listed


class Rejected(NamedTuple):
    """A row that was left out, and why."""

    id: str
    reason: str


def reject_bad(table: Table) -> tuple[Table, list[Rejected]]:
    """Returns the rows with a usable structure, and the others with the reason."""
    problems = [find_problem(structure) for structure in table.structures]
    usable = [row for row, problem in enumerate(problems) if problem is None]
    rejected = [
        Rejected(id, problem)
        for id, problem in zip(table.ids, problems, strict=True)
        if problem is not None
    ]
    return table.take(usable), rejected


def check_rejections(rejected: Sequence[Rejected], n_total: int, max_fraction: float) -> None:
    """Stops if too much of a table was left out.

    Args:
        rejected: the rows left out.
        n_total: rows of the table before that.
        max_fraction: largest share of it that may be left out.

    Raises:
        UserError: more than `max_fraction` of the rows were left out.
    """
    if rejected and len(rejected) / n_total > max_fraction:
        reasons = [f"{row.id}: {row.reason}" for row in rejected]
        raise UserError(
            f"{len(rejected)} of {n_total} structures cannot be used, more than the fraction "
            f"{max_fraction:g} that may be left out; mend them or remove them:\n{listed(reasons)}"
        )
