from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import norm

from arcface_plus.evaluation.pairs.dependence import PAIRS, PEOPLE, Units, find_units
from arcface_plus.evaluation.pairs.intervals import (
    bootstrap_over_pairs,
    influences,
    pair_shares,
    rate_interval,
    right_decisions,
    score_intervals,
    student_quantile,
    threshold_at_far,
)
from arcface_plus.evaluation.pairs.tenfold import evaluate_folds


@pytest.fixture
def bench(repository: Path) -> ModuleType:
    """tools/bench/bench_coverage.py: its designs are the ones that docs quote."""
    path = repository / "tools" / "bench" / "bench_coverage.py"
    spec = importlib.util.spec_from_file_location("bench_coverage", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_coverage"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def simulate(
    seed: int, *, folds: int = 10, people: int = 20, pairs: int = 40, effect: float = 0.5
) -> tuple[np.ndarray, np.ndarray, Units]:
    """Pairs of each kind in a fold, whose distances share what is peculiar to a person."""
    rng = np.random.default_rng(seed)
    distances, is_same, names = [], [], [[], []]
    for fold in range(folds):
        own, other = rng.normal(0, effect, people), rng.normal(0, effect / math.sqrt(2), people)
        left = math.sqrt(1 - effect**2)
        same = rng.integers(people, size=pairs)
        a = rng.integers(people, size=pairs)
        b = (a + rng.integers(1, people, size=pairs)) % people
        distances.append(1.1 + 0.2 * (own[same] + left * rng.normal(size=pairs)))
        distances.append(1.9 + 0.2 * (other[a] + other[b] + left * rng.normal(size=pairs)))
        is_same += [True] * pairs + [False] * pairs
        names[0] += [f"{fold}/{p}" for p in (*same, *a)]
        names[1] += [f"{fold}/{p}" for p in (*same, *b)]
    labels = np.array(is_same)
    return np.concatenate(distances), labels, find_units(labels, people=(names[0], names[1]))


def test_shares_make_the_mean_over_folds_also_where_folds_differ() -> None:
    rng = np.random.default_rng(0)
    is_same = rng.random(403) < 0.5
    distances = np.where(is_same, rng.normal(1.2, 0.4, 403), rng.normal(1.8, 0.4, 403))
    scored = evaluate_folds(distances, is_same)
    right = right_decisions(distances, is_same, scored.thresholds)
    assert pair_shares(403, 10) @ right == pytest.approx(scored.accuracies.mean(), abs=1e-12)


def test_influences_sum_to_nothing_in_each_kind() -> None:
    distances, is_same, _ = simulate(1)
    found = influences(distances < 1.5, pair_shares(len(distances), 10), is_same)
    for kind in (is_same, ~is_same):
        assert found[kind].sum() == pytest.approx(0, abs=1e-12)


def test_a_rate_of_independent_pairs_gets_wilsons_interval() -> None:
    """Against the formula in its usual writing, at 80 of 100 and the quantile of many."""
    units = find_units(np.repeat([True, False], 50))
    low, high = rate_interval(0.8, 0.8 * 0.2 / 100, 1e9, units)
    z = norm.ppf(0.975)
    centre = (0.8 + z**2 / 200) / (1 + z**2 / 100)
    half = z / (1 + z**2 / 100) * math.sqrt(0.8 * 0.2 / 100 + z**2 / 40_000)
    assert (low, high) == pytest.approx((centre - half, centre + half))


def test_no_error_is_not_certainty() -> None:
    distances, is_same, units = simulate(2, effect=0.0)
    perfect = np.where(is_same, 0.5, 3.0)
    thresholds = evaluate_folds(perfect, is_same).thresholds
    found = score_intervals(perfect, is_same, thresholds, units, fars=[0.1, 1.0])
    weight = student_quantile(units.count - 1) ** 2 / units.count
    assert found.accuracy == pytest.approx((1 / (1 + weight), 1.0))
    assert found.pairs_claim == (1.0, 1.0), "which is what pairs would claim"
    assert (found.tar[:, 0] > 0.95).all() and (found.tar[:, 1] == 1).all()
    assert len(distances) == 800


