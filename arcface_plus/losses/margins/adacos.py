"""AdaCos: no margin, and a scale that the number of classes, or the batch, sets by itself.

Zhang et al., "AdaCos: Adaptively Scaling Cosine Logits for Effectively Learning Deep Face
Representations", CVPR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from arcface_plus.losses.margins.base import MarginLoss, Samples
from arcface_plus.losses.margins.family import angle_of
from arcface_plus.losses.softmax import OtherLogits
from arcface_plus.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class AdaCos(MarginLoss):
    """Softmax of s·cosθ, s = √2·log(C − 1) of the C classes that take part in a step, eq. (9).

    ``dynamic``: from there on s = log(mean Σ_{j≠y} e^{s·cosθ_j}) / cos(min(π/4, median θ_y)), eq.
    (15), from the batch at hand and the s before it; otherwise it stays. s has no gradient. A batch
    that gives no s above 0 leaves it as it is.
    """

    dynamic: bool = Field(default=True, description="s follows the batches; false: s is fixed")
    kind: Literal["adacos"] = Field(default="adacos", kw_only=True, repr=False)

    @property
    def informed(self) -> bool:  # type: ignore[override]
        return self.dynamic

    @property
    def surveys(self) -> bool:  # type: ignore[override]
        return self.dynamic

    def initial_state(self, num_classes: int, sample_rate: float) -> dict[str, float]:
        taking_part = round(sample_rate * num_classes)
        if taking_part < 3:
            raise ValueError(
                f"adacos makes its scale of log(C − 1), but {taking_part} of {num_classes} classes "
                "take part in a step; at least 3 must: use another loss, or a larger sample_rate"
            )
        return {"s": math.sqrt(2) * math.log(taking_part - 1)}

    def observed(self, samples: Samples) -> Tensor | None:
        if not self.dynamic:
            return None
        assert samples.own_cosine is not None and samples.rivals is not None
        return torch.stack([samples.rivals, angle_of(samples.own_cosine)], dim=1)

    def after_step(self, state: Mapping[str, Tensor], numbers: Tensor) -> dict[str, Tensor]:
        rivals, angles = numbers.unbind(dim=1)
        log_mean = rivals.logsumexp(dim=0) - math.log(len(rivals))
        s = (log_mean / angles.median().clamp_max(math.pi / 4).cos()).to(state["s"].dtype)
        return {"s": torch.where(s > 0, s, state["s"])}

    def target_logit(self, cosine: Tensor, samples: Samples) -> Tensor:
        return samples.state["s"] * cosine

    def others(self, samples: Samples) -> OtherLogits:
        return OtherLogits(scale=samples.state["s"])
