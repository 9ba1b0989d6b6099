"""Makes of a pre-training a model that ships: jaxmat/models_shipped/NAME.

    python tools/ship_model.py --run=DIR/pretrain/pretrain-all-all-s0 --name=all_six

DIR is the work directory of the study `pretrain_shipped` (configs/pretrain_shipped.py). Heads get
names in plain words, weights are written in half precision, and intervals get one width for all
crystals: the processes that tell each its own are larger than the network. The card says what the
model has seen, of whom the data are, and what half precision changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from jaxmat.bundles.bundle import CARD, FOLDER, Bundle, read_bundle, save_bundle
from jaxmat.bundles.intervals import INTERVALS
from jaxmat.bundles.model import Predictor
from jaxmat.commands.program import refuse_arguments, run_program
from jaxmat.data.batches import Dataset
from jaxmat.data.graphs import stored_graphs
from jaxmat.data.tables import read_table
from jaxmat.report.tables import format_table
from jaxmat.runtime.caches import cache_folder

NAMES = {
    "fe": "formation_energy",
    "bg": "band_gap",
    "gv": "log_shear_modulus",
    "ph": "last_phonon_peak",
    "dc": "dielectric_constant",
    "pz": "piezoelectric_modulus",
}
# Crystals on which half precision is compared with single precision.
_COMPARED = "bundled:piezoelectric"
# What of the metrics the card has.
_METRICS = ("test_mae_", "test_r2_", "constant_test_mae_", "gaussian_process_test_mae_")
_FOLDER = Path(__file__).parents[1] / "jaxmat" / "models_shipped"
_MORE = """
## Half precision

The weights are kept in half precision and used in single precision. What that changes of the
predictions of {crystals} crystals ({table}), against single precision throughout:

{changes}

## What it is good for

To start from: `jaxmat finetune --start_from={name}`, `jaxmat choose --start_from={name}`, and
`jaxmat.fit(..., start_from="{name}")`. {unseen}The crystals that it was trained and validated on
can be recognised: fine-tuning, choosing and evaluating count a table's crystals among them.
{beaten}

## Data and licence

The properties are those of "Optimal pre-train/fine-tune strategies for accurate material property
predictions" (npj Comput. Mater. 10, 300 (2024)), as far as the crystals are public: formation
energies and band gaps of the Materials Project, logarithms (base 10) of shear moduli, highest
phonon peaks{dielectric} and piezoelectric moduli. They are data of the Materials
Project and its papers, CC BY 4.0; `jaxmat/models_shipped/NOTICE` has the attributions. This model
is CC BY 4.0 as well.

The crystals and lists of the paper are in its repository (github.com/sai-mat-group/
transfer-learning-material-properties, commit b21643f5), labels in their units in Matbench v0.1
(log_gvrh, phonons, mp_gap, mp_e_form), matminer 0.4.0 (dielectric and piezoelectric constants) and
the JARVIS leaderboard (formation energies and gaps of the Materials Project of 2018-06-01, by id).
Put together by `jaxmat unite`, with the lists beside them as docs/studies.md says, they make this
model again, but for rounding:

