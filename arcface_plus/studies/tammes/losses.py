"""The four losses of Table 1, MMA paper, for many configurations at once.

The same losses as ``mma_loss``, ``cosine_loss``, ``riesz_loss`` and ``log_loss`` of
``regularizers``, which the tests hold these to, with a leading axis of configurations: training
thirty points is all overhead, and twenty of them together cost little more than one.

Shapes: b configurations of n weights with d entries: (b, n, d). Any floating dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from arcface_plus.regularizers.energies import SMALLEST_DISTANCE

LOSSES = ("mma", "cosine", "riesz", "log")
EXPONENT = 2.0  # of the Riesz-Fisher loss in Table 1


class LossTerms(NamedTuple):
    """Hold the losses (b,) float64 and their gradients (b, n, d)."""

    value: np.ndarray
    gradient: np.ndarray


def loss_function(name: str) -> Callable[[np.ndarray], LossTerms]:
    """Return the function from weights (b, n, d) to ``LossTerms``, where s = 2 for riesz."""
    functions: dict[str, Callable[[np.ndarray], LossTerms]] = {
        "mma": mma,
        "cosine": cosine,
        "riesz": lambda weight: energy(weight, EXPONENT),
        "log": lambda weight: energy(weight, 0.0),
    }
    if name not in functions:
        raise ValueError(f"loss is '{name}', but must be one of {', '.join(LOSSES)}.")
    return functions[name]


def mma(weight: np.ndarray) -> LossTerms:
    """Return eq. (6): minus the mean angle from each row to its nearest. Gradient as eq. (8).

    Rows that coincide to the last digit get no gradient from each other.
    """
    norms, unit = _split(weight)
    nearest = _nearest(unit)
    difference = unit - np.take_along_axis(unit, nearest[..., None], axis=1)
    squared = (difference * difference).sum(-1)
    half = np.minimum(np.sqrt(squared) / 2, 1)
    angle = 2 * np.arcsin(half)
    # The tangents along which the angle grows: the chord, projected, made a unit vector.
    sine = np.maximum(2 * half * np.sqrt(1 - half * half), 1e-30)[..., None]
    other = np.take_along_axis(unit, nearest[..., None], axis=1)
    own_pull = (difference + unit * (-squared / 2)[..., None]) / sine
    other_pull = (-difference + other * (-squared / 2)[..., None]) / sine
    gradient = own_pull + _scatter(other_pull, nearest)
    return _terms(-angle.mean(1, dtype=np.float64), -gradient / weight.shape[1], norms, unit)


def cosine(weight: np.ndarray) -> LossTerms:
    """Return eq. (5): the mean of each row's largest cosine with another. Gradient as eq. (7)."""
    norms, unit = _split(weight)
    nearest = _nearest(unit)
    # P_a b = P_a (b − a), which is small where the projection would have to cancel.
    difference = np.take_along_axis(unit, nearest[..., None], axis=1) - unit
    value = 1 - (difference * difference).sum(-1).mean(1, dtype=np.float64) / 2
    gradient = difference - _scatter(difference, nearest)
    return _terms(value, gradient / weight.shape[1], norms, unit)


def energy(weight: np.ndarray, s: float) -> LossTerms:
    """Return eq. (9), or eq. (11) for s = 0: the mean over pairs of the distance to the power −s.

    Or of minus its logarithm. On as a line below ``SMALLEST_DISTANCE``, as ``riesz_loss`` has it.
    """
    norms, unit = _split(weight)
    batch, n, _ = unit.shape
    squared = np.matmul(unit, unit.transpose(0, 2, 1))
    squared *= -2
    squared += 2
    flat = squared.reshape(batch, n * n)
    flat[:, :: n + 1] = 1  # a row with itself: taken out below
    close = flat < SMALLEST_DISTANCE**2 if flat.min() < SMALLEST_DISTANCE**2 else None
    distance = None if close is None else np.sqrt(np.maximum(flat[close], 1e-14))
    if close is not None:
        flat[close] = SMALLEST_DISTANCE**2
    total = _energy_and_slope(flat, s)  # flat is now the slope by the squared distance
    flat[:, :: n + 1] = 0
    if close is not None and distance is not None:
        # f(z) = f(z₀) + f′(z₀)(z − z₀), whose slope by z² is f′(z₀)/2z; flat holds f′(z₀)/2z₀.
        line = np.zeros(flat.shape, np.float64)
        line[close] = flat[close] * 2 * SMALLEST_DISTANCE * (distance - SMALLEST_DISTANCE)
        total += line.sum(1)
        flat[close] *= SMALLEST_DISTANCE / distance
    value = (total - (n if s else 0)) / (n * (n - 1))
    # Each unordered pair counts twice, and dz²/dŵ_i is −2ŵ_j, projected.
    gradient = np.matmul(squared, unit) * (-4 / (n * (n - 1)))
    return _terms(value, gradient, norms, unit)


def _energy_and_slope(squared: np.ndarray, s: float) -> np.ndarray:
    """Return the energies (b,) of squared distances (b, m), which become their slopes."""
    if s == 0:
        total = -0.5 * np.log(squared).sum(1, dtype=np.float64)
        np.divide(-0.5, squared, out=squared)
        return total
    np.divide(1, squared, out=squared)
    term = squared if s == 2 else squared ** (s / 2)
    total = term.sum(1, dtype=np.float64)
    squared *= term
    squared *= -s / 2
    return total


def _split(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    norms = np.sqrt((weight * weight).sum(-1, keepdims=True))
    return norms, weight / norms


def _nearest(unit: np.ndarray) -> np.ndarray:
    """Return the row of largest cosine with each other row (b, n)."""
    batch, n, _ = unit.shape
    matrix = np.matmul(unit, unit.transpose(0, 2, 1))
    matrix.reshape(batch, n * n)[:, :: n + 1] = -2
    return matrix.argmax(2)


def _scatter(pulls: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Return (b, n, d) with each of ``pulls`` (b, n, d) added at its row ``to`` (b, n)."""
    batch, n, dim = pulls.shape
    at = ((to + np.arange(batch)[:, None] * n)[..., None] * dim + np.arange(dim)).ravel()
    summed = np.bincount(at, weights=pulls.ravel(), minlength=pulls.size)
    return summed.reshape(pulls.shape).astype(pulls.dtype)


def _terms(
    value: np.ndarray, gradient: np.ndarray, norms: np.ndarray, unit: np.ndarray
) -> LossTerms:
    """Return the terms, the gradient at unit rows made that at the weights: tangent, over ‖w‖."""
    gradient = gradient - unit * (gradient * unit).sum(-1, keepdims=True)
    return LossTerms(value, gradient / norms)
