"""How hard each loss turns a row, by the angle of the pair: equations (7), (8), (10) and (12).

The norm of the gradient of one pair's term with respect to one of its rows. Pure functions of the
``angle`` θ (any shape, radians, 0 to π) and the row's ``norm`` (a number or a tensor that
broadcasts). Equations (10) and (12) are infinite at θ = 0, and so is what is returned; the losses
of ``energies`` stop growing at 1.8°.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cosine_gradient_norm(angle: Tensor, norm: Tensor | float = 1.0) -> Tensor:
    """Return ‖∂cos θ/∂w‖ = sin θ/‖w‖, eq. (7), MMA paper."""
    return torch.sin(angle) / norm


def mma_gradient_norm(angle: Tensor, norm: Tensor | float = 1.0) -> Tensor:
    """Return ‖∂θ/∂w‖ = 1/‖w‖, whatever the angle, eq. (8), MMA paper."""
    return torch.ones_like(angle) / norm


def riesz_gradient_norm(angle: Tensor, norm: Tensor | float = 1.0, *, s: float = 1.0) -> Tensor:
    """Return ‖∂z^(−s)/∂w‖ = s cos(θ/2) / (‖w‖ (2 sin(θ/2))^(s+1)), eq. (10), MMA paper.

    z = 2 sin(θ/2) is the distance. ``s`` above 0; the paper's Figure 2 takes 1.
    """
    if not s > 0:
        raise ValueError(f"s is {s}, but must be above 0; for s = 0 take log_gradient_norm.")
    return s * torch.cos(angle / 2) / ((2 * torch.sin(angle / 2)) ** (s + 1) * norm)


def log_gradient_norm(angle: Tensor, norm: Tensor | float = 1.0) -> Tensor:
    """Return ‖∂log z/∂w‖ = cos(θ/2) / (‖w‖ 2 sin(θ/2)), eq. (12), MMA paper."""
    return torch.cos(angle / 2) / (2 * torch.sin(angle / 2) * norm)
