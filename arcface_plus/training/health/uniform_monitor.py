"""What a run's angles are watched against: uniformly spread classes, and one another.

Predictions only for cosine logits with a fixed ``Margin``: an adaptive margin differs from sample
to sample. The termination angle is [R], reconstructed; see ``losses.uniform_prediction``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.distributed import World
from arcface_plus.files import written_beside
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.theory.uniform_prediction import (
    collapse_risk,
    collapse_warning,
    nearest_class_angle,
    termination_angle,
)
from arcface_plus.training.log.monitor import Monitor

# The run that docs/face_margins.md describes passes both within 50 steps of 90°; runs that learn
# never pass the two together.
OWN_ANGLE = 92.0  # degrees
DRAWN_TOGETHER = 0.95  # of the angle between uniform classes

NEAR_CLASSES = "near_classes.csv"
# Uniform classes stay above 0.9 of the median. docs/cleaning.md has what these find.
_NEAR, _DEVIATIONS = 0.8, 5.0
_FEWEST_IMAGES, _SAID = 8, 5


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


class NearClasses:
    """Names pairs of classes that are implausibly near: likely one person under two labels.

    Two classes that are each other's nearest, at an angle of at most 0.8 of the median angle to the
    nearest class, and far below the bulk of these angles. Silent in the first epoch (of ``steps``
    steps), and about classes of fewer than eight images: what they are not decides alone where
    these lie, and it is the same for all of them. Classes of many images among classes of few draw
    together for a like reason, so both rules must hold beside the classes of half as many images or
    more too. A pair is named once and kept in the run folder.
    """

    def __init__(
        self, head: ClassifierHead, source: ImageSource, *, steps: int, folder: Path, world: World
    ) -> None:
        self.steps, self.path, self.keeps = steps, folder / NEAR_CLASSES, world.is_main
        self.images = np.bincount(source.labels, minlength=head.num_classes)
        self.enough = self.images >= _FEWEST_IMAGES
        self.names = source.names() or []
        self.named: dict[tuple[str, str], list[Any]] | None = None

    def warnings(self, step: int, degrees: Tensor, nearest: Tensor | None) -> list[str]:
        """Return what to tell the user about pairs that were not named before, nearest first.

        ``degrees`` (C,) from each class to the one that is ``nearest`` (C,), after ``step`` steps;
        None where only some classes were looked at.
        """
        if nearest is None or step < self.steps or not self.keeps:
            return []
        if self.named is None:
            self.named = self._recall(step)
        angle, near = degrees.cpu().numpy(), nearest.cpu().numpy()
        typical, one = float(np.median(angle)), np.arange(len(angle))
        limit = _implausible(angle)
        found = (angle <= limit) & (near[near] == one) & (one < near) & self.enough
        pairs = {
            (self._name(int(row)), self._name(int(near[row]))): angle[row]
            for row in sorted(np.flatnonzero(found & self.enough[near]), key=angle.__getitem__)
            if angle[row]
            <= _implausible(angle[2 * self.images >= self.images[[row, near[row]]].min()])
        }
        new = {pair: at for pair, at in pairs.items() if pair not in self.named}
        if new:
            facts = {pair: [step, f"{at:.1f}", f"{typical:.1f}"] for pair, at in new.items()}
            self.named |= facts
            self._keep()
        said = [
            f"classes {a!r} and {b!r} are {at:.0f}° apart (typical: {typical:.0f}°): likely one "
            "person under two labels"
            for (a, b), at in list(new.items())[:_SAID]
        ]
        rest = [f"and {len(new) - _SAID} more such pairs: {self.path}"]
        return said + (rest if len(new) > _SAID else [])

    def _name(self, row: int) -> str:
        return self.names[row] if row < len(self.names) else str(row)

    def _recall(self, step: int) -> dict[tuple[str, str], list[Any]]:
        """Return what the run named before ``step``, if it is a resumed one."""
        if not self.path.is_file():
            return {}
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        return {(a, b): [int(at), *facts] for a, b, at, *facts in rows if int(at) < step}

    def _keep(self) -> None:
        with (
            written_beside(self.path) as beside,
            beside.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(("class", "other_class", "step", "degrees", "typical_degrees"))
            writer.writerows((*pair, *facts) for pair, facts in (self.named or {}).items())


def _implausible(angle: np.ndarray) -> float:
    """Return the largest angle that is implausible beside all of ``angle`` (C,)."""
    typical = float(np.median(angle))
    spread = float(np.median(np.abs(angle - typical))) / 0.6745
    return min(_NEAR * typical, typical - _DEVIATIONS * spread)


class AngleWatch:
    """Looks at a run's angles at log steps; rank 0 does, whose ``monitor`` is enabled.

    ``predicted``: what stands beside the angles in a log line, in degrees by name.
    """

    def __init__(
        self, head: ClassifierHead, near_classes: NearClasses | None, monitor: Monitor
    ) -> None:
        self.monitor, self.near_classes = monitor, near_classes
        self.predicted = uniform_figures(head) if monitor.enabled else {}
        self.collapse = CollapseWatch(head) if monitor.enabled else None

    def look(
        self, step: int, values: Mapping[str, float], degrees: Tensor, nearest: Tensor | None
    ) -> None:
        """Say what is wrong with the angles of a log line; see the two watches for the rest."""
        if self.collapse is None:
            return
        messages = [self.collapse.warning(values)]
        if self.near_classes is not None:
            messages += self.near_classes.warnings(step, degrees, nearest)
        for message in filter(None, messages):
            self.monitor.warn(step, message)
