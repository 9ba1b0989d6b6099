"""How settings are named and put together, the same in figures and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from jaxmat.report.study.analysis import Setting
from jaxmat.report.tables import format_change, format_number, format_spread


class Variant(NamedTuple):
    """How a network is fine-tuned, whatever the properties and label counts."""

    strategy: str
    protocol: str
    learning_rate: float | None


class Source(NamedTuple):
    """What a network was pre-trained on; "" and None for scratch."""

    property: str
    size: int | None


SCRATCH = Source("", None)


def variant_of(setting: Setting) -> Variant:
    """Returns how the network of a setting is fine-tuned."""
    return Variant(setting.strategy, setting.protocol, setting.learning_rate)


def source_of(setting: Setting) -> Source:
    """Returns what the network of a setting was pre-trained on."""
    return Source(setting.source, setting.source_size)


def variants(settings: Iterable[Setting]) -> list[Variant]:
    """Returns the variants of fine-tuning, those with most settings first."""
    found = [variant_of(setting) for setting in settings if setting.kind == "finetune"]
    return sorted(dict.fromkeys(found), key=lambda variant: -found.count(variant))


def of_variant(settings: Collection[Setting], variant: Variant) -> list[Setting]:
    """Returns the settings of a variant with those of scratch that it is compared with.

    These are of the same protocol, at the same learning rate or else at the only one there is.
    """
    scratch = [
        setting
        for setting in settings
        if setting.kind == "scratch" and setting.protocol == variant.protocol
    ]
    same_rate = [one for one in scratch if one.learning_rate == variant.learning_rate]
    if not same_rate and len({one.learning_rate for one in scratch}) > 1:
        scratch = []
    tuned = [s for s in settings if s.kind == "finetune" and variant_of(s) == variant]
    return (same_rate or scratch) + tuned


def sources(settings: Collection[Setting]) -> list[Source]:
    """Returns what was pre-trained on: scratch, then properties in the order of the targets."""
    found = list(dict.fromkeys(source_of(setting) for setting in settings))
    order = ["", *targets(settings), *(source.property for source in found)]
    return sorted(found, key=lambda source: (order.index(source.property), source.size or 0))


def targets(settings: Iterable[Setting]) -> list[str]:
    """Returns the targets in the order in which they first appear."""
    return list(dict.fromkeys(setting.target for setting in settings))


def sizes(settings: Iterable[Setting]) -> list[int]:
    """Returns the label counts in order."""
    return sorted({setting.target_size for setting in settings})


def source_label(source: Source) -> str:
    """Returns a name such as "fe 941"."""
    return "scratch" if source == SCRATCH else f"{source.property} {source.size}"


def rate_label(rate: float | None) -> str:
    """Returns a learning rate."""
    return "not known" if rate is None else f"{rate:g}".replace("e-0", "e-")


def variant_label(variant: Variant, among: Collection[Variant]) -> str:
    """Returns a name of the strategy, and of what else varies among some variants."""
    parts = [variant.strategy]
    if len({other.protocol for other in among}) > 1:
        parts.append(variant.protocol)
    if len({other.learning_rate for other in among}) > 1:
        parts.append(f"learning rate {rate_label(variant.learning_rate)}")
    return ", ".join(parts)


def labeller(settings: Collection[Setting], apart_from: Collection[str]) -> Callable[..., str]:
    """Returns a function that names settings by what varies among them.

    Args:
        settings: those to tell apart.
        apart_from: fields that are shown in another way, such as the axis of a plot.
    """
    tuned = [setting for setting in settings if setting.kind == "finetune"]
    varies = {
        name: name not in apart_from and len({getattr(setting, name) for setting in of}) > 1
        for name, of in [
            ("strategy", tuned),
            ("target", settings),
            ("target_size", settings),
            ("protocol", settings),
            ("learning_rate", settings),
        ]
    }

    def label(setting: Setting) -> str:
        parts = [source_label(source_of(setting))]
        if varies["target"]:
            parts[0] += f" → {setting.target}"
        if varies["strategy"] and setting.kind == "finetune":
            parts.append(setting.strategy)
        if varies["target_size"]:
            parts.append(f"{setting.target_size} labels")
        if varies["protocol"]:
            parts.append(setting.protocol)
        if varies["learning_rate"]:
            parts.append(f"rate {rate_label(setting.learning_rate)}")
        return ", ".join(parts)

    return label


def percent(change: float) -> str:
    """Returns a relative change as a percentage with its sign; factors from ten on as such."""
    if change >= 9:
        return f"×{format_number(1 + change, digits=2)}"
    text = format_change(change, decimals=0 if abs(change) >= 0.0995 else 1)
    return f"{text} %".replace("-", "−")


def interval(low: float, high: float) -> str:
    """Returns an interval of relative changes, a dash where there is none."""
    return "–" if math.isnan(low) else f"{percent(low)} … {percent(high)}"


def mean_and_spread(mean: float, spread: float) -> str:
    """Returns mean ± standard deviation, the mean alone where there is no deviation."""
    away = 0.0 if math.isnan(spread) else spread / math.sqrt(2)
    return format_spread([mean - away, mean + away])  # two numbers with that mean and deviation


def with_count(mean: float, spread: float, count: int) -> str:
    """Returns mean ± standard deviation with the number of trials in brackets."""
    return f"{mean_and_spread(mean, spread)} ({count})"


def chosen(items: Sequence[str], first: str) -> str:
    """Returns `first` where it is there, else the most frequent item."""
    return first if first in items else max(items, key=items.count)
