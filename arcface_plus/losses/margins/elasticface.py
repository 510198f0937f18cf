"""ElasticFace: a margin drawn anew for every sample of every step.

Boutros et al., "ElasticFace: Elastic Margin Loss for Deep Face Recognition", CVPR Workshops 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
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
from arcface_plus.randomness import margin_generator
from arcface_plus.settings import STRICT, NotNegative, Scale, Warmup

Base = Literal["arc", "cos"]
Order = Literal["drawn", "rank", "argsort"]


@dataclass(frozen=True, config=STRICT)
class ElasticFace(MarginLoss):
    """ElasticFace-Arc (``base`` arc: cos(θ + m), radians) or -Cos (cos: cosθ − m), m ~ N(m̄, σ).

    ``m`` is m̄ and ``std`` σ. ``order``: which sample has which of the batch's margins. ``drawn`` as
    they come; ``rank`` is ElasticFace+ as its text means it, the lowest own cosine has the largest
    margin; ``argsort`` is what the published code of ElasticFace+ does instead (it indexes the
    sorted margins with the argsort, which is another permutation). The two sort a micro-batch, of
    all ranks together. ``extension`` (arc): the published code goes on ``raw``.
    """

    base: Base = Field(default="arc", description="cos(θ + m), or cosθ − m")
    m: NotNegative = Field(default=0.5, description="mean of the drawn margins")
    std: NotNegative = Field(default=0.05, description="their deviation")
    s: Scale = 64.0
    order: Order = Field(
        default="drawn",
        description="rank: ElasticFace+, the lowest cosine has the largest margin; argsort: its "
        "published code",
    )
    extension: Extension = "raw"
    warmup_steps: Warmup = Field(default=0, kw_only=True)
    kind: Literal["elasticface"] = Field(default="elasticface", kw_only=True, repr=False)
    margins: ClassVar[Mapping[str, float]] = {"m": 0.0, "std": 0.0}
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.base == "arc":
            check_angle(self, self.m)
        else:
            check_extension(self, "raw")

    @property
    def informed(self) -> bool:  # type: ignore[override]
        return self.order != "drawn"

    def target_logit(self, cosine: Tensor, samples: Samples) -> Tensor:
        assert samples.draws is not None
        m = self.m + self.std * samples.draws.to(cosine.dtype)
        if self.order != "drawn":
            assert samples.own_cosine is not None
            m = in_order(m, samples.own_cosine, self.order)
        if self.base == "arc":
            return self.s * margin_cosine(cosine, m, extension=self.extension)
        return self.s * (cosine - m)


def normal_draws(seed: int, step: int, positions: np.ndarray) -> np.ndarray:
    """Return a standard normal number (float32) for each position in a step's global batch.

    NumPy's Philox keyed by (seed, step): sample k of a step has the same number at any world size.
    """
    count = int(positions.max(initial=-1)) + 1
    drawn = margin_generator(seed, step).standard_normal(count, dtype=np.float32)
    return drawn[positions]


def in_order(margins: Tensor, own_cosine: Tensor, order: Order) -> Tensor:
    """Return the margins (B,) dealt out by own cosine (B,); see :class:`ElasticFace`."""
    falling = torch.argsort(own_cosine, descending=True, stable=True)
    ascending = margins.sort().values
    if order == "argsort":
        return ascending[falling]
    return torch.empty_like(margins).index_copy_(0, falling, ascending)
