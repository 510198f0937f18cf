"""What a run's angles are watched against: the prediction for uniformly spread classes.

Only for cosine logits with a fixed ``Margin``: an adaptive margin differs from sample to sample.
The termination angle is [R], reconstructed; see ``losses.uniform_prediction``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.theory.uniform_prediction import (
    collapse_risk,
    collapse_warning,
    nearest_class_angle,
    termination_angle,
)

# The run that docs/face_margins.md describes passes both within 50 steps of 90°; runs that learn
# never pass the two together.
OWN_ANGLE = 92.0  # degrees
DRAWN_TOGETHER = 0.95  # of the angle between uniform classes


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


class CollapseWatch:
    """Recognises the polar collapse while it happens, from the angles of successive log lines.

    All samples drift away from their own class (past 90°) while all classes draw together. Watched
    wherever the theory says that it can happen (``collapse_risk``), and with adaptive margins,
    of which the theory says nothing.
    """

    def __init__(self, head: ClassifierHead) -> None:
        margin, self.before = head.margin, (90.0, math.inf)
        self.watching = margin is not None and head.embedding_dim > 1
        self.key = "head.margin" if isinstance(margin, Margin) else "head.adaptive"
        if isinstance(margin, Margin):
            self.watching &= collapse_risk(margin, head.num_classes) != "no"
        if self.watching:
            self.uniform = math.degrees(nearest_class_angle(head.num_classes, head.embedding_dim))

    def warning(self, values: Mapping[str, float]) -> str | None:
        """Return what to tell the user, once, from a log line's ``target_angle``, from samples to
        their class, and ``nearest_angle``, from classes to their nearest other one; in degrees.
        """
        if not self.watching or "target_angle" not in values:  # all steps were skipped
            return None
        own, nearest = values["target_angle"], values["nearest_angle"]
        (own_before, nearest_before), self.before = self.before, (own, nearest)
        drifting = own > OWN_ANGLE and own >= own_before and nearest < nearest_before
        if not drifting or nearest > DRAWN_TOGETHER * self.uniform:
            return None
        self.watching = False
        return (
            f"this run is collapsing to opposite poles: samples are {own:.0f}° from their own "
            f"class (they began at 90°), and classes {nearest:.0f}° from their nearest other one "
            f"(uniform classes: {self.uniform:.0f}°). The margin is more than the net can learn "
            "from these images so early. Stop, and start again with a margin that grows: "
            f"{self.key}.warmup_steps of about half of train.steps; or with a smaller scale s or "
            "extension: easy."
        )
