from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from arcface_plus.evaluation.pairs.roc import (
    area_under_curve,
    equal_error_rate,
    tar_at_far,
)


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
    reached, refused = tar_at_far(genuine, impostor, targets)
    assert [p.target for p in reached] + [p.target for p in refused] == [
        *(t for t in targets if t * impostors >= 1),
        *(t for t in targets if t * impostors < 1),
    ]
    for point in reached:
        threshold, tar = naive_tar(genuine, impostor, point.target)
        assert point.tar == tar and point.far <= point.target
        assert point.far == np.mean(impostor < point.threshold)
        assert threshold == point.threshold


def test_rates_that_decimals_do_not_hold():
    # 0.29 * 100 is 28.999999999999996, yet 29 of 100 is a FAR of 0.29.
    impostor = np.arange(100.0)
    (point,), _ = tar_at_far(np.array([28.5, 29.5]), impostor, [0.29])
    assert (point.threshold, point.far, point.tar) == (29.0, 0.29, 0.5)
    for target, count in ((1e-3, 1000), (1e-3, 3000), (1e-4, 30000), (1e-5, 100000)):
        (point,), _ = tar_at_far(np.array([0.0]), np.arange(float(count)), [target])
        assert point.far == target


def test_refused_and_coarse():
    impostor = np.arange(3000.0)
    reached, refused = tar_at_far(np.array([0.0]), impostor, [1e-2, 1e-3, 1e-4, 3e-4])
    assert [(p.target, p.coarse) for p in reached] == [(1e-2, False), (1e-3, True)]
    assert [(p.target, p.impostor_pairs, p.needed) for p in refused] == [
        (1e-4, 3000, 10000),
        (3e-4, 3000, 3334),
    ]
    (nine, ten), _ = tar_at_far(np.array([0.0]), np.arange(100.0), [0.09, 0.1])
    assert nine.coarse and not ten.coarse


def test_everything_may_be_accepted():
    (point,), _ = tar_at_far(np.array([5.0]), np.array([1.0, 2.0]), [1.0])
    assert (point.tar, point.far, point.threshold) == (1.0, 1.0, math.inf)


@pytest.mark.parametrize("target", [0.0, -1e-3, 1.5, math.nan])
def test_targets_outside_the_range(target):
    with pytest.raises(ValueError, match=r"rate in \(0, 1\]"):
        tar_at_far(np.array([0.0]), np.array([1.0]), [target])
