"""The pull of proposed margins against the own-class angle, as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcface_plus.losses.theory.uniform_law import log_negative_weight
from arcface_plus.losses.theory.uniform_prediction import TERMINATION_GRADIENT, own_gradient
from arcface_plus.studies.figure import new_figure, save_figure
from arcface_plus.studies.theory.margin_advice import Advice, Prediction


def draw_advice(
    folder: Path,
    prediction: Prediction,
    proposals: Sequence[Advice],
    *,
    gradient: float = TERMINATION_GRADIENT,
) -> list[Path]:
    """Draw ∂L/∂θ_y of every proposal, with nearest-class and target angle, into ``folder``."""
    degrees = np.linspace(0.5, 90, 360)
    with new_figure(6.0, 3.8) as figure:
        axes = figure.subplots()
        for advice in proposals:
            margin = advice.margin
            log_weight = log_negative_weight(
                prediction.classes, prediction.dim, margin.s, form="exact", wc_relu=margin.wc_relu
            )
            pull = own_gradient(np.radians(degrees), margin, log_weight)
            label = f"{advice.kind}: {advice.parameter} = {advice.value:.3f}"
            axes.plot(degrees, pull, label=label)
        axes.axhline(gradient, color="0.5", lw=0.8, ls="-")
        for angle, words in (
            (prediction.target_angle, "half of it"),
            (prediction.nearest_angle, "nearest class"),
        ):
            at = math.degrees(angle)
            axes.axvline(at, color="0.4", lw=1, ls=":")
            axes.text(
                at, 1.01, f"{words}, {at:.1f}°", ha="center", fontsize=8,
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
        axes.set(
            xlabel=r"own-class angle $\theta_y$ (degrees)",
            ylabel=r"$\partial L/\partial\theta_y$ (per radian)",
        )
        axes.legend(loc="upper left", fontsize=7.5, handlelength=2.4)
        return save_figure(figure, folder, "margins")
