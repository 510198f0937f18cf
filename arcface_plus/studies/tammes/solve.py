"""The Tammes problem: spread n points on the unit sphere so that the smallest angle is large.

Where the answer is known in closed form it is returned; elsewhere ``tammes_search`` looks for it.
What is certified is the angle of the configuration, never that no better one exists.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from arcface_plus.regularizers.simplex import simplex
from arcface_plus.studies.tammes.angles import certified_angle, smallest_angle
from arcface_plus.studies.tammes.search import MOST_POINTS, Progress, search

MOST_DIMENSIONS = 4096
MOST_CERTIFIED = 20_000  # points of a closed form: its certificate multiplies all by all


class Solution(NamedTuple):
    """Hold a configuration and what is known of it.

    ``rows`` (n, d) float64 of unit length; ``angle`` its smallest angle and ``certified`` a lower
    bound of it that rounding cannot break, radians; ``method`` says how it was found; ``restarts``
    made; ``converged``: whether the last linear program saw no gain left (always for closed forms).
    """

    rows: np.ndarray
    angle: float
    certified: float
    method: str
    restarts: int
    converged: bool


def solve_tammes(
    dim: int,
    points: int,
    *,
    restarts: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return ``points`` unit rows (n, d) float64 in ``dim`` dimensions, far apart in angle.

    Closed forms: the regular polygon (d = 2), the simplex of eq. (4), MMA paper, where
    d ≥ n − 1, and the cross-polytope where n ≤ 2d. Otherwise ``restarts`` random configurations
    (None: enough for the size) are annealed, the best polished by linear programs; ``seconds``
    cuts the search short. The same arguments, without ``seconds``, give the same rows.
    ``progress(done, total)`` counts restarts. Raises ValueError for sizes out of range.
    """
    return solve_with_report(
        dim, points, restarts=restarts, seconds=seconds, seed=seed, progress=progress
    ).rows


def solve_with_report(
    dim: int,
    points: int,
    *,
    restarts: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Solution:
    """Return what ``solve_tammes`` does, with its angle, certificate and method."""
    check_sizes(dim, points, seed)
    if restarts is not None and restarts < 1:
        raise ValueError(f"restarts is {restarts}, but must be at least 1.")
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"seconds is {seconds}, but must be above 0, or left out.")
    if dim == 2 and points > MOST_CERTIFIED:
        raise ValueError(
            f"points is {points}, but at most {MOST_CERTIFIED} are certified, all against all; "
            "in two dimensions the answer is the regular polygon."
        )
    closed = closed_form(dim, points)
    if closed is not None:
        rows, method = closed
        if progress is not None:
            progress(1, 1)
        return Solution(rows, smallest_angle(rows), certified_angle(rows), method, 0, True)
    if points > MOST_POINTS:
        raise ValueError(
            f"points is {points}, but a search takes at most {MOST_POINTS}: it holds matrices of "
            "points × points. Ask for fewer."
        )
    found, made = search(
        dim,
        points,
        restarts=restarts,
        seconds=seconds,
        seed=seed,
        progress=progress or (lambda done, total: None),
    )
    angles = smallest_angle(found.rows), certified_angle(found.rows)
    return Solution(found.rows, *angles, "search", made, found.converged)


def closed_form(dim: int, points: int) -> tuple[np.ndarray, str] | None:
    """Return an optimal configuration and its name where one is known in closed form."""
    if points - 1 <= dim and points <= MOST_DIMENSIONS + 1:
        return simplex(points, dim).numpy(), "simplex"
    if dim == 2:
        turn = 2 * np.pi * np.arange(points) / points
        return np.column_stack([np.cos(turn), np.sin(turn)]), "regular polygon"
    if points <= 2 * dim:  # more than d + 1 points cannot all be obtuse to each other
        axes = np.eye(dim)
        return np.concatenate([axes, -axes])[:points].copy(), "cross-polytope"
    return None


def check_sizes(dim: int, points: int, seed: int) -> None:
    """Raise ValueError for sizes or a seed that mean nothing."""
    if not 2 <= dim <= MOST_DIMENSIONS:
        raise ValueError(f"dim is {dim}, but must be from 2 to {MOST_DIMENSIONS}.")
    if points < 2:
        raise ValueError(f"points is {points}, but an angle needs at least 2.")
    if seed < 0:
        raise ValueError(f"seed is {seed}, but must be 0 or above.")
