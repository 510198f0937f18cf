"""What the classifier head returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class HeadOutput:
    """What one forward pass of the head returns; all numbers are the same on every rank.

    ``loss`` () is what to differentiate: ``classification`` + λ·``mma``, and the margin's weight
    times ``norm_penalty`` () where it has one (MagFace's mean g). ``mma`` () is −(mean angle from
    each class weight to its nearest other, radians), or None where it was not computed.
    ``target_cosine`` (B,) is each sample's cosine to its own class, ``embedding_norm`` (B,) the
    norm of its embedding, ``quality`` (B,) the same where the margin makes that a measure of
    quality (MagFace, AdaFace).
    """

    loss: Tensor
    classification: Tensor
    mma: Tensor | None
    target_cosine: Tensor
    embedding_norm: Tensor
    norm_penalty: Tensor | None = None
    quality: Tensor | None = None
