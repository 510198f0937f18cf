from __future__ import annotations

import math

import numpy as np
import pytest

from arcface_plus.evaluation.embedding.files import read_embedded_pairs
from arcface_plus.evaluation.pairs.calibration import (
    calibration_quality,
    fit_ratios,
    held_out_ratios,
    log_cost,
    probability,
)
from arcface_plus.evaluation.pairs.verification import squared_distances


def drawn(genuine: int, impostor: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of N(0.5, 0.15²) and N(0, 0.15²): log likelihood ratio (c - 0.25) / 0.045."""
    rng = np.random.default_rng(seed)
    is_same = rng.permutation(np.arange(genuine + impostor) < genuine)
    return np.clip(rng.normal(np.where(is_same, 0.5, 0.0), 0.15), -1, 1), is_same


def isotonic(values: list[float], weights: list[float]) -> list[float]:
    """max over j <= i of min over k >= i of the weighted mean of j … k (Barlow et al., 1972)."""
    count = len(values)

    def mean(j: int, k: int) -> float:
        total = sum(weights[j : k + 1])
        return (
            sum(v * w for v, w in zip(values[j : k + 1], weights[j : k + 1], strict=True)) / total
        )

    return [
        max(min(mean(j, k) for k in range(i, count)) for j in range(i + 1)) for i in range(count)
    ]


def naive_ratios(cosines: np.ndarray, is_same: np.ndarray) -> list[float]:
    """Log likelihood ratios at ``cosines`` (all different), one pair of each kind at either end."""
    order = np.argsort(cosines)
    genuine, impostor = int(is_same.sum()), int((~is_same).sum())
    same = [1.0, 0.0, *is_same[order].astype(float), 1.0, 0.0]
    # The two pairs at an end have one cosine: they are one point of both weights.
    weights = [1 / genuine if each else 1 / impostor for each in same]
    both = weights[0] + weights[1]
    values = [weights[0] / both, *same[2:-2], weights[0] / both]
    shares = isotonic(values, [both, *weights[2:-2], both])[1:-1]
    found = np.empty(len(cosines))
    found[order] = [math.log(share / (1 - share)) for share in shares]
    return found.tolist()


@pytest.mark.parametrize(("genuine", "impostor"), [(14, 14), (8, 25), (20, 4), (1, 1)])
def test_ratios_are_isotonic_regression_with_both_kinds_alike(genuine, impostor):
    cosines, is_same = drawn(genuine, impostor)
    curve = fit_ratios(cosines, is_same)
    np.testing.assert_allclose(curve.at(cosines), naive_ratios(cosines, is_same), atol=1e-9)
    # Never beyond one pair of the other kind among all of a kind.
    assert min(curve.log_ratios) >= -math.log(genuine * (1 + 1 / impostor)) - 1e-9
    assert max(curve.log_ratios) <= math.log(impostor * (1 + 1 / genuine)) + 1e-9
    if genuine > 1:
        assert np.ptp(curve.log_ratios) > 1


def test_ratios_do_not_depend_on_how_many_of_a_kind_there_are():
    cosines, is_same = drawn(200, 200)
    once = fit_ratios(cosines, is_same)
    often = np.concatenate([cosines, *[cosines[is_same]] * 9])
    ten_times = fit_ratios(often, np.concatenate([is_same, np.ones(9 * 200, dtype=bool)]))
    middle = np.linspace(0.2, 0.3, 11)
    np.testing.assert_allclose(once.at(middle), ten_times.at(middle), atol=1e-9)


def test_ratios_come_near_the_true_ones():
    cosines, is_same = drawn(20_000, 20_000)
    middle = np.linspace(0.1, 0.4, 301)
    errors = fit_ratios(cosines, is_same).at(middle) - (middle - 0.25) / 0.045
    assert abs(errors.mean()) < 0.1 and np.sqrt(np.mean(errors**2)) < 0.3


def test_held_out_ratios_of_a_fold_are_those_of_the_others():
    cosines, is_same = drawn(37, 36)
    ratios = held_out_ratios(cosines, is_same, 4)
    start = 0
    for size in (19, 18, 18, 18):
        fold = np.zeros(73, dtype=bool)
        fold[start : start + size] = True
        others = fit_ratios(cosines[~fold], is_same[~fold])
        assert ratios[fold].tolist() == others.at(cosines[fold]).tolist()
        start += size
    with pytest.raises(ValueError, match="one kind of pair alone"):
        held_out_ratios(np.arange(4) / 4, np.array([True, True, False, False]), 2)


def test_cost_is_the_formula_and_the_minimum_is_what_order_allows():
    ratios = np.log(np.array([3.0, 0.5, 8.0, 0.25, 2.0]))
    is_same = np.array([True, True, True, False, False])
    genuine = [math.log2(1 + 1 / 3), math.log2(1 + 2), math.log2(1 + 1 / 8)]
    impostor = [math.log2(1 + 0.25), math.log2(1 + 2)]
    expected = (sum(genuine) / 3 + sum(impostor) / 2) / 2
    quality = calibration_quality(ratios, is_same, 5)
    assert quality.cllr == pytest.approx(expected, abs=1e-12)
    # In the order of ratios: impostor, (genuine, impostor), genuine, genuine.
    pooled = (1 / 3) / (1 / 2)
    best = (math.log2(1 + 1 / pooled) / 3 + math.log2(1 + pooled) / 2) / 2
    assert quality.min_cllr == pytest.approx(best, abs=1e-12)
    assert calibration_quality(-3 + 0.1 * ratios, is_same, 5).min_cllr == pytest.approx(best)
    assert log_cost(np.zeros(5), is_same) == pytest.approx(1.0)
    apart = calibration_quality(np.array([1.0, 2.0, -1.0]), np.array([True, True, False]), 2)
    assert apart.min_cllr == 0 < apart.cllr


def test_held_out_cost_is_near_the_least_one():
    cosines, is_same = drawn(3000, 3000, seed=3)
    quality = calibration_quality(held_out_ratios(cosines, is_same, 10), is_same, 10)
    true = log_cost((cosines - 0.25) / 0.045, is_same)
    assert quality.min_cllr < quality.cllr <= 1.1 * quality.min_cllr
    assert quality.cllr == pytest.approx(true, rel=0.1)


def test_probability_by_bayes():
    for ratio in (0.01, 1.0, 250.0):
        for prior in (0.001, 0.5, 0.9):
            odds = ratio * prior / (1 - prior)
            assert probability(math.log(ratio), prior) == pytest.approx(odds / (1 + odds))
    for prior in (0, 1, -0.5, 2, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            probability(0.0, prior)


def test_lfw(shared_data):
    """The bar: Cllr on held-out folds is at most 1.1 × minCllr."""
    held = read_embedded_pairs(
        shared_data / "embeddings" / "lfw_mobilefacenet_y1.npz", shared_data / "lfw" / "pairs.txt"
    )
    cosines = 1 - squared_distances(held.embeddings_a, held.embeddings_b) / 2
    ratios = held_out_ratios(cosines, held.is_same, 10)
    quality = calibration_quality(ratios, held.is_same, 10)
    assert 0.02 < quality.min_cllr < quality.cllr <= 1.1 * quality.min_cllr < 0.04
