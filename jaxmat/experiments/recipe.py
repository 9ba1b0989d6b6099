"""From a config and a strategy to the training step they describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.models.alignn import published_decay_mask
from jaxmat.models.network import CrystalNetwork
from jaxmat.models.trunk import Groups
from jaxmat.training import losses, optimizers, schedules
from jaxmat.training.losses import Loss
from jaxmat.training.packing import StatePacking
from jaxmat.training.parallel import MemberStep
from jaxmat.training.state import TrainState, create_state
from jaxmat.training.step import Gradients, make_differentiate, make_update
from jaxmat.transfer.strategies import Strategy, rate_factors, still_norms, trainable_mask

LOSSES = {"mse": losses.squared, "l1": losses.absolute, "huber": losses.huber}
AVERAGES: Mapping[str, losses.Average] = {"properties": "properties", "entries": "entries"}
DECAY_MASKS = {
    "kernels": optimizers.kernel_decay_mask,
    "published": published_decay_mask,
}
SCHEDULES = ("onecycle", "warmup_cosine")


class Constants(NamedTuple):
    """The numbers in which the runs of one program may differ.

    Attributes:
        learning_rate: the highest of the schedule.
        source: vectors of the parameters copied from a source, where there is a penalty towards
            it, else empty.
    """

    learning_rate: jax.Array | float
    source: Mapping[str, Any]


class _Kind(NamedTuple):
    """How an optimizer treats a parameter."""

    decays: bool
    trains: bool
    rate_factor: float
    is_pulled: bool


class Recipe:
    """How a network is trained: what a config and a strategy say, as pure functions.

    Parameters that are treated alike are one vector in its states: see `jaxmat.training.packing`.

    Attributes:
        packing: of the states.
        still_norms: paths of the batch norms whose statistics stay.
    """

    def __init__(
        self,
        config: ConfigDict,
        strategy: Strategy,
        variables: Mapping[str, Any],
        groups: Groups,
        total_steps: int,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        """Looks the choices up.

        Args:
            config: `training` of a config.
            strategy: which parameters train and how.
            variables: {"params", "batch_stats"}, of which names and shapes matter.
            groups: of the trunk's parameters.
            total_steps: of the run.
            source: the part of the parameters that was copied from a checkpoint, of which names
                matter.

        Raises:
            UserError: an unknown loss, average, schedule or decay.
        """
        self._config, self._strategy, self._total_steps = config, strategy, total_steps
        self._elementwise = elementwise_loss(config)
        self._average: losses.Average = _chosen(AVERAGES, config, "average")
        self.still_norms = still_norms(variables["batch_stats"], strategy, groups)
        kinds = self._kinds(variables["params"], groups, source or {})
        self.packing = StatePacking(variables, kinds.__getitem__)
        self._schedules(1.0)

    def constants(self, learning_rate: float, source: Mapping[str, Any]) -> Constants:
        """Returns the constants of a run; without a penalty the source is left out."""
        pulled = self.packing.params.pack(source) if self._strategy.source_penalty else {}
        return Constants(jnp.asarray(learning_rate, jnp.float32), pulled)

    def create_state(self, constants: Constants, variables: dict[str, Any]) -> TrainState:
        """Returns the state before the first step, packed."""
        packed = self.packing.pack_variables(variables)
        return create_state(packed, self._optimizer(constants), ema=self._config.ema_decay > 0)

    def step(self, network: CrystalNetwork) -> MemberStep:
        """Returns the training step of a network with packed states, not compiled."""
        differentiate = make_differentiate(
            self.packing.network(network),
            self._loss,
            trainable=self._of_kinds(lambda kind: kind.trains),
            still_norms=self.still_norms,
            axis_name=network.axis_name,
        )

        def update(constants: Constants, state: TrainState, gradients: Gradients) -> Any:
            optimizer = self._optimizer(constants)
            return make_update(optimizer, ema_decay=self._config.ema_decay or None)(
                state, gradients
            )

        return MemberStep(differentiate, update)

    @property
    def _loss(self) -> Loss:
        return lambda prediction, batch: losses.masked_loss(
            prediction, batch, elementwise=self._elementwise, average=self._average
        )

    def _optimizer(self, constants: Constants) -> optax.GradientTransformation:
        rate, beta1 = self._schedules(constants.learning_rate)
        return optimizers.make_optimizer(
            rate,
            beta1,
            weight_decay=self._config.weight_decay,
            decay_mask=self._of_kinds(lambda kind: kind.decays),
            trainable=self._of_kinds(lambda kind: kind.trains) if self._strategy.frozen else None,
            rate_factors=(
                self._of_kinds(lambda kind: kind.rate_factor)
                if self._strategy.rate_factors
                else None
            ),
            source=constants.source,
            source_penalty=self._strategy.source_penalty,
        )

    def _of_kinds(self, read: Callable[[_Kind], Any]) -> dict[str, Any]:
        """Returns a tree like the packed parameters of what their kinds say."""
        return {name: read(kind) for name, kind in self.packing.params.kinds.items()}

    def _kinds(self, params: Any, groups: Groups, source: Mapping[str, Any]) -> dict[str, _Kind]:
        """Returns the kind of each parameter, by name."""
        names = flatten_dict(params, sep="/")
        decays = flatten_dict(_chosen(DECAY_MASKS, self._config, "decay")(params), sep="/")
        trains = flatten_dict(trainable_mask(params, self._strategy, groups) or {}, sep="/")
        factors = flatten_dict(rate_factors(params, self._strategy, groups) or {}, sep="/")
        pulled = flatten_dict(source, sep="/") if self._strategy.source_penalty else {}
        return {
            name: _Kind(
                decays[name], trains.get(name, True), factors.get(name, 1.0), name in pulled
            )
            for name in names
        }

    def _schedules(
        self, max_rate: jax.Array | float
    ) -> tuple[optax.Schedule, optax.Schedule | float]:
        """Returns learning rate and beta1."""
        steps, name = self._total_steps, self._config.schedule
        if name == "onecycle":
            return schedules.onecycle(max_rate, steps), schedules.onecycle_beta1(steps)
        if name == "warmup_cosine":
            return schedules.warmup_cosine(max_rate, steps, steps // 20), 0.9
        raise UserError(f"config.training.schedule is {name!r}; use 'onecycle' or 'warmup_cosine'.")


def elementwise_loss(config: ConfigDict) -> Callable[[jax.Array], jax.Array]:
    """Returns the loss of a residual that `training` of a config asks for.

    Raises:
        UserError: there is none of that name.
    """
    return _chosen(LOSSES, config, "loss")


def _chosen(options: Mapping[str, Any], config: ConfigDict, field: str) -> Any:
    if config[field] not in options:
        raise UserError(
            f"config.training.{field} is {config[field]!r}; use one of {', '.join(options)}."
        )
    return options[config[field]]
