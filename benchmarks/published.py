"""The published errors that results stand beside, trial by trial.

    python -m benchmarks.published --published=FILE

writes published.csv beside this module from FILE, the list of the published runs. They are kept
here so that tables can be made, and tested, without it. It also prints what pre-training was worth
in these runs, see `Gain`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.report.rows import read_rows, write_rows
from jaxmat.report.study.published import OTHERS, Key, Run, read_published

FILE = Path(__file__).with_name("published.csv")
OF_ANY, OF_941, SCRATCH = KINDS = (
    "published, best of any source",
    "published, best of 941 labels",
    "published, random weights",
)
TARGETS, SIZES = ("ph", "dc", "gv", "ebg", "pz"), (10, 100, 200, 500, 800)
_SMALL_SOURCE, _STRATEGY = 941, "all_layers"
# Sources with fewer trials do not compete: some settings were run once.
_LEAST_TRIALS = 4
_COLUMNS = ("target", "labels", "what", "source", "trial", "scaled_mae")


class Mark(NamedTuple):
    """A published error.

    Attributes:
        source: property and labels that were pre-trained on; "" for none.
        by_trial: mean absolute error of each trial, in half ranges of all labels.
    """

    source: str
    by_trial: Mapping[int, float]

    @property
    def mean(self) -> float:
        """The mean over trials."""
        return float(np.mean(list(self.by_trial.values())))


class Gain(NamedTuple):
    """What pre-training was worth in the published runs, over the trials that two settings share.

    Attributes:
        labels: that are fine-tuned on.
        pairs: of a source with 941 labels and a target.
        change: of the mean error by fine-tuning all layers, relative to random weights, the mean
            over pairs.
        sets: that all properties at once were fine-tuned on.
        ahead_of_941: sets of which all at once has a lower mean error than every single source of
            941 labels.
        ahead_of_any: likewise, than every single source.
    """

    labels: int
    pairs: int
    change: float
    sets: int
    ahead_of_941: int
    ahead_of_any: int


# By target, labels and one of `KINDS`.
Marks = dict[tuple[str, int, str], Mark]


def find_marks(runs: Mapping[Key, Iterable[Run]]) -> Marks:
    """Returns the errors of training from random weights, and of the best sources.

    The best source of a target and a number of labels is that with the least mean error over its
    trials, after fine-tuning all layers.

    Args:
        runs: from `read_published`.
    """
    marks: Marks = {}
    for key, found in runs.items():
        by_trial = dict(sorted(_trials(found).items()))
        if len(by_trial) < _LEAST_TRIALS or (key.source and key.strategy != _STRATEGY):
            continue
        mark = Mark(f"{key.source} {key.source_size or ''}".strip(), by_trial)
        kinds = [OF_ANY] if key.source else [SCRATCH]
        if key.source_size == _SMALL_SOURCE:
            kinds.append(OF_941)
        for kind in kinds:
            at = (key.target, key.target_size, kind)
            if at not in marks or mark.mean < marks[at].mean:
                marks[at] = mark
    return marks


def find_gains(runs: Mapping[Key, Sequence[Run]]) -> list[Gain]:
    """Returns what pre-training was worth, for each number of labels; see `find_marks`."""
    gains = []
    for labels in SIZES:
        tuned = {
            key: found
            for key, found in runs.items()
            if (key.target_size, key.strategy) == (labels, _STRATEGY) and _trials(found)
        }
        at_once = {key.target: tuned.pop(key) for key in list(tuned) if key.source == OTHERS}
        changes = [
            _ratio(found, runs[Key("", None, key.target, labels, "")]) - 1
            for key, found in tuned.items()
            if key.source_size == _SMALL_SOURCE
        ]
        behind = [
            key
            for key, found in tuned.items()
            if len(_trials(found)) >= _LEAST_TRIALS and _ratio(at_once[key.target], found) >= 1
        ]
        of_941 = {key.target for key in behind if key.source_size == _SMALL_SOURCE}
        of_any = {key.target for key in behind}
        ahead = (len(at_once.keys() - targets) for targets in (of_941, of_any))
        gains.append(Gain(labels, len(changes), float(np.mean(changes)), len(at_once), *ahead))
    return gains


def _ratio(runs: Iterable[Run], others: Iterable[Run]) -> float:
    """Returns the ratio of two mean errors over the trials that both have."""
    ours, theirs = _trials(runs), _trials(others)
    both = ours.keys() & theirs.keys()
    return sum(ours[trial] for trial in both) / sum(theirs[trial] for trial in both)


def _trials(runs: Iterable[Run]) -> dict[int, float]:
    """Returns the error of each trial."""
    return {int(run.trial): run.test_mae for run in runs if run.trial}


def write_marks(file: Path, marks: Marks) -> None:
    """Writes the marks of the small sets, a row a trial."""
    keys = [(target, size, kind) for target in TARGETS for size in SIZES for kind in KINDS]
    rows = [
        (*key, marks[key].source, trial, mae)
        for key in keys
        for trial, mae in marks[key].by_trial.items()
    ]
    write_rows(file, _COLUMNS, rows)


def read_marks(file: Path = FILE) -> Marks:
    """Returns the marks that `write_marks` wrote."""
    marks: dict[tuple[str, int, str], tuple[str, dict[int, float]]] = {}
    for _, row in read_rows(file, _COLUMNS):
        key = (row["target"], int(row["labels"]), row["what"])
        marks.setdefault(key, (row["source"], {}))[1][int(row["trial"])] = float(row["scaled_mae"])
    return {key: Mark(*mark) for key, mark in marks.items()}


def _main(argv: list[str]) -> None:
    refuse_arguments(argv, "See --help.")
    runs = read_published(flags.FLAGS.published)
    write_marks(FILE, find_marks(runs))
    print("labels  pairs  change of the MAE  all at once ahead of: 941 labels  any source")
    for gain in find_gains(runs):
        print(
            f"{gain.labels:>6}  {gain.pairs:>5}  {gain.change:>17.1%}"
            f"  {gain.ahead_of_941:>24} of {gain.sets}  {gain.ahead_of_any:>5} of {gain.sets}"
        )


if __name__ == "__main__":
    flags.DEFINE_string("published", None, "results.csv of the published runs.", required=True)
    run_program(_main)
