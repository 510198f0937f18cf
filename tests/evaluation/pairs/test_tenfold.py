from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import KFold

from arcface_plus.evaluation.pairs.tenfold import (
    THRESHOLDS,
    correct_counts,
    evaluate_folds,
    fold_bounds,
)


def naive_folds(distances, is_same, folds, thresholds):
    """Loop over folds and thresholds, as the protocol is worded."""
    accuracies, chosen = [], []
    for others, fold in KFold(n_splits=folds).split(distances):
        best, best_accuracy = None, -1.0
        for threshold in thresholds:
            accuracy = np.mean((distances[others] < threshold) == is_same[others])
            if accuracy > best_accuracy:
                best, best_accuracy = threshold, accuracy
        accuracies.append(np.sum((distances[fold] < best) == is_same[fold]) / len(fold))
        chosen.append(best)
    return np.array(accuracies), np.array(chosen)


def draw(rng, kind: str, pairs: int) -> np.ndarray:
    if kind == "on thresholds":
        return rng.choice(THRESHOLDS, pairs)
    if kind == "beside thresholds":
        near = rng.choice(THRESHOLDS[1::7], pairs)
        return np.nextafter(near, rng.choice([-1.0, 9.0], pairs))
    if kind == "identical":
        return np.zeros(pairs)
    if kind == "beyond":
        return rng.choice([0.0, 3.98, 3.99, 4.0, 4.0 + 1e-15], pairs)
    return rng.uniform(0, 4, pairs)


@pytest.mark.parametrize(
    "kind", ["on thresholds", "beside thresholds", "identical", "beyond", "any"]
)
@pytest.mark.parametrize("labels", ["random", "sorted", "first fold genuine", "one genuine"])
def test_equals_the_loop_to_the_last_digit(kind, labels):
    rng = np.random.default_rng(len(kind) * 10 + len(labels))
    for _ in range(3):
        folds = int(rng.integers(2, 11))
        pairs = int(rng.integers(folds, 120))
        distances = draw(rng, kind, pairs)
        is_same = rng.random(pairs) < 0.5
        if labels == "sorted":
            is_same = np.sort(is_same)
        elif labels == "first fold genuine":
            is_same = np.arange(pairs) < -(-pairs // folds)
        elif labels == "one genuine":
            is_same = np.arange(pairs) == pairs - 1
        accuracies, thresholds = naive_folds(distances, is_same, folds, THRESHOLDS)
        result = evaluate_folds(distances, is_same, folds=folds)
        assert np.array_equal(result.accuracies, accuracies)
        assert np.array_equal(result.thresholds, thresholds)


def test_thresholds_are_the_protocols():
    assert len(THRESHOLDS) == 400 and THRESHOLDS[0] == 0 and THRESHOLDS[-1] < 4
    assert np.array_equal(THRESHOLDS, np.arange(0, 4, 0.01))


@pytest.mark.parametrize(("pairs", "folds"), [(10, 10), (11, 10), (19, 10), (6000, 10), (7, 2)])
def test_folds_are_cut_as_kfold_cuts(pairs, folds):
    bounds = fold_bounds(pairs, folds)
    for k, (_, fold) in enumerate(KFold(n_splits=folds).split(np.zeros(pairs))):
        assert fold.tolist() == list(range(bounds[k], bounds[k + 1]))


def test_counts_by_hand():
    counts = correct_counts(
        np.array([0.1, 0.3, 0.2]),
        np.array([True, False, True]),
        np.array([0, 2, 3]),
        np.array([0.0, 0.2, 0.25]),
    )
    assert counts.tolist() == [[1, 2, 2], [0, 0, 1]]  # 0.2 < 0.2 is not


def test_first_of_equal_thresholds_is_taken():
    # Every threshold above 1 and up to 3 is perfect: the first of them is 1.01.
    result = evaluate_folds(np.array([1.0, 3.0] * 4), np.array([True, False] * 4), folds=4)
    assert result.thresholds.tolist() == [THRESHOLDS[101]] * 4
    assert result.accuracies.tolist() == [1.0] * 4
