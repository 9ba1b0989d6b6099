"""Programs that take turns, each in a process of its own, so that load on the machine hits all."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from jaxmat.errors import UserError

_ROOT = Path(__file__).parents[1]
_PEER = Path(__file__).with_name("peer_alignn.py")
_PEER_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


class Process:
    """A program that gets ready and then works when told to."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        """Does not wait until it is ready.

        Args:
            name: for messages.
            process: it has just been started.
        """
        self._name, self._process = name, process

    @cached_property
    def about(self) -> dict[str, Any]:
        """What it said when it was ready; waits for that.

        Raises:
            UserError: it has stopped.
        """
        return self._hear()

    def turn(self) -> dict[str, Any]:
        """Lets it work once, as soon as it is ready, and returns its answer.

        Raises:
            UserError: it has stopped.
        """
        _ = self.about
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has stopped, and so it does not answer
            print(file=self._process.stdin, flush=True)
        return self._hear()

    def peak_bytes(self) -> int:
        """Returns the most memory it has held so far (Linux only).

        Not ru_maxrss: that of a process counts what its parent held when it was started.
        """
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        assert found is not None
        return 1024 * int(found[1])

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise UserError(f"{self._name} has stopped; its own words are above.")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def start(name: str, command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Process]:
    """Starts a program that says a line of JSON when ready and one for each line it is sent.

    Args:
        name: of the program, for messages.
        command: the program and its arguments; it runs in the folder that holds benchmarks/.
        environment: of the process.

    Raises:
        UserError: it cannot be started.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=_ROOT,
        )
    except OSError as error:
        raise UserError(f"Cannot start {name} ({command[0]}): {error}") from error
    with process:
        try:
            yield Process(name, process)
        finally:  # it ends when its input does
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # of a line it has not read
                process.stdin.close()


def serve(about: Mapping[str, Any], turn: Callable[[], Mapping[str, Any]]) -> None:
    """Is the other side of `Process`: says it is ready, then answers each line of its input."""
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        print(json.dumps(turn()), flush=True)


def start_peer(
    python: str, crystals: Path, trunk: Mapping[str, Any], job: Mapping[str, Any]
) -> AbstractContextManager[Process]:
    """Starts the PyPI package alignn with the allocator settings that suit it best.

    Args:
        python: of its environment.
        crystals: file from `write_crystals`.
        trunk: options of our network; its own gets the same sizes.
        job: see peer_alignn.py.

    Raises:
        UserError: it cannot be started.
    """
    widths = {
        "hidden_features": trunk["width"],
        "embedding_features": trunk["embedding_width"],
        "edge_input_features": trunk["bond_bins"],
        "triplet_input_features": trunk["angle_bins"],
        "alignn_layers": trunk["alignn_layers"],
        "gcn_layers": trunk["gcn_layers"],
    }
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | _PEER_ALLOCATOR
    command = [python, str(_PEER), str(crystals), json.dumps(widths), json.dumps(job)]
    return start("The peer", command, environment)


def write_crystals(file: Path, structures: Sequence[Structure]) -> None:
    """Writes crystals as all programs read them."""
    crystals = [in_peers_words(structure) for structure in structures]
    file.write_text(json.dumps(crystals), encoding="utf-8")


def in_peers_words(crystal: Structure) -> dict[str, Any]:
    """Returns lattice and sites as the package alignn names them."""
    return {
        "lattice_mat": crystal.lattice.matrix.tolist(),
        "coords": crystal.frac_coords.tolist(),
        "elements": [site.specie.symbol for site in crystal],
    }


def read_crystals(file: Path) -> list[Structure]:
    """Returns the crystals that `write_crystals` wrote."""
    crystals = json.loads(file.read_text(encoding="utf-8"))
    return [Structure(c["lattice_mat"], c["elements"], c["coords"]) for c in crystals]


def processor() -> str:
    """Returns the name of the machine's processor, of its family where the name is not known."""
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()
