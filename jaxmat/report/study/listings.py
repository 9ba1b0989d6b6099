"""The sections of a study's report that only list."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from jaxmat.report.html import Content, Element, folded, paragraph, table
from jaxmat.report.study import layout
from jaxmat.report.study.analysis import Setting, Summary
from jaxmat.report.study.results import STATUSES, CellResult
from jaxmat.report.study.sections import Study
from jaxmat.report.tables import format_number, with_unit


def overview(study: Study) -> list[Content]:
    """Cells by status, and what the targets are."""
    kinds = dict.fromkeys((row.kind, row.strategy, row.protocol) for row in study.rows)
    count = Counter((row.kind, row.strategy, row.protocol, row.status) for row in study.rows)
    by_status = [
        [kind, strategy or "–", protocol]
        + [str(count[kind, strategy, protocol, status]) for status in STATUSES]
        for kind, strategy, protocol in kinds
    ]
    totals = [str(sum(row.status == status for row in study.rows)) for status in STATUSES]
    named: dict[str, CellResult] = {}
    for row in study.rows:
        if row.target not in named or not named[row.target].property:
            named[row.target] = row
    return [
        table(
            ["cells", "strategy", "protocol", *STATUSES],
            [*by_status, ["all", "", "", *totals]],
            texts=3,
        ),
        table(
            ["target", "property", "unit"],
            [[key, row.property, row.unit] for key, row in named.items()],
            texts=3,
        ),
    ]


def picks(study: Study) -> list[Content]:
    """The setting of least validation error beside that of least test error, and scratch."""
    groups: dict[tuple[str, int, str], list[Summary]] = {}
    for setting, summary in study.summaries.items():
        of = setting.target, setting.target_size, setting.protocol
        groups.setdefault(of, []).append(summary)
    rows = [_pick(known) for of in groups.values() if len(known := _comparable(of)) > 1]
    if not rows:
        return []
    header = ["target", "protocol", "picked by validation", "best by hindsight", "labels"]
    header += ["validation MAE", "test MAE", "best test MAE", "scratch, test MAE"]
    return [
        paragraph(
            "Which setting to use: the one with the least validation MAE, here with its test MAE "
            "(mean ± standard deviation over trials, their number in brackets). Which one has the "
            "least test MAE is known only afterwards, and that error is too low, because it was "
            "picked by it. With few labels the validation part is small and the pick close to "
            "chance."
        ),
        table(header, rows, texts=4),
    ]


def _comparable(summaries: Sequence[Summary]) -> list[Summary]:
    """Returns those of all trials whose validation error is known."""
    most = max(one.trials for one in summaries)
    return [one for one in summaries if one.trials == most and math.isfinite(one.validation_mae)]


def _pick(summaries: Sequence[Summary]) -> list[str]:
    """Returns a row of `picks`, for settings of one target, number of labels and protocol."""
    by_validation, by_test = attrgetter("validation_mae"), attrgetter("test_mae")
    picked, best = min(summaries, key=by_validation), min(summaries, key=by_test)
    scratch = [one for one in summaries if one.setting.kind == "scratch"]
    shown = [picked, best, *([min(scratch, key=by_validation)] if scratch else [])]
    errors = [layout.with_count(one.test_mae, one.test_mae_spread, one.trials) for one in shown]
    label = layout.labeller([one.setting for one in summaries], set())
    return [
        with_unit(picked.setting.target, picked.unit),
        picked.setting.protocol,
        *(label(one.setting) for one in (picked, best)),
        str(picked.setting.target_size),
        format_number(picked.validation_mae, digits=3),
        *errors,
        *([] if scratch else ["–"]),
    ]


def spread(study: Study) -> list[Content]:
    """The spread due to the sample of labels apart from that due to the seed."""
    if not study.summaries:
        return []
    known = [s for s in study.summaries.values() if not math.isnan(s.seed_spread)]
    if not known:
        return [
            paragraph(
                "Not identified: every trial was run with one seed, so the spread over trials "
                "holds both what comes from the sample of labels and what comes from the seed."
            )
        ]
    label = layout.labeller([s.setting for s in known], set())
    rows = [
        [
            label(s.setting),
            s.unit,
            f"{s.runs} / {s.trials}",
            *(
                "not identified" if math.isnan(part) else format_number(part, digits=2)
                for part in (s.sample_spread, s.seed_spread)
            ),
        ]
        for s in known
    ]
    return [
        paragraph(
            "Standard deviations of the test MAE by a random-effects analysis of variance: over "
            "samples of labels, and over seeds for one sample."
        ),
        table(["setting", "unit", "runs / trials", "sample", "seed"], rows, texts=2),
    ]


def matrices(study: Study) -> list[Content]:
    """Test errors, sources against targets, for each variant and label count."""
    variants = layout.variants(study.summaries)
    shown = {
        layout.variant_label(variant, variants): layout.of_variant(study.summaries, variant)
        for variant in variants
    } or {"from scratch": list(study.summaries)}
    content = [
        folded(
            name,
            *(_matrix(study, settings, size) for size in layout.sizes(settings)),
            opened=len(shown) == 1,
        )
        for name, settings in shown.items()
        if settings
    ]
    if not content:
        return []
    return [
        paragraph(
            "Test MAE, mean ± standard deviation over trials with their number in brackets; pre-"
            "trained on what stands left, fine-tuned on what stands above."
        ),
        *content,
    ]


def failures(study: Study) -> list[Content]:
    """Cells that failed with their reason, and those whose error is not a number."""
    failed = [
        [row.cell, row.reason or "not recorded"] for row in study.rows if row.status == "failed"
    ]
    failed += [
        [row.cell, "diverged: the test error is not a number"]
        for row in study.rows
        if row.status == "done" and not math.isfinite(row.test_mae)
    ]
    return [table(["cell", "reason"], failed, texts=2)] if failed else []


def _matrix(study: Study, settings: Sequence[Setting], size: int) -> Element:
    of = {
        (layout.source_of(setting), setting.target): study.summaries[setting]
        for setting in settings
        if setting.target_size == size
    }
    units = {target: summary.unit for (_, target), summary in of.items()}
    rows = [
        [layout.source_label(source)]
        + [
            layout.with_count(cell.test_mae, cell.test_mae_spread, cell.trials)
            if (cell := of.get((source, target)))
            else "–"
            for target in units
        ]
        for source in layout.sources(settings)
        if any((source, target) in of for target in units)
    ]
    header = [f"{size} labels", *(with_unit(target, unit) for target, unit in units.items())]
    return table(header, rows)
