"""The checkpoints of a run: the last training states to go on from, the best variables to use.

<workdir>/checkpoints/last/<step>/   params, batch_stats, opt_state, ema; the newest two
<workdir>/checkpoints/best/<step>/   params, batch_stats; the newest one
<workdir>/checkpoints/end/<step>/    params, batch_stats of a member that ended before the others

Nothing is ever written over: a step whose folder is there already, perhaps damaged, goes to
<step>-2, <step>-3 and so on. Only whole checkpoints that newer ones make superfluous are removed.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from flax.traverse_util import unflatten_dict

from jaxmat.errors import UserError, listed
from jaxmat.runtime import hosts
from jaxmat.training import checkpoint_files as files
from jaxmat.training.state import TrainState

_FOLDER = "checkpoints"
# How many are kept of each kind. In this order they are written: a state to go on from is never
# newer on the disk than the best variables that were found on the way to it.
_KEPT = {"best": 1, "end": 1, "last": 2}
_NONE: Mapping[str, Any] = MappingProxyType({})
_NAME = re.compile(r"(\d+)(?:-(\d+))?")

_logger = logging.getLogger(__name__)


class _Saving(NamedTuple):
    """What is to be written as one checkpoint."""

    step: int
    items: dict[str, Any]
    about: dict[str, Any]


class Checkpoints:
    """Writes and reads the checkpoints of one run.

    The best variables wait in memory until a state is saved: a network has many that are the best
    so far. Where the disk is full (or the system refuses to write for any other reason) a warning
    is given and the newest checkpoint of each kind waits for the next saving. Of several processes
    that are one program the first alone writes; all of them read.

    Attributes:
        folder: where they lie.
    """

    def __init__(
        self, workdir: str | Path, description: dict[str, Any], members: Sequence[str] = ()
    ):
        """Writes nothing yet.

        Args:
            workdir: folder of the run.
            description: what the network is and how its inputs and targets are made, as JSON
                values; kept in every checkpoint.
            members: names of the trainings whose states are stacked; (): it is one.
        """
        self.folder = Path(workdir).absolute() / _FOLDER
        self._description = description
        self._members = list(members)
        self._waiting: dict[str, _Saving] = {}
        self._all_well = True  # with the last writing

    def warn_of_little_space(self, state: TrainState) -> None:
        """Warns where the disk has no room for the states of the run.

        Args:
            state: a state like those to be saved.
        """
        # Two are kept while the third is written.
        needed = 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        there = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        free = shutil.disk_usage(self.folder.parent).free
        if free < needed - there:
            _logger.warning(
                "%s: %.3g MB are free, but the checkpoints will take %.3g MB more. Training goes "
                "on when they cannot be written; make room before it ends.",
                self.folder.parent,
                free / 1e6,
                (needed - there) / 1e6,
            )

    def save_last(self, state: TrainState, said: Mapping[str, Any] = _NONE) -> None:
        """Writes a training state; it and the one before it are kept.

        Args:
            state: the state, on disk when the call returns unless there was a warning.
            said: JSON values to be kept with it, for `said_with_last`.
        """
        if not hosts.is_first():
            return
        items = state._asdict()
        members = {"members": self._members} if self._members else {}
        saving = _Saving(int(items.pop("step")), items, {**said, **members})
        self._waiting["last"] = saving
        if not self.write_waiting():
            self._waiting["last"] = _copied(saving)

    def keep_best(self, variables: dict[str, Any], step: int, metric: float) -> None:
        """Lets the best variables so far wait to be written, in the place of the earlier ones.

        Args:
            variables: {"params", "batch_stats"}.
            step: the step they were reached at.
            metric: the validation metric they were chosen by; lower is better.
        """
        if hosts.is_first():
            self._waiting["best"] = _copied(_Saving(step, variables, {"metric": metric}))

    def keep_end(self, variables: dict[str, Any], step: int) -> None:
        """Lets the variables of a member that ended before its population wait to be written.

        Args:
            variables: {"params", "batch_stats"}.
            step: its last.
        """
        if hosts.is_first():
            self._waiting["end"] = _copied(_Saving(step, variables, {}))

    def write_waiting(self) -> bool:
        """Writes what waits in memory, if anything, and returns whether nothing waits any more."""
        problem = self._write_waiting()
        if problem is not None and self._all_well:
            _logger.warning(
                "%s cannot be written (%s). Training goes on, step %d waits in memory until the "
                "next saving. What was saved before is safe.",
                self.folder,
                problem,
                max(saving.step for saving in self._waiting.values()),
            )
        self._all_well = problem is None
        return self._all_well

    def finish(self) -> None:
        """Writes what waits in memory, if anything, or says that it is lost.

        Raises:
            UserError: it cannot be written.
        """
        if (problem := self._write_waiting()) is not None:
            steps = ", ".join(f"{kind}/{saving.step}" for kind, saving in self._waiting.items())
            raise UserError(
                f"{self.folder}: {steps} cannot be written ({problem}). What was saved before is "
                "safe. Make room and start the same command again: it goes on from there"
            )

    def best_metric(self) -> float:
        """The validation metric of the best variables; infinite where there are none."""
        place = next(_whole(_newest_first(self.folder / "best")), None)
        return math.inf if place is None else files.read_about(place)["metric"]

    def load(self, kind: Literal["best", "end"]) -> dict[str, Any] | None:
        """Reads what `keep_best` or `keep_end` kept, None where there is nothing whole."""
        place = next(_whole(_newest_first(self.folder / kind)), None)
        return None if place is None else _read_variables(place, None)

    def said_with_last(self) -> dict[str, Any]:
        """What was said when the newest whole state was saved; {} where there is none."""
        place = next(_whole(_newest_first(self.folder / "last")), None)
        return {} if place is None else files.read_about(place)

    def restore_last(self, state: TrainState) -> TrainState | None:
        """Reads the newest training state that is whole.

        Args:
            state: a state like the one to be read; its names, shapes and dtypes are required.

        Returns:
            The saved state, or None where none was ever saved.

        Raises:
            UserError: if the checkpoint belongs to another network, optimizer or population, or
                if every one of the run is damaged.
        """
        for path in files.unfinished_in(self.folder / "last"):
            _logger.warning("%s was left unfinished by a killed run and is passed over", path)
        places = _newest_first(self.folder / "last")
        if not places:
            return None
        place = _newest_whole(places)
        about = files.read_about(place)
        # Earlier versions did not write whose states they are.
        if (theirs := about.get("members", self._members)) != self._members:
            raise UserError(
                f"checkpoint {place} is of other trainings ({', '.join(theirs)}; now "
                f"{', '.join(self._members) or 'a single one'}), so none can go on from it. Move "
                f"{self.folder} away to start anew"
            )
        step = jnp.asarray(about["step"], state.step.dtype)
        expected = serialization.to_state_dict(state)
        items = files.read_items(place, files.item_names(place), {**expected, "step": None})
        # jnp.array copies: a step that donates the state may then overwrite it.
        restored = {**expected, **jax.tree.map(jnp.array, items), "step": step}
        return serialization.from_state_dict(state, restored)

    def _write_waiting(self) -> OSError | None:
        """Writes what waits; returns the error that stopped it."""
        for kind in [kind for kind in _KEPT if kind in self._waiting]:
            try:
                self._write(kind, self._waiting[kind])
            except OSError as error:
                return error
            del self._waiting[kind]
        return None

    def _write(self, kind: str, saving: _Saving) -> None:
        """Writes a checkpoint and then removes what it makes superfluous."""
        folder = self.folder / kind
        again = (f"{saving.step}-{n}" for n in itertools.count(2))
        names = itertools.chain([str(saving.step)], again)
        place = next(folder / name for name in names if not (folder / name).exists())
        about = {"step": saving.step, **saving.about, "description": self._description}
        files.write(place, saving.items, about)
        others = [other for other in _newest_first(folder) if other != place]
        whole = [other for other in others if files.damage(other) is None]
        # Later steps are of a run that was given up when an earlier checkpoint was restored.
        earlier = [other for other in whole if _number(other)[0] < saving.step]
        superfluous = set(whole) - set(earlier[: _KEPT[kind] - 1])
        with suppress(OSError):  # tried again after the next saving
            for other in superfluous:
                files.remove(other)


def _copied(saving: _Saving) -> _Saving:
    """Returns a checkpoint in host memory, as the next training step may overwrite its arrays."""
    return saving._replace(items=jax.tree.map(np.array, saving.items))


def load_variables(
    path: str | Path,
    shapes: Callable[[dict[str, Any]], Mapping[str, tuple[int, ...]]] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads variables to predict with or to start from.

    Args:
        path: a run's folder, its folder of checkpoints, or the folder of a single step. Of a run
            the best variables are read, or those of its last step where there are no best.
        shapes: from the description that was saved with them to the shapes of the variables,
            which are float32; they are held against the files before anything is read. None for
            what this program has written itself.

    Returns:
        {"params", "batch_stats"} as numpy arrays (the averages of a training state that keeps
        them), and the description saved with them.

    Raises:
        UserError: if there is no checkpoint, none that is whole, or its variables are not those
            that its description tells of.
    """
    place = find_checkpoint(path)
    description = files.read_about(place)["description"]
    expected = None
    if shapes is not None:
        leaves = {n: jax.ShapeDtypeStruct(s, np.float32) for n, s in shapes(description).items()}
        expected = unflatten_dict(leaves, sep="/")
    return _read_variables(place, expected), description


