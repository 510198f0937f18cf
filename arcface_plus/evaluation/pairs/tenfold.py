"""The k-fold protocol of LFW View 2, as insightface's evaluator computes it.

Shapes: N pairs, K folds, T thresholds.

A pair counts as the same person when its squared distance is below the threshold. The threshold of
a fold is the first one of largest accuracy on the other folds. Folds are contiguous, the first
N mod K of them one pair longer, as scikit-learn's KFold cuts. Everything is counted in integers, so
the accuracies are those of a loop over folds and thresholds, to the last digit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# The expression matters: 0.01 * np.arange(400) has other last digits.
THRESHOLDS = np.arange(0, 4, 0.01)


class FoldResult(NamedTuple):
    """Accuracy and squared-distance threshold of each fold, (K,) float64 each."""

    accuracies: np.ndarray
    thresholds: np.ndarray


def fold_bounds(pairs: int, folds: int) -> np.ndarray:
    """Return the K + 1 limits of the folds."""
    sizes = np.full(folds, pairs // folds)
    sizes[: pairs % folds] += 1
    return np.concatenate([[0], np.cumsum(sizes)])


def correct_counts(
    distances: np.ndarray, is_same: np.ndarray, bounds: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Return how many pairs of each fold each threshold decides rightly, (K, T) int64.

    ``distances`` (N,), ``is_same`` (N,) bool, ``bounds`` (K + 1,), ``thresholds`` (T,) ascending.
    """
    folds, steps = len(bounds) - 1, len(thresholds)
    # Thresholds up to and including the distance reject the pair; those from `first` on accept it.
    first = np.searchsorted(thresholds, distances, side="right")
    fold = np.repeat(np.arange(folds), np.diff(bounds))
    cell = fold * (steps + 1) + first
    cells = folds * (steps + 1)

    def accepted(of: np.ndarray) -> np.ndarray:
        counts = np.bincount(cell[of], minlength=cells).reshape(folds, steps + 1)
        return np.cumsum(counts[:, :steps], axis=1)

    impostors = np.add.reduceat(~is_same, bounds[:-1], dtype=np.int64)
    return accepted(is_same) + impostors[:, None] - accepted(~is_same)


def evaluate_folds(
    distances: np.ndarray,
    is_same: np.ndarray,
    *,
    folds: int = 10,
    thresholds: np.ndarray = THRESHOLDS,
) -> FoldResult:
    """Score each fold at the threshold the other folds choose.

    ``distances``: (N,) squared distances; ``is_same``: (N,) bool; N >= folds >= 2.
    """
    bounds = fold_bounds(len(distances), folds)
    correct = correct_counts(distances, is_same, bounds, thresholds)
    best = np.argmax(correct.sum(axis=0) - correct, axis=1)  # argmax takes the first maximum
    chosen = correct[np.arange(folds), best]
    return FoldResult(accuracies=chosen / np.diff(bounds), thresholds=thresholds[best])
