"""A trained model as Python code uses it: load, predict, save."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmat.bundles.bundle import Bundle, place_of, save_bundle
from jaxmat.bundles.means import read_mean, save_mean, weight_of
from jaxmat.bundles.predict import Forecast, forecasts, load_members, make_inference
from jaxmat.data.frames import named_crystals
from jaxmat.data.reading import Source, read
from jaxmat.errors import UserError
from jaxmat.runtime.stopping import passing_signals_on


class TrainedModel:
    """A network with its weights, heads, units and calibrated intervals, or a mean of several.

    Attributes:
        members: what it is made of, most often one, see `jaxmat.bundles.bundle.Bundle`.
        metrics: what its test gave, such as "test_mae", in the properties' units; {} if not known.
    """

    def __init__(
        self, members: Bundle | Sequence[Bundle], metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Compiles nothing yet; what `predict` compiles is kept for the next time.

        Args:
            members: a model, or several from `jaxmat.bundles.predict.load_members`.
            metrics: of the test; None: those of the only member, {} where there are several.

        Raises:
            UserError: there is no member.
        """
        self.members = [members] if isinstance(members, Bundle) else list(members)
        if not self.members:
            raise UserError("Give at least one model.")
        if metrics is None:
            metrics = self.members[0].about["metrics"] if len(self.members) == 1 else {}
        self.metrics = metrics
        self._inference = make_inference(self.members)

    @property
    def bundle(self) -> Bundle:
        """The only member.

        Raises:
            UserError: there are several.
        """
        if len(self.members) > 1:
            raise UserError(
                f"The model is a weighted mean of {len(self.members)}, none of which is the model: "
                "take one of its members."
            )
        return self.members[0]

    @property
    def units(self) -> dict[str, str]:
        """The unit of each property, "1" for none."""
        transforms = self.members[0].model.transforms
        return {name: scaling.unit for name, scaling in transforms.items()}

    def predict(
        self, structures: Source | Iterable[Source], structure_column: str = "structure"
    ) -> list[Forecast]:
        """Predicts every property of crystals.

        Args:
            structures: one or several: pymatgen structures, ASE atoms, files, folders or tables,
                see `jaxmat.data.reading.read`; or a data frame or series of crystals, or a dict of
                them, whose index or keys are their ids.
            structure_column: of a data frame.

        Returns:
            A row for each crystal and property, in order: id, property, prediction, unit,
            uncertainty, low and high (the interval that should hold the true value with
            probability 0.9), reason, why there is no prediction, "" where there is one, and remark.
        """
        ids, crystals = named_crystals(structures, structure_column)
        with passing_signals_on() as stop:
            inputs = read(crystals)
            if ids is not None:
                pairs = zip(inputs, ids, strict=True)
                inputs = (reading._replace(id=id) for reading, id in pairs)
            return list(forecasts(self.members, stop.between(self._inference(inputs))))

    def save(self, folder: str | Path) -> None:
        """Writes the model, which `load` and the command `predict` read.

        Args:
            folder: a new folder, an empty one or a bundle, which is replaced; of a weighted mean a
                new or an empty one.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        if len(self.members) == 1:
            save_bundle(folder, self.members[0])
        else:
            save_mean(Path(folder), self.members, self.metrics)

    def __repr__(self) -> str:
        """Says what it predicts."""
        properties = ", ".join(f"{name} ({unit})" for name, unit in self.units.items())
        made = [member.about["source"] for member in self.members]
        if len(made) > 1:
            weights = map(weight_of, self.members)
            made = [f"{weight:.0%} {one}" for weight, one in zip(weights, made, strict=True)]
        return f"<TrainedModel of {properties}: {'; '.join(made)}>"


def load(path: str | Path) -> TrainedModel:
    """Reads a model from wherever one is kept.

    Args:
        path: a bundle, the directory of a run (of a finished one its bundle, of a choice that of
            what was chosen, else its best variables), a checkpoint, the weighted mean that `jaxmat
            choose` has made, or the name of a model that comes with the package.

    Raises:
        UserError: there is no model, or it cannot be read.
    """
    mean = read_mean(place_of(path))
    return TrainedModel(load_members([path]), mean.metrics if mean else None)
