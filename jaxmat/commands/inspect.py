"""Describes a model, and how it differs from another.

    jaxmat inspect DIR [OTHER]

DIR and OTHER are bundles, work directories, checkpoints or models that come with the package, such
as all_six.
"""

from __future__ import annotations

from jaxmat.bundles.bundle import load
from jaxmat.bundles.describe import compare, describe
from jaxmat.bundles.means import weight_of
from jaxmat.bundles.predict import load_members
from jaxmat.bundles.shipped import shipped_names
from jaxmat.commands.command import Command, Flags
from jaxmat.errors import UserError
from jaxmat.runtime.files import shown_lines
from jaxmat.runtime.stopping import giving_up_on_signals


def _define(values: Flags) -> None:
    """Defines no flags."""


def _run(values: Flags, arguments: list[str]) -> None:
    if not 1 <= len(arguments) <= 2:
        raise UserError(
            "Give a bundle, work directory, checkpoint or model that comes with the package "
            f"({', '.join(shipped_names())}), and perhaps another one to compare it with."
        )
    with giving_up_on_signals():
        if len(arguments) == 2:
            one, other = (load(path) for path in arguments)
            parts = [f"# {arguments[0]}", describe(one)]
            parts += [f"# {arguments[1]}, compared with it", compare(one, other)]
        else:
            members = load_members(arguments)
            parts = [f"# {arguments[0]}"]
            for member in members:
                if len(members) > 1:
                    parts.append(f"# {weight_of(member):.0%} of the mean")
                parts.append(describe(member))
        # What a model of others says of itself is not for the terminal to act on.
        print(shown_lines("\n\n".join(parts)))


COMMAND = Command(__doc__, _define, _run, arguments=True)
