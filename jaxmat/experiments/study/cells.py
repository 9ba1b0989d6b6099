"""The grid of a study: its cells, their ids, and which of them are done together."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from jaxmat.errors import UserError
from jaxmat.experiments.defaults import split_names
from jaxmat.transfer.strategies import get_strategy

# Sources that stand for tables: every one by itself; all at once; all but the target's at once.
EACH, ALL, OTHERS = "each", "all", "others"


class Pretraining(NamedTuple):
    """A pre-training, which all cells that start from it share.

    Attributes:
        source: key of its table; ALL for several properties.
        size: labels of each property to train and validate on; 0: all but the test part.
        seed: of its labels, weights and order.
        left_out: of several properties the one that is not among them, "" for none.
    """

    source: str
    size: int
    seed: int
    left_out: str = ""

    @property
    def id(self) -> str:
        """Its name, which does not depend on what else is in the study."""
        without = f"_but_{self.left_out}" if self.left_out else ""
        return f"pretrain-{self.source}{without}-{self.size or 'all'}-s{self.seed}"

    @property
    def directory(self) -> Path:
        """Where it takes place, relative to the study."""
        return Path("pretrain") / self.id

    @property
    def table(self) -> str:
        """Key of the table that it sees, ALL for all of them."""
        return self.source


class Cell(NamedTuple):
    """One training whose test error is a result of the study.

    Attributes:
        source: key of the table pre-trained on, ALL or OTHERS; "" for random weights.
        source_size: labels pre-trained on; 0: all but the test part, or random weights.
        target: key of the table that is trained and tested on.
        target_size: labels to train and validate on.
        strategy: of fine-tuning, "" for random weights.
        learning_rate: the highest.
        trial: number of the sample of labels.
        seed: of weights and order, and of the pre-training.
    """

    source: str
    source_size: int
    target: str
    target_size: int
    strategy: str
    learning_rate: float
    trial: int
    seed: int

    @property
    def id(self) -> str:
        """Its name, which does not depend on what else is in the study."""
        start, how = "scratch", ""
        if self.source:
            start, how = f"finetune-{self.source}-{self.source_size or 'all'}", f"-{self.strategy}"
        sample = f"lr{self.learning_rate:g}-t{self.trial}-s{self.seed}"
        return f"{start}-{self.target}-{self.target_size}{how}-{sample}"

    @property
    def directory(self) -> Path:
        """Where it takes place, relative to the study."""
        return Path("cells") / self.id

    @property
    def table(self) -> str:
        """Key of the table that it sees."""
        return self.target

    @property
    def pretraining(self) -> Pretraining | None:
        """What it starts from, None for random weights."""
        if self.source == OTHERS:
            return Pretraining(ALL, self.source_size, self.seed, left_out=self.target)
        return Pretraining(self.source, self.source_size, self.seed) if self.source else None


Run = Cell | Pretraining
# Cells that are trained together: they differ in trial and learning rate alone.
Unit = Sequence[Cell]


def make_grid(axes: ConfigDict, tables: Collection[str]) -> list[Cell]:
    """Returns all cells of a study, those from random weights first.

    Args:
        axes: `study` of a config.
        tables: keys of the tables there are.

    Raises:
        UserError: an axis names a table or a strategy that is not there, or is empty.
    """
    if wrong := {EACH, ALL, OTHERS}.intersection(tables):
        raise UserError(f"A table may not be called {', '.join(wrong)}: that means several tables.")
    named = _named(axes, "sources", [*tables, EACH, ALL, OTHERS])
    sources = [key for name in named for key in (tables if name == EACH else [name])]
    targets = _named(axes, "targets", tables) or list(tables)
    strategies = split_names(axes.strategies)
    for strategy in strategies:
        get_strategy(strategy)
    for name in ("source_sizes", "target_sizes", "learning_rates", "trials", "seeds"):
        if not axes[name]:
            raise UserError(f"config.study.{name} is empty; give at least one value.")
    if min(axes.target_sizes) < 2:
        raise UserError(
            "config.study.target_sizes: 2 labels at least, to train and to validate on."
        )
    starts = [("", 0)] if axes.scratch else []
    starts += itertools.product(sources, axes.source_sizes)
    cells = [
        Cell(source, source_size, target, target_size, strategy, float(rate), trial, seed)
        for source, source_size in starts
        for target in targets
        if target != source
        for target_size in axes.target_sizes
        for strategy in (strategies if source else ("",))
        for seed in axes.seeds
        for rate in axes.learning_rates
        for trial in axes.trials
    ]
    if not cells:
        raise UserError(
            "The study has no cells: no strategy and no training from random weights, or the only "
            "source is the only target."
        )
    return list(dict.fromkeys(cells))


def share_of(cells: Sequence[Cell], share: str) -> Sequence[Cell]:
    """Returns the cells of share i of n: neighbours, which have pre-trainings in common.

    Args:
        cells: of the whole study.
        share: "i/n", i from 1 to n.

    Raises:
        UserError: `share` is something else.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", share)
    i, n = map(int, match.groups()) if match else (0, 0)
    if not 1 <= i <= n:
        raise UserError(f'config.job.cells is {share!r}; use "i/n", such as 1/8 to 8/8.')
    return cells[len(cells) * (i - 1) // n : len(cells) * i // n]


def units(cells: Sequence[Cell], most: int) -> list[Unit]:
    """Returns the cells in groups that can be trained together, of at most so many cells."""
    if most < 1:
        raise UserError(f"config.job.population is {most}; use 1 or more.")
    groups = itertools.groupby(cells, key=lambda cell: cell._replace(learning_rate=0, trial=0))
    together = [list(members) for _, members in groups]
    return [members[at : at + most] for members in together for at in range(0, len(members), most)]


def pretrainings(cells: Sequence[Cell]) -> list[Pretraining]:
    """Returns what the cells start from, each once, in the order in which it is needed."""
    return list(dict.fromkeys(cell.pretraining for cell in cells if cell.pretraining))


def _named(axes: ConfigDict, name: str, tables: Collection[str]) -> list[str]:
    keys = split_names(axes[name])
    if unknown := [key for key in keys if key not in tables]:
        raise UserError(
            f"config.study.{name}: no table {', '.join(unknown)}; there are {', '.join(tables)}."
        )
    return keys
