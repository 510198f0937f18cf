"""Figures 11 to 14 of the margin-softmax appendix, and Figure A2 of the closeness paper.

Every function draws one figure into ``folder`` and returns the numbers behind it. What the curves
are is in ``margin_curves.py`` and ``gradient_magnitudes.py``: reconstructed, [R]. The papers print
no parameter values, so the grids below are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from arcface_plus.studies.figure import COLORS, new_figure, save_figure
from arcface_plus.studies.theory.gradient_magnitudes import MEASURES, gradient_magnitude
from arcface_plus.studies.theory.margin_curves import (
    Setting,
    loss_at,
    other_gradient_at,
    own_gradient_at,
)

SWEEPS: dict[str, tuple[float, ...]] = {
    "C": (100, 1000, 10_000, 85_742, 1_000_000),
    "d": (128, 256, 512, 1024, 2048),
    "s": (16, 32, 48, 64, 80),
    "m0": (1.0, 0.8, 0.6, 0.35, 0.2),
    "m1": (1.0, 1.2, 1.35, 1.6, 1.85),
    "m2": (0.0, 0.2, 0.4, 0.6, 0.8),
    "m3": (0.0, 0.2, 0.35, 0.5, 0.6),
}
FIXED_OTHER, FIXED_OWN = 80.0, 40.0  # degrees, in Figs. 13 and 14; as printed
_PLACES = {"C": 0, "d": 1, "s": 2, "m0": 4, "m1": 5, "m2": 6, "m3": 7}  # of a 2 × 4 grid
_TITLES = {"C": "C, classes", "d": "d, dimensions", "s": "s, scale"}
_OWN_ANGLE = r"own-class angle $\theta_y$ (degrees)"
_OTHER_ANGLE = r"other class's angle $\theta_j$ (degrees)"
Curve = Callable[[np.ndarray, Setting], np.ndarray]


# Figure: the curve, and the labels of its axes.
_CURVES: dict[str, tuple[Curve, str, str]] = {
    "fig11": (loss_at, _OWN_ANGLE, r"loss $L$"),
    "fig12": (own_gradient_at, _OWN_ANGLE, r"$\partial L/\partial\theta_y$ (per radian)"),
    "fig13": (
        lambda own, setting: other_gradient_at(own, math.radians(FIXED_OTHER), setting),
        _OWN_ANGLE,
        r"$\partial L/\partial\theta_j$ at $\theta_j$ = 80° (per radian)",
    ),
    "fig14": (
        lambda other, setting: other_gradient_at(math.radians(FIXED_OWN), other, setting),
        _OTHER_ANGLE,
        r"$\partial L/\partial\theta_j$ at $\theta_y$ = 40° (per radian)",
    ),
}


def draw_sweeps(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """Draw Fig. 11 (L), 12 (∂L/∂θ_y), 13 or 14 (∂L/∂θ_j): a panel a parameter, a line a value."""
    curve, x_label, y_label = _CURVES[name]
    degrees = np.linspace(0.5, 90, 360)
    angles, base = np.radians(degrees), Setting()
    numbers: dict[str, dict[str, list[float]]] = {}
    with new_figure(10.5, 5.2) as figure:
        cells = figure.subplots(2, 4, sharex=True)
        for parameter, place in _PLACES.items():
            axes = cells.flat[place]
            numbers[parameter] = {}
            for value in SWEEPS[parameter]:
                setting = base.changed(parameter, value)
                label = f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:g}"
                axes.plot(degrees, curve(angles, setting), label=label, lw=1.3)
                at = curve(np.radians([20.0, 40.0, 60.0, 80.0]), setting)
                numbers[parameter][f"{value:g}"] = at.tolist()
            axes.set_title(_TITLES.get(parameter, parameter), fontsize=9)
            axes.legend(fontsize=7, handlelength=2.6, frameon=True, edgecolor="none")
        cells.flat[3].axis("off")
        text = "otherwise\nC = 85 742, d = 512, s = 64,\nm0 = m1 = 1, m2 = m3 = 0;\nvalues are ours"
        cells.flat[3].text(0.05, 0.5, text, va="center", transform=cells.flat[3].transAxes)
        figure.supxlabel(x_label, fontsize=9)
        figure.supylabel(y_label, fontsize=9)
        save_figure(figure, folder, name)
    return {"at_degrees": [20, 40, 60, 80], **numbers}


def draw_gradient_magnitudes(folder: Path, seed: int) -> dict[str, Any]:
    """Draw Fig. A2 of the closeness paper: ‖∂D/∂x‖ of four measures of similarity.

    As the paper shows it, and, dashed, what passes through the normalisation of x: ours, [R].
    """
    degrees = np.linspace(0, 180, 361)
    angles = np.radians(degrees)
    with new_figure(9.5, 2.8) as figure:
        for letter, axes, measure in zip(
            "abcd", figure.subplots(1, 4, sharey=True), MEASURES, strict=True
        ):
            free = gradient_magnitude(angles, measure)
            across = gradient_magnitude(angles, measure, through_normalisation=True)
            axes.plot(degrees, free, color=COLORS[0], ls="-", label="x free (the paper)")
            axes.plot(degrees, across, color=COLORS[1], ls="--", label="x normalised (ours)")
            axes.set_title(f"({letter}) {measure}", fontsize=9)
            axes.set(xlabel="angle θ (degrees)", xticks=(0, 45, 90, 135, 180), ylim=(-0.1, 4.3))
            if letter == "a":
                axes.set_ylabel("gradient norm")
            if letter == "b":
                axes.legend(loc="upper right")
        save_figure(figure, folder, "figA2")
    at = np.radians([0, 30, 60, 90, 120, 180])
    numbers: dict[str, Any] = {"at_degrees": [0, 30, 60, 90, 120, 180]}
    for measure in MEASURES:
        numbers[measure] = gradient_magnitude(at, measure).tolist()
        normalised = gradient_magnitude(at, measure, through_normalisation=True)
        numbers[f"{measure}, x normalised"] = normalised.tolist()
    return numbers
