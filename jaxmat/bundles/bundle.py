"""A bundle: one folder that is a model, with all that is needed to use, share and trust it.

<folder>/model.safetensors   the variables, and what the training crystals are recognised by; its
                             header has a digest of each and of config.json
<folder>/config.json         network, graphs, heads, units, scaling, and what is known about it
<folder>/README.md           model card in the form of the Hugging Face Hub

Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxmat.bundles.about import about_problems, make_about
from jaxmat.bundles.intervals import LEFT_OUT, interval_shapes
from jaxmat.bundles.model import Model, variable_shapes
from jaxmat.bundles.shipped import find_model, shipped_names
from jaxmat.data.seen import Seen, seen_shapes
from jaxmat.errors import UserError, listed
from jaxmat.models.gaussian_process import RATIOS
from jaxmat.report.model_card import model_card
from jaxmat.runtime.files import (
    read_json,
    reason,
    refuse_addresses,
    require_regular,
    to_json,
    whole_file,
)
from jaxmat.training.checkpoints import load_variables
from jaxmat.values import nearest, whole

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
ENSEMBLE = "ensemble.json"  # names the models of a weighted mean, and their weights
FOLDER = "model"  # the bundle in the directory of a finished run
CHOSEN = "final"  # the run of what was chosen, in the directory of a choice
_DIGESTS = "sha256"
_MEND = "Bring it back from a copy."
_SEEN = "seen"
_LARGEST_SEEN = 10**8  # crystals, and properties times crystals; a few gigabytes
# Types as safetensors names them. Weights may be kept in half precision.
_WEIGHT = ("F32", "F16")
_TYPES: Mapping[type[np.generic], tuple[str, ...]] = {
    np.uint32: ("U32",),
    np.float16: ("F16",),
    np.uint8: ("U8",),
}


class Bundle(NamedTuple):
    """A model with its weights and what is known about it.

    Attributes:
        model: the network, how it is fed and read.
        variables: {"params", "batch_stats"} and, where a process tells how wide the intervals of
            a network are, {"intervals": {property: its arrays}}, all float32.
        about: JSON values, see `make_about`.
        seen: the crystals that it was trained and validated on, those of the models that it
            started from among them; None: not known.
    """

    model: Model
    variables: dict[str, Any]
    about: dict[str, Any]
    seen: Seen | None = None


def may_meet_new_elements(bundle: Bundle) -> bool:
    """Whether a model may be asked about elements that no training crystal held.

    It may where its errors were measured on elements left out of training, for all it predicts.
    """
    return all(name in bundle.about[LEFT_OUT] for name in bundle.model.heads)


def save_bundle(folder: str | Path, bundle: Bundle, *, half: bool = False) -> None:
    """Writes a bundle; the files of one that is there already are replaced.

    Args:
        folder: where to: a new folder, an empty one or a bundle.
        bundle: what to write.
        half: whether to write weights in half precision, at half the size.

    Raises:
        UserError: weights are not finite, in half precision where that is asked for, or the folder
            holds something else, or cannot be written.
    """
    refuse_addresses({"where to save the model": folder})
    folder = Path(folder).absolute()
    config = to_json(bundle.model.describe() | bundle.about | _describe_seen(bundle.seen)) + "\n"
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        leaves = {
            # safetensors writes the buffer of an array as it lies in memory, whatever its strides.
            name: np.asarray(leaf, np.float16 if half else None, order="C")
            for name, leaf in flatten_dict(bundle.variables, sep="/").items()
        }
    if bundle.seen is not None:
        arrays = bundle.seen._asdict()
        leaves |= {f"{_SEEN}/{name}": np.ascontiguousarray(arrays[name]) for name in seen_shapes()}
    if wrong := _not_finite(leaves):
        raise UserError(
            f"The bundle {folder} is not written, because weights of the model are not finite"
            f"{' in half precision' if half else ''}:\n{listed(wrong)}"
        )
    digests = {name: _digest(leaf.tobytes()) for name, leaf in leaves.items()}
    digests[CONFIG] = _config_digest(json.loads(config))
    contents = {
        WEIGHTS: save(leaves, {_DIGESTS: json.dumps(digests)}),
        CONFIG: config.encode(),
        CARD: model_card(bundle.model, bundle.about).encode("utf-8", "backslashreplace"),
    }
    try:
        if folder.exists() and any(folder.iterdir()) and not _is_bundle(folder):
            raise UserError(f"{folder} holds something that is not a bundle; give a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:  # none takes its place before all are written
            for name, content in contents.items():
                files.enter_context(whole_file(folder / name)).write_bytes(content)
    except OSError as error:
        raise UserError(f"Cannot write the bundle {folder}: {reason(error)}") from error


def _is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle, whole or damaged, that `save_bundle` may replace."""
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as entries:
            return _DIGESTS in (entries.metadata() or {})
    except (OSError, SafetensorError):
        return (folder / CARD).is_file() and "library_name: jaxmat" in _beginning(folder / CARD)


