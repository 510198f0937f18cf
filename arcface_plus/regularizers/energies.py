"""Losses of the pairwise cosines and distances of a weight's rows, equations (5), (9) and (11).

    cosine        (1/n) Σ_i max_{j≠i} cos θ_ij                      (5)
    Riesz-Fisher  1/(n(n−1)) Σ_{i≠j} ‖ŵ_i − ŵ_j‖^(−s), s > 0        (9)
    logarithmic   −1/(n(n−1)) Σ_{i≠j} log ‖ŵ_i − ŵ_j‖               (11)
    MHE           (9), or (11) for s = 0, of all rows or a random part; also with their negatives

An energy is infinite at distance 0. Here the energy of a pair continues as its tangent line where
the distance is below ``SMALLEST_DISTANCE`` (1.8°): value and gradient stay finite, the force is the
largest there, and rows that coincide move apart along the tangent that ``angles`` gives them. For
comparison, the public code of MHE adds 1e-4 to squared norms, which bounds the force of unit rows
likewise but leaves coincident rows where they are.

The energies multiply blocks of rows by all rows: 2·n²·d multiply-adds, with scratch for a few
blocks of at most ``_ENTRIES_AT_ONCE`` numbers, where plain autograd holds several n × n matrices.
Close pairs are computed from the rows' difference; where there are too many (rows in a tight cone),
and on a GPU, all pairs from products in float64.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from arcface_plus import devices
from arcface_plus.regularizers.geometry.angles import pair_terms
from arcface_plus.regularizers.geometry.closed_form import (
    CANCELLED_BELOW,
    COINCIDENT_BELOW,
    add_tangents,
    closed_form_loss,
    coinciding_pairs,
    in_float64,
    is_crowded,
    may_hold,
    pair_blocks,
)
from arcface_plus.regularizers.geometry.sphere import UnitRows, sample_rows
from arcface_plus.regularizers.nearest.search import search_self

SMALLEST_DISTANCE = math.sqrt(1e-3)
LARGEST_EXPONENT = 20.0  # beyond, the energy at the smallest distance leaves float32
_ENTRIES_AT_ONCE = 1 << 22


def cosine_loss(weight: Tensor) -> Tensor:
    """Return the mean over rows of the largest cosine with another row, eq. (5), MMA paper.

    ``weight`` (n, …) of any floating dtype, n ≥ 2. The gradient of a pair has norm sin θ/‖w‖,
    eq. (7): rows that coincide get none. Exact and without an n × n matrix, as ``mma_loss``, whose
    errors it shares.
    """
    return closed_form_loss(weight, "the cosine loss", _cosine_terms)


def riesz_loss(weight: Tensor, s: float = 2.0) -> Tensor:
    """Return the mean over pairs of ‖ŵ_i − ŵ_j‖^(−s), the Riesz-Fisher loss, eq. (9), MMA paper.

    ``weight`` (n, …) of any floating dtype, n ≥ 2; ``s`` above 0, at most 20. The gradient of a
    pair has the norm of eq. (10) down to ``SMALLEST_DISTANCE``. Errors as ``mma_loss``.
    """
    check_exponent(s, zero_is_log=False)
    return _energy_loss(weight, "the Riesz-Fisher loss", s)


def log_loss(weight: Tensor) -> Tensor:
    """Return minus the mean over pairs of log ‖ŵ_i − ŵ_j‖, eq. (11), MMA paper.

    ``weight`` (n, …) of any floating dtype, n ≥ 2. The gradient of a pair has the norm of eq. (12)
    down to ``SMALLEST_DISTANCE``. The rest is as ``riesz_loss``.
    """
    return _energy_loss(weight, "the logarithmic loss", 0.0)


def mhe_loss(
    weight: Tensor,
    *,
    s: float = 2.0,
    fraction: float = 1.0,
    half_space: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the hyperspherical energy E_s: ``riesz_loss``, or ``log_loss`` for s = 0.

    ``fraction`` below 1 takes ⌈fraction·n⌉ rows, at least 2, drawn by ``generator``: an unbiased
    estimate of value and gradient, the mini-batch form that the MMA paper compares with. Its text
    says "30 % of the total" and no more; that a draw is without replacement and made anew at every
    call is our reading. ``half_space`` takes the energy of the rows and their negatives, 2n points
    with 2n(2n − 1) ordered pairs as MHE's public code has it; a row and its own negative are always
    at distance 2, so that pair adds a constant and no gradient. MHE's code for s = 0 returns twice
    this value: it takes the logarithm of the squared distance. The rest is as ``riesz_loss``.
    """
    check_exponent(s, zero_is_log=True)
    check_fraction(fraction)
    picked = None
    if fraction < 1 and weight.ndim:
        total = weight.shape[0]
        picked = sample_rows(total, max(2, math.ceil(fraction * total - 1e-9)), generator)
        picked = devices.to_device(picked, weight.device)
    return _energy_loss(weight, "MHE", s, half_space=half_space, picked=picked)


def check_exponent(s: float, *, zero_is_log: bool) -> None:
    """Raise ValueError for an ``s`` that energies do not take."""
    if not (math.isfinite(s) and (s > 0 or (s == 0 and zero_is_log)) and s <= LARGEST_EXPONENT):
        least = "0 (the logarithm) or above" if zero_is_log else "above 0"
        raise ValueError(f"s is {s}, but must be {least} and at most {LARGEST_EXPONENT:g}.")


