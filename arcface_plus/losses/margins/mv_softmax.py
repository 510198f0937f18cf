"""MV-Softmax: negatives that beat the penalised target weigh more.

Wang et al., "Mis-classified Vector Guided Softmax Loss for Face Recognition", AAAI 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from arcface_plus.losses.margins.base import MarginLoss, Samples
from arcface_plus.losses.margins.family import (
    Extension,
    check_angle,
    check_extension,
    margin_cosine,
)
from arcface_plus.losses.softmax import HardNegatives, OtherLogits
from arcface_plus.settings import STRICT, NotNegative, Scale, Warmup

Base = Literal["am", "arc"]
Weighting = Literal["adaptive", "fixed"]


@dataclass(frozen=True, config=STRICT)
class MVSoftmax(MarginLoss):
    """MV-AM-Softmax (``base`` am: cosθ − m) or MV-Arc-Softmax (arc: cos(θ + m), m in radians).

    ``t`` raises hard negatives: by t in the ``fixed`` weighting, to (t + 1)·cosθ_j + t in the
    ``adaptive`` one. ``extension``: ``easy`` (the published code's) leaves the target without
    margin where cosθ ≤ 0; see :class:`.family.Margin` for the others, of which
    ``am`` knows ``raw``, plain cosθ − m. Which negatives are hard is decided without extension.
    """

    base: Base = Field(default="am", description="cosθ − m, or cos(θ + m)")
    m: NotNegative = Field(default=0.35, description="the margin; radians with base: arc")
    t: NotNegative = Field(default=0.2, description="how much hard negatives are raised")
    s: Scale = 32.0
    weighting: Weighting = Field(
        default="adaptive",
        description="fixed: hard negatives rise by t alone",
    )
    extension: Extension = "easy"
    warmup_steps: Warmup = Field(default=0, kw_only=True)
    kind: Literal["mv_softmax"] = Field(default="mv_softmax", kw_only=True, repr=False)
    margins: ClassVar[Mapping[str, float]] = {"m": 0.0}
    informed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.base == "arc":
            check_angle(self, self.m)
        else:
            check_extension(self, "easy", "raw")

    def target_logit(self, cosine: Tensor, samples: Samples) -> Tensor:
        if self.base == "arc":
            return self.s * margin_cosine(cosine, self.m, extension=self.extension)
        penalised = cosine - self.m
        if self.extension == "easy":
            penalised = torch.where(cosine > 0, penalised, cosine)
        return self.s * penalised

    def others(self, samples: Samples) -> OtherLogits:
        assert samples.own_cosine is not None
        threshold = mv_threshold(samples.own_cosine, self)
        return OtherLogits(scale=self.s, hard=mv_negatives(threshold, self.t, self.weighting))


def mv_threshold(own_cosine: Tensor, settings: MVSoftmax) -> Tensor:
    """Return the cosine (B,) above which another class is hard (I_j = 1 in the paper).

    cosθ_y − m or cos(θ_y + m), as they stand before any extension.
    """
    if settings.base == "am":
        return own_cosine - settings.m
    return margin_cosine(own_cosine, settings.m, extension="raw")


def mv_negatives(threshold: Tensor, t: float, weighting: Weighting) -> HardNegatives:
    """Return what a hard negative's cosine becomes: weight h = e^{s·t} or e^{s·t·(cosθ_j + 1)}.

    In logits: cosθ_j + t (fixed), (t + 1)·cosθ_j + t (adaptive).
    """
    return HardNegatives(threshold, slope=1.0 if weighting == "fixed" else t + 1, shift=t)
