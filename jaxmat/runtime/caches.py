"""Where things are kept that can be made again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from jaxmat.runtime.files import refuse_addresses


def cache_folder(name: str) -> Path:
    """Returns a folder for one kind of thing; it may be deleted at any time.

    It lies in $XDG_CACHE_HOME, or in ~/.cache where that is not set.
    """
    base, home = os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~")
    refuse_addresses({"XDG_CACHE_HOME": base})
    if home == "~":  # a user whom the system does not know, as in a container
        home = tempfile.gettempdir()
    return (Path(base) if base else Path(home) / ".cache") / "jaxmat" / name
