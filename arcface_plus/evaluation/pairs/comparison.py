"""Two models on the same pairs: which one decides more of them rightly, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arcface_plus.evaluation.pairs.dependence import Units, jackknife_variance
from arcface_plus.evaluation.pairs.intervals import (
    influences,
    pair_shares,
    right_decisions,
    student_quantile,
)
from arcface_plus.evaluation.pairs.roc import Record


@dataclass(frozen=True)
class PairedDifference(Record):
    """Hold the difference in accuracy of two models on the same pairs, the first minus the other.

    - ``interval``: 95 %, Student's t with the jackknife variance over ``units`` of ``basis``; what
      both find hard cancels out. It has no width where both decide every pair alike.
    - ``gained``, ``lost``: pairs that only the first, only the other decides rightly.
    - ``p``: two-sided, of no difference, by the same t as the interval.
    - ``mcnemar_p``: exact two-sided McNemar test of these counts. It takes pairs for independent:
      where people are in several pairs it is too small.
    """

    difference: float
    interval: tuple[float, float]
    basis: str
    units: int
    gained: int
    lost: int
    p: float
    mcnemar_p: float


def accuracy_difference(
    distances: np.ndarray,
    thresholds: Sequence[float] | np.ndarray,
    other_distances: np.ndarray,
    other_thresholds: Sequence[float] | np.ndarray,
    is_same: np.ndarray,
    units: Units,
) -> PairedDifference:
    """Return how much better the first distances decide than the others.

    Distances (N,) squared L2 of the same pairs, each with its own K thresholds.
    """
    if len(distances) != len(other_distances) or len(thresholds) != len(other_thresholds):
        raise ValueError(
            f"Models are compared on the same pairs and folds, but there are {len(distances)} and "
            f"{len(other_distances)} pairs in {len(thresholds)} and {len(other_thresholds)} folds."
        )
    right = right_decisions(distances, is_same, thresholds)
    other_right = right_decisions(other_distances, is_same, other_thresholds)
    share = pair_shares(len(distances), len(thresholds))
    better = right.astype(np.float64) - other_right
    # Two thresholds are chosen by chance here, and what the pairs share cancels out: the whole
    # jackknife is needed.
    variance, freedom = jackknife_variance(
        units, influences(better, share, is_same), taken_back=0.0
    )
    difference = float(share @ better)
    half = student_quantile(freedom) * math.sqrt(variance)
    return PairedDifference(
        difference=difference,
        interval=(max(-1.0, difference - half), min(1.0, difference + half)),
        basis=units.basis,
        units=units.count,
        gained=int((right & ~other_right).sum()),
        lost=int((other_right & ~right).sum()),
        p=_student_p(difference, variance, freedom),
        mcnemar_p=mcnemar_p(right, other_right),
    )


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for there being several (Holm, Scand. J. Statistics, 1979).

    Calling those below a level significant makes even one mistake with at most its probability,
    however the tests depend on each other.
    """
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, at in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[at]))
        adjusted[at] = largest
    return adjusted


def mcnemar_p(right: np.ndarray, other_right: np.ndarray) -> float:
    """Return the exact two-sided p of McNemar's test for two sets of decisions, (N,) bool each."""
    from scipy.special import bdtr

    gained, lost = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    if gained + lost == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def _student_p(difference: float, variance: float, freedom: float) -> float:
    from scipy.special import stdtr

    if variance == 0:  # nothing is left to chance
        return 1.0 if difference == 0 else 0.0
    return 2 * float(stdtr(freedom, -abs(difference) / math.sqrt(variance)))
