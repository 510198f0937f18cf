"""Uniformity: how far samples are from spread evenly over the sphere.

Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity
on the Hypersphere", ICML 2020. The diversity loss replaces its pairs of samples by pairs of a
sample and a class centre.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from arcface_plus.losses.directions import unit_directions


def uniformity_loss(embeddings: Tensor, t: float = 2.0) -> Tensor:
    """Return log of the mean of exp(−t·‖x̂ − ŷ‖²) over the pairs of ``embeddings`` (N, D), N ≥ 2.

    Between −4t and 0; the lower the more uniform. t = 2 is the usual choice. Makes N(N−1)/2
    distances, the reason why it wants large batches and much memory.

    Raises ValueError for shapes that do not fit, or t that is not positive.
    """
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise ValueError(
            f"embeddings must be (N, D) with at least two samples, got {tuple(embeddings.shape)}."
        )
    if not t > 0:
        raise ValueError(f"t is {t}, but must be positive.")
    # pdist takes differences, so that near-coincident samples keep their digits.
    distance = torch.nn.functional.pdist(unit_directions(embeddings))
    return (-t * distance.square()).logsumexp(dim=0) - math.log(len(distance))
