"""CurricularFace: hard negatives weigh more as training goes on.

Huang et al., "CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition",
CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from arcface_plus.losses.margins.base import MarginLoss, Samples
from arcface_plus.losses.margins.family import Extension, margin_cosine
from arcface_plus.losses.softmax import HardNegatives, OtherLogits
from arcface_plus.settings import STRICT, Angle, Scale, Share, Warmup


@dataclass(frozen=True, config=STRICT)
class CurricularFace(MarginLoss):
    """Target cos(θ + m); a negative above cos(θ_y + m) counts as cosθ_j·(t + cosθ_j).

    ``t`` is the running average of the mean own cosine, from 0, ``momentum`` of it kept each step
    and updated before use. The published code has momentum 0.99; the paper's α is read as the same.
    """

    m: Angle = 0.5
    s: Scale = 64.0
    momentum: Share = Field(default=0.99, description="share of t kept each step")
    extension: Extension = "hard"
    warmup_steps: Warmup = Field(default=0, kw_only=True)
    kind: Literal["curricularface"] = Field(default="curricularface", kw_only=True, repr=False)
    margins: ClassVar[Mapping[str, float]] = {"m": 0.0}
    informed: ClassVar[bool] = True

    def initial_state(self, num_classes: int, sample_rate: float) -> dict[str, float]:
        return {"t": 0.0}

    def observed(self, samples: Samples) -> Tensor:
        assert samples.own_cosine is not None
        return samples.own_cosine

    def moved(
        self, state: Mapping[str, Tensor], mean: Tensor, deviation: Tensor
    ) -> dict[str, Tensor]:
        return {"t": self.momentum * state["t"] + (1 - self.momentum) * mean}

    def target_logit(self, cosine: Tensor, samples: Samples) -> Tensor:
        return self.s * margin_cosine(cosine, self.m, extension=self.extension)

    def others(self, samples: Samples) -> OtherLogits:
        assert samples.own_cosine is not None
        threshold = margin_cosine(samples.own_cosine, self.m, extension="raw")
        return OtherLogits(scale=self.s, hard=curricular_negatives(threshold, samples.state["t"]))


def curricular_negatives(threshold: Tensor, t: Tensor) -> HardNegatives:
    """Return what hard negatives become: N(t, cosθ_j) = cosθ_j·(t + cosθ_j)."""
    return HardNegatives(threshold, square=1.0, slope=t)
