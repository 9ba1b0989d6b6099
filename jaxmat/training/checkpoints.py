"""The checkpoints of a run: the last training states to go on from, the best variables to use.

<workdir>/checkpoints/last/<step>/   params, batch_stats, opt_state, ema; the newest two
<workdir>/checkpoints/best/<step>/   params, batch_stats; the newest one
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import serialization

from jaxmat.errors import UserError, listed
from jaxmat.training import checkpoint_files as files
from jaxmat.training.state import TrainState

_FOLDER = "checkpoints"

_logger = logging.getLogger(__name__)


class Checkpoints:
    """Writes and reads the checkpoints of one run.

    Attributes:
        folder: where they lie.
    """

    def __init__(self, workdir: str | Path, description: dict[str, Any]):
        """Writes nothing yet.

        Args:
            workdir: folder of the run.
            description: what the network is and how its inputs and targets are made, as JSON
                values; kept in every checkpoint.
        """
        self.folder = Path(workdir).absolute() / _FOLDER
        self._description = description

    def save_last(self, state: TrainState) -> None:
        """Writes a training state; it and the one before it are kept.

        Args:
            state: the state, on disk when the call returns.
        """
        items = state._asdict()
        self._save("last", int(items.pop("step")), items, {}, keep=2)

    def save_best(self, variables: dict[str, Any], step: int, metric: float) -> None:
        """Writes the best variables so far in the place of the earlier ones.

        Args:
            variables: {"params", "batch_stats"}.
            step: the step they were reached at.
            metric: the validation metric they were chosen by; lower is better.
        """
        self._save("best", step, variables, {"metric": metric}, keep=1)

    def best_metric(self) -> float:
        """The validation metric of the best variables; infinite where there are none."""
        place = next(_whole(_newest_first(self.folder / "best")), None)
        return math.inf if place is None else files.read_about(place)["metric"]

    def restore_last(self, state: TrainState) -> TrainState | None:
        """Reads the newest training state that is whole.

        Args:
            state: a state like the one to be read; its names, shapes and dtypes are required.

        Returns:
            The saved state, or None where none was ever saved.

        Raises:
            UserError: if the checkpoint belongs to another network or optimizer, or if every
                one of the run is damaged.
        """
        places = _newest_first(self.folder / "last")
        if not places:
            return None
        place = _newest_whole(places)
        step = jnp.asarray(files.read_about(place)["step"], state.step.dtype)
        expected = serialization.to_state_dict(state)
        items = files.read_items(place, files.item_names(place), {**expected, "step": None})
        # jnp.array copies: a step that donates the state may then overwrite it.
        restored = {**expected, **jax.tree.map(jnp.array, items), "step": step}
        return serialization.from_state_dict(state, restored)

    def _save(self, kind: str, step: int, items: Any, about: dict[str, Any], keep: int) -> None:
        """Writes <kind>/<step> and then removes what it makes superfluous."""
        folder = self.folder / kind
        about = {"step": step, **about, "description": self._description}
        files.write(folder / str(step), items, about)
        # Later steps are of a run that was given up when an earlier checkpoint was restored.
        later = [place for place in _newest_first(folder) if int(place.name) > step]
        earlier = [place for place in _newest_first(folder) if int(place.name) < step]
        unfinished = folder.glob(f"*{files.UNFINISHED}*")
        for place in [*later, *earlier[keep - 1 :], *unfinished]:
            shutil.rmtree(place)


def load_variables(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads variables to predict with or to start from.

    Args:
        path: a run's folder, its folder of checkpoints, or the folder of a single step. Of a run
            the best variables are read, or those of its last step where there are no best.

    Returns:
        {"params", "batch_stats"} as numpy arrays (the averages of a training state that keeps
        them), and the description saved with them.

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
    place = _newest_whole(places)
    description = files.read_about(place)["description"]
    names = files.item_names(place)
    if "ema" in names:
        return files.read_items(place, ["ema"])["ema"], description
    wanted = [name for name in names if name in ("params", "batch_stats")]
    return {"batch_stats": {}, **files.read_items(place, wanted)}, description


def _newest_first(folder: Path) -> list[Path]:
    """Folders of the complete steps in `folder`; orbax would count an empty one, too."""
    places = [place for place in folder.glob("*") if place.name.isdigit()]
    complete = [place for place in places if (place / files.FILES).is_file()]
    return sorted(complete, key=lambda place: int(place.name), reverse=True)


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
