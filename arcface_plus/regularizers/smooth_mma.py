"""MMA with a smooth minimum: every angle takes part, the smallest most. Ours, not of a paper.

    loss = (1/n) Σ_i τ log Σ_{j≠i} exp(−θ_ij/τ)

MMA moves a row by its nearest neighbour alone and jumps where another comes nearer; here the pull
is shared among near neighbours, at the cost of a pass over all pairs.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from arcface_plus.regularizers.geometry.angles import pair_angles, pair_terms
from arcface_plus.regularizers.geometry.closed_form import (
    CANCELLED_BELOW,
    COINCIDENT_BELOW,
    add_tangents,
    closed_form_loss,
    in_float64,
    is_crowded,
    pair_blocks,
)

_ENTRIES_AT_ONCE = 1 << 22


def smooth_mma_loss(weight: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Return minus the mean soft minimum of each row's angles to the others, in radians.

    ``weight`` (n, …) of any floating dtype, n ≥ 2; ``temperature`` τ > 0 in radians. The value lies
    between ``mma_loss`` and ``mma_loss`` + τ log(n − 1), so it tends to MMA as τ → 0. Both rows of
    a pair get gradient, 1/‖w‖ times the pair's share, at any angle: rows that coincide move apart
    as in ``mma_loss``. Cost 3·n²·d multiply-adds in blocks. Errors as ``mma_loss``; on a GPU,
    looking for close rows makes the host wait.
    """
    check_temperature(temperature)
    terms = functools.partial(_terms, temperature=temperature)
    return closed_form_loss(weight, "smooth MMA", terms)


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless ``temperature`` is a positive number."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(
            f"temperature is {temperature}, but must be above 0 radians; small ones come near MMA."
        )


def _terms(
    unit: Tensor, need_gradient: bool, *, temperature: float, crowded: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Go over blocks of rows, each against all; ``crowded`` rows are float64."""
    n = len(unit)
    total = torch.zeros((), dtype=torch.float64, device=unit.device)
    gradient = torch.zeros_like(unit) if need_gradient else None
    at_once = max(1, _ENTRIES_AT_ONCE // n)
    for low in range(0, n, at_once):
        rows = unit[low : low + at_once]
        cosine = torch.mm(rows, unit.t())
        least = COINCIDENT_BELOW if crowded else CANCELLED_BELOW[unit.dtype]
        odd = cosine.abs() > 1 - least / 2  # to be done by pairs; a row and itself is among them
        i, j = odd.nonzero().unbind(1)
        other = (i + low != j).nonzero().flatten()
        if not crowded and is_crowded(other, rows):
            again = functools.partial(_terms, temperature=temperature, crowded=True)
            return in_float64(again, unit, need_gradient)
        pairs = _Pairs(i[other], j[other], low, crowded, cosine[i[other], j[other]] < 0)
        logits = torch.acos(cosine.clamp(-1, 1)).masked_fill_(odd, math.inf)
        pairs.write_angles(logits, unit)
        logits.div_(-temperature)
        total += torch.logsumexp(logits, 1).sum(dtype=torch.float64)
        if gradient is None:
            continue
        share = torch.softmax(logits, 1).div_(n)  # minus the loss's slope by the angle
        slope = share / cosine.square_().neg_().add_(1).sqrt_()  # dθ/dcos = −1/sin θ
        slope.masked_fill_(odd, 0.0)
        gradient[low : low + at_once].addmm_(slope, unit)
        gradient.addmm_(slope.t(), rows)
        pairs.add_pulls(gradient, share, unit)
    return (total * (temperature / n)).to(unit.dtype), gradient


class _Pairs(NamedTuple):
    """The pairs of rows i + low with rows j (k,) whose cosine has lost the digits of their angle.

    ``coincide``: so much that they are at 0, or where ``antipodal`` (k,) at π.
    """

    i: Tensor
    j: Tensor
    low: int
    coincide: bool
    antipodal: Tensor

    def write_angles(self, angle: Tensor, unit: Tensor) -> None:
        """Write the pairs' angles into ``angle`` (rows of the block, n)."""
        if self.coincide:
            angle[self.i, self.j] = self.antipodal.to(unit.dtype) * math.pi
            return
        for a, b in pair_blocks(self.i, self.j, unit.shape[1]):
            angle[a, b] = pair_angles(unit[a + self.low], unit[b])

    def add_pulls(self, gradient: Tensor, share: Tensor, unit: Tensor) -> None:
        """Add −``share`` (rows of the block, n) times the angles' gradients to ``gradient``."""
        if self.coincide:
            a, force = self.i + self.low, -share[self.i, self.j]
            add_tangents(gradient, unit, a, self.j, force, self.antipodal)
            add_tangents(gradient, unit, self.j, a, force, self.antipodal)
            return
        for a, b in pair_blocks(self.i, self.j, unit.shape[1]):
            pairs = pair_terms(unit[a + self.low], unit[b], a + self.low, b)
            pull = -share[a, b][:, None]
            gradient.index_add_(0, a + self.low, pairs.pull_a * pull)
            gradient.index_add_(0, b, pairs.pull_b * pull)
