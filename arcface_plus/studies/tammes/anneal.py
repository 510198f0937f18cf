"""Spread points by an annealed smooth maximum of their cosines.

    f_β = (1/β) log Σ_{i≠j} exp(β cos θ_ij)

tends to the largest cosine from above as the sharpness β grows; it is at most log(n(n−1))/β larger.
A blunt f_β sees the whole configuration and has few minima, a sharp one sees the closest pairs. So
β grows in a geometric ladder, and at each rung SciPy's limited-memory BFGS takes a bounded number
of steps over rows of free length, of which only the directions count.

Shapes: n points as rows of d entries, float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from arcface_plus.studies.theory.uniform_caps import cap_angle

# In units of 1/(1 − cos θ) at the spacing the points will have about.
BLUNTEST, SHARPEST = 2.0, 3000.0
# Less than this of the largest term is left out as e^−40: it is nothing in a sum, and smaller
# numbers become denormal, which multiplies them an order of magnitude slower.
_LEAST_EXPONENT = -40.0
_LEAST_GAIN = 1e-8  # a step that gains less ends a rung


def on_sphere(rows: np.ndarray) -> np.ndarray:
    """Return ``rows`` (…, d) divided by their norms."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def largest_cosine(rows: np.ndarray) -> float:
    """Return the largest cosine of two of the unit ``rows`` (n, d)."""
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -2)
    return float(cosine.max())


def expected_spacing(points: int, dim: int) -> float:
    """Return about the smallest angle (radians) that n points in d dimensions can have.

    That of caps which cover the share of the sphere that good packings of caps cover: 0.85 for
    d = 3, falling by a fifth with each dimension (our fit to known codes). It only sets scales.
    """
    return 2 * cap_angle(min(0.5, 0.85 * 0.8 ** (dim - 3) / points), dim)


def smooth_largest_cosine(rows: np.ndarray, sharpness: float) -> tuple[float, np.ndarray]:
    """Return f_β of unit rows (n, d) and its gradient (n, d), which is not yet tangent."""
    matrix = rows @ rows.T
    np.fill_diagonal(matrix, -2)  # a point with itself
    largest = float(matrix.max())
    matrix -= largest
    matrix *= sharpness
    np.exp(np.maximum(matrix, _LEAST_EXPONENT, out=matrix), out=matrix)
    np.fill_diagonal(matrix, 0)
    total = float(matrix.sum())
    # Each unordered pair is there twice.
    return largest + float(np.log(total)) / sharpness, matrix @ rows * (2 / total)


def anneal(
    rows: np.ndarray,
    rung: float = BLUNTEST,
    factor: float = 1.4,
    *,
    steps: int = 50,
    go_on: Callable[[], bool] = lambda: True,
) -> np.ndarray:
    """Return the unit rows (n, d) of the configuration spread from ``rows`` (n, d).

    Each rung of the ladder, from the given one by ``factor`` to ``SHARPEST``, takes at most
    ``steps`` steps. ``go_on`` is asked after each rung; where it says no, the others are skipped.
    """
    shape, scale = rows.shape, 1 - float(np.cos(expected_spacing(*rows.shape)))

    def value(flat: np.ndarray, sharpness: float) -> tuple[float, np.ndarray]:
        free = flat.reshape(shape)
        norms = np.linalg.norm(free, axis=1, keepdims=True)
        unit = free / norms
        f, gradient = smooth_largest_cosine(unit, sharpness)
        gradient -= unit * (gradient * unit).sum(1, keepdims=True)
        return f, (gradient / norms).ravel()

    while True:
        options = {"maxiter": steps, "ftol": _LEAST_GAIN, "gtol": 0}
        found = minimize(
            value, rows.ravel(), (rung / scale,), "L-BFGS-B", jac=True, options=options
        )
        rows, rung = on_sphere(found.x.reshape(shape)), rung * factor
        if rung >= SHARPEST or not go_on():
            return rows
