"""UniFace: one learned threshold between all positive and all negative scores.

Zhou et al., "UniFace: Unified Cross-Entropy Loss for Deep Face Recognition", ICCV 2023. The softmax
is replaced by sums of log(1 + e^…): own and other scores are pulled to either side of b.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import softplus

from arcface_plus.losses.margins.base import MarginLoss, Samples
from arcface_plus.losses.softmax import OtherLogits
from arcface_plus.settings import STRICT, NotNegative, Number, PositiveNumber, Scale, Warmup


@dataclass(frozen=True, config=STRICT)
class UniFace(MarginLoss):
    """log(1 + e^{−(s·(cosθ_y − m) − b)}) + negatives·Σ_{j≠y} log(1 + e^{s·cosθ_j − b}).

    ``negatives`` is the paper's l. b is learned and starts at ln(10·r·C), r the share of classes
    that take part in a step: ``rate``, or None for the head's sample_rate.
    """

    m: NotNegative = Field(default=0.4, description="taken off the own class's cosine")
    s: Scale = 64.0
    negatives: PositiveNumber = Field(
        default=1.0, description="weight of the sum over other classes"
    )
    rate: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        default=None, description="r of the first threshold ln(10·r·C); None is sample_rate"
    )
    warmup_steps: Warmup = Field(default=0, kw_only=True)
    kind: Literal["uniface"] = Field(default="uniface", kw_only=True, repr=False)
    margins: ClassVar[Mapping[str, float]] = {"m": 0.0}

    def initial_learned(self, num_classes: int, sample_rate: float) -> dict[str, float]:
        rate = sample_rate if self.rate is None else self.rate
        return {"threshold": first_threshold(num_classes, rate)}

    def target_logit(self, cosine: Tensor, samples: Samples) -> Tensor:
        return self.s * (cosine - self.m) - samples.learned["threshold"]

    def others(self, samples: Samples) -> OtherLogits:
        return OtherLogits(scale=self.s, sums="softplus")

    def shift_of_others(self, samples: Samples) -> Tensor:
        return -samples.learned["threshold"]

    def losses(self, target: Tensor, others: Tensor) -> Tensor:
        return unified_cross_entropy(target, others, self.negatives)


def first_threshold(num_classes: int, rate: float) -> float:
    """Return what b starts from, ln(10·r·C)."""
    return math.log(10 * rate * num_classes)


def unified_cross_entropy(target: Tensor, others: Tensor, negatives: float) -> Tensor:
    """Return the unified cross-entropy log(1 + e^{−target}) + negatives·others, (B,).

    ``target``: s·(cosθ_y − m) − b. ``others``: Σ_{j≠y} log(1 + e^{s·cosθ_j − b}). The published
    code holds both exponents within ±s, which stops their gradient there; this does not.
    """
    return softplus(-target, threshold=50.0) + negatives * others
