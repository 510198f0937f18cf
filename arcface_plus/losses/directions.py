"""Directions of embeddings: unit rows with an exact gradient for every finite row.

Shapes: (…, D) rows of D entries.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unit_directions(x: Tensor) -> Tensor:
    """Return x/‖x‖ along the last dimension of ``x`` (…, D), float32, or float64 where x is that.

    Exact from the smallest to the largest finite entries, whose squares leave the range of floats.
    A row of zeros has no direction: it stays zero and passes its gradient on as it is.
    """
    if x.dtype != torch.float64:
        x = x.float()
    # The result does not depend on a row's scale, so that scaling by a constant costs no gradient.
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    scaled = x / torch.where(largest > 0, largest, 1)
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / torch.where(largest > 0, norm, 1)
