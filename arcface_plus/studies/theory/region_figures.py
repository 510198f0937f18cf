"""Figures 15 to 18 of the margin-softmax appendix: which class owns which points.

Every function draws one figure into ``folder`` and returns the numbers behind it. The rule is that
of ``decision_regions.py``, reconstructed, [R]; the margins are the paper's tuned ones.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arcface_plus.losses.margins.family import Margin
from arcface_plus.studies.figure import COLORS, new_figure, save_figure
from arcface_plus.studies.theory.decision_regions import (
    NOBODY,
    PAPER_MARGINS,
    angular_owners,
    cap_half_angle,
    owners,
    ring_of_neighbours,
    visible_points,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INTER_ANGLE, NEIGHBOURS = 78.64, 200  # degrees, as printed; the exact expectation is 79.00
TWO = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
THREE = np.array([*TWO, [0.0, -1.0, 0.0]])
_VIEW, _VIEW_FROM_ABOVE = (1.0, -1.0, 1.0), (0.35, -0.6, 1.0)
_PIXELS = 300
_PARAMETERS = {
    "AmpFace": "m0 = 0.35",
    "SphereFace": "m1 = 1.35",
    "ArcFace": "m2 = 0.6",
    "CosFace": "m3 = 0.5",
}


def draw_angular_regions(folder: Path, seed: int) -> dict[str, Any]:
    """Draw Fig. 15: two classes in the plane of their angles, the margin left blank."""
    from matplotlib.colors import ListedColormap

    degrees = np.linspace(0, 90, 361)
    second, first = np.meshgrid(np.radians(degrees), np.radians(degrees), indexing="ij")
    numbers = {}
    with new_figure(11.0, 2.9) as figure:
        for axes, (name, margin) in zip(
            figure.subplots(1, 5, sharey=True), PAPER_MARGINS.items(), strict=True
        ):
            owner = angular_owners(first, second, margin)
            axes.imshow(
                np.ma.masked_equal(owner, NOBODY),
                extent=(0, 90, 0, 90), origin="lower", vmin=0, vmax=1, alpha=0.55,
                cmap=ListedColormap(COLORS[:2]), interpolation="nearest",
            )  # fmt: skip
            axes.plot([0, 90], [0, 90], color="black", ls=":", lw=1.2)
            axes.text(3, 82, "class 1")
            axes.text(82, 5, "class 2", rotation=90)
            axes.set_title(_title(name), fontsize=9)
            axes.set(xlabel=r"$\theta_1$ (degrees)", xticks=(0, 30, 60, 90), yticks=(0, 30, 60, 90))
            numbers[name] = {"blank_share": float((owner == NOBODY).mean())}
        figure.axes[0].set_ylabel(r"$\theta_2$ (degrees)")
        save_figure(figure, folder, "fig15")
    return numbers


def draw_on_sphere(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """Draw Fig. 16, two prototypes on the sphere, 17, three, or 18: what 200 leave to one.

    How the paper draws the 200 at 78.64° of the one at the pole is not printed: ours have that
    polar angle and uniform azimuths.
    """
    many, inter_angle = name == "fig18", math.radians(INTER_ANGLE)
    ring = ring_of_neighbours(inter_angle, NEIGHBOURS, np.random.default_rng(seed))
    prototypes = {"fig16": TWO, "fig17": THREE, "fig18": np.concatenate([TWO[:1], ring])}[name]
    numbers: dict[str, Any] = {"inter_angle": INTER_ANGLE} if many else {}
    with new_figure(11.0, 3.0 if many else 2.9) as figure:
        for axes, (kind, margin) in zip(figure.subplots(1, 5), PAPER_MARGINS.items(), strict=True):
            view = _VIEW_FROM_ABOVE if many else _VIEW
            blank = _draw_sphere(axes, prototypes, margin, view, others_grey=many)
            numbers[kind], title = {"blank_share_of_view": blank}, _title(kind)
            if many:
                alpha = math.degrees(cap_half_angle(inter_angle, margin))
                numbers[kind], title = {"cap_half_angle": alpha}, f"{title}\ncap of {alpha:.2f}°"
            axes.set_title(title, fontsize=9)
        save_figure(figure, folder, name)
    return numbers


def _title(name: str) -> str:
    return "no margin" if name == "none" else f"{name}, {_PARAMETERS[name]}"


def _draw_sphere(
    axes: Axes,
    prototypes: np.ndarray,
    margin: Margin,
    view: tuple[float, float, float],
    *,
    others_grey: bool = False,
) -> float:
    """Draw the sphere seen from ``view``, regions coloured; return the blank share of the disc."""
    points, screen = visible_points(view, _PIXELS)
    on_disc = ~np.isnan(points[..., 0])
    owner = owners(points[on_disc] @ prototypes.T, margin)
    picture = np.ones((_PIXELS, _PIXELS, 4))
    picture[..., 3] = on_disc
    picture[on_disc, :3] = _region_colors(owner, others_grey) * _shade(points[on_disc])[:, None]
    axes.imshow(picture, extent=(-1, 1, -1, 1), origin="lower", interpolation="antialiased")
    turn = np.linspace(0, 2 * math.pi, 361)
    axes.plot(np.cos(turn), np.sin(turn), color="0.4", lw=0.8, ls="-")
    towards = np.asarray(view) / np.linalg.norm(view)
    for k, prototype in enumerate(prototypes):
        if prototype @ towards > 0:
            x, y = screen @ prototype
            many = others_grey and k > 0
            axes.plot(x, y, "o", ms=2 if many else 5, color="0.25" if many else "black")
    axes.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), aspect="equal")
    axes.axis("off")
    return float((owner == NOBODY).mean())


def _region_colors(owner: np.ndarray, others_grey: bool) -> np.ndarray:
    """Return RGB (points, 3): the classes' own colours, made lighter, and white for the margin."""
    from matplotlib.colors import to_rgb

    lighter = 0.45 + 0.55 * np.array([to_rgb(c) for c in COLORS[:3]])
    rgb = np.vstack([lighter, np.ones(3)])[np.minimum(owner, 2)]  # NOBODY takes the last
    if others_grey:
        rgb[owner > 0] = 0.82
    return rgb


def _shade(points: np.ndarray) -> np.ndarray:
    """Return brightness (points,) as of a lamp above the viewer's left shoulder."""
    lamp = np.array([0.5, -0.6, 1.0])
    return 0.86 + 0.14 * (points @ lamp / np.linalg.norm(lamp))
