"""Plots: what they show is what was passed, and awkward data does not stop them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxmat.report.plots import learning_curves, parity_plot

TARGET = np.array([1.0, 10.0, 100.0, np.nan])
PREDICTION = np.array([2.0, 10.0, -97.0, 3.0])


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that have been saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def record(figure: Figure, *args: object, **options: object) -> None:
        save(figure, *args, **options)
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", record)
    yield saved


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_parity_plot_shows_every_labelled_crystal(tmp_path: Path, figures: list[Figure]) -> None:
    path = tmp_path / "parity.png"
    parity_plot(path, {"test": (TARGET, PREDICTION)}, "band gap", "eV")

    image = matplotlib.image.imread(path)
    assert image.shape[0] > 600 and np.ptp(image[..., :3]) > 0.5
    (axes,) = figures[0].axes
    points = axes.collections[0].get_offsets()
    np.testing.assert_array_equal(points, np.stack([TARGET, PREDICTION], 1)[:3])
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[0] < -97 and axes.get_xlim()[1] > 100
    assert (axes.get_title(), axes.get_xlabel()) == ("band gap", "label (eV)")
    # errors 1, 0, 197; the variance of the labels is 1998
    assert legend(figures[0]) == ["test: 3 crystals\nMAE 66.00 eV, R² -5.47"]


def test_logarithmic_axes_count_what_they_cannot_show(
    tmp_path: Path, figures: list[Figure]
) -> None:
    series = {"train": (TARGET[:2], PREDICTION[:2]), "test": (TARGET, PREDICTION)}
    parity_plot(tmp_path / "parity.png", series, "dielectric constant", "1", log=True)

    (axes,) = figures[0].axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert 0.1 < axes.get_xlim()[0] < 1 and 10 < axes.get_xlim()[1] < 100
    assert axes.get_ylabel() == "prediction"
    assert legend(figures[0]) == [
        "train: 2 crystals\nMAE 0.5000, R² 0.975",
        "test: 3 crystals, 1 not shown\nMAE 66.00, R² -5.47",
    ]


def test_a_legend_leaves_out_what_is_not_defined(tmp_path: Path, figures: list[Figure]) -> None:
    series = {
        "equal": (np.full(3, 2.0), np.array([1.0, 2.0, 3.0])),
        "unlabelled": (np.full(3, np.nan), np.ones(3)),
    }
    parity_plot(tmp_path / "parity.png", series, "band gap", "eV")
    assert legend(figures[0]) == ["equal: 3 crystals\nMAE 0.6667 eV", "unlabelled: 0 crystals"]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("label", [2.0, 1e30, np.nan])
@pytest.mark.parametrize("prediction", [2.0, 1e30, np.nan, np.inf])
def test_useless_values_can_be_plotted(
    tmp_path: Path, label: float, prediction: float, log: bool
) -> None:
    pair = (np.full(4, label), np.full(4, prediction))
    parity_plot(tmp_path / "parity.png", {"test": pair}, "gap", "eV", log)
    assert (tmp_path / "parity.png").stat().st_size > 0


def test_learning_curves_name_the_least_error(tmp_path: Path, figures: list[Figure]) -> None:
    epochs = np.arange(1, 4)
    curves = {
        "scratch": (epochs, np.array([0.5, np.nan, 0.25])),
        "diverged": (epochs, np.full(3, np.nan)),
    }
    learning_curves(tmp_path / "curves.png", curves, "epoch", "eV", ("median", 0.75))

    (axes,) = figures[0].axes
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), epochs)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), curves["scratch"][1])
    assert set(axes.lines[2].get_ydata()) == {0.75}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "validation MAE (eV)")
    assert legend(figures[0]) == ["scratch: least 0.2500", "diverged", "median: 0.7500"]


@pytest.mark.parametrize("error", [[], [np.nan], [0.0], [np.inf], [0.3]])
def test_short_and_broken_curves_can_be_drawn(tmp_path: Path, error: list[float]) -> None:
    curve = (np.arange(len(error)), np.array(error))
    learning_curves(tmp_path / "curves.png", {"run": curve}, "step", "eV")
    assert (tmp_path / "curves.png").stat().st_size > 0