def check_fraction(fraction: float) -> None:
    """Raise ValueError unless ``fraction`` is a share of the rows."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}, but must be above 0 and at most 1 (all rows).")


def _cosine_terms(unit: Tensor, need_gradient: bool) -> tuple[Tensor, Tensor | None]:
    n = len(unit)
    index = search_self(UnitRows(unit))
    gradient = torch.zeros_like(unit) if need_gradient else None
    squared = unit.new_empty(n)
    for low in range(0, n, 512):
        part = slice(low, low + 512)
        # P_a (b − a) = P_a b, and small where the projection would have to cancel.
        difference = unit[index[part]] - unit[part]
        squared[part] = torch.linalg.vecdot(difference, difference)
        if gradient is not None:
            gradient[part] += difference
            gradient.index_add_(0, index[part], difference, alpha=-1)
    value = 1 - squared.mean(dtype=torch.float64) / 2
    return value.to(unit.dtype), None if gradient is None else gradient.div_(n)


def _energy_loss(
    weight: Tensor,
    name: str,
    s: float,
    *,
    half_space: bool = False,
    picked: Tensor | None = None,
) -> Tensor:
    terms = functools.partial(_energy_terms, s=s, half_space=half_space)
    return closed_form_loss(weight, name, terms, picked=picked)


def _energy_terms(
    unit: Tensor, need_gradient: bool, *, s: float, half_space: bool, crowded: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Sum the pairs (row, point) in blocks of rows; points are the rows, or those and −rows.

    Every ordered pair of points is seen from the rows alone, the other half being its mirror image:
    hence a factor 2 for the gradient, and one for the half space. ``crowded`` rows are float64.
    """
    n = len(unit)
    again = functools.partial(_energy_terms, s=s, half_space=half_space, crowded=True)
    if not crowded and not devices.host_may_look(unit.device):
        return in_float64(again, unit, need_gradient)
    points = torch.cat([unit, -unit]) if half_space else unit
    index = torch.arange(len(points), device=unit.device)
    scale = len(points) / n / (len(points) * (len(points) - 1))
    total = torch.zeros((), dtype=torch.float64, device=unit.device)
    gradient = torch.zeros_like(unit) if need_gradient else None
    at_once = max(1, _ENTRIES_AT_ONCE // len(points))
    for low in range(0, n, at_once):
        rows = unit[low : low + at_once]
        squared = torch.mm(rows, points.t()).mul_(-2).add_(2)
        close = squared < (COINCIDENT_BELOW if crowded else CANCELLED_BELOW[unit.dtype])
        pairs = coinciding_pairs(close, low)
        if not crowded:
            i, j = pairs.nonzero().unbind(1)
            if is_crowded(i, rows):
                return in_float64(again, unit, need_gradient)
        energy, slope = _far_pairs(squared, close, s)
        total += energy
        if gradient is not None:  # z² = 2 − 2cos, so dz²/dŵ_i is −2ŵ_j, projected
            torch.mm(slope, points, out=gradient[low : low + at_once]).mul_(-4 * scale)
        if not crowded:
            total += _close_pairs(unit, points, i + low, j, s, gradient, 2 * scale)
        elif may_hold(pairs):
            energy, force = _pair_energy(squared.new_zeros(()), s)
            total += energy * pairs.sum()
            if gradient is not None:
                part = slice(low, low + len(rows))
                add_tangents(gradient[part], rows, index[part], index, pairs * force * 2 * scale)
    return (total * scale).to(unit.dtype), gradient


def _far_pairs(squared: Tensor, close: Tensor, s: float) -> tuple[Tensor, Tensor]:
    """Return the energy () of pairs of ``squared`` distance (k, m) and its slope by that (k, m).

    ``close`` pairs count nothing. Overwrites both arguments.
    """
    line = None
    if squared.dtype == torch.float64:  # in float32, all that are so near are close already
        found = (squared < SMALLEST_DISTANCE**2) & ~close
        if may_hold(found):
            line = found
            distance = squared.clamp(COINCIDENT_BELOW).sqrt_()
            line_energy, line_slope = _pair_energy(distance, s)
            close |= line
    inverse = squared.masked_fill_(close, math.inf).reciprocal_()
    if s == 0:
        energy = (inverse + close).log_().sum(dtype=torch.float64) / 2
        slope = inverse.mul_(-0.5)
    else:
        term = inverse if s == 2 else inverse.pow(s / 2)
        energy = term.sum(dtype=torch.float64)
        slope = inverse.mul_(term).mul_(-s / 2)
    if line is not None:
        slope = torch.where(line, line_slope / (2 * distance), slope)
        energy = energy + line_energy.masked_fill_(~line, 0.0).sum()
    return energy, slope


def _close_pairs(
    unit: Tensor,
    points: Tensor,
    i: Tensor,
    j: Tensor,
    s: float,
    gradient: Tensor | None,
    scale: float,
) -> Tensor:
    """Return the energy () of the pairs of row i (k,) with point j (k,), from their difference.

    Adds ``scale`` times its gradient at the rows i to ``gradient``.
    """
    total = torch.zeros((), dtype=torch.float64, device=unit.device)
    for a, b in pair_blocks(i, j, unit.shape[1]):
        pairs = pair_terms(unit[a], points[b], a, b)
        energy, slope = _pair_energy(2 * torch.sin(pairs.angle / 2), s)
        total += energy.sum(dtype=torch.float64)
        if gradient is not None:  # z = 2 sin(θ/2)
            force = slope * torch.cos(pairs.angle / 2) * scale
            gradient.index_add_(0, a, pairs.pull_a * force[:, None])
    return total


def _pair_energy(distance: Tensor, s: float) -> tuple[Tensor, Tensor]:
    """Return f_s and its slope at ``distance`` (k,), a line below ``SMALLEST_DISTANCE``."""
    base = distance.clamp_min(SMALLEST_DISTANCE)
    if s == 0:
        energy, slope = -base.log(), -base.reciprocal()
    else:
        energy = base.pow(-s)
        slope = -s * energy / base
    return energy + slope * (distance - base), slope
