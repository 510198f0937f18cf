from __future__ import annotations

import math

import numpy as np
import pytest

from arcface_plus.evaluation.pairs.comparison import accuracy_difference, mcnemar_p
from arcface_plus.evaluation.pairs.dependence import find_units
from arcface_plus.evaluation.pairs.intervals import score_intervals
from arcface_plus.evaluation.pairs.tenfold import evaluate_folds


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances by two models that err on the same pairs, and labels; 1 000 pairs."""
    rng = np.random.default_rng(0)
    is_same = np.tile([True, False], 500)
    distances = np.where(is_same, 1.1, 1.9) + rng.normal(0, 0.25, 1000)
    return distances, distances + rng.normal(0, 0.1, 1000), is_same


def test_a_model_does_not_differ_from_itself(scores) -> None:
    distances, _, is_same = scores
    thresholds = evaluate_folds(distances, is_same).thresholds
    found = accuracy_difference(
        distances, thresholds, distances, thresholds, is_same, find_units(is_same)
    )
    assert (found.difference, found.interval, found.mcnemar_p) == (0.0, (0.0, 0.0), 1.0)
    assert (found.gained, found.lost) == (0, 0)


def test_pairing_narrows_the_difference(scores) -> None:
    first, second, is_same = scores
    units = find_units(is_same)
    folds = [evaluate_folds(each, is_same) for each in (first, second)]
    found = accuracy_difference(
        first, folds[0].thresholds, second, folds[1].thresholds, is_same, units
    )
    expected = folds[0].accuracies.mean() - folds[1].accuracies.mean()
    assert found.difference == pytest.approx(expected)
    assert found.interval[0] < found.difference < found.interval[1]
    assert sum(found.interval) / 2 == pytest.approx(found.difference)
    assert found.gained - found.lost == round(1000 * expected)
    alone = [
        np.diff(score_intervals(each, is_same, fold.thresholds, units).accuracy)[0]
        for each, fold in zip((first, second), folds, strict=True)
    ]
    assert np.diff(found.interval)[0] < math.hypot(*alone)
    assert found.to_dict()["basis"] == "pairs"


def test_mcnemar_is_the_binomial_test() -> None:
    first = np.array([True] * 9 + [False] * 1 + [True] * 20)
    second = np.array([False] * 9 + [True] * 1 + [True] * 20)
    assert mcnemar_p(first, second) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar_p(first, first) == 1.0


def test_other_pairs_are_refused(scores) -> None:
    distances, _, is_same = scores
    thresholds = evaluate_folds(distances, is_same).thresholds
    with pytest.raises(ValueError, match="1000 and 900 pairs in 10 and 10 folds"):
        accuracy_difference(
            distances, thresholds, distances[:900], thresholds, is_same, find_units(is_same)
        )
