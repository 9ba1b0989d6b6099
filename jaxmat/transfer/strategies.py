"""Fine-tuning strategies as data: what is new, what trains and how, what is done in the end."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from jaxmat.errors import UserError, listed
from jaxmat.models.trunk import Groups
from jaxmat.transfer.head_first import HeadFirst
from jaxmat.transfer.trees import Rule, match_names


@dataclass(frozen=True)
class Strategy:
    """How a pre-trained network is fine-tuned on one property.

    Parts of the trunk are named by groups, which every trunk has its own parameters for: see
    `jaxmat.models.trunk.Groups`.

    Attributes:
        head: options of a new head, or None to go on with a head of the source.
        frozen: groups of parameters that do not train.
        still: groups whose batch norms use and keep the running statistics they start with.
            Those of the others move, in frozen parts as well, as in the published runs.
        head_first: how the head alone is fitted before anything else trains, or None.
        rate_factors: group → factor on the learning rate of its parameters; the first group that
            has a parameter decides, and where none does the factor is 1.
        source_penalty: share, times the learning rate, of the distance to the source that a step
            takes away; 0: no penalty.
        interpolation: factors between the source's weights (0) and the tuned ones (1), of which
            the one with the least error on the validation part is taken; none: tuned weights.
        members: trainings from the same weights, with the data in different orders, of which the
            weights are averaged.
        needs: groups that it is about; it is not for a trunk without one of them.
    """

    head: Mapping[str, Any] | None = None
    frozen: tuple[str, ...] = ()
    still: tuple[str, ...] = ()
    head_first: HeadFirst | None = None
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    source_penalty: float = 0.0
    interpolation: tuple[float, ...] = ()
    members: int = 1
    needs: tuple[str, ...] = ()


_PAIR = {"kind": "linear_pair"}

# Folders HP-TUNE/BEST-FT-STRATEGY and HP-TUNE/LEARNING-RATE of the authors' repository.
_PUBLISHED = {
    "all_layers": Strategy(),
    "last_layer": Strategy(frozen=("trunk",)),
    "new_head": Strategy(head=_PAIR, frozen=("trunk",)),
    "new_head_freeze_1": Strategy(head=_PAIR, frozen=("atom_embedding",)),
    "new_head_freeze_6": Strategy(head=_PAIR, frozen=("trunk",)),  # another script of theirs
    "two_body": Strategy(frozen=("embedding", "three_body"), needs=("two_body",)),
    "three_body": Strategy(frozen=("embedding", "two_body"), needs=("three_body",)),
}

STRATEGIES: Mapping[str, Strategy] = {
    **_PUBLISHED,
    # The same with statistics of frozen parts that stay as they are.
    **{
        f"{name}_still": replace(strategy, still=strategy.frozen)
        for name, strategy in _PUBLISHED.items()
        if strategy.frozen
    },
    # Kumar et al., arXiv:2202.10054.
    "head_first": Strategy(head={"kind": "mlp"}, head_first=HeadFirst()),
    "layer_wise": Strategy(
        rate_factors={"embedding": 0.3, "first_blocks": 0.5, "last_blocks": 0.7}
    ),
    # Li et al., arXiv:1802.01483.
    "source_penalty": Strategy(source_penalty=1.0),
    # Wortsman et al., arXiv:2109.01903.
    "interpolation": Strategy(interpolation=tuple(i / 10 for i in range(11))),
    # Wortsman et al., arXiv:2203.05482.
    "soup": Strategy(members=5),
    # Nothing trains: a Gaussian process is fitted to the source's vectors, and in the first of the
    # two to the crystals' descriptors beside them.
    "gaussian_process": Strategy(
        head={"kind": "gaussian_process", "descriptors": True}, frozen=("trunk",)
    ),
    "gaussian_process_vectors": Strategy(
        head={"kind": "gaussian_process", "descriptors": False}, frozen=("trunk",)
    ),
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
    strategy: Strategy, target: str, source_heads: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], str | None]:
    """Returns the options of the fine-tuned network's head and the source head it continues.

    That is the head of the same property, or else the only one. Of several others none is
    continued: the network gets a new head like them.

    Args:
        strategy: the strategy.
        target: property that the network is fine-tuned on.
        source_heads: property → options of the pre-trained network.

    Raises:
        UserError: the strategy keeps the head, but the source has several of different kinds.
    """
    if strategy.head is not None:
        return dict(strategy.head), None
    if target in source_heads or len(source_heads) == 1:
        name = target if target in source_heads else next(iter(source_heads))
        return dict(source_heads[name]), name
    first, *others = (dict(options) for options in source_heads.values())
    if any(options != first for options in others):
        raise UserError(
            f"The strategy wants a head like the checkpoint's, which has none for {target} but "
            f"several unlike ones: {', '.join(source_heads)}. Use a strategy with a new head, such "
            "as new_head."
        )
    return first, None


def transfer_rules(target: str, source: str | None) -> tuple[list[Rule], list[str]]:
    """Returns rules and droppable leaves for `transfer`: the trunk is copied, the head depends.

    Args:
        target: property of the target network's only head.
        source: head of the source that it continues, None for a new one.
    """
    trunk = Rule(r"(params|batch_stats)/trunk/(.*)", r"\1/trunk/\2")
    if source is None:
        return [trunk, Rule(rf"params/heads_{target}/.*", None)], [r"params/heads_.*"]
    head = Rule(rf"params/heads_{target}/(.*)", rf"params/heads_{source}/\1")
    return [trunk, head], [rf"params/heads_(?!{source}/).*"]


def require_groups(name: str, groups: Groups) -> Strategy:
    """Returns a strategy by name for a trunk that has what it is about.

    Args:
        name: of the strategy.
        groups: of the trunk.

    Raises:
        UserError: there is no strategy of that name, or the trunk lacks a group that it needs.
    """
    strategy = get_strategy(name)
    if lacking := [group for group in strategy.needs if not groups.patterns(group)]:
        raise UserError(
            f"Strategy {name!r} is not for this trunk, which has no {', '.join(lacking)} "
            f"parameters; it has {', '.join(groups.present())}. Use another strategy, such as "
            "all_layers."
        )
    return strategy


def trainable_mask(params: Any, strategy: Strategy, groups: Groups) -> Any:
    """Returns a tree of bools like the parameters, True where they train; None where all do."""
    if not strategy.frozen:
        return None
    return unflatten_dict(trainable(params, strategy, groups), sep="/")


def trainable(params: Any, strategy: Strategy, groups: Groups) -> dict[str, bool]:
    """Returns which parameters train, by name, such as "trunk/fc/kernel"."""
    frozen = flatten_dict(match_names(params, _patterns(strategy.frozen, groups)), sep="/")
    return {name: not stays for name, stays in frozen.items()}


def still_norms(batch_stats: Any, strategy: Strategy, groups: Groups) -> tuple[str, ...]:
    """Returns the paths of the batch norms whose statistics stay, such as "trunk/fc/norm".

    In a trunk without batch norms there are none.
    """
    patterns = _patterns(strategy.still, groups)
    norms = {name.rpartition("/")[0] for name in flatten_dict(batch_stats, sep="/")}
    return tuple(sorted(norm for norm in norms if any(re.match(p, norm) for p in patterns)))


def rate_factors(params: Any, strategy: Strategy, groups: Groups) -> Any:
    """Returns a tree like the parameters of factors on the rate; None where all are 1.

    Raises:
        UserError: a factor is not above zero.
    """
    factors = strategy.rate_factors
    if not factors:
        return None
    if wrong := [f"{g}: {f}" for g, f in factors.items() if not (f > 0 and math.isfinite(f))]:
        raise UserError(
            "Factors on the learning rate have to be above zero; list what is not to train under "
            "frozen:\n" + listed(wrong)
        )

    def factor(name: str) -> float:
        matching = (
            factor
            for group, factor in factors.items()
            if any(re.match(pattern, name) for pattern in groups.patterns(group))
        )
        return next(matching, 1.0)

    names = flatten_dict(params, sep="/")
    return unflatten_dict({name: factor(name) for name in names}, sep="/")


def _patterns(names: Iterable[str], groups: Groups) -> tuple[str, ...]:
    return tuple(pattern for group in names for pattern in groups.patterns(group))
