"""The PyPI package alignn, trained by its own trainer in its own environment: ... JOBS.

JOBS and answers are as in peer_matminer.py. The network has the published size, and the settings
are those of the package's own helper for properties (train_props.py): AdamW with a rate of 1e-3 in
one cycle, weight decay of 1e-5, batches of 64, or of all crystals to validate on where they are
fewer, because its trainer leaves out what does not fill a batch; 300 epochs. Graphs are those that
the package makes by default without DGL. Nothing was tuned.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from alignn.config import TrainingConfig
from alignn.data import get_train_val_loaders
from alignn.train import train_dgl
from jarvis.core.atoms import Atoms

_EPOCHS = 300
_BATCH_SIZE = 64
_SIZE = {
    "alignn_layers": 4,
    "gcn_layers": 4,
    "hidden_features": 256,
    "atom_input_features": 92,
}
_OF_LOADERS = (
    *("target", "n_train", "n_val", "n_test", "batch_size", "neighbor_strategy", "cutoff"),
    *("max_neighbors", "three_body_cutoff", "keep_data_order", "output_dir", "filename"),
)
# One number a crystal, without forces and what belongs to them.
_PROPERTY = {
    "calculate_gradient": False,
    "gradwise_weight": 0,
    "energy_mult_natoms": False,
    "use_penalty": False,
    "use_zbl": False,
    "lg_on_fly": False,
}


def main(jobs: str) -> None:
    """Does a job for each line of standard input."""
    say, sys.stdout = sys.stdout, sys.stderr  # the package prints on its own account
    versions = {name: metadata.version(name) for name in ("alignn", "torch")}
    print(json.dumps({"versions": versions}), file=say, flush=True)
    for job, _ in zip(json.loads(Path(jobs).read_text()), sys.stdin, strict=False):
        print(json.dumps(do(**job)), file=say, flush=True)


def do(crystals: list[dict[str, Any]], targets: list[float], validation: int) -> dict[str, Any]:
    """Returns the predictions for the crystals without a target."""
    others = len(crystals) - len(targets)
    # The trainer wants targets of all crystals; those to predict get zeros.
    records = [
        {"jid": str(number), "atoms": Atoms(**crystal).to_dict(), "target": target}
        for number, (crystal, target) in enumerate(
            zip(crystals, [*targets, *[0.0] * others], strict=True)
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = TrainingConfig(
            dataset="user_data",
            random_seed=0,
            target="target",
            neighbor_strategy="pure_torch",
            n_train=len(targets) - validation,
            n_val=validation,
            n_test=others,
            epochs=_EPOCHS,
            batch_size=min(_BATCH_SIZE, validation),
            learning_rate=1e-3,
            weight_decay=1e-5,
            num_workers=0,
            output_dir=folder,
            filename=f"{folder}/",
            model={"name": "alignn_atomwise_pure", **_SIZE, **_PROPERTY},
        )
        began = time.perf_counter()
        loaders = get_train_val_loaders(
            dataset_array=records,
            use_pure_torch=True,
            workers=0,
            **{name: getattr(config, name) for name in _OF_LOADERS},
        )
        features_seconds = time.perf_counter() - began
        train_dgl(config, train_val_test_loaders=loaders)
        seconds = time.perf_counter() - began - features_seconds
        tested = json.loads(Path(folder, "Test_results.json").read_text())
    predictions = np.ravel([record["pred_out"] for record in tested]).tolist()
    found = {"seconds": seconds, "predictions": predictions}
    return {
        "features_seconds": features_seconds,
        "models": {"PyPI alignn from random weights": found},
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
