"""Models on matminer's Magpie features, in their own environment: peer_matminer.py JOBS.

JOBS is a JSON file [{"crystals", "targets", "validation"}, ...]: crystals to train on, to validate
on and to predict, the targets of the first two, and how many the second are; here models are fitted
to both. Says {"versions"} on standard output; then, for each line that comes in, does the next job
with every model and says {"features_seconds", "models": {name: {"seconds", "predictions"}}}.

Nothing is tuned: 500 trees, as in the baseline of Matbench (Dunn et al., npj Comput. Mater. 6, 138
(2020)), and else the defaults of scikit-learn.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from matminer.featurizers.composition import ElementProperty
from pymatgen.core import Composition
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

_TREES = 500


def main(jobs: str) -> None:
    """Does a job for each line of standard input."""
    say, sys.stdout = sys.stdout, sys.stderr  # the packages print on their own account
    versions = {name: metadata.version(name) for name in ("matminer", "scikit-learn")}
    print(json.dumps({"versions": versions}), file=say, flush=True)
    for job, _ in zip(json.loads(Path(jobs).read_text()), sys.stdin, strict=False):
        formulas = [Composition(Counter(crystal["elements"])) for crystal in job["crystals"]]
        print(json.dumps(do(formulas, job["targets"])), file=say, flush=True)


def do(formulas: list[Composition], targets: list[float]) -> dict[str, Any]:
    """Returns the predictions of each model for the formulas without a target."""
    began = time.perf_counter()
    featurizer = ElementProperty.from_preset("magpie", impute_nan=True)
    features = np.array([featurizer.featurize(formula) for formula in formulas])
    features_seconds = time.perf_counter() - began
    models = {
        "random forest on Magpie features": RandomForestRegressor(
            n_estimators=_TREES, random_state=0
        ),
        "gradient boosting on Magpie features": GradientBoostingRegressor(random_state=0),
    }
    found = {}
    for name, model in models.items():
        began = time.perf_counter()
        model.fit(features[: len(targets)], targets)
        predictions = model.predict(features[len(targets) :])
        seconds = time.perf_counter() - began
        found[name] = {"seconds": seconds, "predictions": predictions.tolist()}
    return {"features_seconds": features_seconds, "models": found}


if __name__ == "__main__":
    main(*sys.argv[1:])
