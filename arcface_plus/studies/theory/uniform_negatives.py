"""The sum over the wrong classes in the softmax's denominator, drawn at random (Prop. 3).

``losses/theory/uniform_law.py`` has its expectation, exact and first-order, and its spread.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from arcface_plus.losses.theory.uniform_law import check_classes, check_dim, check_scale


def sample_cosines(dim: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw ``count`` cosines between a fixed direction and uniform ones, without making rows.

    A Gaussian row's first entry over its norm: g/√(g² + χ²_{d−1}), the law of a normalised
    Gaussian row's entry exactly.
    """
    check_dim(dim)
    first = generator.standard_normal(count)
    rest = 2 * generator.standard_gamma((dim - 1) / 2, count)
    return first / np.sqrt(first * first + rest)


def sample_log_negative_weights(
    classes: int, dim: int, scale: float, *, draws: int, seed: int = 0
) -> np.ndarray:
    """Return ln Σ_{j≠y} e^{s·cosθ_j} of ``draws`` independent sets of C − 1 classes (draws,).

    Time is linear in draws × C; memory in C.
    """
    check_classes(classes)
    check_scale(scale)
    if draws < 1:
        raise ValueError(f"draws is {draws}, but must be at least 1.")
    generator = np.random.default_rng(seed)
    sets = (sample_cosines(dim, classes - 1, generator) for _ in range(draws))
    return np.array([special.logsumexp(scale * cosines) for cosines in sets])
