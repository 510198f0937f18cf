"""Which classes take part in an optimizer step (Partial FC, An et al., 2022).

A class takes part iff it is positive in the step's global batch or its hash of (seed, step, class)
falls below the rate: a rule that no number of ranks changes. What every class is due in every step,
such as the pull of MMA, a drawn class gets for the steps in which it was not drawn too.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def class_draws(seed: int, step: int, lo: int, hi: int, device: torch.device) -> Tensor:
    """Return one uniform number in [0, 1) for each class lo…hi−1, float32, from (seed, step,
    class).

    SplitMix64's finaliser, in int64 arithmetic that wraps alike on every device.
    """
    key = _splitmix(_splitmix(seed) ^ step)
    x = torch.arange(lo, hi, dtype=torch.int64, device=device)
    x = x * _signed(0x9E3779B97F4A7C15) + _signed(key)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    x = x ^ _shift(x, 31)
    return _shift(x, 40).to(torch.float32) * 2.0**-24


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right without copying the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >= 1 << 63 else value


def _splitmix(value: int) -> int:
    z = (value + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def sampled_rows(
    positives: Tensor, *, rate: float, seed: int, step: int, lo: int, hi: int
) -> Tensor:
    """Return the rows (of the shard lo…hi−1) that take part, ascending, int64.

    ``positives`` are the labels of the whole step (all ranks, all micro-batches).
    """
    device = positives.device
    taking_part = class_draws(seed, step, lo, hi, device) < rate
    mine = positives[(positives >= lo) & (positives < hi)] - lo
    taking_part[mine] = True
    return taking_part.nonzero().squeeze(1)


def full_share(rows: Tensor, positives: Tensor, *, rate: float, lo: int) -> Tensor:
    """Return what to multiply the gradient of ``rows`` (p,) by, (p,) float64, so that a class gets
    on average what it would get if all took part in every step.

    1 for a class of ``positives``, which was sure to take part; 1/rate for one that was drawn.
    """
    ordered = positives.sort().values
    at = torch.searchsorted(ordered, rows + lo).clamp_max(len(ordered) - 1)
    share = torch.full_like(rows, 1.0 / rate, dtype=torch.float64)
    return share.masked_fill(ordered[at] == rows + lo, 1.0)
