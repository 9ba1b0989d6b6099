"""Moving weights from one parameter tree to another, every leaf accounted for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxmat.errors import UserError, listed


class Rule(NamedTuple):
    """Where the leaves of the target tree come from.

    Attributes:
        target: regular expression for the whole name of a target leaf, such as
            "params/heads_gap/(.*)".
        source: name of the source leaf it is copied from, with the groups of `target` filled in;
            None keeps the leaf as the target was initialised.
    """

    target: str
    source: str | None


class Fate(NamedTuple):
    """What became of one leaf.

    Attributes:
        name: of the target leaf, or of the source leaf where it was dropped.
        action: "copied", "re-initialised" or "dropped".
        source: name of the source leaf, None where there is none.
        size: numbers in the leaf.
    """

    name: str
    action: str
    source: str | None
    size: int


def transfer(
    source: Any, target: Any, rules: Sequence[Rule], dropped: Sequence[str] = ()
) -> tuple[dict[str, Any], list[Fate]]:
    """Returns the target's variables with weights of the source, and what became of each leaf.

    The first rule that matches a target leaf decides. Every leaf of both trees must be accounted
    for, and a copied leaf must have the shape and dtype of its target.

    Args:
        source: {"params", "batch_stats"} to copy from.
        target: {"params", "batch_stats"} as initialised.
        rules: where target leaves come from.
        dropped: regular expressions for source leaves that may stay unused.

    Raises:
        UserError: leaves that no rule covers, source leaves that are missing, unused or of
            another shape or dtype; all of them are named.
    """
    old, new = flatten_dict(source, sep="/"), flatten_dict(target, sep="/")
    result, report, problems = {}, [], []
    for name, leaf in new.items():
        rule, match = _first_match(rules, name)
        if rule is None or match is None:
            problems.append(f"{name}: no rule says where it comes from")
        elif rule.source is None:
            result[name] = leaf
            report.append(Fate(name, "re-initialised", None, int(np.size(leaf))))
        else:
            origin = match.expand(rule.source)
            if origin not in old:
                problems.append(f"{name}: the source has no {origin}")
            elif (have := _kind(old[origin])) != (needed := _kind(leaf)):
                problems.append(f"{name}: is {needed} here, but {have} in the source")
            else:
                result[name] = old[origin]
                report.append(Fate(name, "copied", origin, int(np.size(leaf))))
    used = {fate.source for fate in report}
    for name in sorted(set(old) - used):
        if any(re.fullmatch(pattern, name) for pattern in dropped):
            report.append(Fate(name, "dropped", name, int(np.size(old[name]))))
        elif not problems:
            problems.append(f"{name}: of the source, not used by any rule and not to be dropped")
    if problems:
        raise UserError(
            "The checkpoint does not fit the network (give the network of the checkpoint, or "
            "another checkpoint):\n" + listed(problems)
        )
    # A part without leaves, as the statistics of a network without batch norms, stays one.
    return {**{part: {} for part in target}, **unflatten_dict(result, sep="/")}, report


def copied_params(variables: Any, report: Sequence[Fate]) -> dict[str, Any]:
    """Returns the part of the parameter tree that `transfer` copied from the source.

    Args:
        variables: {"params", "batch_stats"} that `transfer` returned.
        report: what it said became of each leaf.
    """
    copied = {fate.name for fate in report if fate.action == "copied"}
    names = flatten_dict(variables["params"], sep="/")
    return unflatten_dict(
        {name: leaf for name, leaf in names.items() if f"params/{name}" in copied}, sep="/"
    )


def match_names(tree: Any, patterns: Sequence[str]) -> Any:
    """Returns a tree of bools like `tree`: whether a leaf's name starts with any of the patterns.

    Args:
        tree: a parameter tree; names are "/"-joined, such as "trunk/layers_0/site_norm/scale".
        patterns: regular expressions.

    Raises:
        UserError: a pattern that no leaf matches.
    """
    names = flatten_dict(tree, sep="/").keys()
    if idle := [p for p in patterns if not any(re.match(p, name) for name in names)]:
        raise UserError(f"No parameter's name starts with {', '.join(idle)}.")
    matches = {name: any(re.match(p, name) for p in patterns) for name in names}
    return unflatten_dict(matches, sep="/")


def summarize(report: Sequence[Fate]) -> str:
    """Returns one line for each action: leaves, numbers, and the parts of the tree they lie in."""
    lines = []
    for action in ("copied", "re-initialised", "dropped"):
        fates = [fate for fate in report if fate.action == action]
        parts = sorted({"/".join(fate.name.split("/")[:3]) for fate in fates})
        shown = ", ".join(parts[:4]) + (f", ... ({len(parts)} parts)" if len(parts) > 4 else "")
        count = sum(fate.size for fate in fates)
        lines.append(f"{action:>14}: {len(fates):4d} leaves, {count:>9,d} numbers  {shown}")
    return "\n".join(lines)


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _first_match(rules: Sequence[Rule], name: str) -> tuple[Rule | None, re.Match[str] | None]:
    for rule in rules:
        if match := re.fullmatch(rule.target, name):
            return rule, match
    return None, None
