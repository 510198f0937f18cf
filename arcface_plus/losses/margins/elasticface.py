"""ElasticFace: a margin drawn anew for every sample of every step.

Boutros et al., "ElasticFace: Elastic Margin Loss for Deep Face Recognition", CVPR Workshops 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from arcface_plus.losses.margins.base import (
    MarginLoss,
    Samples,
    require_angle,
    require_at_least_zero,
    require_one_of,
    require_positive,
)
from arcface_plus.losses.margins.family import (
    EXTENSIONS,
    Extension,
    margin_cosine,
)

Base = Literal["arc", "cos"]
Order = Literal["drawn", "rank", "argsort"]
_STREAM = 0xE1A5  # keeps these draws apart from others of the same seed


@dataclass(frozen=True)
class ElasticFace(MarginLoss):
    """ElasticFace-Arc (``base`` arc: cos(θ + m), radians) or -Cos (cos: cosθ − m), m ~ N(m̄, σ).

    ``m`` is m̄ and ``std`` σ. ``order``: which sample has which of the batch's margins. ``drawn`` as
    they come; ``rank`` is ElasticFace+ as its text means it, the lowest own cosine has the largest
    margin; ``argsort`` is what the published code of ElasticFace+ does instead (it indexes the
    sorted margins with the argsort, which is another permutation). The two sort a micro-batch, of
    all ranks together. ``extension`` (arc): the published code goes on ``raw``.
    """

    base: Base = "arc"
    m: float = 0.5
    std: float = 0.05
    s: float = 64.0
    order: Order = "drawn"
    extension: Extension = "raw"
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_one_of(self, "base", get_args(Base))
        require_one_of(self, "order", get_args(Order))
        require_positive(self, "s")
        require_at_least_zero(self, "m", "std")
        require_one_of(self, "extension", EXTENSIONS if self.base == "arc" else ("raw",))
        if self.base == "arc":
            require_angle(self, "m")

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
    key = np.array([seed ^ (_STREAM << 32), step], dtype=np.uint64)
    count = int(positions.max(initial=-1)) + 1
    drawn = np.random.Generator(np.random.Philox(key=key)).standard_normal(count, dtype=np.float32)
    return drawn[positions]


def in_order(margins: Tensor, own_cosine: Tensor, order: Order) -> Tensor:
    """Return the margins (B,) dealt out by own cosine (B,); see :class:`ElasticFace`."""
    falling = torch.argsort(own_cosine, descending=True, stable=True)
    ascending = margins.sort().values
    if order == "argsort":
        return ascending[falling]
    return torch.empty_like(margins).index_copy_(0, falling, ascending)
