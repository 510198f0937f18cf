"""What uniformly spread classes let one predict before training.

Two figures that a run can be watched against: the expected angle from a class to its nearest other
class (Prop. 1 of the margin-softmax appendix), and the termination angle of a margin, where the
pull on a sample towards its own class has all but vanished. The loss behind the second and its
derivative are reconstructed, [R], from the appendix: the main paper was not read.

Angles are in radians.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from arcface_plus.losses.margins.family import Margin, target_logit
from arcface_plus.losses.theory.uniform_law import (
    WeightForm,
    check_angles,
    check_classes,
    check_dim,
    gauss_legendre,
    log_cap_fraction,
    log_negative_weight,
)

CollapseRisk = Literal["no", "early", "likely"]
TERMINATION_GRADIENT = 2.0  # our reading: where the paper's best margins share one angle
_SMALLEST_ANGLE = 1e-7  # inside the clamp of target_logit, where its derivative lives


class NearestAngle(NamedTuple):
    """Hold mean and standard deviation of one class's angle to its nearest other class."""

    mean: float
    std: float


@functools.lru_cache(maxsize=16)  # a run asks twice, and a quadrature takes a moment
def nearest_class_angle(classes: int, dim: int) -> float:
    """Return the expected angle from a class to its nearest of ``classes`` − 1 uniform others.

    E[θ] = ∫₀^π (1 − F(θ))^{C−1} dθ, exact for finite C and d (Prop. 1 is its limit).
    """
    return nearest_class_moments(classes, dim).mean


def nearest_class_moments(classes: int, dim: int) -> NearestAngle:
    """Return mean and standard deviation of that angle, by quadrature to some 1e-12."""
    check_classes(classes)
    check_dim(dim)
    others = classes - 1
    low = _last_angle(lambda t: float(log_cap_fraction(t, dim)) < math.log(1e-18 / others))
    high = _last_angle(lambda t: others * float(log_cap_fraction(math.pi - t, dim)) > -45.0)
    nodes, weights = gauss_legendre(low, high, panels=64)
    survival = np.exp(others * log_cap_fraction(math.pi - nodes, dim)) * weights
    # Moments about ``low``, as the variance is a small difference about 0.
    first, second = survival.sum(), (2 * (nodes - low) * survival).sum()
    return NearestAngle(float(low + first), math.sqrt(max(0.0, second - first * first)))


