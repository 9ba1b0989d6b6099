"""Training, of one run or of several at once: resume or start, fit, choose the checkpoint, test."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxmat.bundles import bundle
from jaxmat.bundles.model import Model, Predictor
from jaxmat.data.batches import TrainingBatches, one_epoch, share_of_real_work
from jaxmat.data.order import Order, visits_by_property
from jaxmat.data.seen import NOTHING, Seen
from jaxmat.errors import UserError, listed
from jaxmat.experiments.closed_form import fit_and_test
from jaxmat.experiments.joint import Joint
from jaxmat.experiments.outcome import monitor, write_outcome
from jaxmat.experiments.prepare import PARTS, Prepared
from jaxmat.experiments.recipe import Constants, Recipe
from jaxmat.experiments.records import Records, Variables, validate
from jaxmat.experiments.workdir import read_result
from jaxmat.models.heads import is_fitted
from jaxmat.runtime import hosts
from jaxmat.training.checkpoints import Checkpoints
from jaxmat.training.loop import fit
from jaxmat.training.parallel import Placement, choose_placement
from jaxmat.training.state import TrainState
from jaxmat.transfer.averages import finish
from jaxmat.transfer.statistics import make_reestimate
from jaxmat.transfer.strategies import Strategy, still_norms

_logger = logging.getLogger(__name__)

Result = dict[str, Any]

# Between the seeds of the trainings whose weights are averaged.
_SEED_STRIDE = 65_536


class MembersFailed(UserError):
    """Some members of a population failed; the others are done.

    Attributes:
        reasons: directory of each that failed → why.
    """

    def __init__(self, reasons: Mapping[Path, str], members: int) -> None:
        """Says which they are, and what to do."""
        failed = listed([f"{workdir}: {reason}" for workdir, reason in reasons.items()])
        super().__init__(
            f"{len(reasons)} of {members} trainings that are one program failed; those that did "
            "not are done, with results in their directories. To have all, lower "
            f"config.training.learning_rate in a new folder:\n{failed}"
        )
        self.reasons = dict(reasons)


class _Trained(NamedTuple):
    """What trainings came to: the variables of each or why there are none, seconds of compiling."""

    outcomes: list[Variables | UserError]
    compiling_seconds: float


class Member(NamedTuple):
    """One experiment; those of a population differ in seed, data, weights and learning rate.

    Attributes:
        workdir: where its results go.
        config: `training` of a config.
        seed: of the order of the data.
        data: the data sets.
        model: the network and how it is fed.
        variables: where training starts.
        about: from `about.make_about`: where they come from, and the elements they have seen.
        strategy: what trains and how.
        source: the part of the parameters that was copied from a checkpoint.
        seen: crystals that the model to start from has seen; None: not known.
    """

    workdir: Path
    config: ConfigDict
    seed: int
    data: Prepared
    model: Model
    variables: Variables
    about: dict[str, Any]
    strategy: Strategy = Strategy()
    source: Mapping[str, Any] = {}
    seen: Seen | None = NOTHING


def train(
    members: Sequence[Member], workdir: Path, stop: Callable[[int], bool]
) -> list[Result] | None:
    """Trains networks in one program and tests them.

    Goes on from the last checkpoint in the work directory where there is one. Leaves in each
    member's directory metrics.jsonl, the best checkpoint, predictions.csv, plots, split.json, the
    bundle model and result.json.

    Args:
        members: one experiment, or those of a population.
        workdir: gets the checkpoints of the state; of a single run its own directory.
        stop: asked after every step whether to save and return.

    Returns:
        The result of each member, or None where training was stopped. Of several processes that
        are one program the first alone tests and has results, the others have empty ones.

    Raises:
        UserError: an unknown option, or members that do not fit into one program.
        MembersFailed: some members of a population failed; the others have their results.
    """
    if all(is_fitted(head) for member in members for head in member.model.heads.values()):
        return [_fit_in_closed_form(member) if hosts.is_first() else {} for member in members]
    began = time.monotonic()
    _refuse_differences(members)
    replicas = [replica for member in members for replica in _replicas(member)]
    predictor = Predictor(members[0].model.network())
    predictor.foresee(each.data.datasets["validation"] for each in replicas)
    predictor.foresee(each.data.datasets[part] for each in members for part in PARTS)
    trained = _fit(replicas, workdir, predictor, stop)
    if trained is None:
        return None
    compiling = trained.compiling_seconds
    times = {"seconds": time.monotonic() - began, "compiling_seconds": compiling}
    times = {name: seconds / len(members) for name, seconds in times.items()}
    results: list[Result] = [{} for _ in members]
    if hosts.is_first():
        results = _finish_all(members, trained.outcomes, predictor, times)
    hosts.wait_for_all("tested")
    return results


def _finish_all(
    members: Sequence[Member],
    outcomes: Sequence[Variables | UserError],
    predictor: Predictor,
    times: Mapping[str, float],
) -> list[Result]:
    """Finishes members one by one, those that were not before; one that fails keeps none back."""
    each = len(outcomes) // len(members)
    results, reasons = list[Result](), dict[Path, str]()
    for i, member in enumerate(members):
        own = outcomes[i * each : (i + 1) * each]
        try:
            result = read_result(member.workdir)
            results.append(result or _finish(member, _whole(own), predictor, times))
        except UserError as problem:
            if len(members) == 1:
                raise
            reasons[member.workdir] = str(problem)
            _logger.warning("%s failed: %s", member.workdir, problem)
    if reasons:
        raise MembersFailed(reasons, len(members))
    return results


def _whole(outcomes: Sequence[Variables | UserError]) -> list[Variables]:
    """Returns the variables of trainings; raises where one failed."""
    if failed := next((one for one in outcomes if isinstance(one, UserError)), None):
        raise failed
    return [one for one in outcomes if not isinstance(one, UserError)]


def _fit_in_closed_form(member: Member) -> Result:
    member.workdir.mkdir(parents=True, exist_ok=True)
    start = bundle.Bundle(member.model, member.variables, member.about, member.seen)
    return fit_and_test(member.workdir, member.data, start)


def _fit(
    runs: Sequence[Member], workdir: Path, predictor: Predictor, stop: Callable[[int], bool]
) -> _Trained | None:
    """Trains all runs to their ends, or as far as they go; returns None where it was stopped."""
    config = runs[0].config
    network = runs[0].model.network(precision=config.precision, remat=config.remat)
    placement, batches = _divide(runs)
    recipe = Recipe(
        config,
        runs[0].strategy,
        runs[0].variables,
        runs[0].model.groups(),
        batches.total_steps,
        source=runs[0].source,
    )
    constants = _joined([recipe.constants(run.config.learning_rate, run.source) for run in runs])
    checkpoints, state = _resume_or_start(runs, workdir, recipe, constants, batches)
    joint = Joint(
        [
            Records(
                *(run.workdir, run.data, run.model, config, predictor),
                step=int(state.step),
                of_several=len(runs) > 1,
            )
            for run in runs
        ],
        _names(runs, workdir),
        checkpoints,
        lambda state: recipe.packing.unpack(placement.take(state)),
        batches.steps_per_epoch,
    )
    step = recipe.step(network.clone(axis_name=placement.axis_name))
    fitted = fit(
        placement.put(recipe.packing.pack(jax.device_get(state))),
        placement.compiled(step, constants),
        lambda step: map(placement.feed, batches.from_step(step)),
        step=int(state.step),
        # One that was stopped after its end, before its test, does not go on.
        total_steps=int(state.step) if joint.is_over else batches.total_steps,
        record=joint.record,
        record_every=config.evaluate_every * batches.steps_per_epoch,
        save=joint.save,
        save_every=config.save_every * batches.steps_per_epoch,
        describe_batch=functools.partial(_describe_batch, runs),
        skipped_in_a_row=config.skipped_in_a_row,
        tally=joint.tally,
        given_up=list(joint.broken),
        give_up=joint.give_up,
        stop=stop,
        work=batches.work,
        # An evaluation goes forward alone, which is a third of the work of a step.
        record_work=len(runs[0].data.ids["validation"]) / config.batch_size / 3,
    )
    joint.finish()
    hosts.wait_for_all("saved")  # what the first has written is there for all
    if fitted.step < batches.total_steps and not joint.is_over:
        return None
    if joint.broken and len(runs) == 1:  # in every process
        raise UserError(joint.broken[0])
    return _Trained(joint.outcomes(fitted.state), fitted.compiling_seconds)


def _names(runs: Sequence[Member], workdir: Path) -> list[str]:
    """Returns what runs are called in the checkpoints of all: their places, wherever all lies."""
    return [Path(os.path.relpath(run.workdir, workdir)).as_posix() for run in runs]


def _divide(runs: Sequence[Member]) -> tuple[Placement, TrainingBatches]:
    """Returns how the devices share the work of a step, and the batches for that."""
    config = runs[0].config
    placement = choose_placement(
        config.devices,
        len(runs),
        functools.partial(share_of_real_work, runs[0].data.datasets["train"], _order(runs[0])),
    )
    batches = TrainingBatches(
        [(run.data.datasets["train"], _order(run)) for run in runs],
        max_shapes=config.max_shapes,
        stacked=placement.stacked,
        shards=placement.shards,
        local_shards=placement.local_shards,
        platform=jax.default_backend(),
    )
    return placement, batches


def _resume_or_start(
    runs: Sequence[Member],
    workdir: Path,
    recipe: Recipe,
    constants: Constants,
    batches: TrainingBatches,
) -> tuple[Checkpoints, TrainState]:
    """Returns where states are saved, and the newest of them or the first; of several runs stacked.

    The step of a stacked state is a single number.

    Raises:
        UserError: the processes of one training do not see the same.
    """
    variables = _joined([run.variables for run in runs])
    create = recipe.create_state if len(runs) == 1 else jax.vmap(recipe.create_state)
    state = recipe.packing.unpack(jax.device_get(jax.jit(create)(constants, variables)))
    if len(runs) > 1:
        state = state._replace(step=state.step[0])
    workdir.mkdir(parents=True, exist_ok=True)
    names = _names(runs, workdir) if len(runs) > 1 else ()
    checkpoints = Checkpoints(workdir, runs[0].model.describe(), names)
    checkpoints.warn_of_little_space(state)
    state = checkpoints.restore_last(state) or state
    if int(state.step) and hosts.is_first():
        total, folder = batches.total_steps, checkpoints.folder
        _logger.info("Goes on from step %d of %d, saved in %s", int(state.step), total, folder)
    trained_on = [(run.data.ids["train"], run.data.origin["fingerprint"]) for run in runs]
    hosts.require_same(
        f"{runs[0].config} {state.step} {batches.shapes} {trained_on}",
        f"The processes do not see the same data and checkpoints: the tables and {workdir} have to "
        "be on a file system that all of them share.",
    )
    return checkpoints, state


def _finish(
    member: Member,
    trained: Sequence[Variables],
    predictor: Predictor,
    times: Mapping[str, float],
) -> Result:
    """Averages and interpolates as the strategy asks, then tests."""
    variables, chosen = trained[0], {}
    if len(trained) > 1 or member.strategy.interpolation:
        groups = member.model.groups()
        stays = still_norms(member.variables["batch_stats"], member.strategy, groups)
        reestimate = make_reestimate(member.model.network(), stays)
        config = member.config
        epoch = functools.partial(
            one_epoch, member.data.datasets["train"], config.batch_size, config.drop_last
        )
        finished = finish(
            member.strategy,
            member.source,
            trained,
            evaluate=lambda v: validate(member.data, predictor, v)[monitor(member.data.transforms)],
            reestimate=lambda v: reestimate(v, epoch()),
        )
        variables = finished.variables
        chosen = {"interpolation_factor": finished.factor}
    about = member.about | {"data": member.data.origin}
    model = bundle.Bundle(member.model, variables, about, member.seen)
    runs = [replica.workdir for replica in _replicas(member)]
    return write_outcome(member.workdir, member.data, predictor, model, {**chosen, **times}, runs)


def _joined(trees: list[Any]) -> Any:
    """Returns trees of several runs stacked, that of a single one as it is."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _replicas(member: Member) -> list[Member]:
    """Returns the trainings whose weights make the member's, most often the member alone."""
    if member.strategy.members == 1:
        return [member]
    return [
        member._replace(workdir=member.workdir / f"member_{i}", seed=member.seed + i * _SEED_STRIDE)
        for i in range(member.strategy.members)
    ]


def _order(run: Member) -> Order:
    config, target = run.config, run.data.datasets["train"].target
    crystals, temperature = len(target), config.property_temperature
    return Order(
        crystals,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=run.seed,
        drop_last=config.drop_last and crystals > config.batch_size,
        visits=visits_by_property(target, temperature) if temperature else None,
    )


def _describe_batch(runs: Sequence[Member], step: int) -> str:
    return "; ".join(
        ", ".join(run.data.ids["train"][i] for i in _order(run).batch(step)) for run in runs
    )


def _refuse_differences(members: Sequence[Member]) -> None:
    """Refuses members that would need another program."""
    first = members[0]
    for member in members[1:]:
        alike = member.config.to_dict() | {"learning_rate": first.config.learning_rate}
        if alike != first.config.to_dict() or member.strategy != first.strategy:
            raise UserError("The members of a population differ in more than seed, data and rate.")
        if len(member.data.ids["train"]) != len(first.data.ids["train"]):
            raise UserError(
                "The members of a population have different numbers of training crystals: "
                f"{len(first.data.ids['train'])} and {len(member.data.ids['train'])}. Train one "
                "after the other (config.population=1, in a study config.job.population=1)."
            )
