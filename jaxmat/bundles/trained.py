"""A trained model as Python code uses it: load, predict, save."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxmat.bundles.bundle import Bundle, save_bundle
from jaxmat.bundles.bundle import load as load_bundle
from jaxmat.bundles.predict import Forecast, forecasts, make_inference
from jaxmat.data.reading import Source, read
from jaxmat.runtime.stopping import passing_signals_on


class TrainedModel:
    """A network with its weights, heads, units and calibrated intervals.

    Attributes:
        bundle: all of it, see `jaxmat.bundles.bundle.Bundle`.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Compiles nothing yet; what `predict` compiles is kept for the next time.

        Args:
            bundle: the model.
        """
        self.bundle = bundle
        self._inference = make_inference([bundle])

    @property
    def units(self) -> dict[str, str]:
        """The unit of each property, "1" for none."""
        return {name: scaling.unit for name, scaling in self.bundle.model.transforms.items()}

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What its test gave, such as "test_mae", in the properties' units; {} if not known."""
        return self.bundle.about["metrics"]

    def predict(self, structures: Source | Iterable[Source]) -> list[Forecast]:
        """Predicts every property of crystals.

        Args:
            structures: one or several: pymatgen structures, ASE atoms, files, folders or tables,
                see `jaxmat.data.reading.read`.

        Returns:
            A row for each crystal and property, in order: id, property, prediction, unit,
            uncertainty, low and high (the interval that should hold the true value with
            probability 0.9), reason, why there is no prediction, "" where there is one, and remark.
        """
        with passing_signals_on() as stop:
            inputs = read(structures)
            return list(forecasts([self.bundle], stop.between(self._inference(inputs))))

    def save(self, folder: str | Path) -> None:
        """Writes the bundle, which `load` and every command read.

        Args:
            folder: a new folder, an empty one or a bundle, which is replaced.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        save_bundle(folder, self.bundle)

    def __repr__(self) -> str:
        """Says what it predicts."""
        properties = ", ".join(f"{name} ({unit})" for name, unit in self.units.items())
        return f"<TrainedModel of {properties}: {self.bundle.about['source']}>"


def load(path: str | Path) -> TrainedModel:
    """Reads a model from wherever one is kept.

    Args:
        path: a bundle, the directory of a run (of a finished one its bundle, else its best
            variables), or a checkpoint.

    Raises:
        UserError: there is no model, or it cannot be read.
    """
    return TrainedModel(load_bundle(path))