def _beginning(file: Path) -> str:
    with file.open("rb") as stream:
        return stream.read(200).decode(errors="replace")


def read_bundle(folder: str | Path) -> Bundle:
    """Reads a bundle and checks every entry of it.

    Args:
        folder: the bundle.

    Raises:
        UserError: a file is missing or cannot be read, was written by a newer version, or has
            entries that are missing, unknown, changed, or of another shape or dtype than the
            network's; it lists them.
    """
    folder = Path(folder)
    try:
        config = read_json(folder / CONFIG)
        require_regular(folder / WEIGHTS)
    except UserError as error:
        raise UserError(f"{error}. Bring it back from a copy.") from error
    model, shapes = _describe(folder / CONFIG, config)
    if wrong := about_problems(config, model):
        raise UserError(f"{folder / CONFIG} is wrong:\n{listed(wrong)}\n{_MEND}")
    shapes |= interval_shapes(config["calibration"])
    # Processes of earlier formats say nothing of where they are wrong: everywhere alike.
    later = [n for n in shapes if n.endswith(f"/{RATIOS}")] if config["format"] < 4 else []
    equal = {name: np.ones(shapes.pop(name), np.float32) for name in later}
    expected = {name: (_WEIGHT, shape) for name, shape in shapes.items()}
    leaves, digests = _read_arrays(folder / WEIGHTS, expected | _seen_arrays(folder, config))
    found = {name: _digest(leaf.tobytes()) for name, leaf in leaves.items()}
    found[CONFIG] = _config_digest(config)
    changed = [name for name in found if digests.get(name) != found[name]]
    if changed:
        raise UserError(f"{folder} was changed after it was written:\n{listed(changed)}\n{_MEND}")
    _refuse_not_finite(folder, leaves)
    about = {name: config.get(name, {}) for name in make_about("")}
    seen = {name: leaves[f"{_SEEN}/{name}"] for name in seen_shapes() if config.get(_SEEN)}
    weights = equal | {name: leaves[name].astype(np.float32) for name in shapes}
    return Bundle(
        model,
        # A network without batch norms has none of their statistics.
        {"batch_stats": {}, **unflatten_dict(weights, sep="/")},
        about,
        Seen(tuple(config[_SEEN]["properties"]), **seen) if seen else None,
    )


def _describe_seen(seen: Seen | None) -> dict[str, Any]:
    """Returns the entry of config.json about the crystals that a model has seen."""
    if seen is None:
        return {_SEEN: None}
    return {_SEEN: {"crystals": len(seen.composition), "properties": list(seen.properties)}}


