"""What the classification nets have in common: their features, and how their weights begin.

Such a net ends at the features that its one linear layer would read; that layer is the trainer's
classifier. So ``embedding_dim`` is not a choice but a property of the net.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor, nn


def check_features(name: str, embedding_dim: int | None, features: int) -> int:
    """Return ``features``, the net's own number, which ``embedding_dim`` must be if it is given."""
    if embedding_dim is not None and embedding_dim != features:
        raise ValueError(
            f"{name} of this width gives {features} features, so embedding_dim cannot be "
            f"{embedding_dim!r}; leave it unset, or set it to {features}"
        )
    return features


def check_dropout(dropout: Any) -> float:
    """Return ``dropout`` as a float if it is a number in [0, 1)."""
    if not isinstance(dropout, (int, float)) or isinstance(dropout, bool) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a number in [0, 1), got {dropout!r}")
    return float(dropout)


def average_positions(x: Tensor, like: nn.Conv2d) -> Tensor:
    """Return the mean (N, C) over the positions of (N, C, H, W), in the precision of the weights.

    Under autocast ``x`` is of a smaller type, which neither a mean nor a classifier should be in.
    """
    return x.to(like.weight.dtype).mean(dim=(2, 3))


def initialize_he(model: nn.Module, *, fan: Literal["in", "out"]) -> None:
    """Draw convolutions from N(0, 2 / fan) by torch's global generator; their biases are 0.

    ``fan``: the weights that a number is summed from ("in", eq. (10) of He et al., Delving Deep
    into Rectifiers, ICCV 2015) or goes into ("out", eq. (14) there). Batch norms begin at gain 1
    and shift 0, as torch makes them.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            count = module.weight.shape[0 if fan == "out" else 1] * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, std=math.sqrt(2 / count))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
