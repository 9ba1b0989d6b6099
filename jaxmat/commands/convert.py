"""Converts between PyTorch checkpoints of ALIGNN and bundles.

    jaxmat convert --input=model.pt --output=FOLDER --properties=gap,hull --units=eV,eV
    jaxmat convert --input=FOLDER --output=model.pt

A state dict does not say what its heads predict, nor in which unit, and published models predict
targets scaled to -1 ... 1. For such a model give the smallest and largest label of the table, in
the unit, with --targets_min and --targets_max; without them predictions are taken to be in the unit
already.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from jaxmat.bundles.bundle import CONFIG, place_of
from jaxmat.commands.command import Command, Flags
from jaxmat.commands.output import refuse_overwriting, writing
from jaxmat.convert.models import CONVERTED, bundle_to_torch, torch_to_bundle
from jaxmat.data.targets import TargetTransform
from jaxmat.errors import UserError, counted
from jaxmat.runtime.files import read_json
from jaxmat.runtime.stopping import giving_up_on_signals
from jaxmat.values import written_number


def _define(values: Flags) -> None:
    source, output = "*.pt, *.npz, *.safetensors; or a bundle.", "Folder of the bundle; or a file."
    flags.DEFINE_string("input", None, source, required=True, flag_values=values)
    flags.DEFINE_string("output", None, output, required=True, flag_values=values)
    for name, help in (
        ("properties", "Name of each head, in order."),
        ("units", 'Unit of each head; "1" for none.'),
        ("targets_min", "Label that was scaled to -1, of each head or blank."),
        ("targets_max", "Label that was scaled to 1, of each head or blank."),
    ):
        flags.DEFINE_list(name, [], help, flag_values=values)


def _run(given: Flags, arguments: list[str]) -> None:
    heads = (given.properties, given.units, given.targets_min, given.targets_max)
    source, output = place_of(given.input), Path(given.output)
    if not source.exists():
        raise UserError(f"--input={source} does not exist.")
    if source.is_dir() and any(heads):
        raise UserError("A bundle has names, units and scaling: give --input and --output only.")
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--output={output} lies in the input; give a place outside of it.")
    if source.is_dir():
        # A state dict does not tell who has written it.
        refuse_overwriting(output, [source], lambda start: False)
    else:
        _refuse_other_bundle(output)
    with giving_up_on_signals(), writing(output):
        if source.is_dir():
            bundle_to_torch(source, output)
        else:
            torch_to_bundle(source, output, make_transforms(*heads))
    print(f"{source} → {output}")


def _refuse_other_bundle(output: Path) -> None:
    """Refuses to replace a bundle that was not converted; `save_bundle` refuses other folders.

    Raises:
        UserError: so it is.
    """
    if not (output / CONFIG).is_file():
        return
    content = read_json(output / CONFIG)
    if "experiment" in content:
        raise UserError(f"--output={output} is the directory of a run; give another name.")
    if not str(content.get("source")).startswith(CONVERTED):
        raise UserError(
            f"--output={output} is a model that was {content.get('source')}: it would be lost; "
            "give another name."
        )


def make_transforms(
    properties: list[str], units: list[str], least: list[str], greatest: list[str]
) -> list[TargetTransform]:
    """Returns the transform of each head, t = 2 (y - min) / (max - min) - 1 where both are given.

    Args:
        properties: names.
        units: of each.
        least: label that was scaled to -1, of each, "" for none; or empty for none at all.
        greatest: label that was scaled to 1, likewise.

    Raises:
        UserError: a name is missing, other numbers of the rest, or no numbers.
    """
    if not properties or not all(name.strip() for name in properties):
        raise UserError("Name each head, in order, and its unit: --properties=a,b --units=eV,GPa.")
    ends = [values or [""] * len(properties) for values in (least, greatest)]
    for flag, values in zip(("units", "targets_min", "targets_max"), (units, *ends), strict=True):
        if len(values) != len(properties):
            raise UserError(
                f"--{flag} has {counted(len(values), 'value')}, --properties "
                f"{counted(len(properties), 'name')}; give one for each, separated by commas."
            )
    return [_transform(*fields) for fields in zip(properties, units, *ends, strict=True)]


def _transform(name: str, unit: str, least: str, greatest: str) -> TargetTransform:
    low, high = written_number(least or "-1"), written_number(greatest or "1")
    if low is None or high is None:
        raise UserError(
            f"{name}: --targets_min={least} and --targets_max={greatest} have to be numbers."
        )
    if bool(least) != bool(greatest):
        raise UserError(f"{name}: give both --targets_min and --targets_max, or neither.")
    if low >= high:
        raise UserError(
            f"{name}: --targets_min={least or low} has to be less than --targets_max="
            f"{greatest or high}; they are its smallest and its largest label."
        )
    return TargetTransform(name, unit, log=False, offset=(low + high) / 2, scale=(high - low) / 2)


COMMAND = Command(__doc__, _define, _run)