def _seen_arrays(
    folder: Path, config: Mapping[str, Any]
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Returns types and shapes of the arrays of the seen crystals, {} where these are not known.

    Raises:
        UserError: what the config says of them is wrong.
    """
    if (seen := config.get(_SEEN)) is None:
        return {}
    if not (
        isinstance(seen, dict)
        and isinstance(number := seen.get("crystals"), int)
        and whole(0, _LARGEST_SEEN).holds(number)
        and isinstance(names := seen.get("properties"), list)
        and all(isinstance(name, str) for name in names)
        and number * len(names) <= _LARGEST_SEEN
    ):
        raise UserError(
            f"{folder / CONFIG} is wrong:\n{listed(['seen lacks crystals or properties'])}\n{_MEND}"
        )
    shapes = seen_shapes(number, len(names))
    return {f"{_SEEN}/{name}": (_TYPES[kind], shape) for name, (kind, shape) in shapes.items()}


def load(path: str | Path) -> Bundle:
    """Reads a model from wherever one is kept.

    Args:
        path: a bundle, the directory of a run (of a finished one its bundle, of a choice that of
            what was chosen, else its best variables), a checkpoint, or the name of a model that
            comes with the package.

    Raises:
        UserError: there is no model, it cannot be read, or there are several.
    """
    refuse_addresses({"the model": path})
    path = place_of(path)
    if (path / ENSEMBLE).exists():
        raise UserError(
            f"{path} is a weighted mean of several models, which can predict and be evaluated, but "
            f"is not one model; give one of the folders in it, such as {path / 'member_0'}."
        )
    if not path.is_dir():
        raise UserError(_no_model(path))
    for folder in (path, path / FOLDER):
        if (folder / WEIGHTS).is_file():
            return read_bundle(folder)
    try:
        variables, description = load_variables(path, lambda found: _describe(path, found)[1])
    except UserError as error:
        if several := [file.parent.parent for file in sorted(path.glob(f"*/{FOLDER}/{WEIGHTS}"))]:
            raise UserError(
                f"{path} has no model of its own, but {len(several)} below it; give one of them:\n"
                f"{listed([str(one) for one in several])}"
            ) from error
        raise
    model, _ = _describe(path, description)
    _refuse_not_finite(path, flatten_dict(variables, sep="/"))
    return Bundle(model, variables, make_about(f"trained in {path}"))


def _no_model(path: Path) -> str:
    """Returns why there is no model in a place that is no folder, and what to give."""
    if "," in str(path) and not path.exists():
        return f"{path} does not exist; where it names several models, give one of them."
    what = "is no folder" if path.exists() else "does not exist"
    near = nearest(str(path), tuple(shipped_names()))
    hint = f"; did you mean {near[0]}, which comes with the package? Else" if near else ";"
    return f"{path} {what}{hint} give a bundle, the directory of a run or a checkpoint."


def place_of(path: str | Path) -> Path:
    """Returns where the model is that a path or a name stands for, see `load`."""
    found = find_model(path)
    chosen = found / CHOSEN
    if not (found / FOLDER).exists() and any((chosen / n).exists() for n in (FOLDER, ENSEMBLE)):
        return chosen
    return found


def _describe(place: Path, description: dict[str, Any]) -> tuple[Model, dict[str, tuple[int, ...]]]:
    """Returns the model that is described in a place, and the shapes of its variables."""
    try:
        model = Model.from_description(description)
        return model, variable_shapes(model.network())
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _refuse_not_finite(place: Path, leaves: Mapping[str, Any]) -> None:
    """Refuses weights that no prediction can be made with.

    Raises:
        UserError: some are not finite, or a variance is negative; it lists them.
    """
    if wrong := _not_finite(leaves):
        raise UserError(
            f"{place} has weights that no prediction can be made with:\n{listed(wrong)}\n{_MEND}"
        )


def _not_finite(leaves: Mapping[str, Any]) -> list[str]:
    wrong = [f"{name} is not finite" for name, x in leaves.items() if not np.isfinite(x).all()]
    return wrong + [
        f"{name} is negative"
        for name, x in leaves.items()
        if name.startswith("batch_stats/") and name.endswith("/var") and np.any(x < 0)
    ]


def _read_arrays(
    file: Path, wanted: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays, which have one of these types and these shapes, and their digests."""
    try:
        with safe_open(file, framework="numpy") as entries:
            digests = dict(json.loads((entries.metadata() or {}).get(_DIGESTS, "{}")))
            slices = {name: entries.get_slice(name) for name in entries.keys()}
            found = {name: f"{s.get_dtype()}{s.get_shape()}" for name, s in slices.items()}
            expected = {
                name: [f"{kind}{list(shape)}" for kind in kinds]
                for name, (kinds, shape) in wanted.items()
            }
            if differences := [
                f"{name}: expected {expected.get(name, ['nothing'])[0]}, "
                f"found {found.get(name, 'nothing')}"
                for name in sorted(expected.keys() | found.keys())
                if found.get(name) not in expected.get(name, [])
            ]:
                raise UserError(
                    f"{file} does not hold the weights of the network that {CONFIG} beside it "
                    f"describes:\n{listed(differences)}\n{_MEND}"
                )
            return {name: entries.get_tensor(name) for name in expected}, digests
    except (
        AttributeError,
        OSError,
        RecursionError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f"{file} cannot be read: it is damaged, or not a safetensors file. {_MEND}"
        ) from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _config_digest(config: dict[str, Any]) -> str:
    """Digest of the values, so that line ends and indentation do not matter; order does."""
    return _digest(json.dumps(config).encode())
