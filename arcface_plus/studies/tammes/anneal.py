"""Spread many configurations at once by an annealed smooth maximum of their cosines.

    f_β = (1/β) log Σ_{i≠j} exp(β cos θ_ij)

tends to the largest cosine from above as the sharpness β grows; it is at most log(n(n−1))/β larger.
A blunt f_β sees the whole configuration and has few minima, a sharp one sees the closest pairs. So
β grows in a geometric ladder, and at each rung limited-memory BFGS goes a bounded number of steps
on the product of spheres, for all configurations of a batch in the same array operations.

Shapes: b configurations of n points with d entries: (b, n, d). Any floating dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# In units of 1/(1 − cos θ) at the spacing the points will have about.
BLUNTEST, SHARPEST = 2.0, 3000.0
_MEMORY = 8  # pairs of steps and gradient changes
_SUFFICIENT = 1e-4  # Armijo
# Less than this of the largest term is left out as e^−40: it is nothing in a sum, and smaller
# numbers are denormal in float32, which multiplies them an order of magnitude slower.
_LEAST_EXPONENT = -40.0


def random_rows(rng: np.random.Generator, batch: int, points: int, dim: int) -> np.ndarray:
    """Return ``batch`` configurations (b, n, d) float32 of independent uniform points."""
    return on_sphere(rng.standard_normal((batch, points, dim), dtype=np.float32))


def on_sphere(rows: np.ndarray) -> np.ndarray:
    """Return ``rows`` (…, d) divided by their norms."""
    return rows / np.sqrt((rows * rows).sum(-1, keepdims=True))


def expected_spacing(points: int, dim: int) -> float:
    """Return about the smallest angle (radians) that n points in d dimensions can have.

    That of caps which cover the share of the sphere that good packings of caps cover: 0.85 for
    d = 3, falling by a fifth with each dimension (our fit to known codes). It only sets scales.
    """
    from scipy.special import betaincinv

    covered = 0.85 * 0.8 ** (dim - 3)
    # A cap of half-angle α < π/2 has the share ½ I_{sin²α}((d − 1)/2, ½).
    sine_squared = betaincinv((dim - 1) / 2, 0.5, min(1.0, 2 * covered / points))
    return float(2 * np.arcsin(np.sqrt(sine_squared)))


def smooth_largest_cosine(
    rows: np.ndarray, sharpness: float, scratch: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return f_β (b,), its gradient on the spheres (b, n, d), and the largest cosine (b,).

    ``rows`` (b, n, d) unit rows; ``scratch`` (b, n, n) is overwritten.
    """
    batch, n, _ = rows.shape
    turned = rows.transpose(0, 2, 1)
    matrix = np.matmul(rows, turned, out=scratch)
    flat = matrix.reshape(batch, n * n)
    flat[:, :: n + 1] = -2  # a point with itself
    largest = flat.max(1)
    flat -= largest[:, None]
    flat *= sharpness
    np.maximum(flat, _LEAST_EXPONENT, out=flat)
    np.exp(flat, out=flat)
    flat[:, :: n + 1] = 0
    total = flat.sum(1)
    value = largest + np.log(total) / sharpness
    # Each unordered pair is there twice. This product is several times faster than its transpose.
    gradient = np.ascontiguousarray(np.matmul(turned, matrix).transpose(0, 2, 1))
    gradient *= (2 / total)[:, None, None]
    gradient -= rows * (gradient * rows).sum(-1, keepdims=True)
    return value, gradient, largest