def _last_angle(holds: Callable[[float], bool]) -> float:
    """Return the largest angle at which the falling predicate still holds, by bisection."""
    low, high = 0.0, math.pi
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def target_curve(margin: Margin, angle: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return f(θ), the target logit, and df/dθ at ``angle`` (…), of the margin as it is trained.

    f is ``target_logit`` in float64, extension included; df/dθ is autograd's, so that
    ``straight_through`` gives −s·sinθ. Within 1e-7 of 0 and π the slope is that at 1e-7.
    """
    theta = check_angles(angle)
    inside = np.clip(theta, _SMALLEST_ANGLE, math.pi - _SMALLEST_ANGLE)
    cosine = torch.from_numpy(np.cos(np.atleast_1d(inside))).requires_grad_()
    with torch.enable_grad():
        value = target_logit(cosine, margin)
        (by_cosine,) = torch.autograd.grad(value.sum(), cosine)
    # The sine as arccos' derivative has it: near 0 and π the rounding of both cancels.
    rounded = cosine.detach().numpy()
    slope = -(np.sqrt(1 - rounded * rounded) * by_cosine.numpy()).reshape(theta.shape)
    return value.detach().numpy().reshape(theta.shape), slope


def own_gradient(angle: ArrayLike, margin: Margin, log_weight: float) -> np.ndarray:
    """Return ∂L/∂θ_y at own-class angles (…) for others that weigh N = e^``log_weight`` together.

    L = log(1 + N e^{−f(θ_y)}), so ∂L/∂θ_y = −f′(θ_y)·N/(N + e^f), which is
    s·m0·m1·sin(m1θ_y + m2)·(1 − p_y) before any extension: [R], likely eq. (12).
    """
    value, slope = target_curve(margin, angle)
    return -slope * others_share(value, log_weight)


def others_share(logit: np.ndarray, log_weight: float) -> np.ndarray:
    """Return 1 − p_y = N/(N + e^f) for a target logit f, without overflow or cancellation."""
    return np.exp(-np.logaddexp(0.0, logit - log_weight))


def termination_angle(
    margin: Margin,
    classes: int,
    dim: int,
    *,
    gradient: float = TERMINATION_GRADIENT,
    form: WeightForm = "exact",
) -> float:
    """Return the own-class angle at which |∂L/∂θ_y| has fallen to ``gradient``.

    The largest angle below which the gradient is smaller throughout; 0 where it is not even at 0.
    Classes are uniform (Prop. 3, ``form`` as in ``log_negative_weight``). The paper gives no
    threshold: 2 is ours, [R], because its best m0 = .35, m2 = .6, m3 = .5 (and m1 = 1.85) then
    share 38° to 40°, as it says they do.

    Raises ValueError where the gradient does not reach ``gradient`` up to π/2.
    """
    if not gradient > 0:
        raise ValueError(f"gradient is {gradient}, but must be positive.")
    log_weight = log_negative_weight(classes, dim, margin.s, form=form, wc_relu=margin.wc_relu)

    def size(angles: np.ndarray) -> np.ndarray:
        return np.abs(own_gradient(angles, margin, log_weight))

    grid = np.linspace(0.0, math.pi / 2, 901)
    sizes = size(grid)
    if sizes.max() < gradient:
        raise ValueError(
            f"the gradient of {margin} with {classes} classes in {dim} dimensions is at most "
            f"{sizes.max():.3g} up to 90°, never {gradient:g}: choose a smaller threshold."
        )
    first = int((sizes >= gradient).argmax())
    if first == 0:
        return 0.0
    for _ in range(6):  # zoom in: each time to a 32nd
        grid = np.linspace(grid[first - 1], grid[first], 33)
        first = max(1, int((size(grid) >= gradient).argmax()))
    return float(grid[first])


def pole_loss(margin: Margin, classes: int) -> float:
    """Return the loss of the polar collapse: all classes at one pole, all samples at the other.

    There cosθ_j = −1 for every class, the own one included: L = log(1 + (C−1)·e^{−s−f(π)}), or
    log(1 + (C−1)·e^{−f(π)}) with WC-ReLU, which we read as max(0, cosθ_j) of the wrong classes.
    Both are [R], reconstructed.
    """
    check_classes(classes)
    at_pole = target_logit(torch.tensor(-1.0, dtype=torch.float64), margin)
    others = math.log(classes - 1) - (0.0 if margin.wc_relu else margin.s)
    return float(np.logaddexp(0.0, others - float(at_pole)))


def right_angle_loss(margin: Margin, classes: int) -> float:
    """Return the loss with every sample at right angles to every class, where training begins."""
    check_classes(classes)
    at_start = target_logit(torch.tensor(0.0, dtype=torch.float64), margin)
    return float(np.logaddexp(0.0, math.log(classes - 1) - float(at_start)))


def collapse_risk(margin: Margin, classes: int) -> CollapseRisk:
    """Return whether a run with this margin may end in the polar collapse.

    ``likely``: the loss there is below log 2, the own class more likely than all others. ``early``:
    it is below that of the start of training, so that steps which teach the net nothing of faces
    lead there; faces that are learned sooner lead away. Few images, a strong margin and a large
    scale favour the poles; a warm-up of the margin (``warmup_steps``), which makes the two losses
    nearly equal at first, favours the faces. ``no``: it is no lower than at the start.
    """
    loss = pole_loss(margin, classes)
    if loss < math.log(2):
        return "likely"
    return "early" if loss < right_angle_loss(margin, classes) * (1 - 1e-9) else "no"


def collapse_warning(margin: Margin, classes: int) -> str | None:
    """Return a warning for whoever trains with this margin where the polar collapse is likely."""
    if collapse_risk(margin, classes) != "likely":
        return None
    loss = pole_loss(margin, classes)
    fixes = [] if margin.wc_relu else ["set wc_relu: true"]
    if margin.is_angular and margin.extension == "raw":
        fixes.append("set extension: " + ("hard" if margin.m1 == 1 else "piecewise"))
    fixes.append("take " + ("a larger m0" if margin.m0 < 1 else "a smaller margin"))
    return (
        f"with m0={margin.m0:g}, m1={margin.m1:g}, m2={margin.m2:g}, m3={margin.m3:g}, "
        f"s={margin.s:g} and {classes} classes the loss is as low as {loss:.2g} when all classes "
        f"sit at one pole and all samples at the other (polar collapse): {', or '.join(fixes)}."
    )
