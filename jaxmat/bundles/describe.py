"""What a model is, in words, and how it differs from another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from jaxmat.bundles.bundle import Bundle
from jaxmat.bundles.intervals import INTERVALS, LEFT_OUT
from jaxmat.report.model_card import left_out_sentence
from jaxmat.report.tables import Cell, format_number, format_quantity, format_table

_PARAMETER = "params/"

Leaves = dict[str, np.ndarray]


def describe(bundle: Bundle) -> str:
    """Returns what a model is, in Markdown: origin, heads, weights, settings, test, data."""
    model, about = bundle.model, bundle.about
    return _sections(
        {
            "Origin": about["source"],
            "Heads": format_table([_head_row(bundle, name) for name in model.heads]),
            "Weights": format_table(_weight_rows(bundle)),
            "Settings": _listed({"trunk": model.trunk, "graph": model.graph.to_dict()}),
            "Metrics": _listed(about["metrics"]),
            "Training data": _listed(about["data"] or {}),
            "Elements of the training crystals": _elements(about),
            "Elements left out of training": _left_out(bundle),
        }
    )


def compare(bundle: Bundle, other: Bundle) -> str:
    """Returns how another model differs, in Markdown: all that is known of it, and its weights."""
    here, there = (
        flatten_dict({**b.model.describe(), **b.about, "elements": _elements(b.about)}, sep=".")
        for b in (bundle, other)
    )
    rows: list[dict[str, Cell]] = [
        {"": name, "here": _text(here.get(name)), "other": _text(there.get(name))}
        for name in dict.fromkeys([*here, *there])
        if here.get(name) != there.get(name)
    ]
    return _sections(
        {
            "What differs": format_table(rows) if rows else "nothing",
            "Weights that differ": format_table(_difference_rows(bundle, other)),
        }
    )


def group_leaves(bundle: Bundle) -> dict[str, Leaves]:
    """Returns the leaves of a network by group, named as in "params/trunk/layers_0/...".

    Groups are those that the trunk has (`jaxmat.models.trunk.Groups`), "head NAME" for each head,
    "intervals" for what tells their widths, and "other" for leaves of no group.

    Args:
        bundle: the model.
    """
    patterns = bundle.model.groups().present()
    groups: dict[str, Leaves] = {group.replace("_", "-"): {} for group in patterns}

    def group_of(name: str) -> str:
        if head := re.match(r"heads_(\w+)/", name):
            return f"head {head[1]}"
        matching = (
            group.replace("_", "-")
            for group, starts in patterns.items()
            if any(re.match(start, name) for start in starts)
        )
        return next(matching, "other")

    for name, leaf in flatten_dict(bundle.variables, sep="/").items():
        kind, _, rest = name.partition("/")
        group = INTERVALS if kind == INTERVALS else group_of(rest)
        groups.setdefault(group, {})[name] = np.asarray(leaf, np.float64)
    return groups


def _weight_rows(bundle: Bundle) -> list[dict[str, Cell]]:
    groups = group_leaves(bundle)
    groups["all"] = {name: leaf for leaves in groups.values() for name, leaf in leaves.items()}
    rows: list[dict[str, Cell]] = []
    for group, leaves in groups.items():
        parameters = [leaf for name, leaf in leaves.items() if name.startswith(_PARAMETER)]
        numbers = sum(leaf.size for leaf in parameters)
        rows.append(
            {
                "group": group,
                "arrays": len(parameters),
                "parameters": numbers,
                "norm": _norm(parameters),
                "other numbers": sum(leaf.size for leaf in leaves.values()) - numbers,
            }
        )
    return rows


def _difference_rows(bundle: Bundle, other: Bundle) -> list[dict[str, Cell]]:
    """Returns how far apart the arrays of each group are, relative to those of the first model."""
    here, there = group_leaves(bundle), group_leaves(other)
    rows: list[dict[str, Cell]] = []
    for group in dict.fromkeys([*here, *there]):
        one, two = here.get(group, {}), there.get(group, {})
        alike = [name for name in one if name in two and one[name].shape == two[name].shape]
        parameters = [name for name in alike if name.startswith(_PARAMETER)]
        statistics = [name for name in alike if not name.startswith(_PARAMETER)]
        rows.append(
            {
                "group": group,
                "parameters, relative": _distance(one, two, parameters),
                "other numbers, relative": _distance(one, two, statistics),
                "equal arrays": sum(np.array_equal(one[name], two[name]) for name in alike),
                "different arrays": sum(not np.array_equal(one[name], two[name]) for name in alike),
                "arrays without counterpart": len(one.keys() | two.keys()) - len(alike),
            }
        )
    return rows


def _distance(one: Leaves, two: Leaves, names: list[str]) -> float | None:
    """Returns the norm of the difference over the norm of the first, None without arrays."""
    norm = _norm(one[name] for name in names)
    return _norm(two[name] - one[name] for name in names) / norm if norm else None


def _norm(arrays: Iterable[np.ndarray]) -> float:
    return float(np.sqrt(sum(float(np.sum(np.square(array))) for array in arrays)))


def _head_row(bundle: Bundle, name: str) -> dict[str, Cell]:
    options, transform = bundle.model.heads[name], bundle.model.transforms[name]
    value = f"ln({name})" if transform.log else name
    fitted = bundle.about["calibration"].get(name)
    return {
        "property": name,
        "unit": transform.unit,
        "head": ", ".join(str(option) for option in options.values()),
        "scaled": f"({value} - {format_number(transform.offset)}) / "
        f"{format_number(transform.scale)}",
        "interval": _interval(fitted) if fitted else "not calibrated",
    }


def _interval(fitted: Mapping[str, Any]) -> str:
    width = f"{fitted['level']:.0%} within ± {format_number(fitted['half_width'])}, scaled"
    if "factor" not in fitted:
        return width
    return f"{width}, in the median; one for each crystal ({fitted['method']})"


def _elements(about: Mapping[str, Any]) -> str:
    elements = about["elements"]
    return "not known" if elements is None else f"{len(elements)}: {' '.join(elements)}"


def _left_out(bundle: Bundle) -> str:
    """Returns what was measured by leaving elements out of training."""
    measured = bundle.about[LEFT_OUT]
    if not measured:
        return "none"
    units = {name: one.unit for name, one in bundle.model.transforms.items()}
    rows: list[dict[str, Cell]] = [
        {"property": name, "element": element, "MAE": format_quantity(mae, units[name])}
        for name, one in measured.items()
        for element, mae in one["mae_by_element"].items()
    ]
    sentences = [left_out_sentence(name, units[name], one) for name, one in measured.items()]
    return "\n".join([*sentences, "", format_table(rows)])


def _listed(values: Mapping[str, Any]) -> str:
    return (
        "\n".join(f"- {name}: {_text(v)}" for name, v in flatten_dict(values, sep=".").items())
        or "not known"
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def _sections(sections: Mapping[str, str]) -> str:
    return "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items())
