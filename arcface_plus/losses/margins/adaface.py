"""AdaFace: the margin leans on hard samples of good images and spares those of bad ones.

Kim et al., "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022. The norm of the
embedding stands for image quality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arcface_plus.losses.margins.base import (
    MarginLoss,
    Samples,
    require_angle,
    require_positive,
    require_share,
)
from arcface_plus.losses.margins.family import angle_of

# Norms are held in this range before they count, as the published code holds them.
_NORMS = (0.001, 100.0)


@dataclass(frozen=True)
class AdaFace(MarginLoss):
    """Target cos(θ − m·ẑ) − (m + m·ẑ), ẑ the norm in units of its deviation, held in [−1, 1].

    ``h`` is the share of a deviation that counts as 1. ``momentum`` of the running mean and
    deviation of the norms (from ``start_mean``, ``start_deviation``) is kept each step; 0.99 is
    what the published command line's t_alpha 0.01 says. ``eps`` keeps θ and the division off zero.
    """

    m: float = 0.4
    h: float = 0.333
    s: float = 64.0
    momentum: float = 0.99
    eps: float = 1e-3
    start_mean: float = 20.0
    start_deviation: float = 100.0
    uses_norm: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_angle(self, "m")
        require_positive(self, "h", "s", "eps", "start_mean", "start_deviation")
        require_share(self, "momentum")
        if self.eps > 0.1:
            raise ValueError(f"AdaFace.eps is {self.eps}, but must be small, at most 0.1.")

    def initial_state(self) -> dict[str, float]:
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
