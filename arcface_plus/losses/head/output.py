"""What the classifier head returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from arcface_plus.distributed import Group, sum_over_ranks
from arcface_plus.losses.margins.base import MarginLoss


@dataclass(frozen=True)
class HeadOutput:
    """What one forward pass of the head returns; all numbers are the same on every rank.

    ``loss`` () is what to differentiate: ``classification`` + λ·``mma``, and the margin's weight
    times ``norm_penalty`` () where it has one (MagFace's mean g). ``mma`` () is −(mean angle from
    each class weight to its nearest other, radians), or None where it was not computed.
    ``target_cosine`` (B,) is each sample's cosine to its own class, ``embedding_norm`` (B,) the
    norm of its embedding, ``quality`` (B,) the same where the margin makes that a measure of
    quality (MagFace, AdaFace). ``measured``: what was added to the loss besides, () each, by name.
    """

    loss: Tensor
    classification: Tensor
    mma: Tensor | None
    target_cosine: Tensor
    embedding_norm: Tensor
    norm_penalty: Tensor | None = None
    quality: Tensor | None = None
    measured: Mapping[str, Tensor] = field(default_factory=dict)


def with_norms(
    output: HeadOutput,
    margin: MarginLoss,
    norm: Tensor,
    mine: Tensor,
    total: int,
    *,
    group: Group,
) -> HeadOutput:
    """Add the norms (B,) of the embeddings, as their quality, and the margin's penalty on them.

    ``mine`` (B,): whether this rank holds a sample's class. ``total``: samples of the step.
    """
    output = replace(output, quality=norm.detach())
    each = margin.norm_penalty(norm)
    if each is None or not margin.norm_penalty_weight:
        return output
    # Every rank has every norm: the one that holds the sample's class counts it.
    penalty = sum_over_ranks(torch.where(mine, each, 0).sum() / total, group)
    loss = output.loss + margin.norm_penalty_weight * penalty
    return replace(output, loss=loss, norm_penalty=penalty)
