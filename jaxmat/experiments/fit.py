"""Training from Python, on crystals in memory: what `jaxmat train` and `finetune` do with files."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmat import experiments
from jaxmat.bundles.bundle import save_bundle
from jaxmat.bundles.predict import fingerprint
from jaxmat.bundles.shipped import DEFAULT, NONE
from jaxmat.bundles.trained import TrainedModel, load
from jaxmat.crystals.objects import as_structure, is_crystal
from jaxmat.data.frames import column_of, is_frame
from jaxmat.data.layouts.cells import is_missing
from jaxmat.errors import UserError, counted, listed
from jaxmat.experiments import defaults
from jaxmat.experiments.fields import set_fields
from jaxmat.experiments.workdir import refuse_foreign
from jaxmat.runtime.caches import cache_folder
from jaxmat.runtime.files import reason, refuse_addresses, to_json, whole_file
from jaxmat.runtime.logs import Harmless
from jaxmat.values import shortened, written_number

_TABLE, _SOURCE = "table.json", "start_from"
_STRUCTURE = "structure"  # the column of crystals in a table

_logger = logging.getLogger("jaxmat")


def fit(
    structures: Any,
    labels: Any,
    unit: str,
    *,
    start_from: str | Path | TrainedModel | None = DEFAULT,
    workdir: str | Path | None = None,
    name: str | None = None,
    structure_column: str = "structure",
    config: Mapping[str, object] | None = None,
) -> TrainedModel:
    """Trains a network on crystals in memory, from a trained model or from random weights.

    A tenth of the labels chooses the checkpoint and calibrates the intervals, another tenth tests
    (see config); the result of the test is the model's `metrics`.

    The first SIGINT (Ctrl-C), SIGTERM or SIGUSR1 ends the training after the step under way, with
    everything saved, and is passed on; the same call with that `workdir` goes on, on a CPU bit for
    bit. A second one ends it at once. In a thread other than the main one signals are not heard.

    Args:
        structures: crystals of pymatgen (Structure, IStructure) or ASE (Atoms), one a label; or a
            data frame that has them in a column.
        labels: numbers in `unit`, None or NaN where there is none; or the name of the column.
        unit: of the labels, "1" for none.
        start_from: what to fine-tune: a model, a bundle, work directory or checkpoint, or the name
            of a model that comes with the package, as the default is; None: random weights.
        workdir: where the run leaves checkpoints, predictions, plots and its model; a finished run
            is read, not repeated. None: a new folder in ~/.cache/jaxmat/fits (in $XDG_CACHE_HOME
            where that is set), which is removed when the model is returned. It stays, and is named,
            where the training is stopped or fails.
        name: of the property; None: that of the column, else "property".
        structure_column: of a data frame.
        config: fields of the config by their full names, such as {"training.epochs": 30, "seed": 1,
            "strategy": "new_head"}; `jaxmat finetune --print_config` lists them all.

    Returns:
        The trained model.

    Raises:
        UserError: anything in the arguments that can be mended; rows that cannot be used are
            reported together.
        KeyboardInterrupt: it was stopped.
    """
    table = _make_table(structures, labels, name, structure_column)
    settings = _make_config(table, unit, start_from, config or {})
    with _folder(workdir, table, settings) as folder, _speaking():
        settings.data.path = str(folder / _TABLE)
        if isinstance(start_from, TrainedModel):
            settings.start_from = str(folder / _SOURCE)
            _keep_start(folder / _SOURCE, start_from)
        try:
            result = experiments.run(settings, folder, stays=workdir is not None)
        except UserError as problem:
            if workdir is not None:
                raise
            text = str(problem).replace(settings.data.path, "the table of these crystals")
            raise UserError(text) from problem
        if result is None:  # a handler of the user's has the signal
            raise KeyboardInterrupt("the training was stopped")
        model = load(folder)
    if workdir is None:
        _forget(model, folder, start_from)
    return model


def _make_table(
    structures: Any, labels: Any, name: str | None, structure_column: str
) -> dict[str, Any]:
    """Returns a table in the layout of pandas' "split".

    Raises:
        UserError: a column is missing, or crystals or labels that are none.
    """
    index: Sequence[Any] | None = None
    if is_frame(structures):
        if not isinstance(labels, str):
            raise UserError("With a data frame, give the name of its column of labels.")
        name, index = name or labels, getattr(structures, "index", None)
        frame, structures = structures, column_of(structures, structure_column, "structure_column")
        labels = column_of(frame, labels)
    elif is_frame(labels):
        raise UserError('labels is a data frame: give one column of it, such as frame["gap"].')
    elif isinstance(labels, str):
        raise UserError(f"labels={labels!r} names a column, but structures is not a data frame.")
    if isinstance(structures, Mapping):
        raise UserError("structures is a dict: give list(structures.values()), as many labels.")
    if is_crystal(structures) or isinstance(structures, (str, Path)):
        raise UserError("Give a list of structures, or a data frame.")
    if isinstance(labels, Mapping) or not isinstance(labels, Iterable):
        raise UserError(f"labels is {shortened(labels)}: give a list, a number for each structure.")
    crystals, numbers = list(structures), list(labels)
    if not crystals or len(crystals) != len(numbers):
        raise UserError(
            f"Got {counted(len(crystals), 'structure')} and {counted(len(numbers), 'label')}: "
            "give a label for each structure."
        )
    ids = [str(i) for i in (range(len(crystals)) if index is None else index)]
    if len(set(ids)) < len(ids):
        ids = [str(i) for i in range(len(crystals))]
    name = name or str(getattr(labels, "name", None) or "property")
    if name == _STRUCTURE:
        raise UserError(f"The property cannot be called {name!r}: give another name.")
    problems: list[str] = []
    rows = [
        [_structure_dict(id, crystal, problems), _number(id, label, problems)]
        for id, crystal, label in zip(ids, crystals, numbers, strict=True)
    ]
    if problems:
        raise UserError(f"{counted(len(problems), 'row')} cannot be used:\n{listed(problems)}")
    return {"index": ids, "columns": [_STRUCTURE, name], "data": rows}


def _structure_dict(id: str, crystal: object, problems: list[str]) -> dict[str, Any] | None:
    """Returns what a table has of a crystal; what is wrong is added to the problems."""
    try:
        structure = as_structure(crystal)
    except UserError as problem:
        problems.append(f"{id}: {problem}")
        return None
    sites = [
        {
            "species": [{"element": s.symbol, "occu": float(n)} for s, n in site.species.items()],
            "abc": site.frac_coords.tolist(),
        }
        for site in structure
    ]
    lattice = {"matrix": structure.lattice.matrix.tolist(), "pbc": list(map(bool, structure.pbc))}
    return {"@class": "Structure", "lattice": lattice, "sites": sites}


def _number(id: str, label: object, problems: list[str]) -> float | None:
    """Returns a label, None where it is missing; what is wrong is added to the problems."""
    if is_missing(str(label)):
        return None
    if isinstance(label, str):
        number = written_number(label)
    else:
        try:
            number = None if str(label) in ("True", "False") else float(label)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = None
    if number is None or not math.isfinite(number):
        problems.append(f"{id}: its label {label!r} is not a finite number")
    return number


def _make_config(
    table: Mapping[str, Any],
    unit: str,
    start_from: str | Path | TrainedModel | None,
    values: Mapping[str, object],
) -> ConfigDict:
    """Returns the config of the training, but for the places of files."""
    if not isinstance(unit, str) or not unit.strip():
        raise UserError(
            f"unit is {unit!r}: give the unit of the labels as text, "
            'such as "GPa", or "1" where they have none.'
        )
    fields = {"target": table["columns"][1], "unit": unit}
    if start_from in (None, NONE):
        settings = defaults.scratch(**fields)
    else:
        settings = defaults.finetune(**fields)
        settings.start_from = "" if isinstance(start_from, TrainedModel) else str(start_from)
    given = ("data.path", "data.target", "data.unit", "start_from", "experiment")
    if clash := [name for name in values if name in given]:
        raise UserError(f"config: {', '.join(clash)} cannot be set; they come from the arguments.")
    set_fields(settings, values)
    if settings.population != 1:
        raise UserError(
            "config: population has to be 1, for fit returns one model; call it with several seeds."
        )
    return settings


@contextmanager
def _folder(
    workdir: str | Path | None, table: Mapping[str, Any], settings: ConfigDict
) -> Iterator[Path]:
    """Gives the work directory, which has the table.

    A temporary one is removed unless there is work to go on with.

    Raises:
        UserError: it cannot be made, or has another table.
    """
    refuse_addresses({"workdir": workdir})
    try:
        if workdir is not None:
            folder = Path(workdir).absolute()
            refuse_foreign(folder, settings)
            folder.mkdir(parents=True, exist_ok=True)
        else:
            parent = cache_folder("fits")
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent))
    except OSError as error:
        raise UserError(f"Cannot make the work directory: {reason(error)}") from error
    _write_table(folder / _TABLE, table)
    try:
        yield folder
    except BaseException as error:
        if (folder / "checkpoints").exists():
            error.add_note(f"What was done is saved: go on with workdir={str(folder)!r}")
        elif workdir is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if workdir is None:
        shutil.rmtree(folder, ignore_errors=True)


def _keep_start(place: Path, start_from: TrainedModel) -> None:
    """Writes the model to start from, or checks that it is the one that is there.

    Raises:
        UserError: another one is there, or it cannot be written.
    """
    if not place.exists():
        save_bundle(place, start_from.bundle)
    elif fingerprint([load(place).bundle]) != fingerprint([start_from.bundle]):
        raise UserError(
            f"{place.parent} holds a run that starts from another model: give another workdir."
        )


def _forget(model: TrainedModel, folder: Path, start_from: object) -> None:
    """Replaces what a model tells of files that are gone."""
    about = model.bundle.about
    about["data"]["path"] = "crystals in memory"
    if isinstance(start_from, TrainedModel):
        before = f"a model that was {start_from.bundle.about['source']}"
        about["source"] = about["source"].replace(str(folder / _SOURCE), before)


def _write_table(file: Path, table: Mapping[str, Any]) -> None:
    """Writes the table, or checks that it is the one that is there.

    Raises:
        UserError: another one is there, or it cannot be written.
    """
    content = to_json(table, indent=None).encode()
    try:
        if file.exists():
            if file.stat().st_size != len(content) or file.read_bytes() != content:
                raise UserError(
                    f"{file.parent} holds a run on other crystals or labels: give another workdir."
                )
            return
        with whole_file(file) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise UserError(f"Cannot write {file}: {reason(error)}") from error


@contextmanager
def _speaking() -> Iterator[None]:
    """Lets the training say how far it is, on stderr unless the program has a place for it."""
    level = _logger.level
    handler = logging.NullHandler() if _logger.hasHandlers() else logging.StreamHandler()
    handler.setFormatter(Harmless("%(asctime)s %(message)s", "%H:%M:%S"))
    _logger.setLevel(level or logging.INFO)
    _logger.addHandler(handler)
    try:
        yield
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(level)
