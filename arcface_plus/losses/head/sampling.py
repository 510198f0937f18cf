"""Which classes take part in an optimizer step (Partial FC, An et al., 2022).

A class takes part iff it is positive in the step's global batch or its hash of (seed, step, class)
falls below the rate: a rule that no number of ranks changes. What every class is due in every step,
such as the pull of MMA, a drawn class gets for the steps in which it was not drawn too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_plus import devices

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


class Sample(NamedTuple):
    """The rows (k,) of a shard that a step looks at, ascending, int64, all different.

    ``taking_part`` (k,) says which of them do. It is None where all do: on the CPU. How many do is
    known to the device alone; so that no host has to ask, a GPU's sample has a fixed size, filled
    up with rows that take no part.
    """

    rows: Tensor
    taking_part: Tensor | None


def sampled_rows(
    positives: Tensor, *, rate: float, seed: int, step: int, lo: int, hi: int
) -> Sample:
    """Return the rows of the shard lo…hi−1 that take part.

    ``positives`` are the labels of the whole step (all ranks, all micro-batches).
    """
    device = positives.device
    taking_part = class_draws(seed, step, lo, hi, device) < rate
    mine = (positives >= lo) & (positives < hi)
    if devices.host_may_look(device):
        taking_part[positives[mine] - lo] = True
        return Sample(taking_part.nonzero().squeeze(1), None)
    # One place more, for the labels of other shards.
    marked = F.pad(taking_part, (0, 1)).index_fill_(0, torch.where(mine, positives, hi) - lo, True)
    return _of_fixed_size(marked[:-1], sample_capacity(hi - lo, rate, len(positives)))


def sample_capacity(classes: int, rate: float, positives: int) -> int:
    """Return how many of ``classes`` take part at most, beside a chance of 2⁻⁶⁴ in a step.

    Bernstein's bound for the classes that are drawn; those with a sample come on top.
    """
    exponent = 64 * math.log(2)
    variance = classes * rate * (1 - rate)
    beyond = exponent / 3 + math.sqrt(exponent**2 / 9 + 2 * exponent * variance)
    return min(classes, math.ceil(classes * rate + beyond) + positives)


def _of_fixed_size(taking_part: Tensor, size: int) -> Sample:
    """Return the rows that take part, and of the others the first ones, ``size`` in all."""
    count = taking_part.sum()
    torch._assert_async(
        count <= size, "Partial FC: more classes were drawn than its sample has places for"
    )
    others = (~taking_part).cumsum(0)  # of the rows up to here
    looked_at = taking_part | (others <= size - count)
    place = torch.where(looked_at, looked_at.cumsum(0) - 1, size)
    rows = torch.arange(len(taking_part), device=taking_part.device)
    picked = rows.new_zeros(size + 1).scatter_(0, place, rows)[:size]
    return Sample(picked, taking_part[picked])


def full_share(rows: Tensor, positives: Tensor, *, rate: float, lo: int) -> Tensor:
    """Return what to multiply the gradient of ``rows`` (p,) by, (p,) float64, so that a class gets
    on average what it would get if all took part in every step.

    1 for a class of ``positives``, which was sure to take part; 1/rate for one that was drawn.
    """
    ordered = positives.sort().values
    at = torch.searchsorted(ordered, rows + lo).clamp_max(len(ordered) - 1)
    share = torch.full_like(rows, 1.0 / rate, dtype=torch.float64)
    return share.masked_fill(ordered[at] == rows + lo, 1.0)
