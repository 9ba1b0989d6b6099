"""The sections of a study's report that have figures; one with nothing to show is empty."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmat.report.html import Content, element, folded, paragraph, picture, table
from jaxmat.report.predicted import parity_chart, parity_points
from jaxmat.report.predictions import Prediction, read_predictions
from jaxmat.report.study import figures, layout
from jaxmat.report.study.analysis import (
    Groups,
    Relative,
    Setting,
    Summary,
    predictions_file,
    relative_to_strategy,
    setting_of,
)
from jaxmat.report.study.published import Comparison
from jaxmat.report.study.results import CellResult
from jaxmat.report.tables import format_number


class Study(NamedTuple):
    """A study with its analysis.

    Attributes:
        rows: cells.
        folder: of the study; figures go to figures/ in it.
        groups: cells that are done by setting.
        summaries: of each setting with a test error.
        relative: to scratch, of each fine-tuned setting that has its baseline.
        comparisons: with published results, in the order of the settings.
    """

    rows: Sequence[CellResult]
    folder: Path
    groups: Groups
    summaries: Mapping[Setting, Summary]
    relative: Mapping[Setting, Relative]
    comparisons: Sequence[Comparison]


def gain(study: Study) -> list[Content]:
    """Changes relative to scratch: in short, and as heat maps."""
    if not study.relative:
        return []
    variants = layout.variants(study.relative)
    content: list[Content] = [
        paragraph(
            "Test MAE of fine-tuned networks relative to training from scratch on the same "
            "labels; below zero, pre-training helps. The change is that of the geometric mean "
            "over matching trials. It is clear where its own 95 % interval (paired t on "
            "logarithms over trials) leaves out zero; where nothing changes, one comparison in "
            "twenty is clear all the same."
        )
    ]
    for variant in variants:
        of = {s: c for s, c in study.relative.items() if layout.variant_of(s) == variant}
        rows, columns, sizes = layout.sources(of), layout.targets(of), layout.sizes(of)
        by_size = [[c for s, c in of.items() if s.target_size == size] for size in sizes]
        header = ["labels", "pairs", "lower", "clearly lower", "clearly higher"]
        short = table(
            [*header, "median", "least", "greatest"],
            [[str(n), *_in_short(of)] for n, of in zip(sizes, by_size, strict=True)],
        )
        file = _figure(study, "relative_to_scratch", variant, variants)
        figures.heat_maps(file, of, rows, columns, sizes)
        name = layout.variant_label(variant, variants)
        caption = f"{name}: test MAE relative to scratch. Bold: clear; grey: no pair of cells."
        content += _folded_where_many(name, variants, short, picture(file, caption))
    return [*content, _intervals(study)]


def learning_curves(study: Study) -> list[Content]:
    """Errors against the number of labels, for each variant beside scratch."""
    variants = layout.variants(study.summaries)
    shown = [
        (
            layout.variant_label(variant, variants),
            _figure(study, "learning_curves", variant, variants),
            layout.of_variant(study.summaries, variant),
        )
        for variant in variants
    ]
    if not variants:
        file = study.folder / "figures" / "learning_curves.png"
        shown = [("scratch", file, list(study.summaries))]
    content: list[Content] = []
    for name, file, settings in shown:
        panels = _panels(study, settings, "target_size")
        if panels:
            figures.line_panels(file, panels, "labels")
            caption = (
                f"{name}: test MAE against label count; mean and standard deviation of trials."
            )
            content += _folded_where_many(name, variants, picture(file, caption))
    return content


def strategies(study: Study) -> list[Content]:
    """Errors of strategies relative to one of them, on the same trials."""
    names = [setting.strategy for setting in study.summaries if setting.kind == "finetune"]
    if len(set(names)) < 2:
        return []
    reference = layout.chosen(names, "all_layers")
    relative = relative_to_strategy(study.groups, reference)
    if not relative:
        return []
    label = layout.labeller(list(relative), {"strategy", "target_size"})
    ratios: dict[int, dict[str, dict[str, float]]] = {
        size: {name: {} for name in dict.fromkeys(names) if name != reference}
        for size in layout.sizes(relative)
    }
    for setting, change in relative.items():
        ratios[setting.target_size][setting.strategy][label(setting)] = 1 + change.change
    file = study.folder / "figures" / "strategies.png"
    figures.strategies(file, ratios, reference)
    shown = [name for name in dict.fromkeys(names) if name != reference]
    return [
        paragraph(
            f"Test MAE of each strategy over that of {reference}, on matching trials: geometric "
            "mean over all settings (source, target, labels and learning rate) that both have, "
            "their number in brackets."
        ),
        table(
            ["strategy", *(f"{size} labels" for size in ratios)],
            [[name, *(_geometric_mean(ratios[size][name]) for size in ratios)] for name in shown],
        ),
        picture(file, f"Test MAE of strategies relative to {reference}; a dot for each setting."),
    ]


def learning_rates(study: Study) -> list[Content]:
    """Errors against the learning rate, where a setting was run at several."""
    panels = _panels(study, list(study.summaries), "learning_rate")
    if not panels:
        return []
    file = study.folder / "figures" / "learning_rates.png"
    figures.line_panels(file, panels, "greatest learning rate")
    return [picture(file, "Test MAE against the learning rate; mean and spread over trials.")]


def published(study: Study) -> list[Content]:
    """The published results of the same settings."""
    if not study.comparisons:
        return []
    file = study.folder / "figures" / "published.png"
    figures.beside_published(file, study.comparisons)
    label = layout.labeller([c.setting for c in study.comparisons], {"target", "target_size"})
    rows = [
        [
            one.setting.target,
            label(one.setting),
            str(one.setting.target_size),
            layout.with_count(one.test_mae, one.test_mae_spread, one.trials),
            layout.with_count(one.published_mae, one.published_mae_spread, one.published_trials),
            one.unit if one.unit != "1" else "",
            layout.mean_and_spread(one.test_mae_scaled, one.test_mae_scaled_spread),
            layout.mean_and_spread(one.published_mae_scaled, one.published_mae_scaled_spread),
            layout.percent(one.test_mae / one.published_mae - 1),
        ]
        for one in study.comparisons
    ]
    header = ["target", "setting", "labels", "this study", "published", "unit"]
    header += ["this study, scaled", "published, scaled", "difference"]
    return [
        paragraph(
            "Mean ± standard deviation over the trials that both have, their number in brackets. "
            "A scaled unit is "
            "half the range of all labels of the target, as in the published runs. The published "
            "errors are those against test labels on the scale of the training labels, which "
            "corrects the piezoelectric ones."
        ),
        picture(file, "Test MAE of this study against the published ones, in scaled units."),
        folded(f"Settings: {len(rows)}", table(header, rows, texts=2), opened=len(rows) <= 20),
    ]


def parity(study: Study) -> list[Content]:
    """Predictions of the best setting of each target beside those of scratch."""
    pictures: list[Content] = []
    charts: list[Content] = []
    for target in layout.targets(study.summaries):
        of = [setting for setting in study.summaries if setting.target == target]
        most = layout.sizes(of)[-1]
        of = [setting for setting in of if setting.target_size == most]
        best = min(of, key=lambda setting: study.summaries[setting].test_mae)
        scratch = [s for s in of if s.kind == "scratch" and s.protocol == best.protocol]
        cells = _same_trial(study, scratch[:1], best)
        if not cells:
            continue
        # R² is the same in both units unless a logarithm lies between them.
        log = any(abs(cell.test_r2 - cell.test_r2_scaled) > 1e-6 for cell in cells)
        rows = {
            layout.source_label(layout.source_of(setting_of(cell))): _tested(study, cell)
            for cell in cells
        }
        points = parity_points(f"parity-{len(pictures)}", rows)
        tuned = f"{best.strategy}, {best.protocol}" if best.kind == "finetune" else best.protocol
        title = f"{target}, {most} labels, trial {cells[0].trial}"
        caption = f"{title}: the setting of least test MAE ({tuned})."
        pictures += [points.element()]
        charts.append(parity_chart(points, rows, cells[0].unit, log, caption))
    return [*pictures, element("div", *charts, class_="pictures")] if charts else []


def _same_trial(study: Study, baseline: Sequence[Setting], best: Setting) -> list[CellResult]:
    """Returns cells of one trial that have predictions: of the baseline, too, if one has both."""
    trials = [
        {
            row.trial: row
            for row in reversed(study.groups[setting])
            if predictions_file(study.folder, row)
        }
        for setting in dict.fromkeys([*baseline, best])
    ]
    for shown in (trials, trials[-1:]):
        for trial in sorted(set.intersection(*map(set, shown))):
            return [by_trial[trial] for by_trial in shown]
    return []


def _tested(study: Study, cell: CellResult) -> list[Prediction]:
    file = predictions_file(study.folder, cell)
    return [row for row in read_predictions(file) if row.split == "test"] if file else []


def _panels(study: Study, settings: Sequence[Setting], along: str) -> dict[str, figures.Panel]:
    """Returns a panel for each target that has some line of two points along a field."""
    label = layout.labeller(settings, {"target", along})
    panels = {}
    for target in layout.targets(settings):
        of = [s for s in settings if s.target == target and getattr(s, along) is not None]
        lines: dict[str, list[Setting]] = {}
        for setting in sorted(of, key=lambda setting: getattr(setting, along)):
            lines.setdefault(label(setting), []).append(setting)
        if along == "learning_rate":
            lines = {name: line for name, line in lines.items() if len(line) > 1}
        if max(map(len, lines.values()), default=0) > 1:
            panels[target] = _panel(study, lines, along)
    return panels


def _panel(study: Study, lines: Mapping[str, Sequence[Setting]], along: str) -> figures.Panel:
    of = [study.summaries[setting] for line in lines.values() for setting in line]
    drawn = {
        name: figures.Line(
            [getattr(setting, along) for setting in line],
            [study.summaries[setting].test_mae for setting in line],
            [study.summaries[setting].test_mae_spread for setting in line],
        )
        for name, line in lines.items()
    }
    process: dict[float, list[float]] = {}
    for one in of:
        if np.isfinite(one.gaussian_process_test_mae):
            process.setdefault(getattr(one.setting, along), []).append(
                one.gaussian_process_test_mae
            )
    if along == "target_size" and process:
        sizes = sorted(process)
        errors = [float(np.mean(process[size])) for size in sizes]
        drawn["Gaussian process on descriptors"] = figures.Line(
            sizes, errors, [math.nan] * len(sizes)
        )
    return figures.Panel(
        unit=of[0].unit,
        lines=drawn,
        constant=float(np.mean([summary.constant_test_mae for summary in of])),
    )


def _intervals(study: Study) -> Content:
    label = layout.labeller(list(study.relative), {"target", "target_size"})
    rows = [
        [
            setting.target,
            label(setting),
            str(setting.target_size),
            str(one.trials),
            layout.percent(one.change),
            layout.interval(one.low, one.high),
            layout.interval(one.crystals_low, one.crystals_high),
        ]
        for setting, one in study.relative.items()
    ]
    header = ["target", "setting", "labels", "trials", "change", "95 %, trials", "95 %, crystals"]
    explained = paragraph(
        "The interval over trials tells what another sample of labels could give; that over "
        "crystals (bootstrap, the trained networks held fixed) what other test crystals could."
    )
    return folded(f"Intervals of {len(rows)} comparisons", explained, table(header, rows, texts=2))


def _in_short(changes: Sequence[Relative]) -> list[str]:
    values = [change.change for change in changes]
    return [
        str(len(changes)),
        str(sum(value < 0 for value in values)),
        str(sum(change.high < 0 for change in changes)),
        str(sum(change.low > 0 for change in changes)),
        *(layout.percent(float(of(values))) for of in (np.median, np.min, np.max)),
    ]


def _geometric_mean(ratios: Mapping[str, float]) -> str:
    if not ratios:
        return "–"
    mean = float(np.exp(np.mean(np.log(list(ratios.values())))))
    return f"×{format_number(mean, digits=3)} ({len(ratios)})"


def _figure(
    study: Study, name: str, variant: layout.Variant, variants: Sequence[layout.Variant]
) -> Path:
    """Returns the file of a figure, named by the variant where there are several."""
    suffix = f"_{_slug(layout.variant_label(variant, variants))}" if len(variants) > 1 else ""
    return study.folder / "figures" / f"{name}{suffix}.png"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)


def _folded_where_many(
    name: str, variants: Sequence[layout.Variant], *content: Content
) -> list[Content]:
    """Returns content as it is for one variant; of several, only the first is open."""
    if len(variants) <= 1:
        return list(content)
    first = layout.variant_label(variants[0], variants)
    return [folded(name, *content, opened=name == first)]
