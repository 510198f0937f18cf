"""MagFace: the norm of an embedding sets its margin and learns to measure quality.

Meng et al., "MagFace: A Universal Representation for Face Recognition and Quality Assessment",
CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from arcface_plus.losses.margins.base import MarginLoss, Samples
from arcface_plus.losses.margins.family import Extension, margin_cosine
from arcface_plus.settings import STRICT, Angle, NotNegative, PositiveNumber, Scale, Warmup


@dataclass(frozen=True, config=STRICT)
class MagFace(MarginLoss):
    """Target cos(θ + m(a)), a = ‖x‖ held in [l_a, u_a], plus ``penalty``·mean g(a).

    m(a) rises linearly from ``l_m`` to ``u_m`` radians; ``penalty`` is λ_g. ``extension`` easy is
    the published code's; see :class:`.family.Margin`.
    """

    l_a: PositiveNumber = Field(default=10.0, description="norm at which the margin is l_m")
    u_a: PositiveNumber = Field(default=110.0, description="norm at which the margin is u_m")
    l_m: Angle = 0.45
    u_m: Angle = 0.8
    s: Scale = 64.0
    penalty: NotNegative = Field(default=35.0, description="λ_g of the mean of 1/a + a/u_a²")
    extension: Extension = "easy"
    warmup_steps: Warmup = Field(default=0, kw_only=True)
    kind: Literal["magface"] = Field(default="magface", kw_only=True, repr=False)
    margins: ClassVar[Mapping[str, float]] = {"l_m": 0.0, "u_m": 0.0}
    uses_norm: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for low, high in (("l_a", "u_a"), ("l_m", "u_m")):
            if not getattr(self, low) < getattr(self, high):
                raise ValueError(
                    f"MagFace.{low} is {getattr(self, low)} and {high} is {getattr(self, high)}, "
                    f"but {low} must be the smaller."
                )

    @property
    def norm_penalty_weight(self) -> float:  # type: ignore[override]
        return self.penalty

    def target_logit(self, cosine: Tensor, samples: Samples) -> Tensor:
        m = magnitude_margin(samples.norm, self)
        return self.s * margin_cosine(cosine, m, extension=self.extension)

    def norm_penalty(self, norm: Tensor) -> Tensor:
        return magnitude_penalty(norm, self)


def magnitude_margin(norm: Tensor, settings: MagFace) -> Tensor:
    """Return m(a) for norms of any shape, linear between the ends; no gradient outside them."""
    slope = (settings.u_m - settings.l_m) / (settings.u_a - settings.l_a)
    return settings.l_m + slope * (norm.clamp(settings.l_a, settings.u_a) - settings.l_a)


def magnitude_penalty(norm: Tensor, settings: MagFace) -> Tensor:
    """Return g(a) = 1/a + a/u_a², which falls up to u_a; no gradient outside the ends."""
    a = norm.clamp(settings.l_a, settings.u_a)
    return 1 / a + a / settings.u_a**2
