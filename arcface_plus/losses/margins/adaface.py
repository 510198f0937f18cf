"""AdaFace: the margin leans on hard samples of good images and spares those of bad ones.

Kim et al., "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022. The norm of the
embedding is the measure of image quality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from arcface_plus.losses.margins.base import MarginLoss, Samples
from arcface_plus.losses.margins.family import angle_of
from arcface_plus.settings import STRICT, Angle, Number, PositiveNumber, Scale, Share, Warmup

# Norms are held in this range before they count, as the published code holds them.
_NORMS = (0.001, 100.0)


@dataclass(frozen=True, config=STRICT)
class AdaFace(MarginLoss):
    """Target cos(θ − m·ẑ) − (m + m·ẑ), ẑ the norm in units of its deviation, held in [−1, 1].

    ``h`` is the share of a deviation that counts as 1. ``momentum`` of the running mean and
    deviation of the norms (from ``start_mean``, ``start_deviation``) is kept each step; 0.99 is
    what the published command line's t_alpha 0.01 says. ``eps`` keeps θ and the division off zero.
    """

    m: Angle = 0.4
    h: PositiveNumber = Field(default=0.333, description="share of a deviation that counts as 1")
    s: Scale = 64.0
    momentum: Share = Field(default=0.99, description="share of mean and deviation kept each step")
    eps: Annotated[Number, Field(gt=0, le=0.1, description="added to the deviation")] = 1e-3
    start_mean: PositiveNumber = Field(default=20.0, description="of norms, before the first batch")
    start_deviation: PositiveNumber = Field(
        default=100.0, description="of norms, before the first batch"
    )
    warmup_steps: Warmup = Field(default=0, kw_only=True)
    kind: Literal["adaface"] = Field(default="adaface", kw_only=True, repr=False)
    margins: ClassVar[Mapping[str, float]] = {"m": 0.0}
    uses_norm: ClassVar[bool] = True

    def initial_state(self, num_classes: int, sample_rate: float) -> dict[str, float]:
        return {"mean": self.start_mean, "deviation": self.start_deviation}

    def observed(self, samples: Samples) -> Tensor:
        return samples.norm.detach().clamp(*_NORMS)

    def moved(
        self, state: Mapping[str, Tensor], mean: Tensor, deviation: Tensor
    ) -> dict[str, Tensor]:
        new = {"mean": mean, "deviation": deviation}
        return {k: self.momentum * state[k] + (1 - self.momentum) * new[k] for k in new}

    def target_logit(self, cosine: Tensor, samples: Samples) -> Tensor:
        z = norm_score(samples.norm, samples.state["mean"], samples.state["deviation"], self)
        return self.s * adaptive_cosine(cosine, z, self)


def norm_score(norm: Tensor, mean: Tensor, deviation: Tensor, settings: AdaFace) -> Tensor:
    """Return ẑ = clip(h·(‖x‖ − μ)/(σ + ε), −1, 1) without gradient."""
    norm = norm.detach().clamp(*_NORMS)
    return (settings.h * (norm - mean) / (deviation + settings.eps)).clamp(-1, 1)


def adaptive_cosine(cosine: Tensor, z: Tensor, settings: AdaFace) -> Tensor:
    """Return cos(θ + g_angle) − g_add with g_angle = −m·ẑ and g_add = m·ẑ + m.

    The shifted angle is held in [ε, π − ε]: no gradient outside.
    """
    theta = (angle_of(cosine) - settings.m * z).clamp(settings.eps, math.pi - settings.eps)
    return torch.cos(theta) - (settings.m + settings.m * z)
