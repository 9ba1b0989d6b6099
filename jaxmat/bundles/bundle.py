"""A bundle: one folder that is a model, with all that is needed to use, share and trust it.

<folder>/model.safetensors   the variables; its header has a digest of each and of config.json
<folder>/config.json         network, graphs, heads, units, scaling, and what is known about it
<folder>/README.md           model card in the form of the Hugging Face Hub

Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxmat.bundles.model import Model, variable_shapes
from jaxmat.errors import UserError, listed
from jaxmat.report.model_card import model_card
from jaxmat.training.checkpoints import load_variables

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FOLDER = "model"  # the bundle in the directory of a finished run
_DIGESTS = "sha256"


class Bundle(NamedTuple):
    """A model with its weights and what is known about it.

    Attributes:
        model: the network, how it is fed and read.
        variables: {"params", "batch_stats"}, float32.
        about: JSON values, see `make_about`.
    """

    model: Model
    variables: dict[str, Any]
    about: dict[str, Any]


def make_about(
    source: str,
    *,
    elements: list[str] | None = None,
    data: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    calibration: dict[str, Any] | None = None,
    torch: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Returns what a bundle tells about its model.

    Args:
        source: how it was made, in words.
        elements: symbols of the elements of the training crystals, sorted; None: not known.
        data: training data {"path", "target", "crystals": {part: number}, "fingerprint"}; None:
            not known.
        metrics: numbers of the test.
        calibration: property → {"level", "half_width"}: so far to both sides of a scaled
            prediction lies the scaled label with this probability.
        torch: of a converted model, what PyTorch keeps beside it: entry → number.
    """
    return {
        "source": source,
        "elements": elements,
        "data": data,
        "metrics": metrics or {},
        "calibration": calibration or {},
        "torch": torch or {},
    }


def save_bundle(folder: str | Path, bundle: Bundle) -> None:
    """Writes a bundle; the files of one that is there already are replaced.

    Args:
        folder: where to: a new folder, an empty one or a bundle.
        bundle: what to write.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    folder = Path(folder).absolute()
    config = json.dumps(bundle.model.describe() | bundle.about, indent=1, ensure_ascii=False)
    leaves = {
        # safetensors writes the buffer of an array as it lies in memory, whatever its strides.
        name: np.asarray(leaf, order="C")
        for name, leaf in flatten_dict(bundle.variables, sep="/").items()
    }
    digests = {name: _digest(leaf.tobytes()) for name, leaf in leaves.items()}
    digests[CONFIG] = _config_digest(json.loads(config))
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / WEIGHTS).is_file():
            raise UserError(f"{folder} holds something that is no bundle; give a new folder.")
        unfinished.mkdir(parents=True)
        (unfinished / WEIGHTS).write_bytes(save(leaves, {_DIGESTS: json.dumps(digests)}))
        (unfinished / CONFIG).write_text(config + "\n", encoding="utf-8")
        card = model_card(bundle.model, bundle.about)
        (unfinished / CARD).write_text(card, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        for name in (WEIGHTS, CONFIG, CARD):
            (unfinished / name).replace(folder / name)
        unfinished.rmdir()
    except OSError as error:
        raise UserError(f"Cannot write the bundle {folder}: {error}") from error


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
    config = _read_config(folder / CONFIG)
    model, shapes = _describe(folder / CONFIG, config)
    if missing := sorted(make_about("").keys() - config.keys()):
        raise UserError(f"{folder / CONFIG} lacks {', '.join(missing)}. Bring it back from a copy.")
    leaves, digests = _read_weights(folder / WEIGHTS, shapes)
    found = {name: _digest(leaf.tobytes()) for name, leaf in leaves.items()}
    found[CONFIG] = _config_digest(config)
    changed = [name for name in found if digests.get(name) != found[name]]
    if changed:
        raise UserError(
            f"{folder} was changed after it was written:\n{listed(changed)}\n"
            "Bring it back from a copy."
        )
    about = {name: config[name] for name in make_about("")}
    return Bundle(model, unflatten_dict(leaves, sep="/"), about)


def load(path: str | Path) -> Bundle:
    """Reads a model from wherever one is kept.

    Args:
        path: a bundle, the directory of a run (of a finished one its bundle, else its best
            variables), or a checkpoint.

    Raises:
        UserError: there is no model, or it cannot be read.
    """
    path = Path(path)
    for folder in (path, path / FOLDER):
        if (folder / WEIGHTS).is_file():
            return read_bundle(folder)
    variables, description = load_variables(path)
    model, _ = _describe(path, description)
    return Bundle(model, variables, make_about(f"trained in {path}"))


def _describe(place: Path, description: dict[str, Any]) -> tuple[Model, dict[str, tuple[int, ...]]]:
    """Returns the model that is described in a place, and the shapes of its variables."""
    try:
        model = Model.from_description(description)
        return model, variable_shapes(model.network())
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}. Bring it back from a copy.") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is no JSON object. Bring it back from a copy.")
    return config


def _read_weights(
    file: Path, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the variables, which have these shapes, and the digests beside them."""
    try:
        with safe_open(file, framework="numpy") as entries:
            digests = dict(json.loads((entries.metadata() or {}).get(_DIGESTS, "{}")))
            slices = {name: entries.get_slice(name) for name in entries.keys()}
            found = {name: f"{s.get_dtype()}{s.get_shape()}" for name, s in slices.items()}
            expected = {name: f"F32{list(shape)}" for name, shape in shapes.items()}
            if differences := [
                f"{name}: expected {expected.get(name, 'nothing')}, "
                f"found {found.get(name, 'nothing')}"
                for name in sorted(expected.keys() | found.keys())
                if expected.get(name) != found.get(name)
            ]:
                raise UserError(
                    f"{file} has not the weights of the network that {CONFIG} beside it "
                    f"describes:\n{listed(differences)}\nBring the bundle back from a copy."
                )
            return {name: entries.get_tensor(name) for name in expected}, digests
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}. Bring it back from a copy.") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _config_digest(config: dict[str, Any]) -> str:
    """Digest of the values, so that line ends and indentation do not matter; order does."""
    return _digest(json.dumps(config).encode())
