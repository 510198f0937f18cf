"""Closeness: draw the easy samples of a class together.

From Zhao et al., "Emphasizing Closeness and Diversity Simultaneously for Deep Face Representation",
ACCV 2022, as its authors' published training code computes it; the equation in the paper's main
text was not read.

Shapes: K classes, E samples of each, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arcface_plus.losses.directions import unit_directions


def closeness_loss(embeddings: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of ‖x̂_i − x̂_j‖² over classes and their E(E−1)/2 pairs, 2 − 2·mean cos.

    ``embeddings`` (K, E, D), of any norm, E ≥ 2. ``weights`` (K, E) ≥ 0, ours ([R], no part of the
    published loss), make that Σ w_i w_j ‖x̂_i − x̂_j‖² / Σ w_i w_j over the same pairs: a class with
    more weight counts more, and equal weights give the plain mean. The loss is 0 where no pair has
    weight. No gradient reaches the weights.

    Raises ValueError for shapes that do not fit.
    """
    if embeddings.ndim != 3 or embeddings.shape[0] < 1 or embeddings.shape[1] < 2:
        raise ValueError(
            f"embeddings must be (K, E, D) with at least one class and two samples of each, got "
            f"{tuple(embeddings.shape)}."
        )
    unit = unit_directions(embeddings)
    if weights is None:
        # Σ_{i<j} ‖x_i − x_j‖² = E·Σ_i ‖x_i − mean‖²: no pairs are made, and near-coincident
        # samples keep the digits that 2 − 2cos would lose.
        spread = (unit - unit.mean(dim=1, keepdim=True)).square().sum()
        return spread * (2 / ((unit.shape[1] - 1) * unit.shape[0]))
    if weights.shape != embeddings.shape[:2]:
        raise ValueError(
            f"weights must be {tuple(embeddings.shape[:2])} like the samples, got "
            f"{tuple(weights.shape)}."
        )
    w = weights.detach().to(unit.dtype)
    total = w.sum(dim=1, keepdim=True)
    mean = (w[..., None] * unit).sum(dim=1, keepdim=True) / _or_one(total)[..., None]
    spread = (total * w * (unit - mean).square().sum(dim=2)).sum()
    pairs = (w * (total - w)).sum() / 2
    return torch.where(pairs > 0, spread / _or_one(pairs), spread * 0)


def _or_one(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 1)
