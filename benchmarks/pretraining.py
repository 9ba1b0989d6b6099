"""Which pre-training makes networks that are good to start from: short ones, on development data.

    python -m benchmarks.pretraining --data=FOLDER --workdir=DIR --csv=FILE

FOLDER holds NAME.json.gz tables with splits/NAME.json and union.json.gz. Each variant is a network
pre-trained on the labels of some tables at once; dc and ph are left out, no test crystal of any
table is seen. From it models of dc and ph start, with the first 100 labels of published trials, and
are tested on crystals of the pools that are not in the trial's list. A row is added to the file at
once; what is in it is not done again. At the end, and with --report alone, a table is printed.

--variants=NAME,NAME runs some variants alone. --models=MODEL,MODEL tries models that are there,
none of which may know the properties of --sets.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks.kept import add_done, find_done
from benchmarks.trunks import development_split
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.experiments import carry_out, defaults
from jaxmat.experiments.protocols import settle, settle_training
from jaxmat.experiments.study.samples import Samples, read_samples
from jaxmat.experiments.study.tables import find_tables
from jaxmat.report.tables import format_table

LEFT_OUT, SIZE = ("dc", "ph"), 100
# Strategy → trials; fine-tuning is slow.
STRATEGIES = {"gaussian_process": (1, 2, 3), "gaussian_process_vectors": (1, 2, 3)} | dict.fromkeys(
    ("all_layers", "layer_wise", "head_first"), (1, 2)
)
_STEPS = 800
_FEATURES = "network.trunk.element_features"
# Variant → fields of the config of the pre-training, one step each from the first.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "properties": {},
    "table+properties": {_FEATURES: "table+properties"},
    "properties, properties take turns": {"pretraining.property_temperature": 2.0},
    "properties, twice the steps": {"pretraining.steps": 2 * _STEPS},
    "properties, layer norm": {"network.trunk.layer_norm": True},
}


class Row(NamedTuple):
    """One model that started from a pre-training.

    Attributes:
        variant: of the pre-training.
        set: name of the table.
        labels: of the training and the validation part.
        trial: number of the list of labels.
        strategy: of fine-tuning.
        crystals: tested on.
        mae: on them, in the unit.
        mae_scaled: the same as published: 2 / (greatest - least label of the table) times.
        seconds: that it took.
    """

    variant: str
    set: str
    labels: int
    trial: int
    strategy: str
    crystals: int
    mae: float
    mae_scaled: float
    seconds: float


def main(argv: list[str]) -> None:
    """Does what is missing and tabulates all."""
    refuse_arguments(argv, "Values are separated by commas.")
    values = flags.FLAGS
    file, workdir = Path(values.csv), Path(values.workdir)
    if not values.report:
        tables = find_tables(values.data)
        samples = {name: read_samples(tables[name], defaults.data()) for name in values.sets}
        done = {(row.variant, row.set, row.trial, row.strategy) for row in find_done(file, Row)}
        for variant in values.models or values.variants:
            model = variant if values.models else str(pretrain(variant, values.data, workdir))
            for strategy, name in itertools.product(values.strategies, values.sets):
                for trial in map(int, values.trials or STRATEGIES[strategy]):
                    if (variant, name, trial, strategy) not in done:
                        row = run_cell(variant, model, samples[name], trial, strategy)
                        add_done(file, [row])
    print(format_table(tabulate(find_done(file, Row))))


def pretrain(variant: str, data: str, workdir: Path) -> Path:
    """Returns the directory of a pre-training, which is done unless it is there."""
    config = defaults.pretrain_shipped()
    config.data.tables = data
    config.data.united = tuple(n for n in config.data.united if n not in LEFT_OUT)
    config.pretraining.steps = _STEPS
    config.update_from_flattened_dict(dict(VARIANTS[variant]))
    place = workdir / variant.replace(" ", "_").replace(",", "")
    # What the tables hold does not depend on the variant, and takes minutes to find out.
    others = [p for p in workdir.glob("*/tables") if p.parent != place]
    if others and not (place / "tables").exists():
        shutil.copytree(others[0], place / "tables")
    assert carry_out(config, place) is not None
    (model,) = place.glob("pretrain/*/model")
    return model


def run_cell(variant: str, model: str, samples: Samples, trial: int, strategy: str) -> Row:
    """Trains and tests a model that starts from a pre-trained one."""
    table, study = samples.table, defaults.pretrain_shipped()
    split = development_split(samples, SIZE, trial)
    counts = {"n_train": len(split["train"]), "n_validation": len(split["validation"])}
    config = defaults.finetune(path=table.path, target=table.target, unit=table.unit)
    config.start_from, config.strategy, config.seed = model, strategy, trial
    fields = settle(study, "data", heavy_tail=samples.heavy_tail)
    config.data.update({name: value for name, value in fields.items() if name in config.data})
    config.data.id_column = ""
    config.training.update(settle_training(study, "training", **counts))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        config.data.split = str(Path(folder, "lists.json"))
        Path(config.data.split).write_text(json.dumps(split), encoding="utf-8")
        result = carry_out(config, Path(folder, "run"))
    assert result is not None
    scaling = table.lists["scaling"]
    return Row(
        *(variant, table.key, SIZE, trial, strategy, len(split["test"]), result["test_mae"]),
        mae_scaled=2 * result["test_mae"] / (scaling["max"] - scaling["min"]),
        seconds=time.monotonic() - began,
    )


def tabulate(found: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns mean scaled errors over trials, a line for each variant and strategy."""
    lines: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in found:
        line = lines.setdefault((row.variant, row.strategy), {})
        line.setdefault(row.set, []).append(row.mae_scaled)
    return [
        {"pre-training": variant, "strategy": strategy}
        | {name: float(np.mean(line[name])) if name in line else None for name in LEFT_OUT}
        | {"trials": max(map(len, line.values()))}
        for (variant, strategy), line in lines.items()
    ]


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Folder of tables and splits.", required=True)
    flags.DEFINE_string("workdir", None, "Folder of the pre-trainings.", required=True)
    flags.DEFINE_string("csv", None, "File that rows are added to.", required=True)
    flags.DEFINE_list("variants", list(VARIANTS), "Variants.")
    flags.DEFINE_list("strategies", list(STRATEGIES)[:3], "Strategies.")
    flags.DEFINE_list("models", [], "Models that are there, in place of variants.")
    flags.DEFINE_list("sets", list(LEFT_OUT), "Tables.")
    flags.DEFINE_list("trials", [], "Lists of labels; by default those of the strategy.")
    flags.DEFINE_bool("report", False, "Train nothing, print the table of what there is.")


if __name__ == "__main__":
    _define_flags()
    run_program(main)
