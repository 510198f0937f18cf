"""All figures of the theory of uniform prototypes, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from arcface_plus.studies.theory.margin_figures import draw_gradient_magnitudes, draw_sweeps
from arcface_plus.studies.theory.region_figures import draw_angular_regions, draw_on_sphere
from arcface_plus.studies.theory.uniform_figures import (
    draw_cap_concentration,
    draw_cap_mass,
    draw_nearest_angles,
    draw_negative_weight,
)

FIGURES: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "fig7": draw_nearest_angles,
    "fig8": draw_cap_mass,
    "fig9": draw_cap_concentration,
    "fig10": draw_negative_weight,
    **{name: partial(draw_sweeps, name) for name in ("fig11", "fig12", "fig13", "fig14")},
    "fig15": draw_angular_regions,
    **{name: partial(draw_on_sphere, name) for name in ("fig16", "fig17", "fig18")},
    "figA2": draw_gradient_magnitudes,
}


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return ``names`` in the papers' order without repeats, all of them for none.

    Raises ValueError for a name that is no figure, with the nearest ones.
    """
    for name in names:
        if name not in FIGURES:
            near = get_close_matches(name, FIGURES) or list(FIGURES)
            raise ValueError(
                f"{name!r} is no figure of the theory; did you mean {', '.join(near)}?"
            )
    return tuple(name for name in FIGURES if not names or name in names)


def draw_theory(
    folder: Path,
    names: Sequence[str] = (),
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, Any]]:
    """Draw the figures ``names`` (all for none) into ``folder``, each as SVG and PNG.

    Returns the numbers behind every figure. ``seed`` is that of all sampling; ``progress`` is
    called with (figures drawn, figures in all).
    """
    chosen, numbers = check_names(names), {}
    for i, name in enumerate(chosen):
        numbers[name] = FIGURES[name](folder, seed)
        progress(i + 1, len(chosen))
    return numbers
