"""The fields of a config with their defaults; files in configs/ choose among the values."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxmat.bundles.shipped import DEFAULT
from jaxmat.errors import UserError
from jaxmat.experiments.protocols import SECTIONS, open_fields
from jaxmat.models.network import TRUNKS, option_defaults

# Fields of `data` that all runs of a study share.
_STUDY_DATA = (
    *("max_sites", "max_rejected_fraction", "read_seconds", "read_megabytes", "read_workers"),
    *("log", "scaling", "scaling_labels"),
)


def data(path: str = "", target: str = "", unit: str = "") -> ConfigDict:
    """Returns the table of one property, how it is split and scaled."""
    return ConfigDict(
        {
            # CSV, JSON, extended XYZ, a folder with id_prop.csv (docs/data.md), or
            # bundled:dielectric, bundled:piezoelectric, bundled:formation_energy.
            "path": path,
            "target": target,  # column of the labels
            "unit": unit,  # of the labels; "1" for none
            "id_column": "material_id",  # where complete; "": the table's index
            "property": "",  # name of the head; from the column where empty
            "split": "",  # JSON file {"train": [ids], "validation": [...], "test": [...]}, or drawn
            # How parts are drawn: or "stratified" by the label; "composition", "chemical_system" or
            # "column:NAME", whose groups stay together; "element:SYMBOL", all tested
            "split_by": "random",
            "folds": 0,  # cut the rows into so many folds, one of which is the test part; 0: no
            "fold": 0,  # which one, from 0
            "n_train": 0,  # labels to train on; 0: all that the other parts leave
            "n_validation": 0,  # labels that choose the checkpoint; 0: a tenth of all
            "n_test": 0,  # labels for the final test; 0: a tenth of all
            "test_seed": 0,  # of the test part; the other parts are drawn with config.seed
            "graph_store": "",  # folder where graphs are kept; "": the user's cache
            "max_sites": 0,  # leave out crystals with more sites in the cell; 0: none
            "max_rejected_fraction": 0.01,  # of structures that cannot be used
            "read_seconds": 8.0,  # that reading one structure may take
            "read_megabytes": 1400,  # of memory of each process that reads
            "read_workers": 0,  # processes that read; 0: one for each core
            "log": False,  # train on the logarithm, for positive targets with a heavy tail
            "scaling": "standard",  # or "minmax", the published one
            "scaling_labels": "training",  # or "all": test labels included, as published
        }
    )


def graph() -> ConfigDict:
    """Returns how structures become graphs; see jaxmat.crystals.graph.GraphSettings."""
    return ConfigDict(
        {
            "neighbor_rule": "complete_shells",  # or "reference", the published graphs
            "max_neighbors": 12,
            "tie_tolerance": 0.01,
            "cutoff": 8.0,
            "max_cutoff": 24.0,  # Å; atoms farther apart are never bonded
            "canonical": True,
            "compress": True,
            "tolerance": 1e-3,
            # angles: if the trunk needs them
        }
    )


def network() -> ConfigDict:
    """Returns the network; see jaxmat.models.

    The options of all trunks are there; one that is None is as the trunk has it by default, and
    one that the trunk does not have stays None.
    """
    options = {name: value for kind in TRUNKS for name, value in option_defaults(kind).items()}
    trunk = {name: config_dict.placeholder(type(value)) for name, value in options.items()}
    # "cogn", or "alignn", the network of the paper.
    return ConfigDict({"trunk": {"kind": "cogn", **trunk}, "head": {"kind": "linear"}})


def training() -> ConfigDict:
    """Returns how a network is trained."""
    return ConfigDict(
        {
            "epochs": 100,
            "batch_size": 16,
            "drop_last": True,  # leave out an epoch's last batch where it is smaller
            "max_shapes": 8,  # compiled batch shapes at most; as many as pay are used
            "loss": "l1",  # or "mse", "huber"
            "average": "properties",  # of the loss: or "entries", see jaxmat.training.losses
            # 0: each crystal once an epoch; else properties take turns, each as often as
            # (its labels)^(1/temperature)
            "property_temperature": 0.0,
            "schedule": "warmup_cosine",  # or "onecycle", the published one, cycles beta1 as well
            "learning_rate": 1e-3,
            "weight_decay": 1e-2,
            "decay": "kernels",  # or "published"
            "ema_decay": 0.99,  # of parameters and batch statistics; 0: no averages
            "evaluate_every": 1,  # epochs
            "save_every": 10,  # epochs
            "skipped_in_a_row": 10,  # steps without a finite loss that end the run
            "devices": "auto",  # or "one", "pmap", "shard_map": see jaxmat.training.parallel
            "precision": "float32",  # or "tensorfloat32", "bfloat16": see jaxmat.models.network
            "remat": False,  # compute activations twice to save memory, for large cells
            "test_with": "best",  # checkpoint by validation MAE; or "last"
            "patience": 0,  # evaluations without a better one that end the training; 0: none do
        }
    )


def scratch(**data_fields: str) -> ConfigDict:
    """Returns the config of a training from random weights."""
    return ConfigDict(
        {
            "experiment": "scratch",
            "seed": 0,
            "population": 1,  # seeds trained together in one program
            # So many elements, or those named a,b,c, are left out of a training each, to know how
            # wrong the model is about elements it has not met: jaxmat.experiments.left_out
            "leave_out_elements": "",
            "data": data(**data_fields),
            "graph": graph(),
            "network": network(),
            "training": training(),
        }
    )


def matbench() -> ConfigDict:
    """Returns the config of the official folds of a Matbench task; see experiments/matbench.py.

    `data.path` is the table as it is downloaded; its target and unit are known.
    """
    config = scratch()
    config.experiment = "matbench"
    del config.leave_out_elements
    config.task = "matbench_phonons"  # see jaxmat.experiments.matbench.TASKS
    # A model that has seen no crystal of the task, with its network and graphs; "": random weights
    config.start_from = ""
    config.strategy = "all_layers"  # of fine-tuning; see jaxmat.transfer.strategies
    return config


def multi_property() -> ConfigDict:
    """Returns the config of a pre-training on several properties of one table.

    `data.properties` is {name: {"target": column, "unit": unit, "log": whether the logarithm is
    learned}, ...}; where a crystal has no label the cell is blank.
    """
    config = scratch()
    config.experiment = "pretrain"
    for name in ("target", "unit", "property", "log"):
        del config.data[name]
    config.data.properties = ConfigDict()
    config.data.left_out = ConfigDict()  # how many crystals were, and why; for the result
    return config


def pretrain() -> ConfigDict:
    """Returns the config of a pre-training on the bundled formation energies, of minutes."""
    config = scratch(path="bundled:formation_energy", target="e_form", unit="eV/atom")
    config.experiment = "pretrain"
    config.data.max_sites = 12
    config.data.n_validation = 100
    config.data.n_test = 100
    config.training.epochs = 15
    config.training.evaluate_every = 3
    return config


def finetune(**data_fields: str) -> ConfigDict:
    """Returns the config of a training that starts from a checkpoint, with its graphs."""
    return ConfigDict(
        {
            "experiment": "finetune",
            "seed": 0,
            "population": 1,  # seeds trained together in one program
            # Bundle, work directory, checkpoint, or a model that comes with the package
            "start_from": DEFAULT,
            "strategy": "all_layers",  # or another of jaxmat.transfer.strategies
            "data": data(**data_fields),
            "training": {**training(), "learning_rate": 5e-4},
        }
    )


def gaussian_process(**data_fields: str) -> ConfigDict:
    """Returns the config of a Gaussian process on descriptors, fitted without any checkpoint.

    It is fitted to the labels of the training and validation parts: there is nothing to choose.
    """
    return ConfigDict(
        {
            "experiment": "gaussian_process",
            "seed": 0,
            "population": 1,  # seeds, each with other training labels
            "leave_out_elements": "",  # see `scratch`
            "data": data(**data_fields),
            "graph": graph(),
        }
    )


def evaluate(**data_fields: str) -> ConfigDict:
    """Returns the config of a test of a checkpoint on all labels of a table."""
    fields = data(**data_fields)
    return ConfigDict(
        {
            "experiment": "evaluate",
            "start_from": "",
            "data": {
                name: fields[name]
                for name in (
                    "path",
                    "target",
                    "unit",
                    "id_column",
                    "property",
                    "graph_store",
                    "max_sites",
                    "max_rejected_fraction",
                    "read_seconds",
                    "read_megabytes",
                    "read_workers",
                )
            },
        }
    )


def choose(**data_fields: str) -> ConfigDict:
    """Returns the config of a choice among checkpoints and strategies, and of the final model.

    A part `pretrain`, where it is added, is a pre-training to do first: one more candidate.
    """
    return ConfigDict(
        {
            "experiment": "choose",
            "seed": 0,
            # Bundles, work directories, checkpoints or models that come with the package, on the
            # command line a,b; "none": none
            "candidates": (DEFAULT,),
            # Of jaxmat.transfer.strategies, the cheap ones first.
            "strategies": (
                *("gaussian_process", "gaussian_process_vectors"),
                *("head_first", "all_layers", "layer_wise", "new_head_still"),
            ),
            "gaussian_process": True,  # try one on descriptors alone
            "scratch": True,  # try random weights as well, with `graph` and `network`
            # And other element features with random weights, on the command line a,b
            "element_features": ("table", "table+properties+embedding"),
            "minutes": 10.0,  # for all; what is not done by then is left out. 0: no limit
            "blend": True,  # whether a weighted mean of the best few may be picked
            "folds": 5,  # of the labels that are not for the test
            "repeats": 1,  # of the cross-validation, with other folds and seeds
            "population": 5,  # folds trained together in one program; fewer take less memory
            "data": data(**data_fields),
            "graph": graph(),
            "network": network(),
            "training": training(),
        }
    )


def study(title: str, **axes: Any) -> ConfigDict:
    """Returns the config of a study: a grid of fine-tunings and trainings from random weights.

    Args:
        title: of the report.
        **axes: fields of `study` in place of those below.
    """
    config = ConfigDict(
        {
            "experiment": "study",
            # "sound", "published" or "published_multi_property": decides every field that is None.
            # A value goes before it.
            "protocol": "sound",
            "study": {
                "title": title,  # of the report
                # Tables to pre-train on, on the command line a,b; "each": every one by itself;
                # "all": all at once; "others": all at once but the one to fine-tune on
                "sources": ("each",),
                "source_sizes": (941,),  # labels of a pre-training; 0: all but the test part
                "targets": (),  # tables to fine-tune and test on; (): all
                "target_sizes": (10, 100, 200, 500, 800),  # labels to train and validate on
                "strategies": ("all_layers",),  # of fine-tuning; (): random weights alone
                "learning_rates": (1e-3,),  # of fine-tuning and of training from random weights
                "trials": (1, 2, 3, 4, 5),  # samples of labels
                "seeds": (0,),  # of weights and order; each has its own pre-trainings
                "scratch": True,  # train from random weights as well
            }
            | axes,
            # "bundled", or a folder; see jaxmat.experiments.study.tables.find_tables
            "data": {
                "tables": "bundled",
                # Tables whose labels "all" and "others" stand for, on the command line a,b; (): all
                "united": (),
                # And tables none of whose crystals they see, also not by labels of other tables
                "unseen": (),
            }
            | {name: data()[name] for name in _STUDY_DATA},
            "graph": graph(),
            "network": network(),
            # steps, in place of epochs: as many epochs as it takes
            "pretraining": {"steps": 0, **training()},
            "training": {"steps": 0, **training()},
            "job": {
                # "pretrain" does the pre-trainings alone, "dry_run" lists cells and times,
                # "report" tabulates what is done
                "action": "run",
                "cells": "1/1",  # share i/n of the cells, for arrays of jobs in one directory
                "population": 1,  # cells trained as one program: trials and learning rates
                "published": "",  # results.csv of the published runs, to stand beside
            },
        }
    )
    for section in SECTIONS:
        for name in open_fields(section):
            config[section][name] = config_dict.placeholder(type(config[section][name]))
    config.network.trunk.kind = config_dict.placeholder(str)
    config.network.head.kind = config_dict.placeholder(str)
    del config.training.learning_rate  # an axis
    return config


def pretrain_others() -> ConfigDict:
    """Returns the config of the pre-trainings, each on all properties but one, to start from."""
    config = study(
        "Pre-training on the other properties",
        sources=("others",),
        source_sizes=(0,),
        learning_rates=(5e-4,),
    )
    config.job.action = "pretrain"
    config.data.max_sites = 60
    config.network.head.kind = "mlp"
    # Of 24,000 crystals of the paper's tables some twelve epochs.
    config.pretraining.steps = 4500
    config.pretraining.batch_size = 64
    return config


def pretrain_shipped() -> ConfigDict:
    """Returns the config of the pre-trainings of the models that ship."""
    config = pretrain_others()
    config.study.update(title="Pre-training on six properties", sources=("all",), targets=("dc",))
    config.data.united = ("fe", "bg", "gv", "ph", "dc", "pz")
    # Nearly all crystals of gv, ph, dc and pz are that small; with the others a step takes twice as
    # long.
    config.data.max_sites = 20
    # An error of every property counts by its labels: means over a few labels in a batch are noise.
    config.pretraining.average = "entries"
    config.pretraining.steps = 3600
    return config


def split_names(values: Iterable[str]) -> list[str]:
    """Splits names at commas: on the command line "a,b" arrives as one string."""
    names = [name.strip() for value in values for name in value.split(",")]
    return [name for name in names if name]


def variant(config: ConfigDict, name: str) -> ConfigDict:
    """Returns the variant of a config that stands behind a colon, as in quickstart.py:smoke.

    Args:
        config: the config as it is meant to be run.
        name: "" for the config itself, "smoke" for a run of seconds that tests the machinery.

    Raises:
        UserError: there is no such variant.
    """
    if name == "smoke":
        _shrink(config)
        if "study" in config:
            _shrink_axes(config.study)
            config.data.united = ()  # of the bundled tables
            config.job.population = 4
    elif name:
        raise UserError(f"There is no variant {name!r} of this config; the only one is 'smoke'.")
    return config


def _shrink(config: ConfigDict) -> None:
    """Makes networks, data and training of a config and its parts as small as will run."""
    smallest = {
        "data": {"n_train": 32, "n_validation": 16, "n_test": 16, "max_sites": 8},
        "training": {"epochs": 2, "save_every": 1, "max_shapes": 1},
        "pretraining": {"epochs": 2, "save_every": 1, "max_shapes": 1},
    }
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            _shrink(value)
            value.update({k: v for k, v in smallest.get(name, {}).items() if k in value})
            if value.get("steps"):  # the epochs say how long
                value.steps = 0
    if "trunk" in config:
        config.trunk.width = 16
        # A study's trunk is its protocol's, and not known yet.
        known = option_defaults(config.trunk.kind) if config.trunk.kind else {}
        few = {"layers": 1, "_width": 8}
        for name, (end, least) in itertools.product(known, few.items()):
            if name.endswith(end):
                config.trunk[name] = least


def _shrink_axes(axes: ConfigDict) -> None:
    """Leaves two values at most on each axis of a study, and one number of labels."""
    source, target = ("dielectric",), ("piezoelectric",)
    every_pair = axes.sources == ("each",)
    at_once = tuple(name for name in axes.sources if name in ("all", "others"))
    axes.update(
        sources=source + target if every_pair else at_once + source,
        source_sizes=(32, 48)[: len(axes.source_sizes)],
        targets=source + target if every_pair else target,
        target_sizes=(20,),
        strategies=axes.strategies[:2],
        learning_rates=axes.learning_rates[:2],
        trials=axes.trials[:2],
    )
