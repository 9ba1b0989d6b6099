"""Which model to take and how to train it: cross-validation on the training labels, then it.

The test part is set aside first. The other labels are cut into folds; a model that predicts a fold
is trained on the others exactly as the final one will be, the choice of its checkpoint on a
validation part among them included. The final model is trained on all labels but the test part's.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxmat.bundles.bundle import CHOSEN, Bundle, load
from jaxmat.bundles.shipped import NONE, shipped_names
from jaxmat.crystals.graph import GraphSettings
from jaxmat.errors import UserError, listed
from jaxmat.experiments.defaults import split_names
from jaxmat.experiments.final import finish_blend, recalibrate, widening_of_mean
from jaxmat.experiments.folds import Folds, describe_folds, describe_test, make_folds
from jaxmat.experiments.population import train_population
from jaxmat.experiments.prepare import PARTS, Prepared, graph_settings, prepare
from jaxmat.experiments.search import FIRST, Clock, Found, Search, Stopped
from jaxmat.experiments.seen_before import (
    describe_property,
    describe_seen,
    find_seen,
    find_seen_by_any,
)
from jaxmat.experiments.workdir import RESULT, add_findings, read_result, write_json
from jaxmat.report.choice import (
    COMPARISON,
    PROCESS,
    SCRATCH,
    Comparison,
    Option,
    compare,
    draw_comparison,
    format_choice,
    recommend,
    write_comparison,
)
from jaxmat.report.tables import format_quantity
from jaxmat.runtime.files import rejoin_paths
from jaxmat.transfer.strategies import get_strategy

_logger = logging.getLogger(__name__)

# The final training has more labels than one of a fold, and is tested besides.
_LONGER = 1.5
# What the result of a choice takes from that of the final model.
_OF_FINAL = ("crystals", "test_mae", "constant_test_mae", "seen_before", "unseen_elements")
_PRETRAIN = "pretrain"  # the run of a model that is to start from, where the config has one

Result = dict[str, Any]
Stop = Callable[[int], bool]


def choose(config: ConfigDict, workdir: Path, stop: Stop) -> Result | None:
    """Compares models and strategies, and trains the final model with the best of them.

    Args:
        config: see `jaxmat.experiments.defaults.choose`.
        workdir: gets options/<option>/<fold>, the comparison, and final, the run of the model.
        stop: asked after every step of a training whether to save and return.

    Returns:
        The result, or None where a training was stopped.

    Raises:
        UserError: a config or table that cannot be used, or no option can be trained.
    """
    clock = Clock(config.minutes, stop, _spent(workdir))
    options = list_options(config, workdir)
    own = str(workdir / _PRETRAIN)
    starts = load_starts([option.source for option in options if option.source != own])
    data = prepare(config.data, config.seed, graph_settings(config), workdir)
    folds = make_folds(config, data)
    (transform,) = data.transforms.values()
    make_config = functools.partial(option_config, config)
    train = functools.partial(_train, config.population)
    try:
        if "pretrain" in config:
            if not train([config.pretrain], [Path(own)], stop):
                return None
            starts |= load_starts([own])
        _tell(starts, data, describe_test(config), workdir)
        _logger.info("%d options, %d folds each", len(options), len(folds.splits))
        places = {option: workdir / _place(options, option) for option in options}
        search = Search(workdir, folds, transform, train, make_config, clock)
        found = search.run(places)
        comparison = _compare(config, data, folds, found, clock)
        directories = {option: str(_place(options, option)) for option in options}
        write_comparison(workdir / COMPARISON, comparison, directories)
        draw_comparison(workdir / "comparison.png", comparison, transform.name)
        _logger.info("%s", recommend(comparison, transform.name))
        train_final = functools.partial(
            _train_final, config, workdir / CHOSEN, comparison, found, folds.labels, data, starts
        )
        if all(option.is_closed_form for option in comparison.weights):
            final = train_final(train, stop)
        else:
            with search.total.training([CHOSEN]) as finished:
                final = train_final(train, stop)
                finished.append(final)
    except Stopped:
        return None
    return _write_result(config, workdir, comparison, final)


def list_options(config: ConfigDict, workdir: Path) -> list[Option]:
    """Returns what is to be compared, each once."""
    if config.data.scaling_labels != "training":
        raise UserError(
            "config.data.scaling_labels has to be 'training': with test labels in the scaling the "
            "choice would have seen them."
        )
    sources = [path for path in rejoin_paths(split_names(config.candidates)) if path != NONE]
    strategies = split_names(config.strategies)
    if "pretrain" in config:
        sources.append(str(workdir / _PRETRAIN))
    for strategy in strategies:
        get_strategy(strategy)
    options = [PROCESS] if config.gaussian_process else []
    options += [SCRATCH] if config.scratch else []
    options += [Option(*pair) for pair in itertools.product(sources, strategies)]
    if config.scratch:  # last, as the time may be up before
        options += [Option("", each) for each in split_names(config.element_features)]
    if not options:
        raise UserError(
            "There is nothing to choose from: give models to start from (bundles, directories of "
            f"runs, checkpoints, or {', '.join(shipped_names())}), --config.candidates=DIR,DIR, "
            "and --config.strategies=NAME,NAME of jaxmat.transfer.strategies, or leave "
            "config.gaussian_process or config.scratch on."
        )
    return list(dict.fromkeys(options))


def load_starts(places: Iterable[str]) -> dict[str, Bundle]:
    """Returns the models to start from, by where they are.

    Raises:
        UserError: some cannot be read; without them another choice would be made.
    """
    starts, wrong = {}, []
    for place in dict.fromkeys(filter(None, places)):
        try:
            starts[place] = load(place)
        except UserError as problem:
            wrong.append(str(problem))
    if wrong:
        raise UserError(f"config.candidates: models that cannot be used:\n{listed(wrong)}")
    return starts


def _tell(starts: Mapping[str, Bundle], data: Prepared, remark: str, workdir: Path) -> None:
    """Says a remark, and what the models to start from have seen of what compares them."""
    graphs = [graph for part in PARTS for graph in data.datasets[part].graphs]
    remarks = [remark]
    for place, start in starts.items():
        found = find_seen(start.seen, graphs)
        remarks += [describe_seen(found, place, "crystals"), describe_property(start, data, place)]
    add_findings(workdir, remarks)


def _spent(workdir: Path) -> float:
    """Returns the seconds of the runs that were done before a stop."""
    files = workdir.glob("options/*/*/result.json")
    return sum((read_result(file.parent) or {}).get("seconds", 0.0) for file in files)


def _compare(
    config: ConfigDict, data: Prepared, folds: Folds, found: Found, clock: Clock
) -> Comparison:
    """Compares the options that went through all folds.

    Raises:
        UserError: there is none.
    """
    (transform,) = data.transforms.values()
    if not found.held:
        reasons = [f"{o}: {why}" for o, why in (found.failed | found.dropped).items()]
        raise UserError(f"None of the options can be trained:\n{listed(reasons)}")
    final = {option: _LONGER * each.seconds for option, each in found.held.items()}
    left = clock.left()
    slow = [option for option, seconds in final.items() if seconds > left]
    if len(slow) == len(final):
        slow = []
    left_out = found.dropped | dict.fromkeys(
        slow,
        "its final training would take longer than the time that is left; start it in another "
        "--workdir with more --minutes",
    )
    held = {option: each for option, each in found.held.items() if option not in slow}
    affordable = take_together({option: final[option] for option in held}, left)
    labels = np.array(list(folds.labels.values()))
    # Where the time was up, some have predicted the first folds alone.
    there = np.all([np.isfinite(each.prediction) for each in held.values()], axis=0)
    return compare(
        {option: each.prediction[there] for option, each in held.items()},
        labels[there],
        _constant_predictions(folds)[there],
        folds=config.folds,
        done=config.folds if there.all() else FIRST,
        n_test=len(data.ids["test"]),
        unit=transform.unit,
        may_blend=_alike(config, affordable) if config.blend else [],
        left_out=left_out,
        failed=found.failed,
    )


def take_together(seconds: Mapping[Option, float], left: float) -> list[Option]:
    """Returns the options that can all be trained in a time, as many as possible.

    Args:
        seconds: that each takes.
        left: seconds for all.
    """
    cheapest = sorted(seconds, key=lambda option: seconds[option])
    sums = itertools.accumulate(seconds[option] for option in cheapest)
    return [option for option, total in zip(cheapest, sums, strict=True) if total <= left]


def _alike(config: ConfigDict, options: Sequence[Option]) -> list[Option]:
    """Returns the options whose models have the most common graphs: only those predict together."""
    if not options:
        return []
    own = {PROCESS: GraphSettings(**config.graph, angles=False)}
    graphs = {
        o: load(o.source).model.graph if o.source else own.get(o, graph_settings(config))
        for o in options
    }
    most = max(graphs.values(), key=list(graphs.values()).count)
    return [option for option in options if graphs[option] == most]


def _train(
    population: int, configs: Sequence[ConfigDict], runs: Sequence[Path], stop: Stop
) -> list[Result] | None:
    """Trains configs, so many at once; returns their results, None where it was stopped."""
    pending = [i for i, run in enumerate(runs) if read_result(run) is None]
    for start in range(0, len(pending), population):
        together = pending[start : start + population]
        first = runs[together[0]]
        common = first if len(together) == 1 else first.with_name(f"population_{first.name}")
        members = [configs[i] for i in together], [runs[i] for i in together]
        if train_population(*members, common, stop) is None:
            return None
    return [read_result(run) or {} for run in runs]


def _train_final(
    config: ConfigDict,
    place: Path,
    comparison: Comparison,
    found: Found,
    labels: Mapping[str, float],
    data: Prepared,
    starts: Mapping[str, Bundle],
    train: Callable[..., list[Result] | None],
    stop: Stop,
) -> Result:
    """Trains what was picked on all labels; returns the result of the final model.

    Raises:
        Stopped: the user stopped it.
    """
    runs = [place / f"member_{i}" for i in range(len(comparison.weights))]
    if len(runs) == 1:
        runs = [place]
    results = []
    for run, option in zip(runs, comparison.weights, strict=True):
        done = train([option_config(config, option, 0, "")], [run], stop)
        if done is None:
            raise Stopped
        results += done
        if not option.is_closed_form:
            recalibrate(run, found.held[option].ratio)
    if len(runs) == 1:
        return results[0]
    shares = np.array(list(comparison.weights.values()))
    (transform,) = data.transforms.values()
    ends = np.array(
        [found.held[o].ends(transform, not o.is_closed_form) for o in comparison.weights]
    ).swapaxes(0, 1)
    wider = widening_of_mean(ends, np.array(list(labels.values())), shares, transform.log)
    seen = [starts[option.source].seen for option in comparison.weights if option.source]
    before = find_seen_by_any(seen, data.datasets["test"].graphs)
    return finish_blend(place, runs, shares, results, wider, data, before)


def option_config(config: ConfigDict, option: Option, number: int, split: str) -> ConfigDict:
    """Returns the config of a training; without a split that of the final one."""
    how: dict[str, Any] = {"experiment": "scratch", "graph": config.graph.to_dict()}
    training = {"training": config.training.to_dict()}
    how["network"] = config.network.to_dict()
    if option == PROCESS:
        how = {"experiment": "gaussian_process", "graph": config.graph.to_dict()}
        training = {}
    elif option.source:
        how = {
            "experiment": "finetune",
            "start_from": option.source,
            "strategy": option.strategy,
        }
    elif option.strategy:
        how["network"]["trunk"]["element_features"] = option.strategy
    data = config.data.to_dict()
    if split:
        data["split"] = split
    common = {"seed": config.seed + number, "population": 1, "data": data}
    return ConfigDict(how | common | training)


def _constant_predictions(folds: Folds) -> np.ndarray:
    """Returns the median of the labels that each fold trains on, the mean over repeats."""
    medians: dict[str, list[float]] = {id: [] for id in folds.labels}
    for split in folds.splits.values():
        median = float(np.median([folds.labels[id] for id in split["train"]]))
        for id in split["test"]:
            medians[id].append(median)
    return np.array([np.mean(each) for each in medians.values()])


def _place(options: Sequence[Option], option: Option) -> Path:
    """Returns where the runs of an option are, relative to the whole."""
    name = option.strategy or "scratch"
    return Path("options") / f"{options.index(option)}_{name.replace('+', '_')}"


def _write_result(
    config: ConfigDict, workdir: Path, comparison: Comparison, final: Result
) -> Result:
    """Writes choice.md and result.json; returns the result."""
    name, unit = final["property"], comparison.unit
    best = max(comparison.weights, key=lambda option: comparison.weights[option])
    advice = recommend(comparison, name)
    tested = (
        f"The model in `final`, trained on {final['crystals']['train']} labels and validated on "
        f"{final['crystals']['validation']}, has a test MAE of "
        f"{format_quantity(final['test_mae'], unit)} on {final['crystals']['test']} crystals that "
        f"the choice has not seen (constant: {format_quantity(final['constant_test_mae'], unit)})."
    )
    text = f"# {name}: what to start from, and how to fine-tune\n\n{advice}\n\n{tested}\n\n"
    text += f"{format_choice(comparison)}\n\n{_explanation(config, comparison)}\n"
    (workdir / "choice.md").write_text(text, encoding="utf-8")
    _logger.info("%s\n\n%s", workdir / "choice.md", text)
    result = {
        "property": name,
        "unit": unit,
        "recommendation": advice,
        "source": best.source,
        "strategy": best.strategy,
        "expected_mae": comparison.expected.value,
        "expected_mae_standard_error": comparison.expected.error,
        "optimism": comparison.optimism,
        "constant_mae": comparison.constant.value,
        "out_of_fold_mae": {str(score.option): score.mae.value for score in comparison.scores},
        "weights": {str(option): weight for option, weight in comparison.weights.items()},
        "left_out_options": {str(o): reason for o, reason in comparison.left_out.items()},
        "failed": {str(option): reason for option, reason in comparison.failed.items()},
        **{key: final[key] for key in _OF_FINAL if key in final},
    }
    write_json(workdir / RESULT, result)
    return result


def _explanation(config: ConfigDict, comparison: Comparison) -> str:
    """Returns how the numbers came about."""
    times, early = "once" if config.repeats == 1 else f"{config.repeats} times", ""
    if comparison.done < config.folds:
        early = (
            f"The time was up after {comparison.done} of {config.folds} folds for some options, so "
            "all are compared on the labels of these; with more --minutes, in another --workdir, "
            "they are compared on all. "
        )
    return (
        f"{early}Each of {comparison.labels} labels was predicted {times} by models that had not "
        f"seen it ({describe_folds(config)}). "
        "Standard errors are over crystals, or over differences crystal by crystal "
        "where options are compared, and are widened because the folds share training crystals "
        "(Nadeau and Bengio 2003); that of the expected MAE includes the scatter of the test part. "
        "Options that are far behind after two folds are dropped. The lowest error wins, or a "
        "weighted mean of the best few if it is more than 1 % better. The best of several options "
        "looks better than it is, so the expected MAE is its out-of-fold MAE plus "
        f"{format_quantity(comparison.optimism, comparison.unit)} (Tsamardinos et al. 2018). The "
        "final model has more labels than those of the folds, so its error may be slightly lower "
        "than expected."
    )
