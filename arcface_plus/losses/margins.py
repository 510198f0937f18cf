"""The margin family: the target class's logit as a function of its cosine.

f(θ) = s·(m0·cos(m1·θ + m2) − m3). ArcFace is m2 (Deng et al., CVPR 2019, eq. 3), CosFace m3,
SphereFace m1, AmpFace m0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Extension = Literal["raw", "hard", "easy", "clamp", "piecewise"]
Gradient = Literal["true", "straight_through"]


@dataclass(frozen=True)
class Margin:
    """Parameters of the family and what happens where m1·θ + m2 passes π.

    ``extension``: beyond that angle ``raw`` goes on with the cosine, which rises again; ``hard``
    falls on as cosθ − m2·sin m2 (m1 = 1; as insightface's MXNet trainer) or, for m1 ≠ 1, as cosθ
    shifted to be continuous; ``easy`` applies the margin only where cosθ > 0; ``clamp`` holds −1;
    ``piecewise`` is SphereFace's (−1)^k·cos φ − 2k.
    ``gradient``: ``true`` differentiates the value; ``straight_through`` sets ∂logit/∂cosθ = s, as
    other trainers do.
    ``wc_relu`` replaces cosθ of the other classes by max(0, cosθ).
    """

    m0: float = 1.0
    m1: float = 1.0
    m2: float = 0.5
    m3: float = 0.0
    s: float = 64.0
    extension: Extension = "hard"
    gradient: Gradient = "true"
    wc_relu: bool = False

    def __post_init__(self) -> None:
        for name in ("m0", "m1", "s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Margin.{name} is {getattr(self, name)}, but must be positive.")
        if not 0 <= self.m2 <= math.pi / 2:
            raise ValueError(f"Margin.m2 is {self.m2}, but must lie in 0 to π/2 (radians).")
        if not math.isfinite(self.m3):
            raise ValueError(f"Margin.m3 is {self.m3}, but must be finite.")
        if self.extension not in ("raw", "hard", "easy", "clamp", "piecewise"):
            raise ValueError(
                f"Margin.extension is {self.extension!r}; use raw, hard, easy, clamp or piecewise."
            )
        if self.gradient not in ("true", "straight_through"):
            raise ValueError(f"Margin.gradient is {self.gradient!r}; use true or straight_through.")

    @property
    def is_angular(self) -> bool:
        """Whether the angle itself is changed (m1 or m2), so that an arc cosine is needed."""
        return self.m1 != 1.0 or self.m2 != 0.0


def target_logit(cosine: Tensor, margin: Margin) -> Tensor:
    """Return s·(m0·ψ(θ) − m3) for target cosines of any shape; see :class:`Margin` for ψ.

    cosθ is clamped to ±(1 − 1e-7) in float32 (±(1 − 1e-15) in float64), where arccos stays
    differentiable; the gradient is zero outside and finite everywhere.
    """
    value = margin.s * (margin.m0 * _penalised_cosine(cosine, margin) - margin.m3)
    if margin.gradient == "straight_through":
        return value.detach() + margin.s * (cosine - cosine.detach())
    return value


def _penalised_cosine(cosine: Tensor, margin: Margin) -> Tensor:
    if not margin.is_angular:
        return cosine
    limit = 1 - (1e-15 if cosine.dtype == torch.float64 else 1e-7)
    clamped = cosine.clamp(-limit, limit)
    phi = margin.m1 * torch.acos(clamped) + margin.m2
    penalised = torch.cos(phi)
    if margin.extension == "raw":
        return penalised
    if margin.extension == "easy":
        return torch.where(cosine > 0, penalised, cosine)
    if margin.extension == "piecewise":
        k = torch.floor(phi.detach() / math.pi)
        return (1 - 2 * (k % 2)) * penalised - 2 * k
    if margin.extension == "clamp":
        return torch.where(phi <= math.pi, penalised, torch.full_like(penalised, -1.0))
    if margin.m1 == 1.0:
        return torch.where(phi <= math.pi, penalised, cosine - margin.m2 * math.sin(margin.m2))
    turning = math.cos((math.pi - margin.m2) / margin.m1) if margin.m1 > 0 else -1.0
    return torch.where(phi <= math.pi, penalised, cosine - turning - 1)


def other_cosine(cosine: Tensor, margin: Margin) -> Tensor:
    """Return what stands for cosθ_j of the classes j ≠ y: itself, or max(0, cosθ_j)."""
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
