"""The model card of a bundle, in the form of the Hugging Face Hub."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmat.bundles.model import Model
from jaxmat.models.network import make_trunk
from jaxmat.report.tables import Cell, format_number, format_quantity, format_table
from jaxmat.runtime.files import shown

_CARD = """\
---
library_name: jaxmat
pipeline_tag: graph-ml
tags: [materials-science, crystals, {kind}]
---

# {properties} of crystals

Predicts {properties} from a crystal structure. The model was {source}.

## What it predicts

{heads}

{elements} {sees}

## How to use it

```sh
pip install jaxmat-transfer  # in a checkout of its repository: pip install .
jaxmat predict --model=FOLDER --input=structure.cif --output=predictions.csv
```

```python
import jaxmat

jaxmat.load("FOLDER").predict("structure.cif")
```

## Training data and test

{data}

{metrics}

## Network and graphs

{options}
"""


def model_card(model: Model, about: Mapping[str, Any]) -> str:
    """Returns the text of a model card.

    Args:
        model: the model.
        about: what is known about it, see `jaxmat.bundles.about.make_about`.
    """
    elements, options = about["elements"], {**model.trunk, **model.graph.to_dict()}
    return _CARD.format(
        kind=model.trunk["kind"],
        properties=", ".join(model.heads),
        source=_plain(about["source"]),
        heads=format_table([_head(model, about["calibration"], name) for name in model.heads]),
        elements=(
            f"It has seen {len(elements)} elements: {' '.join(elements)}. {_others(model, about)}"
            if elements
            else "Which elements it has seen is not known."
        ),
        sees=(
            "It tells the polymorphs of an element apart."
            if make_trunk(model.trunk).tells_polymorphs_apart()
            else "It cannot tell the polymorphs of an element apart, such as diamond and graphite: "
            "where all neighbours are alike the gates of this network cancel."
        ),
        data=_data(about["data"]),
        metrics=_metrics(about["metrics"]),
        options=format_table([{"option": key, "value": str(v)} for key, v in options.items()]),
    )


def _head(model: Model, calibration: Mapping[str, Any], name: str) -> dict[str, Cell]:
    transform = model.transforms[name]
    row: dict[str, Cell] = {"property": name, "unit": transform.unit}
    if fitted := calibration.get(name):
        width = fitted["half_width"] * transform.scale
        each = " (each crystal has its own)" if "factor" in fitted else ""
        with np.errstate(over="ignore"):  # of a training that went wrong
            row[f"{fitted['level']:.0%} of labels lie within{each}"] = (
                f"a factor of {format_number(float(np.exp(width)))}"
                if transform.log
                else f"± {format_quantity(width, transform.unit)}"
            )
    return row


def _others(model: Model, about: Mapping[str, Any]) -> str:
    """Returns what is known of elements that the model has not seen."""
    measured = about["left_out_elements"]
    if not measured.keys() >= model.heads.keys():
        return "It is not to be asked about others."
    told = [
        left_out_sentence(name, model.transforms[name].unit, one) for name, one in measured.items()
    ]
    return " ".join(["It may be asked about others.", *told])


def left_out_sentence(name: str, unit: str, measured: Mapping[str, Any]) -> str:
    """Returns in words what was measured by leaving elements out of training.

    Args:
        name: of the property.
        unit: of the property.
        measured: of the property, see `jaxmat.bundles.about.make_about`.
    """
    maes = measured["mae_by_element"]
    mean = format_quantity(sum(maes.values()) / len(maes), unit)
    return (
        f"Trained without one of {len(maes)} elements at a time, its MAE of {name} on the "
        f"{measured['crystals']} crystals that hold it was {mean} (the mean over elements); "
        "intervals about crystals with elements that it has not seen are "
        f"{measured['widening']:.2g} times as wide as others."
    )


def _data(data: Mapping[str, Any] | None) -> str:
    if data is None:
        return "The training data are not known."
    parts = ", ".join(f"{number} for {part}" for part, number in data["crystals"].items())
    return (
        f"Column {_plain(data['target'])} of {_plain(data['path'])}: {parts}. Fingerprint of the "
        f"training part (SHA-256 over ids, structures and labels): {data['fingerprint']}."
    )


def _plain(text: str) -> str:
    """Returns text of others as one line without control characters and without HTML."""
    return html.escape(shown(text), quote=False)


def _metrics(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "It has not been tested here."
    rows = [{"metric": name, "value": value} for name, value in metrics.items()]
    return f"Errors are in the unit of the property unless scaled.\n\n{format_table(rows)}"
