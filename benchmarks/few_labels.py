"""Few labels: what cross-validation picks, every candidate beside it, and the published marks.

    python -m benchmarks.few_labels --data=FOLDER --checkpoints=DIR --workdir=DIR \
        --csv=FILE --json=FILE

FOLDER holds NAME.json.gz tables with splits/NAME.json, the authors' lists. DIR has a folder for
each table, DIR/NAME, whose model was trained without the labels of NAME and without test crystals.
For each of ph, dc, gv, ebg, pz, 10, 100, 200, 800 labels and five trials a choice (`jaxmat choose`)
sees the trial's labels alone; what it picks, and every candidate trained on all of them, is tested
on the published test part. A cell that is in the CSV is not done again.

Exit code 1: cells are missing, or intervals miss their limits.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from scipy import stats

from benchmarks.kept import add_done, find_done
from benchmarks.published import KINDS, read_marks
from jaxmat.bundles.bundle import CHOSEN
from jaxmat.bundles.predict import load_members
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.data.splits import write_split
from jaxmat.experiments import carry_out, defaults
from jaxmat.experiments.choose import list_options, option_config
from jaxmat.experiments.population import train_population
from jaxmat.experiments.study.samples import Samples, finetuning_split, read_samples
from jaxmat.experiments.study.tables import find_tables
from jaxmat.report.predictions import Prediction, read_predictions
from jaxmat.report.tables import format_table

SETS, SIZES, TRIALS = ("ph", "dc", "gv", "ebg", "pz"), (10, 100, 200, 800), (1, 2, 3, 4, 5)
LEVEL = 0.9
PICKED, CONSTANT = "picked", "constant"
# What to try for: scaled MAE of what is picked; with 10 labels 1.05 times that of the median.
AIMS = {
    ("ph", 100): 0.070,
    ("dc", 100): 0.029,
    ("gv", 100): 0.122,
    ("ebg", 100): 0.110,
    ("ph", 200): 0.058,
    ("dc", 200): 0.026,
}
# Limits on the intervals of what is picked, with 100 and 800 labels.
COVERAGE, MEAN_COVERAGE, LEAST_SPEARMAN = (0.80, 0.97), (0.87, 0.93), 0.2
_BOOTSTRAPS = 1000


class Row(NamedTuple):
    """One candidate in one cell.

    Attributes:
        set: name of the table.
        size: labels, of the training and the validation part.
        trial: number of the list of labels.
        candidate: what was trained; "picked" for what the choice took, "constant" for the median.
        choice: what "picked" was; else "".
        mae: on the test part, in the unit.
        mae_scaled: the same as published: 2 / (greatest - least label of the table) times.
        expected: MAE that the choice expected, in the unit; NaN for others.
        expected_error: its standard error.
        coverage: share of the test labels inside the intervals.
        score: mean interval score (Gneiting and Raftery 2007), in the unit.
        constant_score: that of intervals of one half width for all, calibrated alike.
        spearman: rank correlation of widths and absolute errors.
        spearman_low, spearman_high: ends of its 95 % bootstrap interval over crystals.
        seconds: that it took; of "picked" the whole choice.
    """

    set: str
    size: int
    trial: int
    candidate: str
    choice: str
    mae: float
    mae_scaled: float
    expected: float
    expected_error: float
    coverage: float
    score: float
    constant_score: float
    spearman: float
    spearman_low: float
    spearman_high: float
    seconds: float


def main(argv: list[str]) -> None:
    """Runs the cells that are missing, tabulates all and checks the limits."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    file = Path(values.csv)
    tables = find_tables(values.data)
    settings = defaults.data()
    for name in values.sets:
        samples = read_samples(tables[name], settings)
        for size in map(int, values.sizes):
            for trial in map(int, values.trials):
                done = {(row.set, row.size, row.trial) for row in find_done(file, Row)}
                if (name, size, trial) not in done:
                    add_done(file, run_cell(samples, size, trial, values))
    rows = find_done(file, Row)
    result = {"rows": len(rows), "table": tabulate(rows), **check(rows)}
    Path(values.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(format_table(result["table"]))
    print("\n".join(result["problems"]) or "Complete, and within all limits.")
    if result["problems"]:
        sys.exit(1)


def run_cell(samples: Samples, size: int, trial: int, values: Any) -> list[Row]:
    """Returns the rows of a cell; the last is that of what was picked."""
    name = samples.table.key
    place = Path(values.workdir) / f"{name}_{size}_{trial}"
    place.mkdir(parents=True, exist_ok=True)
    split = finetuning_split(samples, size, trial)
    write_split(place / "split.json", split)
    config = cell_config(samples, size, len(split["train"]), place / "split.json", values)
    about: dict[str, Any] = {"set": name, "size": size, "trial": trial}
    scale = 2 / (samples.table.lists["scaling"]["max"] - samples.table.lists["scaling"]["min"])
    chosen = carry_out(config, place / "choice")
    assert chosen is not None
    rows = []
    final, picks = place / "choice" / CHOSEN, list(chosen["weights"])
    for i, option in enumerate(list_options(config, place / "choice")):
        run = place / "candidates" / str(i)
        if str(option) in picks:  # it has been trained on all labels already
            run = final / f"member_{picks.index(str(option))}" if len(picks) > 1 else final
        results = train_population([option_config(config, option, 0, "")], [run], run)
        assert results is not None
        rows.append(make_row(about, str(option), run, results[0], scale))
    picked = make_row(about, PICKED, final, chosen, scale)
    constant = chosen["constant_test_mae"]
    nothing: dict[str, Any] = dict.fromkeys(Row._fields[5:], math.nan)
    rows.append(
        Row(
            **about,
            candidate=CONSTANT,
            choice="",
            **nothing | {"mae": constant, "mae_scaled": constant * scale},
        )
    )
    weights = "; ".join(f"{w:.2g} {option}" for option, w in chosen["weights"].items())
    rows.append(
        picked._replace(
            choice=weights,
            expected=chosen["expected_mae"],
            expected_error=chosen["expected_mae_standard_error"],
        )
    )
    return rows


def cell_config(samples: Samples, size: int, n_train: int, split: Path, values: Any) -> ConfigDict:
    """Returns the config of the choice of a cell."""
    table = samples.table
    config = defaults.choose(path=table.path, target=table.target, unit=table.unit)
    config.minutes, config.scratch = values.minutes, values.scratch
    config.strategies, config.element_features = tuple(values.strategies), tuple(values.features)
    config.population = 1
    config.data.update(id_column="", split=str(split), log=samples.heavy_tail)
    steps = 3000 if size >= 500 else 1000
    config.training.update(
        epochs=math.ceil(steps / max(1, n_train // config.training.batch_size)),
        weight_decay=1e-2,
        test_with="best" if size >= 200 else "last",
    )
    config.training.evaluate_every = max(1, config.training.epochs // 20)
    # With ten labels every ten epochs would be every ten steps, and take longer than these.
    config.training.save_every = config.training.epochs
    own = (str(Path(values.checkpoints) / table.key),)
    config.candidates = own if values.checkpoints else ()
    return config


def make_row(
    about: Mapping[str, Any], candidate: str, run: Path, result: Mapping[str, Any], scale: float
) -> Row:
    """Returns the row of a finished run."""
    rows = [row for row in read_predictions(run / "predictions.csv") if row.split == "test"]
    return Row(
        **about,
        candidate=candidate,
        choice="",
        mae=result["test_mae"],
        mae_scaled=result["test_mae"] * scale,
        expected=math.nan,
        expected_error=math.nan,
        **judge(rows, constant_ends(run, rows)),
        seconds=result.get("seconds", math.nan),
    )


def constant_ends(run: Path, rows: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """Returns ends of intervals of one half width for all, calibrated on the same errors."""
    members = load_members([run])
    (name,) = members[0].model.heads
    transform = members[0].model.transforms[name]
    widths = [member.about["calibration"][name]["half_width"] for member in members]
    middle = transform.to_scaled(np.array([row.prediction for row in rows]))
    half = float(np.mean(widths))
    return transform.to_unit(middle - half), transform.to_unit(middle + half)


def judge(rows: Sequence[Prediction], constant: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Returns how good intervals are: coverage, scores, and whether wide ones are wrong ones."""
    target, prediction, low, high = np.array(
        [(row.target, row.prediction, row.low, row.high) for row in rows]
    ).T
    width, error = high - low, np.abs(prediction - target)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(rows), (_BOOTSTRAPS, len(rows)))
    correlations = [_spearman(width[i], error[i]) for i in drawn]
    return {
        "coverage": float(np.mean((low <= target) & (target <= high))),
        "score": interval_score(target, low, high),
        "constant_score": interval_score(target, *constant),
        "spearman": _spearman(width, error),
        "spearman_low": float(np.quantile(correlations, 0.025)),
        "spearman_high": float(np.quantile(correlations, 0.975)),
    }


def interval_score(target: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Returns the mean interval score (Gneiting and Raftery, J. Am. Stat. Assoc. 102, 359, 2007).

    The width, and for labels outside 2 / (1 - level) times the distance to the nearer end.
    """
    outside = np.maximum(low - target, 0) + np.maximum(target - high, 0)
    return float(np.mean(high - low + 2 / (1 - LEVEL) * outside))


def _spearman(width: np.ndarray, error: np.ndarray) -> float:
    if np.ptp(width) == 0 or np.ptp(error) == 0:
        return 0.0
    return float(stats.spearmanr(width, error).statistic)


def start_named(candidate: str, target: str) -> str:
    """Returns the name of a candidate, by which those of all targets are alike."""
    way, start, place = candidate.partition(" from ")
    if not start:
        return candidate
    name = Path(place).name
    return f"{way} from {'all but the target' if name == target else name}"


def tabulate(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns a line for each set and size: means over trials beside marks and aims."""
    lines, marks = [], read_marks()
    for name, size in dict.fromkeys((row.set, row.size) for row in rows):
        cell = [row for row in rows if (row.set, row.size) == (name, size)]
        means = {
            start_named(candidate, name): float(
                np.mean([r.mae_scaled for r in cell if r.candidate == candidate])
            )
            for candidate in dict.fromkeys(row.candidate for row in cell)
        }
        best = min(mae for candidate, mae in means.items() if candidate != PICKED)
        aim = AIMS.get((name, size), 1.05 * means[CONSTANT] if size == 10 else None)
        lines.append(
            {
                "set": name,
                "labels": size,
                "trials": len({row.trial for row in cell}),
                PICKED: means.pop(PICKED),
                "aim": aim,
                "best candidate": best,
                **means,
                **{
                    kind: marks[key].mean if (key := (name, size, kind)) in marks else None
                    for kind in KINDS
                },
            }
        )
    return lines


def check(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns regrets, what the intervals are worth, and what is missing or misses a limit."""
    cells = {(row.set, row.size, row.trial) for row in rows}
    wanted = {(s, n, t) for s in SETS for n in SIZES for t in TRIALS}
    problems = [f"{len(wanted - cells)} of {len(wanted)} cells are missing"] * bool(wanted - cells)
    candidates = {row.candidate for row in rows} - {PICKED, CONSTANT}
    if len(candidates) < 2:
        problems.append("there is but one candidate; give --checkpoints")
    picked = [row for row in rows if row.candidate == PICKED]
    found: dict[str, Any] = {
        "regret": regret(rows, PICKED),
        "regret_of_the_gaussian_process": regret(rows, "Gaussian process on descriptors"),
    }
    hundred = [row for row in picked if row.size == 100 and row.set != "pz"]
    held = [abs(row.mae - row.expected) <= 2 * row.expected_error for row in hundred]
    found["expected_held"] = f"{sum(held)} of {len(held)}"
    coverages, better, no_worse, told = {}, [], [], []
    for name in SETS:
        own = [row for row in picked if row.set == name and row.size in (100, 800)]
        if not own:
            continue
        for size in (100, 800):
            if coverage := [row.coverage for row in own if row.size == size]:
                coverages[f"{name} {size}"] = float(np.mean(coverage))
        score, constant = (
            float(np.mean([getattr(row, field) for row in own]))
            for field in ("score", "constant_score")
        )
        better.append(score < constant)
        no_worse.append(score <= constant)
        told.append(
            np.mean([row.spearman for row in own]) >= LEAST_SPEARMAN
            and np.mean([row.spearman_low for row in own]) > 0
        )
        found[f"scores_{name}"] = {"each": score, "constant": constant}
    found["coverage"] = coverages
    problems += [
        f"coverage of {cell} is {share:.1%}, not {COVERAGE[0]:.0%} to {COVERAGE[1]:.0%}"
        for cell, share in coverages.items()
        if not COVERAGE[0] <= share <= COVERAGE[1]
    ]
    mean = float(np.mean(list(coverages.values()))) if coverages else math.nan
    if not MEAN_COVERAGE[0] <= mean <= MEAN_COVERAGE[1]:
        problems.append(f"the mean coverage is {mean:.1%}, not 87 % to 93 %")
    if sum(no_worse) < len(SETS) or sum(better) < len(SETS) - 1:
        problems.append("the interval score is worse than with one width for all")
    if sum(told) < len(SETS) - 1:
        problems.append("widths do not tell errors apart on four of five sets")
    if len(held) == len(TRIALS) * 4 and sum(held) < 17:
        problems.append(f"the expected error held {sum(held)} of {len(held)} times, not 17")
    return {**found, "problems": problems}


def regret(rows: Sequence[Row], candidate: str) -> float:
    """Returns by how much a candidate is worse than the best of its cell, the mean over cells."""
    losses = []
    for cell in {(row.set, row.size, row.trial) for row in rows}:
        own = [row for row in rows if (row.set, row.size, row.trial) == cell]
        best = min(row.mae for row in own if row.candidate != PICKED)
        losses += [row.mae / best - 1 for row in own if row.candidate == candidate]
    return float(np.mean(losses)) if losses else math.nan


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Folder of tables.", required=True)
    flags.DEFINE_string("checkpoints", "", "Folder with a model for each table; none: no networks.")
    flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
    flags.DEFINE_string("csv", None, "File that gets a row for each candidate.", required=True)
    flags.DEFINE_string("json", None, "File to write the table to.", required=True)
    flags.DEFINE_list("sets", list(SETS), "Names of tables.")
    flags.DEFINE_list("sizes", [str(size) for size in SIZES], "Numbers of labels.")
    flags.DEFINE_list("trials", [str(trial) for trial in TRIALS], "Numbers of the lists.")
    flags.DEFINE_float("minutes", 10.0, "Time of a choice.")
    flags.DEFINE_bool("scratch", True, "Whether networks with random weights are candidates.")
    usual = defaults.choose()
    flags.DEFINE_list("strategies", list(usual.strategies), "Of starting from the checkpoints.")
    flags.DEFINE_list("features", list(usual.element_features), "Others, with random weights.")


if __name__ == "__main__":
    _define_flags()
    run_program(main)
