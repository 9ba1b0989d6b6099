"""What a bundle tells about its model: how it was made, on what, how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymatgen.core import Element

from jaxmat.bundles.intervals import EACH_ITS_WIDTH, LEFT_OUT, LEFT_OUT_VALUES, ONE_WIDTH
from jaxmat.bundles.model import Model
from jaxmat.models.elements import knows_elements_apart
from jaxmat.models.network import make_trunk
from jaxmat.values import Allowed, problems, real, shortened, whole

_LATER = (LEFT_OUT,)  # what bundles of earlier versions do not tell


def make_about(
    source: str,
    *,
    elements: list[str] | None = None,
    data: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    calibration: dict[str, Any] | None = None,
    torch: dict[str, int] | None = None,
    left_out_elements: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns what a bundle tells about its model.

    Args:
        source: how it was made, in words.
        elements: symbols of the elements of the training crystals, sorted; None: not known.
        data: training data {"path", "target", "crystals": {part: number}, "fingerprint"}; None:
            not known.
        metrics: numbers of the test.
        calibration: property → {"level", "half_width"}: so far to both sides of a scaled
            prediction lies the scaled label with this probability. Where the width is one for each
            crystal, "half_width" is the median and there are "factor", what the spread of
            `jaxmat.bundles.intervals` is multiplied by, "method", on what errors it was
            calibrated, and "process_labels", of the process in the variables, 0 for none.
        torch: of a converted model, what PyTorch keeps beside it: entry → number.
        left_out_elements: property → what was measured by leaving elements out of training, see
            `jaxmat.bundles.intervals.LEFT_OUT_VALUES`; {} where it was not.
    """
    return {
        "source": source,
        "elements": elements,
        "data": data,
        "metrics": metrics or {},
        "calibration": calibration or {},
        "torch": torch or {},
        LEFT_OUT: left_out_elements or {},
    }


def about_problems(about: Mapping[str, Any], model: Model) -> list[str]:
    """Returns what is wrong with what a bundle tells about its model.

    Args:
        about: see `make_about`; other entries are passed over.
        model: the model.
    """
    kinds = {"source": str, "metrics": dict, "calibration": dict, "torch": dict, LEFT_OUT: dict}
    wrong = [f"{n} is missing" for n in make_about("") if n not in about and n not in _LATER]
    wrong += [
        f"{name} is no {'text' if kind is str else 'object'}"
        for name, kind in kinds.items()
        if name in about and not isinstance(about[name], kind)
    ]
    wrong += _element_problems(about.get("elements"))
    if (data := about.get("data")) is not None and not (
        isinstance(data, dict)
        and data.keys() == {"path", "target", "crystals", "fingerprint"}
        and isinstance(data["crystals"], dict)
    ):
        wrong.append("data lacks path, target, crystals or fingerprint")
    if wrong:
        return wrong
    wrong += [
        f"metrics.{name} is not a number"
        for name, value in about["metrics"].items()
        if value is not None and not real().holds(value)
    ]
    wrong += [
        f"torch.{name} is not a count"
        for name, value in about["torch"].items()
        if not whole(0).holds(value)
    ]
    features = make_trunk(model.trunk).element_features
    if about.get(LEFT_OUT) and knows_elements_apart(features):
        wrong.append(f"{LEFT_OUT} is of a network with something of its own for each element")
    for part in ("calibration", LEFT_OUT):
        for name, values in about.get(part, {}).items():
            if name not in model.heads:
                wrong.append(f"{part} has {name}, which the model does not predict")
            elif not isinstance(values, dict):
                wrong.append(f"{part}.{name} is not an object")
            else:
                wrong += problems(f"{part}.{name}.", values, _allowed(part, values))
    return wrong


def _allowed(part: str, values: Mapping[str, Any]) -> Mapping[str, Allowed]:
    if part == LEFT_OUT:
        return LEFT_OUT_VALUES
    return EACH_ITS_WIDTH if "factor" in values else ONE_WIDTH


def _element_problems(elements: Any) -> list[str]:
    if elements is None:
        return []
    if not isinstance(elements, list):
        return ["elements is not a list"]
    strange = [
        shortened(symbol)
        for symbol in elements
        if not (isinstance(symbol, str) and symbol in Element.__members__)
    ]
    return [f"elements has {', '.join(strange[:3])}, which are none"] if strange else []
