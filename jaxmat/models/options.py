"""What the options of trunks and heads may be, as they stand in configs and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxmat.errors import UserError, listed
from jaxmat.values import Allowed, flag, problem, real, text, whole

# A network of these is far beyond all that are used; one beyond them would not end to be built.
_MOST_LAYERS, _MOST_FEATURES = 64, 8192


def check_options(what: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Checks the options of a trunk or head; the types of the defaults tell those of the values.

    Args:
        what: has the options, for messages, such as "Trunk 'alignn'".
        given: option → value; those left out keep their defaults.
        defaults: option → default.

    Raises:
        UserError: unknown options, or values that are not allowed.
    """
    if strange := [str(name) for name in given if name not in defaults]:
        raise UserError(
            f"{what} has no option {', '.join(sorted(strange))}; it has "
            f"{', '.join(sorted(defaults)) or 'none'}."
        )
    wrong = [
        problem(name, value, allowed_like(name, defaults[name])) for name, value in given.items()
    ]
    if found := [words for words in wrong if words]:
        raise UserError(f"{what} cannot be built:\n{listed(found)}")


def allowed_like(name: str, default: Any) -> Allowed:
    """Returns what an option may be.

    Args:
        name: of the option.
        default: its value where it is left out.
    """
    if isinstance(default, bool):
        return flag()
    if isinstance(default, int):
        if name.endswith("layers"):
            return whole(0, _MOST_LAYERS)
        # Functions of a length or an angle lie a step apart, so there are two at least.
        return whole(2 if name.endswith("bins") else 1, _MOST_FEATURES)
    return real(above=0, most=1e6) if isinstance(default, float) else text()
