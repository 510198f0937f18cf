"""Figures 7 to 10 of the margin-softmax appendix: the propositions against sampling.

Every function draws one figure into ``folder`` and returns the numbers behind it. The grids of C,
θ and d are ours where the paper prints none.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arcface_plus.losses.theory.uniform_law import log_negative_weight, negative_weight_spread
from arcface_plus.losses.theory.uniform_prediction import nearest_class_angle
from arcface_plus.studies.figure import COLORS, new_figure, save_figure
from arcface_plus.studies.theory.prototypes import extreme_value_angle, sample_nearest_angles
from arcface_plus.studies.theory.uniform_caps import cap_angle_moments, log10_cap_mass, sample_cap
from arcface_plus.studies.theory.uniform_negatives import sample_log_negative_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASSES, DIM, SCALE = 85_742, 512, 64.0  # C-MS1M and the paper's head
PAPER_ANGLE, PAPER_WEIGHT = 78.64, 4.4562e6  # degrees; as printed
SAMPLED_CLASSES = (100, 300, 1000, 3000, 10_000, 30_000, CLASSES)
SAMPLED_ROWS = 1024
_WEIGHT_DRAWS = 40


def draw_nearest_angles(folder: Path, seed: int) -> dict[str, Any]:
    """Draw Fig. 7: the mean angle to the nearest prototype against the number of prototypes."""
    classes = np.unique(np.round(np.logspace(1.7, 6, 80)).astype(int))
    exact = np.degrees([nearest_class_angle(int(c), DIM) for c in classes])
    extreme = np.degrees([extreme_value_angle(int(c), DIM) for c in classes])
    sampled = {
        c: np.degrees(sample_nearest_angles(c, DIM, rows=min(c, SAMPLED_ROWS), seed=seed))
        for c in SAMPLED_CLASSES
    }
    means = [angles.mean() for angles in sampled.values()]
    errors = [2 * angles.std() / math.sqrt(len(angles)) for angles in sampled.values()]
    with new_figure(5.2, 3.6) as figure:
        axes = figure.subplots()
        axes.plot(classes, exact, label="exact expectation")
        axes.plot(classes, extreme, label="extreme-value form")
        axes.errorbar(
            list(sampled), means, errors, fmt="o", ms=4, color="black", label="sampled, ± 2 s.e."
        )
        axes.plot([CLASSES], [PAPER_ANGLE], "X", ms=7, color=COLORS[3], label="paper: 78.64°")
        _mark_classes(axes)
        axes.set(
            xscale="log", xlabel="classes C", ylabel="angle to the nearest prototype (degrees)"
        )
        axes.legend()
        save_figure(figure, folder, "fig7")
    return {
        "exact": math.degrees(nearest_class_angle(CLASSES, DIM)),
        "extreme_value": math.degrees(extreme_value_angle(CLASSES, DIM)),
        "paper": PAPER_ANGLE,
        "sampled": {str(c): float(a.mean()) for c, a in sampled.items()},
    }


def draw_cap_mass(folder: Path, seed: int) -> dict[str, Any]:
    """Draw Fig. 8: log10 of the share of the sphere in a cap against its angle; no sampling."""
    degrees = np.linspace(1, 90, 357)
    with new_figure(5.0, 3.4) as figure:
        axes = figure.subplots()
        for dim in (DIM, 64, 8):
            axes.plot(degrees, log10_cap_mass(np.radians(degrees), dim), label=f"d = {dim}")
        axes.set(xlabel="cap angle θ (degrees)", ylabel="log10 of the share of the sphere")
        axes.legend()
        save_figure(figure, folder, "fig8")
    at = (30, 45, 60, 70, 80, 85, 90)
    return {f"log10_mass_{t}": float(log10_cap_mass(math.radians(t), DIM)) for t in at}


def draw_cap_concentration(folder: Path, seed: int) -> dict[str, Any]:
    """Draw Fig. 9: mean and deviation of the angle of points drawn in a cap, d = 512 and 8."""
    generator = np.random.default_rng(seed)
    degrees, numbers = np.arange(5, 91, 5), {}
    with new_figure(4.6, 4.2) as figure:
        axes = figure.subplots()
        axes.plot([0, 90], [0, 90], color="0.5", ls=":", lw=1, label="rim of the cap")
        for dim, color, marker in ((DIM, COLORS[4], "o"), (8, COLORS[0], "s")):
            axis, caps = np.eye(dim)[0], np.radians(degrees)
            cosine = np.array([sample_cap(axis, cap, 1000, generator)[:, 0] for cap in caps])
            drawn = np.degrees(np.arccos(cosine.clip(-1, 1)))
            mean, std = drawn.mean(1), drawn.std(1)
            exact = np.degrees([cap_angle_moments(math.radians(t), dim) for t in degrees])
            axes.plot(degrees, exact[:, 0], color=color, ls="-", lw=1.2, label=f"d = {dim}, exact")
            axes.errorbar(
                degrees, mean, std, fmt=marker, ms=3.5, color=color, capsize=2,
                label=f"d = {dim}, 1000 points: mean ± std",
            )  # fmt: skip
            numbers[f"d{dim}"] = {
                str(t): {"mean": float(m), "std": float(s), "exact_mean": e[0], "exact_std": e[1]}
                for t, m, s, e in zip(degrees, mean, std, exact.tolist(), strict=True)
            }
        axes.set(xlabel="cap angle θ (degrees)", ylabel="angle to the axis (degrees)")
        axes.set_aspect("equal")
        axes.legend(loc="lower right", fontsize=8)
        save_figure(figure, folder, "fig9")
    return numbers


def draw_negative_weight(folder: Path, seed: int) -> dict[str, Any]:
    """Draw Fig. 10: the sum over the wrong classes against C, and its ratio to eq. (10)."""
    grid = np.unique(np.round(np.logspace(2, 6, 60)).astype(int))
    sampled = {
        c: np.exp(sample_log_negative_weights(c, DIM, SCALE, draws=_WEIGHT_DRAWS, seed=seed + i))
        for i, c in enumerate(SAMPLED_CLASSES)
    }
    first, exact = (
        np.exp([log_negative_weight(int(c), DIM, SCALE, form=form) for c in grid])
        for form in ("first_order", "exact")
    )
    with new_figure(8.2, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(grid, first, color=COLORS[1], ls="-", label="first order, eq. (10)")
        left.plot(grid, exact, color=COLORS[2], ls="--", label="exact expectation")
        one = [draws[0] for draws in sampled.values()]
        left.plot(list(sampled), one, "o", ms=4, zorder=4, color=COLORS[0], label="one draw")
        left.plot([CLASSES], [PAPER_WEIGHT], "X", ms=7, color="black", label="paper: 4.4562e6")
        left.set(xscale="log", yscale="log", xlabel="classes C", ylabel="negative weight N")
        _weight_ratios(right, grid, exact / first, sampled)
        for axes in (left, right):
            _mark_classes(axes)
        left.legend()
        save_figure(figure, folder, "fig10")
    draws = sampled[CLASSES]
    return {
        "first_order": math.exp(log_negative_weight(CLASSES, DIM, SCALE)),
        "exact": math.exp(log_negative_weight(CLASSES, DIM, SCALE, form="exact")),
        "relative_spread": negative_weight_spread(CLASSES, DIM, SCALE),
        "sampled_mean": float(draws.mean()),
        "sampled_median": float(np.median(draws)),
        "sampled_relative_spread": float(draws.std(ddof=1) / draws.mean()),
        "draws": len(draws),
        "paper": PAPER_WEIGHT,
    }


def _weight_ratios(
    axes: Axes, grid: np.ndarray, exact: np.ndarray, sampled: dict[int, np.ndarray]
) -> None:
    axes.axhline(1, color=COLORS[1], ls="-", label="first order")
    axes.plot(grid, exact, color=COLORS[2], ls="--", label="exact expectation")
    for i, (c, draws) in enumerate(sampled.items()):
        ratio = draws / math.exp(log_negative_weight(c, DIM, SCALE))
        label = f"{_WEIGHT_DRAWS} draws each" if i == 0 else None
        axes.plot([c] * len(draws), ratio, "o", ms=3, alpha=0.4, color=COLORS[0], label=label)
    paper = PAPER_WEIGHT / math.exp(log_negative_weight(CLASSES, DIM, SCALE))
    axes.plot([CLASSES], [paper], "X", ms=7, color="black", label="paper: 4.4562e6")
    axes.set(xscale="log", yscale="log", xlabel="classes C", ylabel="N over its first order")
    ticks = (0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.yaxis.minorticks_off()
    axes.legend(frameon=True, loc="upper right")


def _mark_classes(axes: Axes) -> None:
    axes.axvline(CLASSES, color="0.4", ls="--", lw=1, zorder=0)
    axes.text(CLASSES * 1.15, 0.02, "85 742", transform=axes.get_xaxis_transform(), color="0.3")
