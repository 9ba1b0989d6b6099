"""Runs an experiment: python run_experiment.py --config=NAME --workdir=DIR.

The config says which: that of a training, a fine-tuning, a choice, a test or a study, by name or
as the path of a Python file. --help has more; `jaxmat VERB` is the same with shorter flags.
"""

from __future__ import annotations

import sys

from jaxmat.commands.main import start

if __name__ == "__main__":
    start("experiment", sys.argv)
