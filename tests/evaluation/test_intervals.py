from __future__ import annotations

import math

import numpy as np
import pytest

from arcface_plus.evaluation.intervals import (
    accuracy_difference,
    bootstrap_intervals,
    mcnemar_p,
    percentile_interval,
    right_decisions,
    weighted_accuracies,
    weighted_tars,
)
from arcface_plus.evaluation.resampling import (
    PAIRS,
    PEOPLE,
    PEOPLE_WITHIN_FOLDS,
    draw_weights,
    plan_resampling,
)
from arcface_plus.evaluation.roc import tar_at_far
from arcface_plus.evaluation.tenfold import evaluate_folds, fold_bounds

THRESHOLD = 1.5  # the best one of the simulated distances, by symmetry


def simulate(
    rng: np.random.Generator, *, folds: int = 10, people: int = 20, pairs: int = 40, effect: float
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Pairs of each kind in a fold, whose distances share what is peculiar to a person.

    Genuine distances are N(1.1, 0.2²), impostor distances N(1.9, 0.2²), whatever ``effect``.
    """
    distances, is_same, names_a, names_b = [], [], [], []
    for fold in range(folds):
        own, other = rng.normal(0, effect, people), rng.normal(0, effect / math.sqrt(2), people)
        left = math.sqrt(1 - effect**2)
        same = rng.integers(people, size=pairs)
        a = rng.integers(people, size=pairs)
        b = (a + rng.integers(1, people, size=pairs)) % people
        distances.append(1.1 + 0.2 * (own[same] + left * rng.normal(size=pairs)))
        distances.append(1.9 + 0.2 * (other[a] + other[b] + left * rng.normal(size=pairs)))
        is_same += [True] * pairs + [False] * pairs
        names_a += [f"{fold}/{p}" for p in (*same, *a)]
        names_b += [f"{fold}/{p}" for p in (*same, *b)]
    return np.concatenate(distances), np.array(is_same), names_a, names_b


@pytest.mark.parametrize("count", [400, 403])
def test_equal_weights_give_the_protocols_accuracy(count: int) -> None:
    rng = np.random.default_rng(0)
    is_same = rng.random(count) < 0.5
    distances = np.where(is_same, rng.normal(1.2, 0.4, count), rng.normal(1.8, 0.4, count))
    plan = plan_resampling(is_same, 10)
    assert plan.share.sum() == pytest.approx(1)
    accuracy = weighted_accuracies(distances, is_same, 10, plan.share[None])
    expected = evaluate_folds(distances, is_same, folds=10).accuracies.mean()
    assert accuracy == pytest.approx(expected, abs=1e-12)


def test_weights_that_are_counts_are_repeated_pairs() -> None:
    """Three folds; every pair as often as its weight says, in a loop over folds and thresholds."""
    rng = np.random.default_rng(1)
    is_same = np.tile([True, False], 30)
    distances = np.where(is_same, rng.normal(1.2, 0.4, 60), rng.normal(1.8, 0.4, 60))
    counts = rng.integers(0, 4, 60)
    bounds = fold_bounds(60, 3)
    total = 0.0
    for k in range(3):
        inside = np.zeros(60, dtype=bool)
        inside[bounds[k] : bounds[k + 1]] = True
        scores = [
            (counts * ((distances < t) == is_same))[~inside].sum() for t in np.arange(0, 4, 0.01)
        ]
        limit = np.arange(0, 4, 0.01)[int(np.argmax(scores))]
        total += (counts * ((distances < limit) == is_same))[inside].sum()
    weights = (counts / counts.sum())[None]
    accuracy = weighted_accuracies(distances, is_same, 3, weights)
    assert accuracy == pytest.approx(total / counts.sum())


def test_equal_weights_give_tar_at_far_with_ties() -> None:
    rng = np.random.default_rng(2)
    is_same = np.repeat([True, False], [300, 500])
    distances = np.round(np.where(is_same, rng.normal(1.2, 0.4, 800), rng.normal(1.8, 0.4, 800)), 1)
    fars = [0.002, 0.01, 0.1, 0.29, 1.0]
    reached, _ = tar_at_far(distances[is_same], distances[~is_same], fars)
    tars = weighted_tars(distances, is_same, np.array(fars), np.ones((1, 800)))
    assert tars[0] == pytest.approx([point.tar for point in reached], abs=1e-12)


def test_weighted_tar_equals_that_of_repeated_pairs() -> None:
    rng = np.random.default_rng(3)
    is_same = np.repeat([True, False], [40, 60])
    distances = rng.random(100) * 4
    counts = rng.integers(0, 3, 100)
    fars = np.array([0.1, 0.3, 0.7])
    again, labels = np.repeat(distances, counts), np.repeat(is_same, counts)
    reached, _ = tar_at_far(again[labels], again[~labels], fars.tolist())
    tars = weighted_tars(distances, is_same, fars, counts[None].astype(float))
    assert tars[0] == pytest.approx([point.tar for point in reached])


def test_what_is_drawn_depends_on_the_names() -> None:
    rng = np.random.default_rng(4)
    _, is_same, names_a, names_b = simulate(rng, folds=4, effect=0)
    within = plan_resampling(is_same, 4, (names_a, names_b))
    assert within.basis == PEOPLE_WITHIN_FOLDS
    assert within.units == len({*names_a, *names_b})
    shared = [name.split("/")[1] for name in names_a], [name.split("/")[1] for name in names_b]
    across = plan_resampling(is_same, 4, shared)
    assert (across.basis, across.units) == (PEOPLE, 20)
    few = ["a" if same else "b" for same in is_same]
    assert plan_resampling(is_same, 4, (few, few)).basis == PAIRS
    assert plan_resampling(is_same, 4).basis == PAIRS


@pytest.mark.parametrize("named", [True, False])
def test_draws_keep_the_weight_of_each_fold_and_kind(named: bool) -> None:
    rng = np.random.default_rng(5)
    _, is_same, names_a, names_b = simulate(rng, folds=4, effect=0)
    plan = plan_resampling(is_same, 4, (names_a, names_b) if named else None)
    (weights,) = draw_weights(plan, 20, seed=1)
    assert weights.shape == (20, len(is_same))
    for stratum in np.unique(plan.stratum):
        assert weights[:, plan.stratum == stratum].sum(axis=1) == pytest.approx(1 / 8)
    assert (weights[0] != weights[1]).any()


def test_pairs_of_a_person_rise_and_fall_together() -> None:
    names_a = list("aabbccddeeff") * 2
    names_b = list("aabbccddeeff") + list("bbccddeeffaa")
    is_same = np.repeat([True, False], 12)
    plan = plan_resampling(is_same, 2, (names_a, names_b))
    weights = np.concatenate(list(draw_weights(plan, 200, seed=0)))
    assert (weights[:, 0] == weights[:, 1]).all()
    a, b = weights[:, 0] > 0, weights[:, 2] > 0
    assert ((weights[:, 12] > 0) == (a & b)).all()
    assert 0 < (a & b).mean() < 1


def test_draws_come_in_parts_for_large_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    distances, is_same, *names = simulate(rng, folds=4, effect=0.5)
    people = (names[0], names[1])
    whole = bootstrap_intervals(distances, is_same, 4, fars=[0.1], people=people, replicates=50)
    monkeypatch.setattr("arcface_plus.evaluation.resampling._CELLS_AT_ONCE", 1000)
    parts = bootstrap_intervals(distances, is_same, 4, fars=[0.1], people=people, replicates=50)
    assert parts.replicates == whole.replicates == 50
    assert parts.accuracy == pytest.approx(whole.accuracy)
    assert parts.tar == pytest.approx(whole.tar)


def test_person_effects_widen_the_interval() -> None:
    rng = np.random.default_rng(7)
    distances, is_same, *names = simulate(rng, effect=0.9)
    people = (names[0], names[1])
    by_people = bootstrap_intervals(distances, is_same, 10, people=people, replicates=300)
    by_pairs = bootstrap_intervals(distances, is_same, 10, replicates=300)
    assert np.diff(by_people.accuracy) > 1.2 * np.diff(by_pairs.accuracy)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say_with_person_effects() -> None:
    """100 simulated sets of 20 people a fold: the truth is Φ(0.4 / 0.2) = Φ(2)."""
    truth = 0.5 * (1 + math.erf((THRESHOLD - 1.1) / 0.2 / math.sqrt(2)))
    held = {"people": 0, "pairs": 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        distances, is_same, *names = simulate(rng, pairs=100, effect=0.7)
        for basis, people in (("people", (names[0], names[1])), ("pairs", None)):
            found = bootstrap_intervals(
                distances, is_same, 10, people=people, replicates=200, seed=seed
            )
            held[basis] += found.accuracy[0] <= truth <= found.accuracy[1]
    assert held["people"] >= 92
    assert held["pairs"] < held["people"]


def test_difference_of_a_model_to_itself_is_nothing() -> None:
    distances, is_same, *_ = simulate(np.random.default_rng(8), effect=0)
    found = accuracy_difference(distances, distances, is_same, 10, replicates=50)
    assert (found.difference, found.interval, found.mcnemar_p) == (0.0, (0.0, 0.0), 1.0)


def test_pairing_narrows_the_difference() -> None:
    rng = np.random.default_rng(9)
    distances, is_same, *names = simulate(rng, pairs=100, effect=0.5)
    people = (names[0], names[1])
    worse = distances + rng.normal(0, 0.1, len(distances))
    found = accuracy_difference(distances, worse, is_same, 10, people=people, replicates=300)
    first = evaluate_folds(distances, is_same).accuracies.mean()
    second = evaluate_folds(worse, is_same).accuracies.mean()
    assert found.difference == pytest.approx(first - second)
    assert found.basis == PEOPLE_WITHIN_FOLDS
    assert found.interval[0] < found.difference < found.interval[1]
    alone = [
        bootstrap_intervals(d, is_same, 10, people=people, replicates=300).accuracy
        for d in (distances, worse)
    ]
    assert np.diff(found.interval) < math.hypot(*(high - low for low, high in alone))


def test_mcnemar_is_the_binomial_test() -> None:
    first = np.array([True] * 9 + [False] * 1 + [True] * 20)
    second = np.array([False] * 9 + [True] * 1 + [True] * 20)
    assert mcnemar_p(first, second) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar_p(first, first) == 1.0


def test_decisions_are_those_of_each_folds_threshold() -> None:
    distances, is_same, *_ = simulate(np.random.default_rng(10), effect=0)
    right = right_decisions(distances, is_same, 10)
    expected = evaluate_folds(distances, is_same).accuracies
    assert right.reshape(10, -1).mean(axis=1) == pytest.approx(expected)


def test_percentiles_go_into_the_last_axis() -> None:
    samples = np.stack([np.arange(101.0), np.arange(101.0) * 2], axis=1)
    assert percentile_interval(samples) == pytest.approx(np.array([[2.5, 97.5], [5, 195]]))


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 names for 4 pairs"):
        plan_resampling(np.array([True, False] * 2), 2, (["a"] * 3, ["b"] * 2))
