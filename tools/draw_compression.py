"""Draws docs/compression.png: a crystal's plain graph beside its classes.

Usage: python tools/draw_compression.py docs/compression.png
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from pymatgen.core import Element, Structure

from jaxmat.crystals.content import Content
from jaxmat.crystals.graph import CrystalGraph, GraphSettings, build_graph
from jaxmat.crystals.neighbors import complete_shells
from jaxmat.data.tables import read_table

CRYSTAL = "mp-441"  # Rb2Te: three sites, of which two are equivalent
COLOURS = ("tab:blue", "tab:green", "tab:red", "tab:orange", "tab:purple")
SITE_COLOURS = ("#d9c8f0", "#ffe2a8")
RADIUS = 0.24
# Where the circles stand, and for each bond class from where to where it leads, on the circles'
# rims in degrees, how much its arrow bends, and where its label stands.
CENTERS = np.array([[0.0, 0.0], [1.6, 0.0]])
ARROWS = (
    (105, 165, 2.2, (-0.42, 0.62)),
    (255, 195, -2.2, (-0.42, -0.62)),
    (205, -25, -0.25, (0.8, -0.42)),
    (25, 155, -0.25, (0.8, 0.42)),
    (75, 15, -2.2, (2.02, 0.62)),
)


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", help="PNG file to write")
    structure = read_crystal()
    plain = build_graph(structure, GraphSettings(compress=False))
    classes = build_graph(structure, GraphSettings())
    figure = Figure(figsize=(9.0, 4.3), layout="constrained")
    left = figure.add_subplot(1, 2, 1, projection="3d")
    right = figure.add_subplot(1, 2, 2)
    draw_bonds(left, structure, classes)
    draw_classes(right, classes)
    figure.text(0.25, 0.94, f"every bond: {sizes(plain)}", ha="center")
    figure.text(0.75, 0.94, f"every class once: {sizes(classes)}", ha="center")
    figure.savefig(parser.parse_args().picture, dpi=110)


def read_crystal() -> Structure:
    """Returns the crystal, from a bundled table."""
    rows = read_table("bundled:dielectric")
    return rows.structures[rows.ids.index(CRYSTAL)]


def sizes(graph: CrystalGraph) -> str:
    """Returns in words how large a graph is."""
    sites, bonds, angles = graph.atomic_number, graph.bond_length, graph.angle_cosine
    return f"{len(sites)} sites, {len(bonds)} bonds, {len(angles):,} angles"


def draw_bonds(axes: Any, structure: Structure, classes: CrystalGraph) -> None:
    """Draws all bonds that end at the sites of a cell in the colours of their classes."""
    bonds = complete_shells(Content.of(structure), max_neighbors=12, tie_tolerance=0.01)
    number = np.array(structure.atomic_numbers)
    ends = classes.atomic_number[np.stack([classes.bond_sender, classes.bond_receiver])]
    positions = structure.cart_coords
    for sender, receiver, vector in zip(*bonds, strict=True):
        same = (ends == number[[sender, receiver]][:, None]).all(axis=0)
        apart = np.abs(classes.bond_length - np.linalg.norm(vector)) + np.where(same, 0, np.inf)
        bond_class = int(np.argmin(apart))
        line = np.stack([positions[receiver] - vector, positions[receiver]])
        width = 0.6 + 5 / classes.bond_length[bond_class] ** 1.2
        axes.plot(*line.T, color=COLOURS[bond_class], linewidth=width, alpha=0.8)
    for site, colour in zip(classes.atomic_number, SITE_COLOURS, strict=True):
        chosen = positions[number == site]
        axes.scatter(*chosen.T, s=150, color=colour, edgecolors="black", depthshade=False)
    axes.set_axis_off()
    axes.set_box_aspect((1, 1, 1), zoom=1.55)
    axes.view_init(elev=8, azim=70)


def draw_classes(axes: Axes, classes: CrystalGraph) -> None:
    """Draws a circle for each class of sites and an arrow for each class of bonds."""
    for i, (bend_from, bend_to, bend, label) in enumerate(ARROWS):
        begins, ends = CENTERS[[classes.bond_sender[i], classes.bond_receiver[i]]]
        arrow = FancyArrowPatch(
            begins + RADIUS * direction(bend_from),
            ends + RADIUS * direction(bend_to),
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=16,
            linewidth=2,
            color=COLOURS[i],
        )
        axes.add_patch(arrow)
        text = f"× {classes.bond_multiplicity[i]}\n{classes.bond_length[i]:.2f} Å"
        axes.text(label[0], label[1], text, color=COLOURS[i], ha="center", va="center")
    names = [Element.from_Z(int(number)).symbol for number in classes.atomic_number]
    for center, name, count, colour in zip(
        CENTERS, names, classes.site_count, SITE_COLOURS, strict=True
    ):
        axes.add_patch(Circle(tuple(center), RADIUS, facecolor=colour, edgecolor="black"))
        axes.text(center[0], center[1], f"{name}\n× {count}", ha="center", va="center")
    axes.set(xlim=(-0.8, 2.4), ylim=(-1.0, 1.0), aspect="equal")
    axes.set_axis_off()


def direction(degrees: float) -> np.ndarray:
    """Returns the unit vector at an angle to the first axis."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


if __name__ == "__main__":
    main()
