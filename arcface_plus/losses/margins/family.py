"""The margin family: the target class's logit as a function of its cosine.

f(θ) = s·(m0·cos(m1·θ + m2) − m3). ArcFace is m2 (Deng et al., CVPR 2019, eq. 3), CosFace m3,
SphereFace m1, AmpFace m0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from arcface_plus.losses.margins.base import MarginLoss, Samples
from arcface_plus.losses.softmax import OtherLogits
from arcface_plus.settings import STRICT, Angle, Number, PositiveNumber, Scale, Warmup

Extension = Annotated[
    Literal["raw", "hard", "easy", "clamp", "piecewise"],
    Field(description="what becomes of angles that the margin takes past π"),
]
Gradient = Annotated[
    Literal["true", "straight_through"],
    Field(description="straight_through: that of some other trainers"),
]


@dataclass(frozen=True, config=STRICT)
class Margin(MarginLoss):
    """Parameters of the family and what happens where m1·θ + m2 passes π.

    ``extension``: beyond that angle ``raw`` goes on with the cosine, which rises again; ``hard``
    falls on as cosθ − m2·sin m2 (m1 = 1; as CurricularFace's published code) or, for m1 ≠ 1, as
    cosθ shifted to be continuous; ``clamp`` holds −1; ``piecewise`` is SphereFace's
    (−1)^k·cos φ − 2k. ``easy`` applies the margins, all four, only where cosθ > 0.
    ``gradient``: ``true`` differentiates the value; ``straight_through`` sets ∂logit/∂cosθ = s, as
    other trainers do.
    ``wc_relu`` replaces cosθ of the other classes by max(0, cosθ).
    """

    m0: PositiveNumber = Field(default=1.0, description="multiplies the cosine")
    m1: PositiveNumber = Field(default=1.0, description="multiplies the angle")
    m2: Angle = Field(default=0.5, description="added to the angle, radians")
    m3: Number = Field(default=0.0, description="taken off the cosine")
    s: Scale = 64.0
    extension: Extension = "hard"
    gradient: Gradient = "true"
    wc_relu: bool = Field(default=False, description="other classes: max(0, cosine)")
    warmup_steps: Warmup = 0
    margins: ClassVar[Mapping[str, float]] = {"m0": 1.0, "m1": 1.0, "m2": 0.0, "m3": 0.0}

    @property
    def is_angular(self) -> bool:
        """Whether the angle itself is changed (m1 or m2), so that an arc cosine is needed."""
        return self.m1 != 1.0 or self.m2 != 0.0

    def target_logit(self, cosine: Tensor, samples: Samples | None = None) -> Tensor:
        return target_logit(cosine, self)

    def others(self, samples: Samples | None = None) -> OtherLogits:
        return OtherLogits(scale=self.s, relu=self.wc_relu)


def check_extension(settings: Any, *allowed: Extension) -> None:
    """Raise ValueError where ``settings.extension`` is not one of those its base knows."""
    if settings.extension not in allowed:
        raise ValueError(
            f"{type(settings).__name__}.extension is {settings.extension!r}, but with base "
            f"{settings.base} it must be {' or '.join(allowed)}."
        )


def check_angle(settings: Any, m: float) -> None:
    """Raise ValueError where ``m`` of ``settings`` is no angle from 0 to π/2 radians."""
    if not 0 <= m <= math.pi / 2:
        raise ValueError(f"{type(settings).__name__}.m is {m}, but must lie in 0 to π/2 (radians).")


def target_logit(cosine: Tensor, margin: Margin) -> Tensor:
    """Return s·(m0·ψ(θ) − m3) for target cosines of any shape; see :class:`Margin` for ψ.

    cosθ is clamped to ±(1 − 1e-7) in float32 (±(1 − 1e-15) in float64), where arccos stays
    differentiable; the gradient is zero outside and finite everywhere.
    """
    shifted = cosine
    if margin.is_angular:
        shifted = margin_cosine(cosine, margin.m2, m1=margin.m1, extension=margin.extension)
    value = margin.m0 * shifted - margin.m3
    if margin.extension == "easy":
        value = torch.where(cosine > 0, value, cosine)
    value = margin.s * value
    if margin.gradient == "straight_through":
        return value.detach() + margin.s * (cosine - cosine.detach())
    return value


def angle_of(cosine: Tensor) -> Tensor:
    """Return θ for cosines of any shape, with a finite gradient, zero at and beyond ±1."""
    limit = 1 - (1e-15 if cosine.dtype == torch.float64 else 1e-7)
    return torch.acos(cosine.clamp(-limit, limit))


def margin_cosine(
    cosine: Tensor, m2: float | Tensor, *, m1: float = 1.0, extension: Extension = "hard"
) -> Tensor:
    """Return cos(m1·θ + m2), extended past π as :class:`Margin` says; ``m2`` may be a number each.

    At cosines up to 0, ``easy`` is the cosine itself.
    """
    phi = m1 * angle_of(cosine) + m2
    shifted = torch.cos(phi)
    if extension == "raw":
        return shifted
    if extension == "easy":
        return torch.where(cosine > 0, shifted, cosine)
    if extension == "piecewise":
        k = torch.floor(phi.detach() / math.pi)
        return (1 - 2 * (k % 2)) * shifted - 2 * k
    if extension == "clamp":
        return torch.where(phi <= math.pi, shifted, torch.full_like(shifted, -1.0))
    if m1 == 1.0:
        sine = torch.sin(m2) if isinstance(m2, Tensor) else math.sin(m2)
        return torch.where(phi <= math.pi, shifted, cosine - m2 * sine)
    turning = (math.pi - m2) / m1
    at_turning = torch.cos(turning) if isinstance(turning, Tensor) else math.cos(turning)
    return torch.where(phi <= math.pi, shifted, cosine - at_turning - 1)


def other_cosine(cosine: Tensor, margin: Margin) -> Tensor:
    """Return what replaces cosθ_j of the classes j ≠ y: itself, or max(0, cosθ_j)."""
    return cosine.clamp_min(0) if margin.wc_relu else cosine


def margin_logits(cosine: Tensor, labels: Tensor, margin: Margin) -> Tensor:
    """Return the logits (B, C) of cosines (B, C) and labels (B,) in one dense matrix.

    The classifier head never builds it; this is the definition it is tested against.
    """
    if cosine.ndim != 2 or labels.shape != cosine.shape[:1]:
        raise ValueError(
            f"margin_logits needs cosines (B, C) and labels (B,), got {tuple(cosine.shape)} and "
            f"{tuple(labels.shape)}."
        )
    target = target_logit(cosine.gather(1, labels[:, None]).squeeze(1), margin)
    others = margin.s * other_cosine(cosine, margin)
    return others.scatter(1, labels[:, None], target[:, None])
