"""Bootstrap intervals of accuracy and TAR, and the paired comparison of two models.

Shapes: N pairs, K folds, R replicates, F FAR targets, T thresholds. How pairs are drawn anew is
``resampling``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arcface_plus.evaluation.resampling import draw_weights, plan_resampling
from arcface_plus.evaluation.tenfold import THRESHOLDS, evaluate_folds, fold_bounds

REPLICATES = 1000
_ROUNDING = 1e-10  # sums of weights that differ by less are the same


@dataclass(frozen=True)
class BootstrapIntervals:
    """Hold 95 % percentile intervals: of accuracy, and of TAR at each FAR target (F, 2)."""

    basis: str
    units: int
    replicates: int
    accuracy: tuple[float, float]
    fars: np.ndarray
    tar: np.ndarray


@dataclass(frozen=True)
class PairedDifference:
    """Hold the difference in accuracy of two models on the same pairs.

    ``mcnemar_p``: exact two-sided McNemar test of the decisions, which takes pairs for independent:
    where people are in several pairs it is too small.
    """

    difference: float
    interval: tuple[float, float]
    basis: str
    mcnemar_p: float


def weighted_accuracies(
    distances: np.ndarray,
    is_same: np.ndarray,
    folds: int,
    weights: np.ndarray,
    thresholds: np.ndarray = THRESHOLDS,
) -> np.ndarray:
    """Return the k-fold accuracy of each row of ``weights`` (R, N), (R,).

    Each fold's threshold is chosen anew on the other folds, as ``evaluate_folds`` chooses it.
    """
    steps = len(thresholds)
    bounds = fold_bounds(len(distances), folds)
    fold = np.repeat(np.arange(folds), np.diff(bounds))
    cell = fold * (steps + 1) + np.searchsorted(thresholds, distances, side="right")
    sign = np.where(is_same, 1.0, -1.0)
    rejected = np.add.reduceat(np.where(is_same, 0.0, weights), bounds[:-1], axis=1)
    accuracies = np.empty(len(weights))
    for row, of_pairs in enumerate(weights):
        gains = np.bincount(cell, of_pairs * sign, minlength=folds * (steps + 1))
        right = np.cumsum(gains.reshape(folds, steps + 1)[:, :steps], axis=1)
        right += rejected[row][:, None]
        others = right.sum(axis=0) - right
        # The first of those that are equal but for rounding.
        best = np.argmax(others >= others.max(axis=1, keepdims=True) - _ROUNDING, axis=1)
        accuracies[row] = right[np.arange(folds), best].sum()
    return accuracies


def weighted_tars(
    distances: np.ndarray, is_same: np.ndarray, fars: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return TAR at the largest threshold whose FAR is at most each target, (R, F).

    With equal weights this is what ``tar_at_far`` states, refused targets aside.
    """
    genuine, impostor = np.flatnonzero(is_same), np.flatnonzero(~is_same)
    genuine = genuine[np.argsort(distances[genuine], kind="stable")]
    impostor = impostor[np.argsort(distances[impostor], kind="stable")]
    # accepted[k]: genuine pairs strictly below impostor k; all of them beyond the last impostor.
    accepted = np.searchsorted(distances[genuine], distances[impostor], side="left")
    accepted = np.append(accepted, len(genuine))
    tar = np.pad(np.cumsum(weights[:, genuine], axis=1), ((0, 0), (1, 0)))
    far = np.cumsum(weights[:, impostor], axis=1)
    tar, far = tar / tar[:, -1:], far / far[:, -1:]
    rows = np.empty((len(weights), len(fars)), dtype=np.int64)
    for row, reached in enumerate(far):
        rows[row] = np.searchsorted(reached, fars + _ROUNDING, side="right")
    return np.asarray(np.take_along_axis(tar, accepted[rows], axis=1))


def bootstrap_intervals(
    distances: np.ndarray,
    is_same: np.ndarray,
    folds: int,
    *,
    fars: Sequence[float] | np.ndarray = (),
    people: tuple[Sequence[str], Sequence[str]] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> BootstrapIntervals:
    """Return 95 % intervals of k-fold accuracy and of TAR at each of ``fars``.

    ``distances`` (N,), ``is_same`` (N,) bool, ``people``: as ``plan_resampling``. The same seed
    gives the same intervals.
    """
    plan = plan_resampling(is_same, folds, people)
    targets = np.asarray(fars, dtype=np.float64)
    accuracies, tars = [], []
    for weights in draw_weights(plan, replicates, seed):
        accuracies.append(weighted_accuracies(distances, is_same, folds, weights))
        tars.append(weighted_tars(distances, is_same, targets, weights))
    samples = np.concatenate(accuracies)
    low, high = percentile_interval(samples)
    return BootstrapIntervals(
        basis=plan.basis,
        units=plan.units,
        replicates=len(samples),
        accuracy=(float(low), float(high)),
        fars=targets,
        tar=percentile_interval(np.concatenate(tars)),
    )


def accuracy_difference(
    distances: np.ndarray,
    other_distances: np.ndarray,
    is_same: np.ndarray,
    folds: int,
    *,
    people: tuple[Sequence[str], Sequence[str]] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> PairedDifference:
    """Return how much better the first distances decide than the others, with a 95 % interval.

    Both are scored on the same draws, so that what both find hard cancels out.
    """
    plan = plan_resampling(is_same, folds, people)
    samples = [
        weighted_accuracies(distances, is_same, folds, weights)
        - weighted_accuracies(other_distances, is_same, folds, weights)
        for weights in draw_weights(plan, replicates, seed)
    ]
    low, high = percentile_interval(np.concatenate(samples))
    right = right_decisions(distances, is_same, folds)
    other_right = right_decisions(other_distances, is_same, folds)
    return PairedDifference(
        difference=float(plan.share @ right - plan.share @ other_right),
        interval=(float(low), float(high)),
        basis=plan.basis,
        mcnemar_p=mcnemar_p(right, other_right),
    )


def right_decisions(distances: np.ndarray, is_same: np.ndarray, folds: int) -> np.ndarray:
    """Return which pairs are decided rightly at their own fold's threshold, (N,) bool."""
    chosen = evaluate_folds(distances, is_same, folds=folds).thresholds
    limits = np.repeat(chosen, np.diff(fold_bounds(len(distances), folds)))
    return np.asarray((distances < limits) == is_same)


def mcnemar_p(right: np.ndarray, other_right: np.ndarray) -> float:
    """Return the exact two-sided p of McNemar's test for two sets of decisions, (N,) bool each."""
    from scipy.special import bdtr

    gained, lost = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    if gained + lost == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def percentile_interval(samples: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Return the quantiles (1 ∓ level) / 2 over the first axis, in a new last axis of two."""
    ends = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(np.moveaxis(ends, 0, -1))