def test_intervals_hold_their_rate() -> None:
    for seed in range(20):
        distances, is_same, units = simulate(seed, people=5, pairs=8, effect=0.9)
        result = evaluate_folds(distances, is_same)
        fars = np.array([0.0125, 0.1, 0.5, 1.0])
        found = score_intervals(distances, is_same, result.thresholds, units, fars=fars)
        low, high = found.accuracy
        assert 0 <= low <= result.accuracies.mean() <= high <= 1
        assert (found.tar[:, 0] <= found.tar[:, 1]).all()
        assert (found.tar >= 0).all() and (found.tar <= 1).all()
        assert found.tar[-1, 1] == 1, "at a FAR of 1 all are accepted"


def test_person_effects_widen_the_interval_and_not_what_pairs_claim() -> None:
    ratios = []
    for effect in (0.0, 0.9):
        distances, is_same, units = simulate(3, pairs=200, effect=effect)
        assert units.basis == PEOPLE
        result = evaluate_folds(distances, is_same)
        found = score_intervals(distances, is_same, result.thresholds, units)
        ratios.append(np.diff(found.accuracy)[0] / np.diff(found.pairs_claim)[0])
    assert 1.0 < ratios[0] < 1.4
    assert ratios[1] > 1.5


def test_bootstrap_over_pairs_is_what_drawing_pairs_gives() -> None:
    rng = np.random.default_rng(4)
    is_same = np.tile(np.repeat([True, False], 20), 5)
    right = rng.random(200) < np.where(is_same, 0.8, 0.9)
    strata = 2 * np.repeat(np.arange(5), 40) + is_same
    means = []
    for _ in range(4000):
        drawn = [rng.choice(right[strata == s], size=20).mean() for s in range(10)]
        means.append(np.mean(drawn))
    low, high = np.quantile(means, [0.025, 0.975])
    assert bootstrap_over_pairs(right, is_same, 5) == pytest.approx((low, high), abs=0.01)
    assert bootstrap_over_pairs(right, is_same, 5) == bootstrap_over_pairs(right, is_same, 5)


def test_threshold_for_a_far_and_where_it_may_be() -> None:
    is_same = np.repeat([True, False], [10, 1000])
    distances = np.r_[np.full(10, 0.5), np.arange(1000) / 500 + 1]
    units = find_units(is_same)
    assert units.basis == PAIRS
    advice = threshold_at_far(distances, is_same, units, 0.05)
    assert advice.threshold == distances[10 + 50]
    assert (advice.far_reached, advice.coarse) == (0.05, False)
    low, high = advice.far_interval
    assert 0.03 < low < 0.05 < high < 0.07
    # Distances are even, so the threshold's interval is that of FAR, scaled.
    assert advice.threshold_interval == pytest.approx((1 + 2 * low, 1 + 2 * high))
    plain = advice.to_dict()
    assert plain["cosine_threshold"] == pytest.approx(1 - advice.threshold / 2)
    assert plain["cosine_threshold_interval"] == pytest.approx([0.5 - high, 0.5 - low])
    assert threshold_at_far(distances, is_same, units, 0.005).coarse


def test_a_far_that_pairs_cannot_show_gets_no_threshold() -> None:
    distances, is_same, units = simulate(5)
    with pytest.raises(ValueError, match=r"400 impostor pairs cannot show a FAR of 0\.0001.*10000"):
        threshold_at_far(distances, is_same, units, 1e-4)
    for far in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            threshold_at_far(distances, is_same, units, far)


@pytest.mark.slow
@pytest.mark.parametrize(("design", "effect"), [("lfw", 0.5), ("dense", 0.66), ("orl", 0.5)])
def test_intervals_hold_the_truth_as_often_as_they_say(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, design: str, effect: float
) -> None:
    """150 simulated benchmarks each; the standard error of a coverage of 95 % is 1.8 %."""
    monkeypatch.setattr(bench, "TRUTH_FROM", 600)
    monkeypatch.setattr(bench, "PRODUCT_DRAWS", 20)
    rows = bench.simulate(design, effect, bench.LEVELS["94 %"], 150, seed=1)
    held = {(row["quantity"], row["method"]): row["coverage"] for row in rows}
    for quantity in ("accuracy", "tar", "difference"):
        assert 0.9 <= held[quantity, "reported"] <= 0.995, (quantity, held)
    if design != "lfw":
        assert held["accuracy", "bootstrap over pairs"] < 0.85, "why people are the units"