```sh
{command}
python tools/ship_model.py --run={run} --name={name}
```
"""
_COMMAND = "jaxmat study --config=pretrain_shipped --config.data.tables=TABLES --workdir=DIR"
_WITHOUT = {
    "no_dielectric": (
        " \\\n    --config.study.sources=others --config.study.targets=dc --config.data.unseen=dc",
        "It has seen no crystal of the table of dielectric constants. ",
    )
}


def ship(run: Path, name: str, folder: Path) -> None:
    """Writes the bundle and the card.

    Args:
        run: of the pre-training.
        name: of the model.
        folder: where it goes to.
    """
    trained = plain(read_bundle(run / FOLDER))
    save_bundle(folder, trained, half=True)
    options, unseen = _WITHOUT.get(name, ("", ""))
    changes, crystals = compare(trained, read_bundle(folder))
    card = (folder / CARD).read_text(encoding="utf-8")
    more = _MORE.format(
        name=name,
        crystals=crystals,
        table=_COMPARED,
        changes=format_table(changes),
        unseen=unseen,
        beaten=beaten(trained),
        dielectric=", total dielectric constants"
        if "dielectric_constant" in trained.model.heads
        else "",
        command=_COMMAND + options,
        run="/".join(["DIR", *run.parts[-2:]]),
    )
    card = card.replace("library_name: jaxmat\n", "library_name: jaxmat\nlicense: cc-by-4.0\n", 1)
    (folder / CARD).write_text(card + more, encoding="utf-8")


def plain(bundle: Bundle) -> Bundle:
    """Returns a model with plain names and one width of its intervals for all crystals."""
    model, variables, about, seen = bundle
    assert seen is not None
    heads = {NAMES[key]: options for key, options in model.heads.items()}
    transforms = {
        NAMES[key]: dataclasses.replace(transform, name=NAMES[key])
        for key, transform in model.transforms.items()
    }
    params = {
        _renamed(name, "heads_", model.heads): tree for name, tree in variables["params"].items()
    }
    return Bundle(
        dataclasses.replace(model, heads=heads, transforms=transforms),
        {**{k: v for k, v in variables.items() if k != INTERVALS}, "params": params},
        about
        | {
            "calibration": {
                NAMES[key]: {what: fitted[what] for what in ("level", "half_width")}
                for key, fitted in about["calibration"].items()
            },
            "metrics": {
                _renamed(name, "_", model.heads): value
                for name, value in about["metrics"].items()
                if name.startswith(_METRICS) and "_scaled" not in name
            },
            "data": about["data"]
            | {"path": "the union of the tables of the paper", "target": ", ".join(heads)},
        },
        seen._replace(properties=tuple(NAMES[key] for key in seen.properties)),
    )


def beaten(bundle: Bundle) -> str:
    """Returns what is said of properties that a process on descriptors predicts better."""
    metrics = bundle.about["metrics"]
    better = [
        name
        for name in bundle.model.heads
        if metrics[f"gaussian_process_test_mae_{name}"] < 0.98 * metrics[f"test_mae_{name}"]
    ]
    if not better:
        return ""
    return (
        f"\nIt is not the best there is to predict {', '.join(better)}: the test error of a "
        "Gaussian process on descriptors,\nfitted to at most 5,000 of the labels, is lower (above)."
    )


def _renamed(text: str, before: str, keys: Sequence[str] | Any) -> str:
    """Returns a name that may end with a property's key, with its plain name instead."""
    for key in keys:
        if text.endswith(before + key):
            return text.removesuffix(key) + NAMES[key]
    return text


def compare(one: Bundle, other: Bundle) -> tuple[list[dict[str, Any]], int]:
    """Returns how two models' predictions differ, by property, and on how many crystals."""
    table, model = read_table(_COMPARED), one.model
    graphs = stored_graphs(table.ids, table.contents, model.graph, cache_folder("graphs"))
    blank = Dataset(graphs, np.full((len(graphs), len(model.heads)), np.nan))
    scaled = [Predictor(each.model.network())(each.variables, blank) for each in (one, other)]
    rows = []
    for i, (name, transform) in enumerate(model.transforms.items()):
        values = [transform.to_unit(each[:, i]) for each in scaled]
        change = np.abs(values[1] - values[0])
        rows.append(
            {
                "property": name,
                "unit": transform.unit,
                "mean change": float(change.mean()),
                "largest change": float(change.max()),
                "test MAE": one.about["metrics"].get(f"test_mae_{name}"),
            }
        )
    return rows, len(graphs)


def main(argv: list[str]) -> None:
    """Writes the model that the flags name."""
    refuse_arguments(argv, "See --help.")
    values = flags.FLAGS
    folder = Path(values.output) if values.output else _FOLDER / values.name
    ship(Path(values.run), values.name, folder)
    print(folder)


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "Directory of the pre-training.", required=True)
    flags.DEFINE_string("name", None, "Name of the model.", required=True)
    flags.DEFINE_string("output", "", "Folder to write; by default jaxmat/models_shipped/NAME.")
    run_program(main)
