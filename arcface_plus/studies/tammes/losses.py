"""The four losses of Table 1, MMA paper, for many configurations at once.

The same losses as ``mma_loss``, ``cosine_loss``, ``riesz_loss`` and ``log_loss`` of
``regularizers``, which the tests hold these to, with a leading axis of configurations: training
thirty points is all overhead, and twenty of them together cost little more than one.

Shapes: b configurations of n unit rows with d entries: (b, n, d). Any floating dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_plus.regularizers.energies import SMALLEST_DISTANCE

EXPONENT = 2.0  # of the Riesz-Fisher loss in Table 1


def mma(unit: Tensor) -> Tensor:
    """Return eq. (6): minus the mean angle from each row to its nearest.

    Rows that coincide to the last digit get no gradient from each other.
    """
    half_chord = torch.linalg.vector_norm(_to_nearest(unit), dim=-1) / 2
    return -2 * torch.asin(half_chord.clamp_max(1 - 1e-7)).mean(1, dtype=torch.float64)


def cosine(unit: Tensor) -> Tensor:
    """Return eq. (5): the mean of each row's largest cosine with another."""
    return 1 - _to_nearest(unit).square().sum(-1).mean(1, dtype=torch.float64) / 2


def energy(unit: Tensor, s: float) -> Tensor:
    """Return eq. (9), or eq. (11) for s = 0: the mean over pairs of the distance to the power −s.

    Or of minus its logarithm. On as a line below ``SMALLEST_DISTANCE``, as ``riesz_loss`` has it.
    """
    n, least = unit.shape[1], SMALLEST_DISTANCE
    # A row with itself counts as at distance 1, whatever its length: taken out below.
    itself = 2 + torch.eye(n, dtype=unit.dtype)
    squared = torch.baddbmm(itself, unit, unit.mT, alpha=-2)
    line = torch.zeros(())
    if squared.detach().min() < least**2:
        distance = squared.clamp(1e-14, least**2).sqrt()
        line = -(s or 1) * least ** (-s - 1) * (distance - least)
        squared = squared.clamp_min(least**2)
    terms = -0.5 * squared.log() if s == 0 else squared.pow(-s / 2)
    total = (terms + line).sum(2).sum(1, dtype=torch.float64)
    return (total - (n if s else 0)) / (n * (n - 1))


def _to_nearest(unit: Tensor) -> Tensor:
    """Return each row's difference to the other row of largest cosine (b, n, d)."""
    with torch.no_grad():
        nearest = (unit @ unit.mT - 4 * torch.eye(unit.shape[1], dtype=unit.dtype)).argmax(2)
    return unit - unit.gather(1, nearest[..., None].expand_as(unit))


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "mma": mma,
    "cosine": cosine,
    "riesz": lambda unit: energy(unit, EXPONENT),
    "log": lambda unit: energy(unit, 0.0),
}


def loss_function(name: str) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the function from weights (b, n, d) to losses (b,) float64 and gradients (b, n, d)."""
    if name not in LOSSES:
        raise ValueError(f"loss is '{name}', but must be one of {', '.join(LOSSES)}.")

    def terms(weight: Tensor) -> tuple[Tensor, Tensor]:
        weight = weight.detach().requires_grad_()
        value = LOSSES[name](F.normalize(weight, dim=-1))
        (gradient,) = torch.autograd.grad(value.sum(), weight)
        return value.detach(), gradient

    return terms
