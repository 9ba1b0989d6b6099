"""Runs an experiment: python run_experiment.py --config=NAME --workdir=DIR.

NAME is that of a built-in config or the path of a Python file, with a variant behind a colon:
quickstart, quickstart:smoke, configs/quickstart.py. Any field of the config can be set:
--config.training.epochs=3.

Exit codes: 0 the run is done; 2 there is a mistake that you can mend, or the disk is full; 4 a
signal (SIGTERM, SIGINT, SIGUSR1) has stopped it, what was done is saved, and the same command goes
on. A second signal ends it at once.

On several hosts, or once for each GPU, start it with --distributed: see docs/clusters.md.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxmat import experiments
from jaxmat.bundles.shipped import shipped_names
from jaxmat.commands.command import Command, Flags
from jaxmat.commands.configs import as_flags, config_names, load_config, overridden
from jaxmat.commands.program import parse_flags
from jaxmat.errors import UserError
from jaxmat.experiments.fields import fields, refuse_unknown
from jaxmat.experiments.labelled import property_name
from jaxmat.experiments.ranges import DATA_OF_ONE, allowed
from jaxmat.runtime import hosts
from jaxmat.runtime.stopping import STOPPED, stop_on_signals

# Fields that have a short flag, and what it is about.
_HELP = {
    "data.path": "Table: CSV, JSON, extended XYZ, a folder with id_prop.csv or bundled:NAME.",
    "data.tables": 'Folder of tables, or "bundled".',
    "data.target": "Column of the labels.",
    "data.unit": 'Unit of the labels, "1" for none.',
    "start_from": "Model to start from: a bundle, work directory or checkpoint, or one that comes "
    f"with the package ({', '.join(shipped_names())}).",
    "minutes": "Time limit for everything; 0: none.",
    "candidates": "Models to start from, separated by commas: bundles, work directories, "
    f"checkpoints or models that come with the package ({', '.join(shipped_names())}); none: only "
    "models without pre-training.",
}
# What else there is to say of a flag where several properties can be learned at once.
_SEVERAL = {
    "data.target": " Several, separated by commas, are learned at once.",
    "data.unit": " For several columns one each, separated by commas.",
}
# Flags that are about something else than their field.
_HELP_OF_FLAGS = {
    "model": "Model to test: a bundle, work directory or checkpoint, or one that comes with the "
    f"package ({', '.join(shipped_names())}).",
}
_LEARN_SEVERAL = ("scratch", "pretrain")  # experiments
# The table of one property.
TABLE = {"data": "data.path", "target": "data.target", "unit": "data.unit"}


def experiment(
    help: str,
    *,
    default: str | None = None,
    kinds: Sequence[str] = (),
    short: Mapping[str, str] = MappingProxyType({}),
    distributed: bool = False,
) -> Command:
    """Returns the command that runs a config.

    Args:
        help: of the command.
        default: name of its config; None: one has to be given.
        kinds: of experiments that it runs; (): all.
        short: its short flags: name → field of the config.
        distributed: whether several processes may be one run.
    """
    learns_several = not kinds or not {*kinds}.isdisjoint(_LEARN_SEVERAL)

    def define(values: Flags) -> None:
        help = f"{', '.join(_names(kinds))}, or the path of a Python file."
        flags.DEFINE_string("config", default, help, flag_values=values)
        for name, field in short.items():
            about = _HELP_OF_FLAGS.get(name, _HELP[field])
            more = _SEVERAL.get(field, "") if learns_several else ""
            flags.DEFINE_string(name, None, about + more, flag_values=values)
        help = "Where results and checkpoints go; the same command resumes there."
        flags.DEFINE_string("workdir", "", help, flag_values=values)
        help = "Print all fields of the config, as flags, and exit."
        flags.DEFINE_bool("print_config", False, help, flag_values=values)
        if distributed:
            _define_distributed(values)

    parse = functools.partial(_parse, kinds=kinds, short=short)
    return Command(help, define, functools.partial(_run, distributed=distributed), parse)


def _define_distributed(values: Flags) -> None:
    help = "Be one of several processes that are one training; see docs/clusters.md."
    flags.DEFINE_bool("distributed", False, help, flag_values=values)
    help = "How many, if JAX cannot find out."
    flags.DEFINE_integer("processes", None, help, flag_values=values)
    help = "Which of them this is, from 0; likewise."
    flags.DEFINE_integer("process", None, help, flag_values=values)


def _names(kinds: Sequence[str]) -> list[str]:
    """Returns the names of the built-in configs of these kinds, of all where none is given."""
    return [n for n in config_names() if not kinds or load_config(n).experiment in kinds]


def _parse(
    argv: list[str], values: Flags, kinds: Sequence[str], short: Mapping[str, str]
) -> list[str]:
    """Parses the flags; afterwards the value of "config" is the config with all that was set."""
    values.set_gnu_getopt(True)
    argv = parse_flags(argv, values, known_only=True)  # all but the fields
    if not (name := values.config):
        raise UserError(f"Give --config=NAME ({', '.join(_names(kinds))}) or a path.")
    config = load_config(name)
    if kinds and config.get("experiment") not in kinds:
        raise UserError(
            f"--config={name} is an experiment {config.get('experiment')!r}, but this verb is for "
            f"{', '.join(kinds)}: jaxmat --help lists the verbs, and run_experiment.py runs all."
        )
    refuse_unknown(config, overridden(argv), "\n--print_config lists the fields.")
    _refuse_bare_fields(config, argv)
    del values.config
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    rest = parse_flags(argv, values)
    given = {flag: str(values[flag].value) for flag in short if values[flag].present}
    for flag in given:
        if f"config.{short[flag]}" in values:
            raise UserError(f"--{flag} is --config.{short[flag]}; give one of them.")
    # A comma may as well be part of the name of a column; units have none.
    if given.keys() >= {"target", "unit"} and "," in given["unit"]:
        _set_properties(values.config, given.pop("target"), given.pop("unit"))
    for flag, value in given.items():
        _set_field(values.config, flag, short[flag], value)
    if not values.print_config and not values.workdir:
        raise UserError("Give --workdir=DIR: where results and checkpoints go.")
    return rest


def _refuse_bare_fields(config: ConfigDict, argv: Sequence[str]) -> None:
    """Refuses fields given as flags without "config.", such as --epochs and --training.epochs.

    Args:
        config: the config.
        argv: what is left of the command line without the flags that there are.

    Raises:
        UserError: there is one.
    """
    for argument in argv[1:]:
        name = argument.partition("=")[0].lstrip("-")
        if not argument.startswith("--") or name.startswith("config"):
            continue
        known = sorted(fields(config), key=lambda field: field.count("."))
        if meant := [one for one in known if f".{one}".endswith(f".{name}")]:
            raise UserError(f"--{name}: there is no such flag; did you mean --config.{meant[0]}?")


def _set_field(config: ConfigDict, flag: str, field: str, value: str) -> None:
    """Sets the field of a short flag.

    Raises:
        UserError: the config has no such field, or the value is none for it.
    """
    if field not in fields(config):
        raise UserError(f"--{flag} sets config.{field}, which this config does not have.")
    present, new = fields(config)[field], cast(Any, value)
    if isinstance(present, tuple):
        new = (value,)
    elif isinstance(present, float):
        try:
            new = float(value)
        except ValueError as error:
            may_be = allowed(field)
            text = may_be.text if may_be else "a number"
            raise UserError(f"--{flag} is {value!r}; it has to be {text}") from error
    config.update_from_flattened_dict({field: new})


def _set_properties(config: ConfigDict, targets: str, units: str) -> None:
    """Sets several columns to learn at once, and their units, given with commas between them.

    Raises:
        UserError: they are not equally many, or the experiment learns one property.
    """
    columns, names = targets.split(","), units.split(",")
    if len(columns) != len(names):
        raise UserError(
            f"--target has {len(columns)} columns and --unit {len(names)} units; give one for each."
        )
    if config.experiment not in _LEARN_SEVERAL:
        raise UserError(
            f"--target has {len(columns)} columns, but {config.experiment} is about one property: "
            "start it once for each."
        )
    log = config.data.log
    properties = {
        property_name(column): {"target": column, "unit": unit, "log": log}
        for column, unit in zip(columns, names, strict=True)
    }
    if len(properties) < len(columns):
        raise UserError(f"--target={targets}: columns have to differ in more than their marks.")
    with config.unlocked():
        for field in DATA_OF_ONE:
            del config.data[field]
        config.data.properties = ConfigDict(properties)


def _run(values: Flags, arguments: list[str], distributed: bool) -> int | None:
    """Runs the experiment that the flags describe; returns the exit code."""
    if values.print_config:
        print(as_flags(values.config))
        return None
    if distributed and values.distributed:
        hosts.join(values.processes, values.process)
    elif distributed and not (values.processes is values.process is None):
        raise UserError("--processes and --process are for --distributed: give it, too.")
    with stop_on_signals(hosts.agreement()) as stop:
        result = experiments.run(values.config, values.workdir, stop)
    if result is not None or (stop.step is None and stop.signal is None):
        return None
    if hosts.is_first():
        by = stop.signal.name if stop.signal else "a signal to another process"
        step = f" at step {stop.step} of the training under way" if stop.step else ""
        print(
            f"Stopped by {by}{step}. All that was done is saved in {values.workdir}; the same "
            "command goes on from there.",
            file=sys.stderr,
        )
    return STOPPED


COMMAND = experiment(__doc__, distributed=True)
