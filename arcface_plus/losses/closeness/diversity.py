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


def diversity_of_cosines(
    cosine: Tensor, scale: float = 64.0, weights: Tensor | None = None
) -> Tensor:
    """Return mean_x log mean_w exp(T·cos²θ_{x,w}) of ``cosine`` (H, P), H and P ≥ 1.

    ``weights`` (H,) ≥ 0, ours ([R]), weigh the samples. Raises ValueError for shapes that do not
    fit.
    """
    if cosine.ndim != 2 or 0 in cosine.shape:
        raise ValueError(
            f"cosine must be (H, P), a sample and a centre at least, got {tuple(cosine.shape)}."
        )
    per_sample = truncated_similarity(cosine, scale).logsumexp(dim=1) - math.log(cosine.shape[1])
    return weighted_mean(per_sample, weights)


def diversity_loss(
    embeddings: Tensor, centres: Tensor, scale: float = 64.0, weights: Tensor | None = None
) -> Tensor:
    """Return the diversity loss of ``embeddings`` (H, D) against ``centres`` (P, D), of any norms.

    With p = softmax_w(T cos²θ_w) the gradient is ∂L/∂x̂ = Σ_w p_w·2T cosθ_w·ŵ, then through x/‖x‖;
    the centres are constants. Raises ValueError for shapes that do not fit.
    """
    _check(embeddings, centres)
    return diversity_of_cosines(_cosines(embeddings, centres), scale, weights)


def sharded_diversity_loss(
    embeddings: Tensor,
    centres: Tensor,
    total: int,
    scale: float = 64.0,
    weights: Tensor | None = None,
    *,
    group: Group = None,
) -> Tensor:
    """Return ``diversity_loss`` where each rank has only its own ``centres`` (P_r, D), P_r ≥ 0.

    ``embeddings`` (H, D) and ``weights`` (H,) are equal on all ranks, as is the value; ``total`` is
    P. The gradient that reaches ``embeddings`` is that of this rank's centres: their sum over ranks
    is the whole, which is what ``gather_rows`` makes in backward.
    """
    _check(embeddings, centres)
    if total < 1:
        raise ValueError(f"total is {total}, but the ranks must have a centre between them.")
    if len(centres):
        mine = truncated_similarity(_cosines(embeddings, centres), scale).logsumexp(dim=1)
    else:
        mine = 0 * unit_directions(embeddings).sum(dim=1) - torch.inf
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


def _cosines(embeddings: Tensor, centres: Tensor) -> Tensor:
    unit = unit_directions(embeddings)
    return unit @ unit_directions(centres.detach()).to(unit.dtype).t()


def _check(embeddings: Tensor, centres: Tensor) -> None:
    if (
        embeddings.ndim != 2
        or centres.ndim != 2
        or embeddings.shape[1] != centres.shape[1]
        or not len(embeddings)
    ):
        raise ValueError(
            "embeddings must be (H, D), at least one, and centres (P, D) of the same D, got "
            f"{tuple(embeddings.shape)} and {tuple(centres.shape)}."
        )
