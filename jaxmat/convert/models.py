"""PyTorch ALIGNN checkpoint ↔ bundle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from jaxmat.bundles.about import make_about
from jaxmat.bundles.bundle import Bundle, load, save_bundle
from jaxmat.bundles.model import Model
from jaxmat.convert.files import read_state_dict, write_state_dict
from jaxmat.convert.state_dict import from_state_dict, to_state_dict
from jaxmat.crystals.graph import GraphSettings
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError
from jaxmat.models.network import complete_options

_logger = logging.getLogger(__name__)

CONVERTED = "converted from the PyTorch file"
# What the PyTorch ALIGNN leaves no choice about.
_PYTORCH = {"kind": "alignn", "element_features": "table", "pool_bonds": False}


def torch_to_bundle(
    file: str | Path, folder: str | Path, transforms: Sequence[TargetTransform]
) -> Bundle:
    """Converts a state dict of the PyTorch ALIGNN and writes the bundle.

    Its graphs are those of the published models: canonical for single-property ones (fc),
    non-canonical for multi-property ones and what was fine-tuned from them (conv_to_fc).

    Args:
        file: *.pt, *.npz or *.safetensors.
        folder: the new bundle.
        transforms: name, unit and scaling of each head, in order.

    Returns:
        The bundle.

    Raises:
        UserError: the file cannot be read, or is no such network; see `from_state_dict`.
    """
    file = Path(file)
    arrays = read_state_dict(file)
    try:
        converted = from_state_dict(arrays, [transform.name for transform in transforms])
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    multi_property = any(options["kind"] == "mlp" for options in converted.heads.values())
    bundle = Bundle(
        Model(
            trunk=converted.trunk,
            heads=converted.heads,
            graph=GraphSettings(neighbor_rule="reference", canonical=not multi_property),
            transforms={transform.name: transform for transform in transforms},
        ),
        converted.variables,
        make_about(f"{CONVERTED} {file.name}", torch=converted.batches_tracked),
    )
    save_bundle(folder, bundle)
    return bundle


def bundle_to_torch(path: str | Path, file: str | Path) -> None:
    """Converts a model and writes the state dict of the PyTorch ALIGNN.

    Args:
        path: a bundle, the directory of a run, or a checkpoint.
        file: *.pt, *.npz or *.safetensors.

    Raises:
        UserError: there is no model, PyTorch has no such network, or the file cannot be written.
    """
    model, variables, about, _ = load(path)
    trunk = complete_options(model.trunk)
    if different := [name for name, value in _PYTORCH.items() if trunk.get(name) != value]:
        there = ", ".join(f"{name}={trunk.get(name)!r}" for name in different)
        raise UserError(
            f"The PyTorch ALIGNN has no such network: the trunk of {path} has {there}, where it "
            f"has to have {', '.join(f'{name}={_PYTORCH[name]!r}' for name in different)}."
        )
    network = {kind: variables[kind] for kind in ("params", "batch_stats")}
    write_state_dict(Path(file), to_state_dict(model.heads, network, about["torch"]))
    if model.graph.neighbor_rule != "reference":
        _logger.warning(
            "%s was trained on graphs of the rule %s, which the PyTorch ALIGNN does not have: it "
            "will predict something else.",
            path,
            model.graph.neighbor_rule,
        )
    for name, transform in model.transforms.items():
        quantity = f"ln({name})" if transform.log else name
        _logger.info(
            "%s = %g + %g * output, in %s",
            *(quantity, transform.offset, transform.scale, transform.unit),
        )