def find_checkpoint(path: str | Path) -> Path:
    """Finds the checkpoint that `load_variables` reads.

    Args:
        path: a run's folder, its folder of checkpoints, or the folder of a single step.

    Returns:
        The folder of the newest step that is whole, of the best ones where there are any.

    Raises:
        UserError: if there is no checkpoint, or none that is whole.
    """
    path = Path(path).absolute()
    places = [path] if (path / files.FILES).is_file() else []
    for kind in ("best", "last"):
        for folder in (path / _FOLDER, path):
            places += _newest_first(folder / kind)
    if not places:
        raise UserError(
            f"there is no checkpoint in {path}. Looked for complete steps in {_FOLDER}/best, "
            f"{_FOLDER}/last, best and last, and for {files.FILES} of a single step. Give the "
            "folder of a run that has saved a checkpoint, or of a bundle (model.safetensors)"
        )
    return _newest_whole(places)


def _read_variables(place: Path, expected: Any) -> dict[str, Any]:
    """Reads variables of a checkpoint; see `load_variables`."""
    names = files.item_names(place)
    if "ema" in names:
        averages = expected if expected is None else {"ema": expected}
        # Of a network without batch norms nothing is kept of them.
        found = files.read_items(place, ["ema"], averages)["ema"]
        return {"batch_stats": {}, **found}
    wanted = [name for name in names if name in ("params", "batch_stats")]
    return {"batch_stats": {}, **files.read_items(place, wanted, expected)}


def _newest_first(folder: Path) -> list[Path]:
    """Folders with the name of a step, whole or not."""
    return sorted(
        (place for place in folder.glob("*") if _NAME.fullmatch(place.name)),
        key=_number,
        reverse=True,
    )


def _number(place: Path) -> tuple[int, int]:
    """The step of a checkpoint, and which of that step it is, from 1 on."""
    step, writing = place.name.partition("-")[::2]
    return int(step), int(writing or 1)


def _whole(places: list[Path]) -> Iterator[Path]:
    """Those checkpoints that are undamaged, in turn; warns of the others."""
    for place in places:
        problem = files.damage(place)
        if problem is None:
            yield place
        else:
            _logger.warning("checkpoint %s is damaged and passed over: %s", place, problem)


def _newest_whole(places: list[Path]) -> Path:
    place = next(_whole(places), None)
    if place is None:
        problems = [f"{place}: {files.damage(place)}" for place in places]
        raise UserError(
            f"every checkpoint is damaged:\n{listed(problems)}\n"
            "Bring one back from a copy, or start in an empty folder"
        )
    return place
