"""Propose margins from the number of classes alone.

The appendix observes that the best m0, m2 and m3 of its searches end training at about half the
angle between neighbouring classes, and hopes that this will replace the search. Here that hope is
a formula: the margin whose termination angle is half the predicted nearest-class angle. The paper
gives no threshold for the termination angle (ours is a gradient of 2, [R]) and no proof; take the
proposal as where to start a search.

Angles are in radians.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import bisect

from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.theory.uniform_law import negative_weight_spread
from arcface_plus.losses.theory.uniform_prediction import (
    TERMINATION_GRADIENT,
    CollapseRisk,
    collapse_risk,
    nearest_class_moments,
    pole_loss,
    termination_angle,
)

# Parameter, value without effect, the end of its range in the direction of more margin, and the
# other settings of a run with it.
_RANGES: dict[str, tuple[str, float, float, dict[str, Any]]] = {
    "amp": ("m0", 1.0, 0.05, {"m2": 0.0, "wc_relu": True}),
    "sphere": ("m1", 1.0, 4.0, {"m2": 0.0, "extension": "piecewise"}),
    "arc": ("m2", 0.0, 1.5, {}),
    "cos": ("m3", 0.0, 1.5, {"m2": 0.0}),
}
KINDS = tuple(_RANGES)
_STEPS = 40


class Prediction(NamedTuple):
    """Hold what proposals aim at, for C classes in d dimensions at scale s.

    ``target_angle`` is half of ``nearest_angle``. ``weight_spread`` is the relative standard
    deviation of the sum over the wrong classes: above 1, Prop. 3 is no guide to a single run.
    """

    classes: int
    dim: int
    scale: float
    nearest_angle: float
    nearest_std: float
    target_angle: float
    weight_spread: float


class Advice(NamedTuple):
    """Hold one proposal: the margin, where it stops pulling, and whether it can collapse.

    ``margin`` is extended past π as a run should be (``hard`` for m1 = 1, else ``piecewise``), and
    m0 comes with WC-ReLU, as the paper trained it. ``pole_loss`` is the loss of the polar collapse
    with that, ``plain_pole_loss`` with the raw cosine and without WC-ReLU, both [R]; the risks
    say what follows. ``note`` says why the target was not met, "" if it was.
    """

    kind: str
    parameter: str
    value: float
    margin: Margin
    termination_angle: float
    pole_loss: float
    plain_pole_loss: float
    risk: CollapseRisk
    plain_risk: CollapseRisk
    note: str


def predict(classes: int, dim: int, scale: float) -> Prediction:
    """Return the angles that uniformly spread classes lead one to expect."""
    nearest = nearest_class_moments(classes, dim)
    spread = negative_weight_spread(classes, dim, scale)
    half = nearest.mean / 2
    return Prediction(classes, dim, scale, nearest.mean, nearest.std, half, spread)


def advise(kind: str, prediction: Prediction, *, gradient: float = TERMINATION_GRADIENT) -> Advice:
    """Return the least margin of ``kind`` whose termination angle is ``prediction.target_angle``.

    Where the plain softmax already ends below the target, no margin is proposed; where no margin in
    range gets there, the one that comes nearest is. ``note`` says so in both cases.

    Raises ValueError for an unknown kind, or where the gradient never reaches ``gradient``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; use one of {', '.join(KINDS)}.")
    parameter, weakest, strongest, _ = _RANGES[kind]
    classes, dim = prediction.classes, prediction.dim

    def ends_at(value: float) -> float:
        margin = margin_of(kind, value, prediction.scale)
        return termination_angle(margin, classes, dim, gradient=gradient)

    value, note = _least_margin(ends_at, weakest, strongest, prediction.target_angle)
    margin = margin_of(kind, value, prediction.scale)
    plain = replace(margin, extension="raw", wc_relu=False)
    return Advice(
        kind,
        parameter,
        value,
        margin,
        ends_at(value),
        pole_loss(margin, classes),
        pole_loss(plain, classes),
        collapse_risk(margin, classes),
        collapse_risk(plain, classes),
        note,
    )


def margin_of(kind: str, value: float, scale: float) -> Margin:
    """Return the margin of one parameter as a run should have it; see :class:`Advice`."""
    parameter, _, _, others = _RANGES[kind]
    return Margin(**{**others, "s": scale, parameter: value})


def _least_margin(
    ends_at: Callable[[float], float], weakest: float, strongest: float, target: float
) -> tuple[float, str]:
    """Return the first value from ``weakest`` on that ends at ``target``, and a note.

    A scan, then bisection: a tiny m0 takes the pull itself away and ends training late again.
    """
    before, nearest = None, (math.inf, weakest)
    for value in np.linspace(weakest, strongest, _STEPS + 1).tolist():
        try:
            end = ends_at(value)
        except ValueError:  # the pull never reaches the threshold from here on
            if before is None:
                raise
            break
        if end <= target and before is None:
            return value, "no margin needed: without one, training ends below the target"
        if end <= target:
            return bisect(lambda v: ends_at(v) - target, before, value, xtol=1e-12), ""
        before, nearest = value, min(nearest, (end, value))
    return nearest[1], "no value ends as low as the target; this one comes nearest"
