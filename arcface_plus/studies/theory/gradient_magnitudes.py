"""How hard four measures of similarity pull a sample from a class (Fig. A2, closeness paper).

x and w are unit vectors at an angle θ; the measures are those the closeness-and-diversity paper
compares for its diversity loss, eqs. (3) to (5) of its supplement:

    D1 = −‖x − w‖²,   D2 = cosθ,   D3 = cos²θ,   D3 truncated to θ < π/2

The paper shows ‖∂D/∂x‖ with x taken as free. What reaches a network's feature passes through the
normalisation, whose Jacobian (I − x xᵀ)/‖x‖ leaves the part across x alone: our addition, [R]. D3
then pulls hardest at 45° and not at all at 0.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from arcface_plus.losses.theory.uniform_law import check_angles

Measure = Literal["D1", "D2", "D3", "truncated D3"]
MEASURES: tuple[Measure, ...] = ("D1", "D2", "D3", "truncated D3")


def gradient_magnitude(
    angle: ArrayLike, measure: Measure, *, through_normalisation: bool = False
) -> np.ndarray:
    """Return ‖∂D/∂x‖ at ``angle`` (…) in radians, for unit x and w.

    Free: 4 sin(θ/2), 1, 2|cosθ| and 2 max(0, cosθ). Through the normalisation at ‖x‖ = 1: 2 sinθ,
    sinθ, |sin 2θ| and max(0, sin 2θ).
    """
    theta = check_angles(angle)
    if through_normalisation:
        return _across(theta, measure)
    if measure == "D1":
        return 4 * np.sin(theta / 2)
    if measure == "D2":
        return np.ones_like(theta)
    if measure == "D3":
        return 2 * np.abs(np.cos(theta))
    if measure == "truncated D3":
        return 2 * np.maximum(0.0, np.cos(theta))
    raise ValueError(f"measure is {measure!r}; use one of {', '.join(MEASURES)}.")


def _across(theta: np.ndarray, measure: Measure) -> np.ndarray:
    if measure == "D1":  # 2(w − x) and 2w have the same part across x
        return 2 * np.sin(theta)
    return gradient_magnitude(theta, measure) * np.sin(theta)
