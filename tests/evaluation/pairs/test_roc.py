from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from arcface_plus.evaluation.pairs.roc import (
    area_under_curve,
    distances_needed,
    equal_error_rate,
    tar_at_far,
    tar_at_far_of_scores,
    tar_at_nearest_far,
)

TARGETS = (1e-4, 1e-3, 0.01, 0.1, 0.29, 0.5, 1.0)


def cases():
    rng = np.random.default_rng(0)
    for kind in range(4):
        for genuine, impostor in ((1, 1), (1, 30), (40, 7), (200, 300)):
            a, b = rng.normal(1, 0.4, genuine), rng.normal(1.6, 0.4, impostor)
            if kind == 1:
                a, b = a.round(1), b.round(1)  # ties within and between
            elif kind == 2:
                a, b = np.ones(genuine), np.ones(impostor)
            elif kind == 3:
                a, b = b[:1].repeat(genuine), a[:1].repeat(impostor)  # the wrong way round
            yield a, b


def labels_and_scores(genuine, impostor):
    labels = np.r_[np.ones(len(genuine)), np.zeros(len(impostor))]
    return labels, -np.r_[genuine, impostor]


@pytest.mark.parametrize(("genuine", "impostor"), list(cases()))
def test_area_agrees_with_scikit_learn(genuine, impostor):
    expected = roc_auc_score(*labels_and_scores(genuine, impostor))
    assert area_under_curve(genuine, impostor) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("genuine", "impostor"), list(cases()))
def test_equal_error_agrees_with_scikit_learns_curve(genuine, impostor):
    far, tar, _ = roc_curve(*labels_and_scores(genuine, impostor), drop_intermediate=False)
    # Where the curve is vertical, interp1d needs distinct abscissae: go along far - tar instead.
    along = far + (1 - tar) * 0 - (1 - tar)
    expected = float(interp1d(along, far)(0.0)) if along[0] < 0 < along[-1] else 0.0
    assert equal_error_rate(genuine, impostor) == pytest.approx(expected, abs=1e-12)


def test_equal_error_agrees_with_the_usual_recipe():
    rng = np.random.default_rng(5)
    genuine, impostor = rng.normal(1, 0.4, 900), rng.normal(1.6, 0.4, 700)
    far, tar, _ = roc_curve(*labels_and_scores(genuine, impostor))
    expected = brentq(lambda x: 1 - x - np.interp(x, far, tar), 0, 1)
    assert equal_error_rate(genuine, impostor) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("genuine", "impostor", "expected"),
    [([0, 1], [2, 3], 0.0), ([2, 3], [0, 1], 1.0), ([1], [1], 0.5), ([0, 2], [1, 3], 0.5)],
)
def test_equal_error_by_hand(genuine, impostor, expected):
    assert equal_error_rate(np.array(genuine), np.array(impostor)) == expected


def naive_tar(genuine, impostor, target):
    """Try every threshold at, between and beyond the distances."""
    values = np.unique(np.r_[genuine, impostor])
    candidates = np.r_[values, np.nextafter(values, np.inf), -1.0, np.inf]
    allowed = [t for t in candidates if np.mean(impostor < t) <= target]
    return max(allowed), np.mean(genuine < max(allowed))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("impostors", [10, 29, 100, 1000])
def test_tar_is_at_the_largest_threshold_allowed(ties, impostors):
    rng = np.random.default_rng(impostors)
    genuine, impostor = rng.normal(1, 0.4, 70), rng.normal(1.6, 0.4, impostors)
    if ties:
        genuine, impostor = genuine.round(1), impostor.round(1)
    targets = [0.1, 0.29, 0.3, 0.07, 1 / 3, 0.999, 1.0, 0.57]
    found = tar_at_far(genuine, impostor, targets)
    assert list(found.tar_at_far) == [t for t in targets if t * impostors >= 1]
    assert list(found.refused_fars) == [t for t in targets if t * impostors < 1]
    for target, tar in found.tar_at_far.items():
        far, threshold = found.far_reached[target], found.tar_thresholds[target]
        assert (threshold, tar) == naive_tar(genuine, impostor, target)
        assert far == np.mean(impostor < threshold) <= target
    few = np.sort(impostor)[: distances_needed(impostors, targets[:2])]
    assert tar_at_far(genuine, few, targets[:2], impostors=impostors) == tar_at_far(
        genuine, impostor, targets[:2]
    )


