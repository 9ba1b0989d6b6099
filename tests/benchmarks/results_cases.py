"""Rows of results that tests make."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.results.converted import Origin
from benchmarks.results.rows import Row, scaled
from jaxmat.report.study.published import HALF_RANGES

ORIGIN = Origin("", "python -m benchmarks.x --csv=FILE", "0123abc")


def result(**fields: Any) -> Row:
    values = {
        **{"item": "few_labels", "target": "dc", "labels": 100, "method": "ours", "trial": 1},
        **{"seed": None, "mae": 4.0, "command": ORIGIN.command, "commit": ORIGIN.commit},
        **{"seconds": math.nan},
        **fields,
    }
    values.setdefault("unit", HALF_RANGES[values["target"]][1])
    values.setdefault("scaled_mae", scaled(values["target"], values["mae"]))
    return Row(**values)


def of_trials(errors: list[float], **fields: Any) -> list[Row]:
    return [result(trial=i, mae=mae, **fields) for i, mae in enumerate(errors, start=1)]
