"""Polish one configuration to a local optimum by sequential linear programming.

At points x_i with tangent moves u_i the cosine of a pair changes by u_i·x_j + u_j·x_i up to second
order. The linear program

    minimise t  such that  cos θ_ij + u_i·x_j + u_j·x_i ≤ t  for the nearly closest pairs,  |u| ≤ Δ

is exact at the pairs that will touch, so that where these fix the configuration, as they mostly do,
the steps converge quadratically. Δ is a trust region: it grows where the linear model predicts
well, and shrinks where it does not. Solved by HiGHS through scipy.

Shapes: n points as rows of d entries, float64; k = d − 1 tangent coordinates; m pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from arcface_plus.studies.tammes.anneal import largest_cosine, on_sphere

CONVERGED = 1e-13  # gain in cosine that the linear program still sees
_SMALLEST_RADIUS = 1e-12


class Polished(NamedTuple):
    """Hold the rows (n, d), and whether the last linear program saw no gain left."""

    rows: np.ndarray
    converged: bool


def polish(
    rows: np.ndarray, *, programs: int = 100, go_on: Callable[[], bool] = lambda: True
) -> Polished:
    """Return ``rows`` (n, d) at a local maximum of the smallest angle, or after ``programs`` tries.

    The smallest angle never becomes smaller. ``go_on`` is asked before each program.
    """
    rows = on_sphere(rows.astype(np.float64))
    largest = largest_cosine(rows)
    radius = 0.02 * np.sqrt(2 - 2 * largest)
    for _ in range(programs):
        if not go_on():
            return Polished(rows, converged=False)
        moves, predicted = _linear_step(rows, largest, radius)
        if predicted < CONVERGED:
            return Polished(rows, converged=True)
        moved = on_sphere(rows + moves)
        gained = largest - largest_cosine(moved)
        if gained > 0:
            rows, largest = moved, largest - gained
        if gained < 0.25 * predicted:
            radius *= 0.3
        elif gained > 0.7 * predicted:
            radius *= 2
        if radius < _SMALLEST_RADIUS:
            return Polished(rows, converged=True)
    return Polished(rows, converged=False)


def _linear_step(rows: np.ndarray, largest: float, radius: float) -> tuple[np.ndarray, float]:
    """Return the moves (n, d) that solve the linear program and the gain in cosine it predicts.

    Where HiGHS gives no solution there are no moves and no gain short of the radius: it shrinks.
    """
    n, dim = rows.shape
    k = dim - 1
    # Both ends of a pair move by at most √k·Δ each; pairs out of that reach cannot become closest.
    reach = 4.4 * radius * np.sqrt(max(0.0, 1 - largest**2)) + 2 * k * radius**2
    i, j = np.nonzero(np.triu(rows @ rows.T > largest - reach, 1))
    slack = largest - np.einsum("md,md->m", rows[i], rows[j])
    basis = tangent_bases(rows)
    # In units of the radius, so that HiGHS's tolerances are relative to it.
    first = np.einsum("mkd,md->mk", basis[i], rows[j])
    second = np.einsum("mkd,md->mk", basis[j], rows[i])
    values = np.concatenate([first, second, np.full((len(i), 1), -1.0)], axis=1)
    axes = np.arange(k)
    last = np.full((len(i), 1), n * k)
    columns = np.concatenate([i[:, None] * k + axes, j[:, None] * k + axes, last], axis=1)
    starts = np.arange(len(i) + 1) * (2 * k + 1)
    matrix = csr_array((values.ravel(), columns.ravel(), starts), shape=(len(i), n * k + 1))
    cost = np.append(np.zeros(n * k), 1)
    bounds = [*[(-1, 1)] * (n * k), (-2 * dim, 2 * dim)]
    solved = linprog(cost, matrix, slack / radius, bounds=bounds, method="highs-ipm")
    if solved.x is None:
        return np.zeros_like(rows), radius
    moves = np.einsum("nk,nkd->nd", solved.x[:-1].reshape(n, k), basis) * radius
    return moves, -float(solved.x[-1]) * radius


def tangent_bases(rows: np.ndarray) -> np.ndarray:
    """Return k = d − 1 orthonormal tangents at each of the ``rows`` (n, d), as (n, k, d)."""
    return np.linalg.svd(rows[:, None, :])[2][:, 1:, :]
