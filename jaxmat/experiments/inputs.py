"""The files that a run was given: should one of them be another later, it is another run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from jaxmat.bundles.bundle import ENSEMBLE, FOLDER, WEIGHTS, place_of
from jaxmat.bundles.means import read_mean
from jaxmat.data.reading import BUNDLED, find_table
from jaxmat.errors import UserError, listed
from jaxmat.experiments.defaults import split_names
from jaxmat.experiments.workdir import INPUTS, has_work, write_json
from jaxmat.runtime.files import digest_file, read_json, rejoin_paths
from jaxmat.training import checkpoint_files
from jaxmat.training.checkpoints import find_checkpoint


def input_files(config: ConfigDict) -> dict[str, str]:
    """Returns the files whose contents a run depends on, by the field of its config.

    They are its table, its split and the models that it starts from, those of a weighted mean each,
    but for what comes with the package. Structure files that a table names are not among them.

    Raises:
        UserError: what names the models of a weighted mean is not as it was written.
    """
    data = config.get("data", {})
    files = {"data.path": table_file(data.get("path", "")), "data.split": data.get("split", "")}
    models = [
        config.get("start_from", ""),
        *rejoin_paths(split_names(config.get("candidates", []))),
    ]
    parts = [part for place in models if place for part in (place, *_members(place))]
    files |= {f"start_from {part}": _weights(part) for part in parts}
    return {name: file for name, file in files.items() if file}


def table_file(path: str) -> str:
    """Returns the file of a table, "" of one that comes with the package or is not there."""
    return "" if not path or path.startswith(BUNDLED) else find_table(path) or ""


def _members(place: str) -> list[str]:
    """Returns where the models of a weighted mean are, none where there is no mean."""
    mean = read_mean(place_of(place))
    return [str(place_of(place) / name) for name in mean.members] if mean else []


def _weights(place: str) -> str:
    """Returns a file that is another where a model is, "" where the user has none there."""
    if not Path(place).exists():
        return ""
    folder = place_of(place)
    there = [folder / ENSEMBLE, folder / WEIGHTS, folder / FOLDER / WEIGHTS]
    if found := next((file for file in there if file.exists()), None):
        return str(found)
    try:
        return str(find_checkpoint(folder) / checkpoint_files.FILES)
    except UserError:  # reading it tells more
        return ""


def refuse_changed(workdir: Path, files: Mapping[str, str]) -> None:
    """Refuses to go on with what was done with other contents of the same files.

    Args:
        workdir: of the run.
        files: see `input_files`.

    Raises:
        UserError: a file is another than it was; the message names all.
    """
    if not has_work(workdir):
        return
    if changed := changed_since(workdir, files):
        raise UserError(
            f"{workdir} holds a run on files that have changed since; choose another --workdir, or "
            "bring them back to go on with it:\n"
            + listed([f"{name}: {files[name]}" for name in changed])
        )


def changed_since(workdir: Path, files: Mapping[str, str]) -> list[str]:
    """Returns the names of files that are others than `keep_inputs` found; of new ones nothing."""
    kept = _kept(workdir)
    return [
        name
        for name, file in files.items()
        if name in kept and (digest := digest_file(file)) and digest != kept[name]
    ]


def keep_inputs(workdir: Path, files: Mapping[str, str]) -> None:
    """Writes what `refuse_changed` compares with; of work that was begun without, nothing."""
    kept = _kept(workdir) if has_work(workdir) else {}
    if kept or not has_work(workdir):
        digests = {name: digest_file(file) for name, file in files.items() if name not in kept}
        write_json(workdir / INPUTS, kept | {n: digest for n, digest in digests.items() if digest})


def _kept(workdir: Path) -> dict[str, str]:
    try:
        return read_json(workdir / INPUTS) if os.path.exists(workdir / INPUTS) else {}
    except UserError:  # damaged: nothing to compare with
        return {}
