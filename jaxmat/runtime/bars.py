"""Progress bars: on a terminal, even on one that does not tell how wide it is."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm

_UNKNOWN = {"ncols": 80, "nrows": 20}  # tqdm shows nothing on a terminal of no width


def progress_bar(total: int, *, silent: bool = False, **options: Any) -> tqdm:
    """Returns a bar, which shows nothing where stderr is not a terminal.

    Args:
        total: of what is counted.
        silent: show nothing anywhere.
        **options: of tqdm.
    """
    # tqdm takes disable=None for "unless stderr is a terminal".
    return tqdm(total=total, disable=silent or None, **_size(), **options)


def _size() -> dict[str, int]:
    try:
        return {} if os.get_terminal_size(sys.stderr.fileno()).columns else _UNKNOWN
    except (OSError, ValueError, AttributeError):
        return {}
