"""How hard four measures of similarity pull a sample from a class (Fig. A2, closeness paper).

x and w are unit vectors at an angle θ; the measures are those the closeness-and-diversity paper
compares for its diversity loss, eqs. (3) to (5) of its supplement:

    D1 = −‖x − w‖²,   D2 = cosθ,   D3 = cos²θ,   D3 truncated to θ < π/2

The paper shows ‖∂D/∂x‖ with x taken as free. What reaches a network's feature passes through the
normalisation, whose Jacobian (I − x xᵀ)/‖x‖ leaves the part across x alone: our addition, [R]. D3
then pulls hardest at 45° and not at all at 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from arcface_plus.losses.theory.uniform_law import check_angles

# Measure: its gradient's norm at θ where x is free.
_FREE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "D1": lambda theta: 4 * np.sin(theta / 2),
    "D2": np.ones_like,
    "D3": lambda theta: 2 * np.abs(np.cos(theta)),
    "truncated D3": lambda theta: 2 * np.maximum(0.0, np.cos(theta)),
}
MEASURES = tuple(_FREE)


def gradient_magnitude(
    angle: ArrayLike, measure: str, *, through_normalisation: bool = False
) -> np.ndarray:
    """Return ‖∂D/∂x‖ at ``angle`` (…) in radians, for unit x and w.

    Free: 4 sin(θ/2), 1, 2|cosθ| and 2 max(0, cosθ). Through the normalisation at ‖x‖ = 1: 2 sinθ,
    sinθ, |sin 2θ| and max(0, sin 2θ).
    """
    theta = check_angles(angle)
    if measure not in _FREE:
        raise ValueError(f"measure is {measure!r}; use one of {', '.join(MEASURES)}.")
    if not through_normalisation:
        return _FREE[measure](theta)
    # D1: 2(w − x) and 2w have the same part across x.
    return np.sin(theta) * (2 if measure == "D1" else _FREE[measure](theta))
