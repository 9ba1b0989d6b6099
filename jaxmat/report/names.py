"""Short names of runs, which are known by their directories."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

# Folders that every run may have: none of them tells one run from another.
_USUAL = ("model", "final", "best", "last", "pretrain", "finetuned", "scratch", "checkpoints")


def short_name(path: str) -> str:
    """Returns as much of the end of a path as names a run."""
    return short_names([path])[path]


def short_names(paths: Collection[str]) -> dict[str, str]:
    """Returns as much of the end of each path as names a run and tells it from the others."""
    names = {}
    for path in paths:
        parts = [part for part in Path(path).parts if part not in ("/", "..", ".")]
        usual = next(
            (n for n, part in enumerate(reversed(parts)) if part not in _USUAL), len(parts)
        )
        ends = ["/".join(parts[-n:]) for n in range(usual + 1, len(parts) + 1)]
        others = [other for other in paths if other != path]
        alone = (
            end for end in ends if not any(f"/{other}".endswith(f"/{end}") for other in others)
        )
        names[path] = next(alone, path)
    return names
