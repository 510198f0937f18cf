"""Orthogonal regularization: the squared cosines between a weight's rows, equation (14)."""

from __future__ import annotations

import torch
from torch import Tensor

from arcface_plus.regularizers.geometry.closed_form import closed_form_loss


def orthogonal_loss(weight: Tensor) -> Tensor:
    """Return ½‖ŴŴᵀ − I‖_F² = ½ Σ_{i≠j} cos² θ_ij, eq. (14), MMA paper, without its λ.

    ``weight`` (n, …) of any floating dtype, n ≥ 2. A sum over pairs, not a mean: it grows with the
    layer, hence the small λ (1e-4 in the paper). Of the two Gram matrices the smaller is formed,
    n × n or d × d. Errors as ``mma_loss``.
    """
    return closed_form_loss(weight, "the orthogonal loss", _terms)


def _terms(unit: Tensor, need_gradient: bool) -> tuple[Tensor, Tensor | None]:
    n, d = unit.shape
    if n <= d:
        gram = torch.mm(unit, unit.t()).fill_diagonal_(0)
        value = gram.square().sum(dtype=torch.float64) / 2
        return value.to(unit.dtype), torch.mm(gram, unit).mul_(2) if need_gradient else None
    # ‖ŴŴᵀ − I‖² = ‖ŴᵀŴ‖² − n = ‖ŴᵀŴ − (n/d)I‖² + n²/d − n, as the trace is n: no digit is lost to
    # a difference where the rows are spread evenly. (n/d)I moves the gradient along the rows only.
    gram = torch.mm(unit.t(), unit)
    gram.diagonal().sub_(n / d)
    value = (gram.square().sum(dtype=torch.float64) + n * (n / d - 1)) / 2
    return value.to(unit.dtype), torch.mm(unit, gram).mul_(2) if need_gradient else None