def anneal(
    rows: np.ndarray,
    *,
    bluntest: float = BLUNTEST,
    factor: float = 1.4,
    steps: int = 50,
    go_on: Callable[[], bool] = lambda: True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return configurations spread from ``rows`` (b, n, d), and their largest cosines (b,).

    Each rung of the ladder, from ``bluntest`` by ``factor`` to ``SHARPEST``, takes ``steps`` steps.
    ``go_on`` is asked before each rung; where it says no, the rungs left are skipped.
    """
    spacing = expected_spacing(*rows.shape[1:])
    scale = 1 - float(np.cos(spacing))
    scratch = np.empty((*rows.shape[:2], rows.shape[1]), rows.dtype)
    rung = bluntest
    best, largest = rows, np.full(len(rows), np.inf, rows.dtype)
    while rung < SHARPEST and go_on():
        rows, best, largest = descend(
            rows, rung / scale, steps, longest_step=0.3 * spacing, scratch=scratch
        )
        rung *= factor
    return best, largest


class _State:
    """Configurations with value, gradient and largest cosine, replaced where steps succeed."""

    def __init__(self, rows: np.ndarray, sharpness: float, scratch: np.ndarray) -> None:
        self.rows = rows
        self.value, self.gradient, self.largest = smooth_largest_cosine(rows, sharpness, scratch)

    def replace(self, where: np.ndarray, other: _State) -> None:
        wide = where[:, None, None]
        self.rows = np.where(wide, other.rows, self.rows)
        self.gradient = np.where(wide, other.gradient, self.gradient)
        self.value = np.where(where, other.value, self.value)
        self.largest = np.where(where, other.largest, self.largest)


class _Curvature:
    """The last steps and gradient changes of each configuration, as L-BFGS keeps them.

    A configuration whose step failed enters zeros, which the recursion passes over.
    """

    def __init__(self, guess: float) -> None:
        self.held: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.guess = guess
        self.scale: np.ndarray | None = None

    def add(self, step: np.ndarray, change: np.ndarray, succeeded: np.ndarray) -> None:
        along = _dot(step, change)
        good = succeeded & (along > 1e-12)
        mask = good[:, None].astype(step.dtype)
        inverse = np.where(good, 1 / np.where(good, along, 1), 0)
        if self.scale is None:
            self.scale = np.full(len(step), self.guess, step.dtype)
        size = np.where(good, _dot(change, change), 1)
        self.scale = np.where(good, along / size, self.scale)
        self.held.append((step * mask, change * mask, inverse))
        del self.held[:-_MEMORY]

    def direction(self, gradient: np.ndarray) -> np.ndarray:
        """Return minus the gradient (b, m) times the inverse Hessian's approximation."""
        q = -gradient
        shares = []
        for step, change, inverse in reversed(self.held):
            shares.append(inverse * _dot(step, q))
            q -= shares[-1][:, None] * change
        q *= self.guess if self.scale is None else self.scale[:, None]
        for step, change, inverse in self.held:
            q += (shares.pop() - inverse * _dot(change, q))[:, None] * step
        return q


def descend(
    rows: np.ndarray, sharpness: float, steps: int, *, longest_step: float, scratch: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take ``steps`` steps down f_β; return the rows, the best rows met and their largest cosines.

    Each step evaluates all configurations once. Where the value did not fall enough, the next step
    of that configuration is shorter along the same direction; else it is full again.
    """
    shape = rows.shape
    flat = (shape[0], shape[1] * shape[2])
    state = _State(rows, sharpness, scratch)
    best, largest = rows.copy(), state.largest.copy()
    curvature = _Curvature(1 / sharpness)
    shortened = np.ones(shape[0], rows.dtype)
    for _ in range(steps):
        gradient = state.gradient.reshape(flat)
        direction = curvature.direction(gradient).reshape(shape)
        direction -= state.rows * (direction * state.rows).sum(-1, keepdims=True)
        slope = _dot(direction.reshape(flat), gradient)
        if (uphill := slope >= 0).any():
            direction[uphill] = -state.gradient[uphill] / sharpness
            slope = _dot(direction.reshape(flat), gradient)
        longest = np.sqrt((direction * direction).sum(-1).max(1))
        length = shortened * np.minimum(1, longest_step / np.maximum(longest, 1e-30))
        tried = _State(
            on_sphere(state.rows + length[:, None, None] * direction), sharpness, scratch
        )
        fell = tried.value <= state.value + _SUFFICIENT * length * slope
        step, change = tried.rows - state.rows, tried.gradient - state.gradient
        curvature.add(step.reshape(flat), change.reshape(flat), fell)
        state.replace(fell, tried)
        shortened = np.where(fell, 1, 0.4 * shortened).astype(rows.dtype)
        better = state.largest < largest
        largest = np.where(better, state.largest, largest)
        best[better] = state.rows[better]
    return state.rows, best, largest


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("bm,bm->b", a, b)
