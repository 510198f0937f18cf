"""Spherical caps: nearly all of a cap is at its rim where there are many dimensions (Prop. 2).

``losses/uniform_law.py`` has the cap's share of the sphere. Angles are in radians; a θ0-cap is what
lies within θ0 of its axis.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from arcface_plus.losses.theory.uniform_law import (
    check_angles,
    check_dim,
    gauss_legendre,
    log_angle_density,
    log_cap_fraction,
)

_NEGLIGIBLE = 45.0  # e^−45 of the density's maximum


def log10_cap_mass(cap: ArrayLike, dim: int) -> np.ndarray:
    """Return log10 of the θ0-cap's area over that of the sphere, for any cap (…) and d ≥ 2.

    A_d^θ / A_d = ½ I_{sin²θ}((d−1)/2, ½), the paper's equation, kept as a logarithm.
    """
    return log_cap_fraction(cap, dim) / math.log(10)


def cap_angle_density(angle: ArrayLike, cap: float, dim: int) -> np.ndarray:
    """Return the density (per radian) of the angle to the axis of a uniform point in a ``cap``.

    sin^{d−2}θ over its integral up to ``cap``; 0 beyond.
    """
    _check_cap(cap)
    theta = check_angles(angle)
    log_density = log_angle_density(theta, dim) - log_cap_fraction(cap, dim)
    return np.where(theta <= cap, np.exp(log_density), 0.0)


def cap_angle_moments(cap: float, dim: int) -> tuple[float, float]:
    """Return mean and standard deviation (radians) of that angle, by quadrature."""
    _check_cap(cap)
    check_dim(dim)
    low, high = 0.0, cap
    if dim > 2:  # where sin^{d−2} is not negligible against its largest value in the cap
        edge = math.asin(math.sin(min(cap, math.pi / 2)) * math.exp(-_NEGLIGIBLE / (dim - 2)))
        low, high = edge, min(cap, math.pi - edge)
    nodes, weights = gauss_legendre(low, high, panels=64)
    density = weights * cap_angle_density(nodes, cap, dim)
    offset = nodes - high  # about the rim, where the mass is: no cancellation in the variance
    total = density.sum()
    mean = (density * offset).sum() / total
    variance = (density * (offset - mean) ** 2).sum() / total
    return float(high + mean), math.sqrt(variance)


def first_order_cap_mean(cap: ArrayLike, dim: int) -> np.ndarray:
    """Return θ0 − tanθ0/(d−1), the mean angle for d → ∞, for caps (…) below π/2."""
    check_dim(dim)
    theta = check_angles(cap)
    if (theta >= math.pi / 2).any():
        raise ValueError("the first-order mean holds for caps below π/2 (90°) alone.")
    return theta - np.tan(theta) / (dim - 1)


def sample_cap_angles(
    cap: float, dim: int, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw ``count`` angles to the axis of uniform points in a ``cap`` of at most π/2, O(count).

    By rejection, from whichever proposal accepts more. Near the rim: q = sinθ0·U^{1/(d−1)}, taken
    with probability √(1 − sin²θ0)/√(1 − q²), θ = arcsin q. For wide caps: the angles of the
    half-sphere, taken below θ0. At least four draws in ten are taken.
    """
    _check_cap(cap)
    check_dim(dim)
    if cap > math.pi / 2:
        raise ValueError(
            f"cap is {cap:.6g}, but the sampler holds up to π/2 (90°); draw from the sphere and "
            "reject for a wider one."
        )
    from_rim = _rim_acceptance(cap, dim) >= 2 * math.exp(float(log_cap_fraction(cap, dim)))
    propose = _from_rim if from_rim else _from_half_sphere
    drawn = np.empty(0)
    while len(drawn) < count:
        fresh = propose(cap, dim, 2 * (count - len(drawn)) + 16, generator)
        drawn = np.concatenate([drawn, fresh])
    return drawn[:count]


def sample_cap(
    axis: ArrayLike, cap: float, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw ``count`` unit rows (count, d), uniform in the ``cap`` about ``axis`` (d,).

    x = cosθ·μ + sinθ·v with v uniform orthogonal to the axis μ: time and memory are linear in
    count·d, however small the cap is. Raises ValueError for an axis without a direction.
    """
    mu = np.asarray(axis, dtype=np.float64)
    norm = np.linalg.norm(mu)
    if mu.ndim != 1 or not (0 < norm < math.inf):
        raise ValueError(f"axis has shape {mu.shape} and norm {norm:.6g}, but must be a direction.")
    mu = mu / norm
    angle = sample_cap_angles(cap, len(mu), count, generator)
    around = generator.standard_normal((count, len(mu)))
    around -= (around @ mu)[:, None] * mu
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    return np.cos(angle)[:, None] * mu + np.sin(angle)[:, None] * around


def _from_rim(cap: float, dim: int, tries: int, generator: np.random.Generator) -> np.ndarray:
    q = math.sin(cap) * generator.random(tries) ** (1 / (dim - 1))
    accepted = generator.random(tries) * np.sqrt(1 - q * q) <= math.cos(cap)
    return np.arcsin(q[accepted])


def _from_half_sphere(
    cap: float, dim: int, tries: int, generator: np.random.Generator
) -> np.ndarray:
    along = np.abs(generator.standard_normal(tries))
    across = np.sqrt(2 * generator.standard_gamma((dim - 1) / 2, tries))
    angle = np.arctan2(across, along)
    return angle[angle <= cap]


def _rim_acceptance(cap: float, dim: int) -> float:
    """Return cosθ0 E[(1 − q²)^{−½}] = cosθ0 F(θ0) B(½, (d−1)/2) (d−1)/sin^{d−1}θ0."""
    at_rim = float(log_angle_density(cap, dim) + math.log(math.sin(cap)))
    log_share = float(log_cap_fraction(cap, dim))
    return math.cos(cap) * (dim - 1) * math.exp(log_share - at_rim)


def _check_cap(cap: float) -> None:
    if not 0 < cap <= math.pi:
        raise ValueError(f"cap is {cap:.6g}, but must lie in 0 to π radians, 0 excluded.")
