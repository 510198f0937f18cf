"""The angle from a class to its nearest other class, for classes spread uniformly (Prop. 1).

``losses/uniform_prediction.py`` has the exact expectation. Here are its approximations and what
sampling gives, with every neighbour searched exactly. Angles are in radians.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from arcface_plus.losses.head.initial import initial_class_weights
from arcface_plus.losses.theory.uniform_law import (
    check_classes,
    check_dim,
    log_angle_density,
    log_cap_fraction,
)
from arcface_plus.regularizers.geometry.angles import pair_angles
from arcface_plus.regularizers.geometry.sphere import (
    UnitRows,
    full_precision,
    row_norms,
)
from arcface_plus.regularizers.nearest.search import (
    nearest_neighbors,
    search_few,
)

_BLOCK = 8192  # prototypes made at once: a multiple of the blocks they are drawn in
_PAIRS_AT_ONCE = 1024


def small_cap_limit(classes: int, dim: int) -> float:
    """Return the limit of E[θ] for C → ∞ at fixed d, where a small cap is flat.

    F(θ) → κ θ^{d−1} gives Γ(1 + 1/(d−1)) (κC)^{−1/(d−1)}, κ = Γ(d/2)/(√π (d−1) Γ((d−1)/2)). We take
    it to be what Prop. 1 states, [R]. It needs a C exponential in d: at d = 512 it is of no use.
    """
    check_classes(classes)
    check_dim(dim)
    log_kappa = (
        math.lgamma(dim / 2) - math.lgamma((dim - 1) / 2) - math.log(math.sqrt(math.pi) * (dim - 1))
    )
    power = 1 / (dim - 1)
    return math.gamma(1 + power) * math.exp(-power * (log_kappa + math.log(classes)))


def nearest_angle_quantile(classes: int, dim: int, share: float) -> float:
    """Return the angle below which the nearest of C − 1 others lies with probability ``share``.

    It solves 1 − (1 − F(θ))^{C−1} = ``share``; ``share`` = ½ is the median.
    """
    check_classes(classes)
    if not 0 < share < 1:
        raise ValueError(f"share is {share}, but must lie between 0 and 1.")
    return cap_angle(math.log(-math.expm1(math.log1p(-share) / (classes - 1))), dim)


def extreme_value_angle(classes: int, dim: int) -> float:
    """Return E[θ] by extreme values: a Gumbel law where ln F is straight about F = 1/(C − 1).

    θ* − γ/h with F(θ*) = 1/(C − 1), h = (ln F)′(θ*) and Euler's γ. At d = 512 within 0.1° of the
    exact expectation from C = 100 on. It wants many dimensions: at d = 3 it is a fifth too small,
    where ``small_cap_limit`` is exact to many digits.
    """
    check_classes(classes)
    if classes == 2:
        raise ValueError("classes is 2, but the law of extremes needs at least 3 classes.")
    at = cap_angle(-math.log(classes - 1), dim)
    rate = math.exp(float(log_angle_density(at, dim)) - float(log_cap_fraction(at, dim)))
    return at - np.euler_gamma / rate


def cap_angle(log_fraction: float, dim: int) -> float:
    """Return θ with ln F(θ) = ``log_fraction`` ≤ 0, by bisection."""
    if not log_fraction <= 0:
        raise ValueError(f"log_fraction is {log_fraction}, but a share of the sphere is at most 1.")
    low, high = 0.0, math.pi
    for _ in range(100):
        middle = (low + high) / 2
        below = float(log_cap_fraction(middle, dim)) < log_fraction
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def unit_prototypes(seed: int, lo: int, hi: int, dim: int) -> Tensor:
    """Return prototypes ``lo`` to ``hi`` − 1 of a uniform set as unit rows (hi − lo, d) float32.

    Normalised Gaussian rows, drawn by (seed, block) as initial class weights are, so that any part
    of a set is the same however it is cut.
    """
    rows = initial_class_weights(seed, lo, hi, dim, std=1.0)
    return rows.div_(row_norms(rows)[:, None])


def sample_nearest_angles(
    classes: int,
    dim: int,
    *,
    rows: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Draw ``classes`` prototypes and return their angles to the nearest other one, float64.

    All of them, (C,), which holds the C × d prototypes and one search; or, with ``rows=r``, those
    of the first r alone, (r,): prototypes are then made block by block and never all held, and the
    angles equal the first r of the whole set. Neighbours are exact in both. ``progress`` is called
    with (prototypes met, C) in the second form.

    Raises ValueError for fewer than two classes, or ``rows`` outside 1 to C.
    """
    check_classes(classes)
    check_dim(dim)
    if rows is not None and not 1 <= rows <= classes:
        raise ValueError(f"rows is {rows}, but must lie in 1 to the {classes} classes.")
    if rows is None:
        unit = unit_prototypes(seed, 0, classes, dim)
        return _angles_between(unit, unit, nearest_neighbors(unit).index)
    queries = unit_prototypes(seed, 0, rows, dim)
    own = torch.arange(rows)
    nearest = np.full(rows, math.inf)
    for low in range(0, classes, _BLOCK):
        block = unit_prototypes(seed, low, min(classes, low + _BLOCK), dim)
        inside = torch.where((own >= low) & (own < low + len(block)), own - low, -1)
        if len(block) == 1 and bool((inside == 0).any()):  # the one query there has no other
            found = _angles_to_one(queries, block[0], own == low)
        else:
            with full_precision(block.device):
                index = search_few(queries, UnitRows(block), inside)
            found = _angles_between(queries, block, index)
        np.minimum(nearest, found, out=nearest)
        if progress is not None:
            progress(min(classes, low + _BLOCK), classes)
    return nearest


def _angles_between(rows: Tensor, columns: Tensor, index: Tensor) -> np.ndarray:
    parts = [
        pair_angles(a.double(), columns[i].double())
        for a, i in zip(rows.split(_PAIRS_AT_ONCE), index.split(_PAIRS_AT_ONCE), strict=True)
    ]
    return torch.cat(parts).numpy()


def _angles_to_one(queries: Tensor, one: Tensor, is_it: Tensor) -> np.ndarray:
    angle = pair_angles(queries.double(), one.double().expand_as(queries))
    return torch.where(is_it, math.inf, angle).numpy()
