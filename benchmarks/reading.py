"""How fast structure files are read, by one process and by two, and what memory that takes.

    python -m benchmarks.reading --structures=2000 --json=FILE

The files are CIFs with symmetry, as pymatgen writes them, of a bundled table. --against=FOLDER has
another copy of the project read the same files, in a process of its own. Exit code 1 where two
processes need more than 0.6 of the time of one, or one more than 1.2 of the other copy's.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from absl import flags
from pymatgen.io.cif import CifWriter

from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.data.reading import read
from jaxmat.data.tables import read_table

MOST_OF_TWO, MOST_OF_OTHER = 0.6, 1.2

# What the copy of before this reading path is asked to do.
_OTHER = """
import sys, time, warnings
warnings.simplefilter("ignore")
from jaxmat.data.inputs import find_inputs
began = time.monotonic()
count = sum(len(entry.read()) > 0 for entry in find_inputs(sys.argv[1]))
print(time.monotonic() - began, count)
"""


def main(argv: list[str]) -> int:
    """Runs the benchmark."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), values.structures)
        seconds = {workers: read_all(folder, workers) for workers in (1, 2)}
        other = read_by(values.against, folder) if values.against else None
    numbers = {
        "structures": values.structures,
        "seconds_by_workers": seconds,
        "ratio": seconds[2] / seconds[1],
        "seconds_of_other": other,
        "megabytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "cores": os.cpu_count(),
    }
    print(json.dumps(numbers, indent=1))
    if values.json:
        Path(values.json).write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    slow = numbers["ratio"] > MOST_OF_TWO or (other and seconds[1] > MOST_OF_OTHER * other)
    return int(bool(slow))


def write_files(folder: Path, number: int) -> None:
    """Writes CIFs of random crystals, always the same."""
    crystals = read_table("bundled:formation_energy").structures
    rows = np.random.RandomState(0).permutation(len(crystals))
    texts = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows[: min(number, 2000)]:
            texts.append(str(CifWriter(crystals[row], symprec=0.01)))
    for i in range(number):
        (folder / f"{i:06d}.cif").write_text(texts[i % len(texts)], encoding="utf-8")


def read_all(folder: str, workers: int) -> float:
    """Returns the seconds that some processes take to read all files of a folder."""
    began = time.monotonic()
    count = sum(entry.content is not None for entry in read(folder, workers=workers))
    assert count > 0
    return time.monotonic() - began


def read_by(project: str, folder: str) -> float:
    """Returns the seconds that another copy of the project takes in one process."""
    command = [sys.executable, "-c", _OTHER, folder]
    environment = {**os.environ, "PYTHONPATH": project}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[0])


def _define_flags() -> None:
    flags.DEFINE_integer("structures", 2000, "Files to write and read.", lower_bound=1)
    flags.DEFINE_string("against", "", "A copy of the project of before, to compare with.")
    flags.DEFINE_string("json", "", "File to write the numbers to.")


if __name__ == "__main__":
    _define_flags()
    run_program(main)
