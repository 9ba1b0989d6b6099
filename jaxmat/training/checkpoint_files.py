"""One checkpoint on disk: a folder of orbax trees that is either complete or not there.

Each item (params, opt_state, ...) is an orbax tree of named arrays. Beside them lie about.json and
files.json, which has a digest of every file: orbax reads some changed bytes of an array without
complaint. The folder gets its name when all of it is written, and loses it before any of it is
removed. Nothing is unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import serialization

from jaxmat.errors import UserError, listed
from jaxmat.runtime.files import read_json, reason, write_json
from jaxmat.values import problems, real, whole

ABOUT, FILES = "about.json", "files.json"
UNFINISHED = ".unfinished"
_FORMAT = 1  # to be raised when earlier code can no longer read what is written here


def write(place: Path, items: dict[str, Any], about: dict[str, Any]) -> None:
    """Writes a checkpoint; when the call returns, it outlasts a power failure.

    Args:
        place: absolute path of the new folder; there must be nothing yet.
        items: name to pytree of arrays; those without a leaf are left out.
        about: JSON values to keep with them.

    Raises:
        OSError: it cannot be written, for instance because the disk is full. Nothing is left of
            it then.
    """
    remove_unfinished(place.parent)  # before, because what a killed run has left takes room
    unfinished = place.with_name(place.name + UNFINISHED)
    try:
        _write_trees(unfinished, items)
        write_json(unfinished / ABOUT, {"format": _FORMAT, **about})
        files = [path for path in sorted(unfinished.rglob("*")) if path.is_file()]
        digests = {path.relative_to(unfinished).as_posix(): _digest(path) for path in files}
        write_json(unfinished / FILES, digests)
        for path in (*unfinished.rglob("*"), unfinished):
            _sync(path)
        unfinished.rename(place)
        _sync(place.parent)
    except OSError:
        remove_unfinished(place.parent)
        raise


def remove(place: Path) -> None:
    """Removes a checkpoint so that it is never seen in part.

    Args:
        place: its folder.

    Raises:
        OSError: it cannot be removed.
    """
    shutil.rmtree(place.rename(place.with_name(place.name + UNFINISHED)))


def unfinished_in(folder: Path) -> list[Path]:
    """Lists what was being written or removed when a run was killed.

    Args:
        folder: the folder that holds checkpoints.
    """
    return sorted(folder.glob(f"*{UNFINISHED}*"))


def remove_unfinished(folder: Path) -> None:
    """Removes what was being written or removed when a run was killed.

    Args:
        folder: the folder that holds checkpoints.
    """
    for path in unfinished_in(folder):
        shutil.rmtree(path, ignore_errors=True)


def damage(place: Path) -> str | None:
    """Compares a checkpoint's files with their digests.

    Args:
        place: folder of the checkpoint.

    Returns:
        What is wrong, or None.
    """
    try:
        digests = read_json(place / FILES)
        changed = [
            name
            for name, digest in digests.items()
            if not (place / name).is_file() or _digest(place / name) != digest
        ]
    except UserError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"cannot be read ({reason(error)})"
    if ABOUT not in digests:
        return f"{FILES} in it does not list {ABOUT}"
    return f"missing or changed: {', '.join(changed[:3])}" if changed else None


def read_about(place: Path) -> dict[str, Any]:
    """Reads what was saved as `about`.

    Args:
        place: folder of an undamaged checkpoint.

    Returns:
        The JSON values.

    Raises:
        UserError: if the checkpoint has a format that this code does not know, or entries are
            missing or of other types.
    """
    about = read_json(place / ABOUT)
    version = about.get("format")
    if isinstance(version, int) and version > _FORMAT:
        raise UserError(
            f"checkpoint {place} was written by a newer jaxmat (format {version}; this "
            f"one reads up to {_FORMAT}): update jaxmat"
        )
    fields = {"format": whole(1), "step": whole(0)}
    wrong = problems("", {name: about.get(name) for name in fields}, fields)
    if not isinstance(about.get("description"), dict):
        wrong.append("there is no description of the model")
    if "metric" in about and not real().holds(about["metric"]):
        wrong.append(f"metric is {about['metric']!r}, which is not a number")
    for name, kind in (("members", list), ("broken", dict)):
        texts = about.get(name, kind())
        if not isinstance(texts, kind) or not all(isinstance(text, str) for text in texts):
            wrong.append(f"{name} is {texts!r}, which names no trainings")
    if wrong:
        raise UserError(f"{place / ABOUT} is wrong:\n{listed(wrong)}\nBring it back from a copy")
    return about


def item_names(place: Path) -> list[str]:
    """Names of the items in a checkpoint; folders that were not written with it are none.

    Args:
        place: folder of an undamaged checkpoint.
    """
    return sorted({name.partition("/")[0] for name in read_json(place / FILES) if "/" in name})


def read_items(place: Path, names: Sequence[str], expected: Any = None) -> dict[str, Any]:
    """Reads items of a checkpoint into host memory, whatever device they were on when saved.

    Args:
        place: folder of an undamaged checkpoint.
        names: names of the items.
        expected: if given, a dict of such items; the saved leaves must have its names, shapes
            and dtypes.

    Returns:
        Name to nested dict of numpy arrays.

    Raises:
        UserError: if the leaves are not the expected ones; it lists the differences.
    """
    # Handlers for all items, or orbax warns of those that are not asked for.
    handlers = {
        name: ocp.StandardCheckpointHandler(multiprocessing_options=_this_process())
        for name in item_names(place)
    }
    try:
        with _alone(handlers) as reader:
            metadata = reader.metadata(place).item_metadata
            found = {name: metadata[name].tree for name in names}
            if expected is not None:
                _require_same_leaves(place, expected, found)
            blank = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), found)
            targets = {name: ocp.args.StandardRestore(tree) for name, tree in blank.items()}
            restored = reader.restore(place, args=ocp.args.Composite(**targets))
        return {name: restored[name] for name in names}
    # Its digests are right, so that it was not damaged: somebody has made it so.
    except (AttributeError, KeyError, MemoryError, OSError, TypeError, ValueError) as error:
        raise UserError(
            f"checkpoint {place} holds no arrays that can be read. Bring it back from a copy"
        ) from error


def _require_same_leaves(place: Path, expected: Any, found: Any) -> None:
    """Compares names, shapes and dtypes; orbax itself would cast a dtype without a word."""
    ours, theirs = _leaves(expected), _leaves(found)
    differences = [
        f"{name}: expected {ours.get(name, 'nothing')}, found {theirs.get(name, 'nothing')}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if differences:
        raise UserError(
            f"checkpoint {place} is of another network or optimizer:\n{listed(differences)}\n"
            f"Set model and optimizer as they were when it was written ({ABOUT} in it describes "
            "the model), or start in an empty folder"
        )


def _leaves(tree: Any) -> dict[str, str]:
    """Maps names such as "params/trunk/fc/kernel" to forms such as "float32[256, 1]"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _write_trees(folder: Path, items: dict[str, Any]) -> None:
    trees = {
        # In host memory: of several processes orbax would save one's own arrays in none.
        name: ocp.args.StandardSave(jax.device_get(serialization.to_state_dict(tree)))
        for name, tree in items.items()
        if jax.tree.leaves(tree)
    }
    try:
        with _alone({}) as writer:
            writer.save(folder, args=ocp.args.Composite(**trees))
    except ValueError as error:  # all that tensorstore makes of what the system refuses
        if (code := re.search(r"os_error_code='(\d+)'", str(error))) is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error


def _alone(handlers: dict[str, ocp.CheckpointHandler]) -> ocp.Checkpointer:
    """Returns what reads or writes in this process, without the others that may be."""
    options = ocp.CompositeOptions(multiprocessing_options=_this_process())
    composite = ocp.CompositeCheckpointHandler(composite_options=options, **handlers)
    return ocp.Checkpointer(composite, multiprocessing_options=_this_process())


def _this_process() -> ocp.options.MultiprocessingOptions:
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=str(me)
    )


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot do it to a folder
            raise
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