def test_rates_that_decimals_do_not_hold():
    # 0.29 * 100 is 28.999999999999996, yet 29 of 100 is a FAR of 0.29.
    impostor = np.arange(100.0)
    found = tar_at_far(np.array([28.5, 29.5]), impostor, [0.29])
    assert (found.tar_thresholds, found.far_reached) == ({0.29: 29.0}, {0.29: 0.29})
    assert found.tar_at_far == {0.29: 0.5}
    for target, count in ((1e-3, 1000), (1e-3, 3000), (1e-4, 30000), (1e-5, 100000)):
        found = tar_at_far(np.array([0.0]), np.arange(float(count)), [target])
        assert found.far_reached == {target: target}


def test_refused_and_coarse():
    impostor = np.arange(3000.0)
    found = tar_at_far(np.array([0.0]), impostor, [1e-2, 1e-3, 1e-4, 3e-4])
    assert list(found.tar_at_far) == [1e-2, 1e-3] and found.coarse_fars == (1e-3,)
    assert found.refused_fars == {1e-4: 10000, 3e-4: 3334}
    assert tar_at_far(np.array([0.0]), np.arange(100.0), [0.09, 0.1]).coarse_fars == (0.09,)


def test_everything_may_be_accepted():
    found = tar_at_far(np.array([5.0]), np.array([1.0, 2.0]), [1.0])
    assert found.tar_at_far == found.far_reached == {1.0: 1.0}
    assert found.tar_thresholds == {1.0: math.inf}
    assert found.to_dict()["tar_thresholds"] == {"1": None}


@pytest.mark.parametrize("target", [0.0, -1e-3, 1.5, math.nan])
def test_targets_outside_the_range(target):
    with pytest.raises(ValueError, match=r"rate in \(0, 1\]"):
        tar_at_far(np.array([0.0]), np.array([1.0]), [target])


def scored_pairs(count, seed, *, ties):
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.2
    scores = rng.normal(0, 0.1, count) + same * 0.2
    if ties:
        scores = scores.round(1 if ties == "many" else 2)
    return scores.astype(np.float32), same


@pytest.mark.parametrize("ties", [None, "some", "many"])
@pytest.mark.parametrize("count", [50, 3000, 20_000])
def test_rates_of_scores_are_those_of_scikit_learn(count, ties):
    for seed in range(5):
        scores, same = scored_pairs(count, seed, ties=ties)
        found = tar_at_far_of_scores(scores[same], scores[~same], TARGETS)
        far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
        for target, mine in found.tar_at_far.items():
            assert mine == tar[far <= target][-1]
            assert found.far_reached[target] == np.mean(
                scores[~same] > found.tar_thresholds[target]
            )
        assert found.tar_thresholds[1.0] == -math.inf


@pytest.mark.parametrize("ties", [None, "some", "many"])
@pytest.mark.parametrize("count", [12, 200, 5000, 50_000])
def test_nearest_point_is_that_of_scikit_learns_curve(count, ties):
    for seed in range(8):
        scores, same = scored_pairs(count, seed, ties=ties)
        if same.all() or not same.any():
            continue
        far, tar, _ = roc_curve(same, scores)
        far, tar = far[::-1], tar[::-1]
        tars, fars = tar_at_nearest_far(-scores[same], -scores[~same], TARGETS)
        assert list(tars) == list(fars) == list(TARGETS)
        for target in TARGETS:
            _, place = min((abs(f - target), i) for i, f in enumerate(far.tolist()))
            assert (fars[target], tars[target]) == (far[place], tar[place])


def test_nearest_point_where_all_scores_are_equal():
    same = np.arange(10) < 5
    tars, fars = tar_at_nearest_far(np.ones(same.sum()), np.ones((~same).sum()), (1e-3, 0.9))
    assert tars == fars == {1e-3: 0.0, 0.9: 1.0}
