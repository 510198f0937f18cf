"""Summaries over seeds and paired differences, against SciPy and by hand; refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from arcface_plus.studies.repeats.comparison import Comparison, known_measures
from arcface_plus.studies.repeats.records import Record


def record(row: str, seed: int, settings: str = "same", log=None, **sets) -> Record:
    name = f"{row}-seed{seed}"
    return Record(
        row=row, seed=seed, run=name, config="c", settings=settings, log=log or {}, sets=sets
    )


def test_differences_are_of_the_seeds_that_both_rows_have() -> None:
    rng = np.random.default_rng(0)
    scores = {row: rng.uniform(0.6, 0.9, 6) for row in "ab"}
    seeds = {"a": (1, 2, 3, 4, 5, 6), "b": (6, 2, 3, 9, 5, 7)}  # in common: 2, 3, 5, 6
    records = [
        record(row, seed, lfw={"accuracy": scores[row][i]})
        for row in "ab"
        for i, seed in enumerate(seeds[row])
    ]
    comparison = Comparison("ab", records, reference="a")
    difference = comparison.difference("b", "lfw", "accuracy")
    a = [100 * scores["a"][seeds["a"].index(s)] for s in (2, 3, 5, 6)]
    b = [100 * scores["b"][seeds["b"].index(s)] for s in (2, 3, 5, 6)]
    test = stats.ttest_rel(b, a)
    interval = test.confidence_interval(0.95)
    assert difference.n == 4
    assert difference.mean == pytest.approx(np.mean(b) - np.mean(a))
    assert difference.p == pytest.approx(test.pvalue) and 0.001 < difference.p < 0.999
    assert 2 * difference.half_width == pytest.approx(interval.high - interval.low)
    assert comparison.difference("a", "lfw", "accuracy") is None
    [own, other] = comparison.long_rows(["accuracy"])
    assert own["difference"] is None and other["p"] == difference.p and other["runs"] == 6
    assert other["mean"] == pytest.approx(100 * scores["b"].mean())


def test_the_test_rejects_a_true_null_in_one_of_twenty() -> None:
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(400):
        accuracies = rng.normal(0.8, 0.01, (2, 4)).clip(0, 1)
        runs = [
            record(row, seed, lfw={"accuracy": accuracies[i, seed]})
            for (i, row), seed in itertools.product(enumerate("ab"), range(4))
        ]
        rejected += Comparison("ab", runs, "a").difference("b", "lfw", "accuracy").p < 0.05
    assert 8 <= rejected <= 36  # binomial, 400 × 0.05: beyond it with probability below 0.001


def test_equal_differences_are_no_evidence() -> None:
    runs = [record("a", s, lfw={"auc": 0.25}) for s in (1, 2)]
    runs += [record("b", s, lfw={"auc": 0.5}) for s in (1, 2)]
    runs += [record("c", 2, lfw={"auc": 0.5})]
    comparison = Comparison("abc", runs, "a")
    same, single = (comparison.difference(row, "lfw", "auc") for row in "bc")
    assert str(same) == "+25.00 (± 0.00)" and math.isnan(same.p)
    assert str(single) == "+25.00" and single.n == 1


def test_measures_that_runs_have() -> None:
    first = record("a", 1, lfw={"accuracy": 0.5, "tar_at_far": {"0.01": 0.3, "1e-05": 0.1}})
    comparison = Comparison("a", [first, record("a", 2, digits={"top1": 0.9})])
    assert comparison.chosen_measures() == ["accuracy", "top1"]
    assert comparison.sets_with("top1") == ["digits"]
    wanted = known_measures(["tar@1e-2", "tar@0.00001", "accuracy"])
    assert comparison.chosen_measures(wanted) == ["tar@0.01", "tar@1e-05", "accuracy"]
    assert comparison.values("a", "lfw", "tar@0.01") == {1: 30.0}
    with pytest.raises(ValueError, match=r"No run has tar@0\.1; choose of accuracy, tar@0\.01"):
        comparison.chosen_measures(["tar@0.1"])


@pytest.mark.parametrize(
    "name", ["", "acuracy", "tar", "tar@", "tar@x", "tar@1", "tar@1e400", "TAR"]
)
def test_what_is_no_measure_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no measure; choose of accuracy"):
        known_measures(["auc", name])


def test_angles_are_those_that_every_run_logged() -> None:
    both = {"target_angle": 60.0, "nearest_angle": 70.0}
    runs = [record("a", 1, log=both), record("a", 2, log={"target_angle": 64.0})]
    assert Comparison("ab", runs).logged("a") == {"target_angle": 62.0}
    assert Comparison("ab", runs).logged("b") == {}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (record("a", 1), "has seed 1 twice"),
        (record("a", 2, settings="other"), "a has runs of different settings, a-seed1 and a-seed2"),
        (record("z", 2), "of the row 'z', but the rows are a, b"),
    ],
)
def test_runs_that_do_not_make_a_row_are_refused(second: Record, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Comparison("ab", [record("a", 1), second])
    with pytest.raises(ValueError, match="no row 'c' to compare with; choose of a, b"):
        Comparison("ab", [], reference="c")
