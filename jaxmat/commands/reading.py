"""The flags of models and of what comes from outside, and the stream of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from absl import flags

from jaxmat.bundles.shipped import shipped_names
from jaxmat.commands.command import Flags
from jaxmat.data.reading import SOURCES_HELP, Reading, read
from jaxmat.data.reading_pool import DEFAULT_LIMITS, Limits
from jaxmat.errors import UserError
from jaxmat.experiments.ranges import allowed
from jaxmat.values import problem

MODEL_HELP = (
    "A bundle, work directory or checkpoint, or a model that comes with the package "
    f"({', '.join(shipped_names())})."
)


def define_input(values: Flags) -> None:
    """Defines --input and the limits of reading it."""
    flags.DEFINE_list("input", None, SOURCES_HELP, required=True, flag_values=values)
    seconds = "Time limit for reading one structure, in seconds."
    flags.DEFINE_float(
        "read_seconds", DEFAULT_LIMITS.seconds, seconds, lower_bound=0.1, flag_values=values
    )
    megabytes = "Memory limit of each reading process, in megabytes."
    flags.DEFINE_integer(
        "read_megabytes", DEFAULT_LIMITS.megabytes, megabytes, lower_bound=300, flag_values=values
    )
    workers = "Number of reading processes; 0: one for each core."
    flags.DEFINE_integer("read_workers", 0, workers, lower_bound=0, flag_values=values)


def read_input(values: Flags, paths: Sequence[str]) -> Iterator[Reading]:
    """Yields what some paths hold, within the limits that the flags of `define_input` set.

    Raises:
        UserError: there are no such limits, or no paths.
    """
    if not paths:
        raise UserError("--input names nothing to read.")
    for name in ("read_seconds", "read_megabytes", "read_workers"):
        may_be = allowed(f"data.{name}")
        if may_be and (wrong := problem(f"--{name}", values[name].value, may_be)):
            raise UserError(wrong)
    limits = Limits(values.read_seconds, values.read_megabytes)
    return read(paths, limits=limits, workers=values.read_workers or None)
