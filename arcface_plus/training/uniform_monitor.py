"""What a run's angles are watched against: the prediction for uniformly spread classes.

Only for cosine logits with a fixed ``Margin``: an adaptive margin differs from sample to sample.
The termination angle is [R], reconstructed; see ``losses.uniform_prediction``.
"""

from __future__ import annotations

import math

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.theory.uniform_prediction import (
    collapse_warning,
    nearest_class_angle,
    termination_angle,
)


def uniform_figures(head: ClassifierHead) -> dict[str, float]:
    """Return what uniform classes let one predict of a run with ``head``, in degrees, by log name.

    ``nearest_angle_uniform``: the expected angle from a class to its nearest other one, which
    ``nearest_angle`` starts at, for the initial weights are uniform. ``termination_angle``: where
    the pull on ``target_angle`` has all but vanished; absent where the margin's gradient is never
    that large. It counts the classes of a step: ``sample_rate`` of all. Empty for a head without a
    fixed ``Margin``. Takes a fifth of a second, most of it to import scipy.
    """
    if not isinstance(head.margin, Margin) or head.embedding_dim < 2:  # no sphere of one dimension
        return {}
    nearest = math.degrees(nearest_class_angle(head.num_classes, head.embedding_dim))
    in_a_step = max(2, round(head.sample_rate * head.num_classes))
    try:
        angle = termination_angle(head.margin, in_a_step, head.embedding_dim)
    except ValueError:  # the gradient stays below the threshold: nothing ends there
        return {"nearest_angle_uniform": nearest}
    return {"nearest_angle_uniform": nearest, "termination_angle": math.degrees(angle)}


def margin_warnings(head: ClassifierHead) -> tuple[str, ...]:
    """Return a warning if the margin of ``head`` invites the polar collapse."""
    if not isinstance(head.margin, Margin):
        return ()
    warning = collapse_warning(head.margin, head.num_classes)
    return () if warning is None else (warning,)
