"""The scores that one shard of classes gives the samples of all ranks.

Shapes: B samples of all ranks, C_r classes of this shard (those that take part), K rows (centres) a
class, D dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_plus.losses.margins.base import MarginLoss, Samples
from arcface_plus.losses.softmax import OtherLogits, Sums, shard_scores


class Scores(NamedTuple):
    """A shard's share, (B,) each; a sample whose class is in another shard has 0 for its own.

    ``target`` logit, the sum over ``others``, which is what ``sums`` says, own ``cosine``.
    """

    target: Tensor
    others: Tensor
    cosine: Tensor
    sums: Sums = "logsumexp"


def margin_scores(
    margin: MarginLoss,
    unit: Tensor,
    weight: Tensor,
    row: Tensor,
    samples: Samples,
    *,
    hidden: Tensor | None,
    limit: float | None,
    chunk: int | None,
    centres: int,
) -> Scores:
    """Score unit samples (B, D) against ``weight`` (C_r · K, D) as ``margin`` says.

    ``row`` (B,): each sample's class in ``weight``, or negative. ``hidden`` (C_r,) is −∞ for
    classes that do not count, else 0. ``limit``: see ``OtherLogits``.
    """
    form = margin.others(samples)._replace(limit=limit)
    shift = margin.shift_of_others(samples)
    bias = hidden
    if shift is not None:
        bias = shift.expand(len(weight) // centres) if hidden is None else hidden + shift
    cosine, others = shard_scores(unit, weight, row, form, bias=bias, chunk=chunk, centres=centres)
    target = torch.where(row >= 0, margin.target_logit(cosine, samples), 0)
    return Scores(target, others, cosine, form.sums)


def linear_scores(
    x: Tensor, weight: Tensor, row: Tensor, bias: Tensor | None, *, chunk: int | None
) -> Scores:
    """Score samples (B, D) by w·x + b; ``bias`` (C_r,)."""
    target, others = shard_scores(x, weight, row, OtherLogits(unit=False), bias=bias, chunk=chunk)
    if not len(weight):
        return Scores(target, others, x.new_zeros(len(x)))
    mine = row.clamp_min(0)
    with torch.no_grad():
        lengths = torch.linalg.vector_norm(weight[mine], dim=1) * torch.linalg.vector_norm(x, dim=1)
        cosine = target / lengths.clamp_min(1e-12)
    if bias is not None:
        target = target + torch.where(row >= 0, bias[mine], 0)
    return Scores(target, others, cosine)


@torch.no_grad()
def own_cosines(unit: Tensor, weight: Tensor, row: Tensor, centres: int) -> Tensor:
    """Return each unit sample's cosines (B, K) with its own class, 0 where another shard has it."""
    if not len(weight):
        return unit.new_zeros(len(unit), centres)
    own = weight.unflatten(0, (-1, centres))[row.clamp_min(0)]
    cosines = (unit[:, None] * F.normalize(own, dim=2)).sum(dim=2)
    return torch.where(row[:, None] >= 0, cosines, 0)
