"""Unusable rows are left out with a reason, and too many of them stop the run."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from jaxmat.data.rejects import Rejected, check_rejections, reject_bad
from jaxmat.data.tables import Table
from jaxmat.errors import UserError


def test_bad_rows_leave_with_their_labels() -> None:
    good, bad = (Structure(Lattice.cubic(edge), ["Si"], [[0, 0, 0]]) for edge in (3.0, 0.3))
    table = Table("t", tuple("abcd"), (good, bad, good, bad), {"gap": np.arange(4.0)})
    usable, rejected = reject_bad(table)
    assert usable.ids == ("a", "c")
    assert usable.structures == (good, good)
    assert usable.column("gap").tolist() == [0.0, 2.0]
    assert [row.id for row in rejected] == ["b", "d"]
    assert all("Å^3 a site" in row.reason for row in rejected)


@pytest.mark.parametrize(
    ("n_rejected", "n_total", "max_fraction", "stops"),
    [(0, 0, 0.0, False), (1, 100, 0.0, True), (1, 100, 0.01, False), (29, 100, 0.29, False)]
    + [(2, 100, 0.01, True), (3, 3, 1.0, False)],
)
def test_fraction_that_may_be_left_out(n_rejected, n_total, max_fraction, stops) -> None:
    rejected = [Rejected(f"mp-{row}", "no sites") for row in range(n_rejected)]
    if not stops:
        check_rejections(rejected, n_total, max_fraction)
        return
    with pytest.raises(UserError, match=f"{n_rejected} of {n_total}") as error:
        check_rejections(rejected, n_total, max_fraction)
    assert all(f"{row.id}: no sites" in str(error.value) for row in rejected)
