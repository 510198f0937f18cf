"""Figures of the classification experiments: accuracy against λ (Figs 3 and 4 of the MMA paper) and
the smallest angle of every layer (its supplement D)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arcface_plus.studies.figure import COLORS, STYLES, new_figure, save_figure
from arcface_plus.studies.table import Summary

_MARKERS = "osD^vP*X"


def draw_sweep(
    values: Sequence[float],
    accuracies: Sequence[Summary | None],
    folder: Path,
    name: str,
    title: str,
) -> list[Path]:
    """Draw top-1 accuracy in percent against λ, with 95 % intervals; leave out what was not run.

    ``accuracies``: one for each λ of ``values``. Raises ValueError where none was run.
    """
    points = [(v, a) for v, a in zip(values, accuracies, strict=True) if a is not None]
    if not points:
        raise ValueError(f"{name}: no run of the sweep is finished; train them with --train.")
    with new_figure() as figure:
        axes = figure.subplots()
        positions = range(len(points))
        means = [accuracy.mean for _, accuracy in points]
        half = [accuracy.half_width if accuracy.n > 1 else 0.0 for _, accuracy in points]
        axes.errorbar(positions, means, yerr=half, marker="o", capsize=3, color=COLORS[0])
        # λ = 0 has no place on a logarithmic axis: the values stand side by side.
        axes.set_xticks(positions, [f"{value:g}" for value, _ in points])
        axes.set_xlabel("MMA coefficient λ (side by side, not to scale)")
        axes.set_ylabel("top-1 accuracy (%)")
        axes.set_title(f"{title}, mean and 95 % interval over seeds")
        return save_figure(figure, folder, name)


def draw_angles(rows: Sequence[dict[str, Any]], folder: Path, name: str = "angles") -> list[Path]:
    """Draw the smallest angle in degrees of every layer, a line a method; ``rows`` of
    ``angle_rows``."""
    names = [key for key in rows[0] if key != "layer"]
    with new_figure(width=max(5.0, 0.22 * len(rows) + 3), height=4.2) as figure:
        axes = figure.subplots()
        for i, method in enumerate(names):
            points = [(at, row[method]) for at, row in enumerate(rows) if row[method] is not None]
            axes.plot(
                *zip(*points, strict=True),
                label=method,
                color=COLORS[i % len(COLORS)],
                linestyle=STYLES[i % len(STYLES)],
                marker=_MARKERS[i % len(_MARKERS)],
                markersize=3,
            )
        axes.set_xticks(range(len(rows)), [r["layer"] for r in rows], rotation=90, fontsize=6)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("smallest angle between two filters (°)")
        axes.set_xlabel("layer, from input to output")
        axes.legend(fontsize=7)
        return save_figure(figure, folder, name)
