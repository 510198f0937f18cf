"""Diversity: push hard samples away from the centres of similar other classes.

From Zhao et al., "Emphasizing Closeness and Diversity Simultaneously for Deep Face Representation",
ACCV 2022. The truncated scale is eq. (2) of its supplement, the gradient of one pair eq. (1). That
the centres are averaged inside the logarithm is how its authors' published code computes the loss;
the printed form of its Eq. (7) was not read and is reconstructed, [R].

Shapes: H samples, P centres (P_r of them in this rank's shard), D dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from arcface_plus.distributed import Group, logsumexp_over_ranks
from arcface_plus.losses.directions import unit_directions


def truncated_similarity(cosine: Tensor, scale: float = 64.0) -> Tensor:
    """Return T·cos²θ of ``cosine`` (…), with T = ``scale`` where cosθ > 0, else 0: eq. (2)."""
    return cosine.clamp_min(0).square() * scale


def diversity_loss(
    embeddings: Tensor,
    centres: Tensor,
    total: int,
    scale: float = 64.0,
    weights: Tensor | None = None,
    *,
    group: Group = None,
) -> Tensor:
    """Return mean_x log mean_w exp(T·cos²θ_{x,w}) of ``embeddings`` (H, D), of any norm.

    ``centres`` (P_r, D), P_r ≥ 0, are this rank's of the ``total`` P; they are constants.
    ``weights`` (H,) ≥ 0, ours ([R]), weigh the samples. Embeddings and weights are equal on all
    ranks, as is the value. With p = softmax_w(T cos²θ_w) the gradient is
    ∂L/∂x̂ = Σ_w p_w·2T cosθ_w·ŵ, then through x/‖x‖; what reaches ``embeddings`` is the part of
    this rank's centres: the sum over ranks, as ``gather_rows`` makes it in backward, is the whole.

    Raises ValueError for shapes that do not fit.
    """
    shapes = embeddings.ndim, centres.ndim, embeddings.shape[1:]
    if shapes != (2, 2, centres.shape[1:]) or not len(embeddings):
        raise ValueError(
            "embeddings must be (H, D), at least one, and centres (P, D) of the same D, got "
            f"{tuple(embeddings.shape)} and {tuple(centres.shape)}."
        )
    if total < 1:
        raise ValueError(f"total is {total}, but the ranks must have a centre between them.")
    unit = unit_directions(embeddings)
    cosine = unit @ unit_directions(centres.detach()).to(unit.dtype).t()
    mine = truncated_similarity(cosine, scale).logsumexp(dim=1)  # −∞ of no centre
    per_sample = logsumexp_over_ranks(mine, group) - math.log(total)
    return weighted_mean(per_sample, weights)


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return Σ w·v / Σ w of ``values`` (H,), their mean without ``weights``, 0 where all are 0."""
    if weights is None:
        return values.mean()
    if weights.shape != values.shape:
        raise ValueError(
            f"weights must be {tuple(values.shape)}, one a sample, got {tuple(weights.shape)}."
        )
    w = weights.detach().to(values.dtype)
    total = w.sum()
    return (w * values).sum() / torch.where(total > 0, total, 1)
