"""Spherical caps: nearly all of a cap is at its rim where there are many dimensions (Prop. 2).

``losses/theory/uniform_law.py`` has the cap's share of the sphere. Angles are in radians; a θ0-cap
is what lies within θ0 of its axis.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from arcface_plus.losses.theory.uniform_law import (
    check_angles,
    check_dim,
    gauss_legendre,
    log_angle_density,
    log_cap_fraction,
)

_NEGLIGIBLE = 45.0  # e^−45 of the density's maximum
_LEAST_SHARE = 1e-290  # below it the incomplete beta function loses digits


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


def cap_angle(share: float, dim: int) -> float:
    """Return the angle of the cap that holds ``share`` ≤ ½ of the sphere."""
    return math.asin(math.sqrt(special.betaincinv((dim - 1) / 2, 0.5, 2 * share)))


def sample_cap_angles(
    cap: float, dim: int, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw ``count`` angles to the axis of uniform points in a ``cap`` of at most π/2, O(count).

    By the inverse of their law. Where the cap's share of the sphere leaves float64, which takes a
    small cap: by rejection from q = sinθ0·U^{1/(d−1)}, which nearly always accepts, with
    probability √(1 − sin²θ0)/√(1 − q²), θ = arcsin q.
    """
    _check_cap(cap)
    check_dim(dim)
    if cap > math.pi / 2:
        raise ValueError(
            f"cap is {cap:.6g}, but the sampler holds up to π/2 (90°); draw from the sphere and "
            "reject for a wider one."
        )
    share = special.betainc((dim - 1) / 2, 0.5, math.sin(cap) ** 2)
    if share > _LEAST_SHARE:
        sine2 = special.betaincinv((dim - 1) / 2, 0.5, share * generator.random(count))
        return np.minimum(np.arcsin(np.sqrt(sine2)), cap)
    drawn = np.empty(0)
    while len(drawn) < count:
        q = math.sin(cap) * generator.random(2 * count + 16) ** (1 / (dim - 1))
        accepted = generator.random(len(q)) * np.sqrt(1 - q * q) <= math.cos(cap)
        drawn = np.concatenate([drawn, np.arcsin(q[accepted])])
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


def _check_cap(cap: float) -> None:
    if not 0 < cap <= math.pi:
        raise ValueError(f"cap is {cap:.6g}, but must lie in 0 to π radians, 0 excluded.")
