"""A picture of points on the sphere, with the pairs that touch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from arcface_plus.studies.figure import COLORS, new_figure
from arcface_plus.studies.tammes.angles import smallest_angle

_TOUCHING = 1e-4  # radians above the smallest angle


def draw_points(rows: np.ndarray, path: Path) -> None:
    """Draw ``rows`` (n, 3) on the unit sphere into ``path``; those behind it are paler."""
    smallest = smallest_angle(rows)
    touching = np.triu(rows @ rows.T >= np.cos(smallest + _TOUCHING), k=1)
    turn, height = np.meshgrid(np.linspace(0, 2 * np.pi, 61), np.linspace(0, np.pi, 31))
    with new_figure(5.0, 5.0) as figure:
        axes = figure.add_subplot(projection="3d")
        axes.plot_surface(
            np.cos(turn) * np.sin(height),
            np.sin(turn) * np.sin(height),
            np.cos(height),
            color="0.85",
            alpha=0.25,
            linewidth=0,
        )
        for i, j in np.argwhere(touching):
            axes.plot(*rows[[i, j]].T, color=COLORS[0], linestyle="-", linewidth=0.8)
        axes.scatter(*rows.T, color=COLORS[1], s=18, depthshade=True)
        axes.set_box_aspect((1, 1, 1))
        axes.set_axis_off()
        degrees = np.degrees(smallest)
        axes.set_title(f"{len(rows)} points, smallest angle {degrees:.4f}°; lines: pairs at it")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
