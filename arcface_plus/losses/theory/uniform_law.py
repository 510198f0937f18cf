"""Directions spread uniformly on the sphere: angles to a fixed direction, and the weight of many.

The propositions of the margin-softmax appendix rest on this law. Angles are in radians, ``dim`` is
the number d ≥ 2 of entries of a unit row. Caps are handled by their logarithm: at d = 512 the
fraction of a cap of 14° is below the smallest float64.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

WeightForm = Literal["first_order", "exact"]
_LEAST_FRACTION = 1e-290  # below it the incomplete beta function loses digits, then is 0
_PANELS, _NODES = 400, 16
_LARGEST_DIM = 1_000_000  # beyond it the series of small caps takes minutes


def log_cap_fraction(angle: ArrayLike, dim: int) -> np.ndarray:
    """Return ln F(θ), F the share of the sphere within ``angle`` (…) of a direction.

    F(θ) = ½ I_{sin²θ}((d−1)/2, ½) up to π/2 (the cap area of Prop. 2 over the whole area), and
    1 − F(π−θ) beyond. −∞ at angle 0. The logarithm is right to some 1e-15 of its size.

    Raises ValueError for an angle outside 0 to π or a ``dim`` below 2.
    """
    from scipy import special  # costs a second, and few callers need it

    check_dim(dim)
    theta = check_angles(angle)
    # At π itself the difference would keep the rounding of π.
    folded = np.where(theta <= math.pi / 2, theta, math.pi - theta)
    a, sine2, cosine2 = (dim - 1) / 2, np.sin(folded) ** 2, np.cos(folded) ** 2
    # ½ − ½ I_{cos²} is the same: near π/2 sin² has lost what cos² still has.
    rest = special.betainc(0.5, a, cosine2)
    tail = np.where(sine2 < 0.5, special.betainc(a, 0.5, sine2), special.betaincc(0.5, a, cosine2))
    tail = np.where(rest < 0.5, 1 - rest, tail)
    small = tail < _LEAST_FRACTION
    log_folded = np.log(np.where(small, 1.0, 0.5 * tail))
    if small.any():
        log_folded = np.where(small, _log_small_cap(np.where(small, sine2, 0.0), dim), log_folded)
    return np.where(theta <= math.pi / 2, log_folded, np.log1p(-np.exp(log_folded)))


def _log_small_cap(sine2: np.ndarray, dim: int) -> np.ndarray:
    """Sum I_x(a, ½) = x^a √(1−x) / (a B(a, ½)) · ₂F₁(a+½, 1; a+1; x), whose terms are positive."""
    from scipy import special

    a = (dim - 1) / 2
    total = term = np.ones_like(sine2)
    k = 0
    while np.any(term > 1e-17 * total):  # the ratio of terms is below x < 1
        term = term * sine2 * ((a + 0.5 + k) / (a + 1 + k))
        total, k = total + term, k + 1
    with np.errstate(divide="ignore"):
        power = a * np.log(sine2) + 0.5 * np.log1p(-sine2)
    return power + np.log(total) - math.log(2 * a) - special.betaln(a, 0.5)


def log_angle_density(angle: ArrayLike, dim: int) -> np.ndarray:
    """Return ln of dF/dθ = sin^{d−2}θ / B(½, (d−1)/2), the density of the angle on 0 to π."""
    from scipy import special

    check_dim(dim)
    sine = np.sin(check_angles(angle))
    return special.xlogy(dim - 2, sine) - special.betaln(0.5, (dim - 1) / 2)


def log_exponential_moment(scale: float, dim: int) -> float:
    """Return ln E e^{sz} of one coordinate z of a uniform direction, exactly, for s = ``scale``.

    E e^{sz} = ₀F₁(; d/2; s²/4) = Γ(d/2) (2/s)^{d/2−1} I_{d/2−1}(s). The series of ₀F₁ is summed by
    its logarithms: its terms are positive, and the Bessel function underflows at large d.
    """
    check_dim(dim)
    check_scale(scale)
    k = np.arange(math.ceil(scale) + 200)  # terms are largest before s/2 and fall ever faster
    log_terms = np.cumsum(math.log(scale * scale / 4) - np.log((k + 1) * (dim / 2 + k)))
    return float(np.logaddexp.reduce(np.concatenate([[0.0], log_terms])))


def log_half_space_moment(scale: float, dim: int) -> float:
    """Return ln E[e^{sz}; z > 0], the same over the half where z is positive, by quadrature."""
    check_scale(scale)
    nodes, weights = gauss_legendre(0.0, math.pi / 2, panels=_PANELS)
    log_values = scale * np.cos(nodes) + log_angle_density(nodes, dim)
    return float(np.logaddexp.reduce(log_values + np.log(weights)))


def log_mean_weight(
    dim: int, scale: float, *, form: WeightForm = "first_order", wc_relu: bool = False
) -> float:
    """Return ln of the expected weight e^{s·cosθ} of one other class, uniform on the sphere.

    ``first_order`` is e^{s²/(2d)}, eq. (10) of the paper as reconstructed from its appendix: z is
    taken as normal with standard deviation 1/√d. ``exact`` is the law on the sphere. With
    ``wc_relu`` cosθ is max(0, cosθ), [R]: half of the classes weigh 1.
    """
    if form not in ("first_order", "exact"):
        raise ValueError(f"form is {form!r}, but must be first_order or exact.")
    if wc_relu:
        if form == "exact":
            half = log_half_space_moment(scale, dim)
        else:
            from scipy import special

            # The moment e^{s²/(2d)} of that normal, and its share where z is positive.
            half = scale * scale / (2 * dim) + float(special.log_ndtr(scale / math.sqrt(dim)))
        return float(np.logaddexp(math.log(0.5), half))
    return log_exponential_moment(scale, dim) if form == "exact" else scale * scale / (2 * dim)


def log_negative_weight(
    classes: int,
    dim: int,
    scale: float,
    *,
    form: WeightForm = "first_order",
    wc_relu: bool = False,
) -> float:
    """Return ln N, N = (C − 1)·E e^{sz} the expected sum over the wrong classes (Prop. 3)."""
    check_classes(classes)
    check_dim(dim)
    check_scale(scale)
    return math.log(classes - 1) + log_mean_weight(dim, scale, form=form, wc_relu=wc_relu)


def negative_weight_spread(classes: int, dim: int, scale: float) -> float:
    """Return the relative standard deviation of one draw of the sum over the wrong classes, exact.

    √((E e^{2sz}/(E e^{sz})² − 1)/(C − 1)). Prop. 3 speaks of a typical sum only where this is
    small; where it is not, a few near classes carry the mean and most draws lie below it.
    """
    check_classes(classes)
    check_scale(scale)
    twice = log_exponential_moment(2 * scale, dim) - 2 * log_exponential_moment(scale, dim)
    return math.exp(0.5 * (twice + math.log(-math.expm1(-twice)) - math.log(classes - 1)))


def gauss_legendre(low: float, high: float, *, panels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of 16-point Gauss-Legendre quadrature on equal panels, flat."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    edges = np.linspace(low, high, panels + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()


def check_dim(dim: int) -> None:
    """Raise ValueError for what is no dimension of a sphere, or beyond the series used here."""
    if not 2 <= dim <= _LARGEST_DIM or dim != int(dim):
        raise ValueError(f"dim is {dim}, but must be a whole number from 2 to {_LARGEST_DIM}.")


def check_classes(classes: int) -> None:
    """Raise ValueError for fewer than two classes."""
    if not 2 <= classes < math.inf or classes != int(classes):
        raise ValueError(
            f"classes is {classes}, but must be a whole number of at least 2: a nearest other "
            "class is asked for."
        )


def check_scale(scale: float) -> None:
    """Raise ValueError for a scale s that is not positive and finite."""
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale is {scale}, but must be positive and finite.")


def check_angles(angle: ArrayLike) -> np.ndarray:
    """Return angles as a float64 array; ValueError for one outside 0 to π."""
    theta = np.asarray(angle, dtype=np.float64)
    inside = (theta >= 0) & (theta <= math.pi)
    if not inside.all():
        raise ValueError(
            f"an angle is {theta[~inside].flat[0]:.6g}, but must lie in 0 to π radians; "
            "convert degrees by math.radians."
        )
    return theta
