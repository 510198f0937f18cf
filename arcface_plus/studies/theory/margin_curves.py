"""Loss and gradients of a margin softmax against the angles, for uniformly spread classes.

Figures 11 to 14 of the margin-softmax appendix. Its eq. (3), (11) and (12) were not read in the
source: the forms here are reconstructed, [R], and checked against autograd. Angles are in radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.theory.uniform_law import (
    WeightForm,
    check_angles,
    check_classes,
    check_dim,
    log_mean_weight,
    log_negative_weight,
)
from arcface_plus.losses.theory.uniform_prediction import own_gradient, target_curve

NO_MARGIN = Margin(m2=0.0, extension="raw")


@dataclass(frozen=True)
class Setting:
    """Everything the loss depends on beside the angles: C, d, the margin with its scale, and N.

    The paper's figures have C = 85 742, d = 512, s = 64. ``form`` is that of Prop. 3, eq. (10) by
    default; the margin's ``wc_relu`` applies to the other classes.
    """

    classes: int = 85_742
    dim: int = 512
    margin: Margin = field(default=NO_MARGIN)
    form: WeightForm = "first_order"

    def __post_init__(self) -> None:
        check_classes(self.classes)
        check_dim(self.dim)

    def changed(self, name: str, value: float) -> Setting:
        """Return this setting with one of C, d, s, m0, m1, m2, m3 replaced."""
        if name in ("C", "d"):
            return replace(self, **{{"C": "classes", "d": "dim"}[name]: int(value)})  # type: ignore[arg-type]
        if name not in ("s", "m0", "m1", "m2", "m3"):
            raise ValueError(f"{name!r} is not one of C, d, s, m0, m1, m2, m3.")
        return replace(self, margin=replace(self.margin, **{name: value}))  # type: ignore[arg-type]

    def log_weight(self) -> float:
        """Return ln N of all wrong classes."""
        return log_negative_weight(
            self.classes, self.dim, self.margin.s, form=self.form, wc_relu=self.margin.wc_relu
        )


def loss_at(own: ArrayLike, setting: Setting) -> np.ndarray:
    """Return L(θ_y) = log(1 + N e^{−f(θ_y)}), eq. (3) with N for the others; Fig. 11, [R]."""
    value, _ = target_curve(setting.margin, own)
    return np.logaddexp(0.0, setting.log_weight() - value)


def own_gradient_at(own: ArrayLike, setting: Setting) -> np.ndarray:
    """Return ∂L/∂θ_y at own-class angles (…), likely eq. (12); Fig. 12, [R]."""
    return own_gradient(own, setting.margin, setting.log_weight())


def other_gradient_at(own: ArrayLike, other: ArrayLike, setting: Setting) -> np.ndarray:
    """Return ∂L/∂θ_j of one wrong class at ``other`` with the own class at ``own``; broadcasting.

    −s sinθ_j e^{s cosθ_j} / (e^{f(θ_y)} + (C−2)·E e^{sz} + e^{s cosθ_j}), the other C − 2 classes
    at their expectation; Figs. 13 and 14, [R]. With WC-ReLU it is 0 from θ_j = 90° on. The last
    term of the denominator counts: at θ_j = 40° it is e^49, far above N.
    """
    margin, theta = setting.margin, check_angles(other)
    value, _ = target_curve(margin, own)
    rest = log_mean_weight(setting.dim, margin.s, form=setting.form, wc_relu=margin.wc_relu)
    rest += math.log(setting.classes - 2) if setting.classes > 2 else -math.inf
    cosine = np.maximum(np.cos(theta), 0.0) if margin.wc_relu else np.cos(theta)
    exponent = margin.s * cosine
    denominator = np.logaddexp(np.logaddexp(value, rest), exponent)
    gradient = -margin.s * np.sin(theta) * np.exp(exponent - denominator)
    return np.where(theta < math.pi / 2, gradient, 0.0) if margin.wc_relu else gradient
