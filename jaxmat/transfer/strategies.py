"""Fine-tuning strategies as data: which head is new and which parameters are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxmat.errors import UserError
from jaxmat.transfer.trees import Rule, match_names


@dataclass(frozen=True)
class Strategy:
    """How a pre-trained network is fine-tuned on one property.

    Attributes:
        head: options of a new head, or None to go on with the head of the source.
        frozen: regular expressions for the beginnings of parameter names that do not train.
            As in the published runs, running statistics of frozen parts go on moving.
    """

    head: Mapping[str, Any] | None = None
    frozen: tuple[str, ...] = ()


# The published strategies (folders HP-TUNE/BEST-FT-STRATEGY of the authors' repository).
STRATEGIES: Mapping[str, Strategy] = {
    "all_layers": Strategy(),
    "last_layer": Strategy(frozen=("trunk/",)),
    "new_head": Strategy(head={"kind": "linear_pair"}, frozen=("trunk/",)),
}


def get_strategy(name: str) -> Strategy:
    """Returns a strategy by name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in STRATEGIES:
        raise UserError(f"Strategy {name!r} is unknown; use one of {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]


def target_head(
    strategy: Strategy, source_heads: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], str | None]:
    """Returns the options of the fine-tuned network's head and the source head it continues.

    Args:
        strategy: the strategy.
        source_heads: property → options of the pre-trained network.

    Raises:
        UserError: the strategy keeps the head but the source has several.
    """
    if strategy.head is not None:
        return dict(strategy.head), None
    if len(source_heads) > 1:
        raise UserError(
            "The strategy goes on with the head of the checkpoint, which has several: "
            f"{', '.join(source_heads)}. Use strategy=new_head."
        )
    ((name, options),) = source_heads.items()
    return dict(options), name


def transfer_rules(target: str, source: str | None) -> tuple[list[Rule], list[str]]:
    """Returns rules and droppable leaves for `transfer`: the trunk is copied, the head depends.

    Args:
        target: property of the target network's only head.
        source: head of the source that it continues, None for a new one.
    """
    trunk = Rule(r"(params|batch_stats)/trunk/(.*)", r"\1/trunk/\2")
    if source is None:
        return [trunk, Rule(rf"params/heads_{target}/.*", None)], [r"params/heads_.*"]
    return [trunk, Rule(rf"params/heads_{target}/(.*)", rf"params/heads_{source}/\1")], []


def trainable_mask(params: Any, strategy: Strategy) -> Any:
    """Returns a tree of bools like the parameters, True where they train; None where all do."""
    if not strategy.frozen:
        return None
    return _negated(match_names(params, strategy.frozen))


def _negated(tree: Any) -> Any:
    return {k: _negated(v) for k, v in tree.items()} if isinstance(tree, dict) else not tree
