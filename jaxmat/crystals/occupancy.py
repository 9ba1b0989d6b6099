"""Which elements are on each site of ASE's atoms, whose symbols tell only the first of them.

What ASE reads of a CIF with sites that are shared or not full has, beside the atoms, a dict that
tells of each kind of site how much of which element is on it, and the kind of each atom.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from jaxmat.errors import UserError

# Refined occupancies of full sites and sums of rounded ones lie this close to one.
OCCUPANCY_TOLERANCE = 0.02
# Arrays of ASE, and columns of extended XYZ, with the occupancy of each atom.
OCCUPANCY_ARRAYS = ("occupancies", "occupancy")


def site_species(
    symbols: Sequence[str], occupancy: object, kinds: Sequence[Any] | None
) -> list[dict[str, float]]:
    """Returns how much of which element is on the site of each atom.

    Args:
        symbols: of the atoms.
        occupancy: kind of site, maybe as text → element → occupancy (ASE's info["occupancy"]);
            anything else tells nothing, and every site is full.
        kinds: of the atoms (ASE's array spacegroup_kinds); None: not known.

    Raises:
        UserError: a site is shared or not full, and nothing tells which atoms are on such sites.
    """
    plain = [{symbol: 1.0} for symbol in symbols]
    if not _tells_sites(occupancy):
        return plain
    assert isinstance(occupancy, Mapping)
    table = {str(kind): {k: float(v) for k, v in site.items()} for kind, site in occupancy.items()}
    if kinds is None:
        _refuse_disorder(symbols, list(table.values()))
        return plain
    sites = [table.get(str(kind), {}) for kind in kinds]
    # An atom that is not among those of its kind has been put there later.
    pairs = zip(symbols, sites, plain, strict=True)
    return [dict(site) if symbol in site else own for symbol, site, own in pairs]


def fill_sites(
    species: Sequence[dict[str, float]], amounts: Iterable[float]
) -> list[dict[str, float]]:
    """Returns species with the occupancy of each atom where its site is said to be full."""
    return [
        dict.fromkeys(site, float(amount)) if list(site.values()) == [1.0] else site
        for site, amount in zip(species, amounts, strict=True)
    ]


def _tells_sites(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(site, Mapping) and all(isinstance(one, Real) for one in site.values())
        for site in value.values()
    )


def _refuse_disorder(symbols: Sequence[str], sites: Sequence[dict[str, float]]) -> None:
    """Refuses a kind of site that is shared or not full and may be that of an atom."""
    there = set(symbols)
    for site in sites:
        full = len(site) == 1 and abs(sum(site.values()) - 1) <= OCCUPANCY_TOLERANCE + 1e-9
        if not full and there & site.keys():
            held = ", ".join(f"{symbol} {amount:g}" for symbol, amount in site.items())
            raise UserError(
                f"disorder: a site is shared or not full ({held}): make an ordered crystal of it "
                "first; if it is one, leave out 'occupancy'"
            )
