from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from arcface_plus.evaluation.pairs.roc import tar_at_far
from arcface_plus.evaluation.search.score_rates import (
    scores_needed,
    select_top,
    tar_at_far_of_scores,
    tar_at_nearest_far,
)

TARGETS = (1e-4, 1e-3, 0.01, 0.1, 0.29, 0.5, 1.0)


def rates(scores, same, targets, *, error=0.0, exact_scores=None):
    exact_scores = scores.astype(np.float64) if exact_scores is None else exact_scores
    top = select_top(scores, ~same, scores_needed(int((~same).sum()), targets), error)
    return tar_at_far_of_scores(
        exact_scores[same], top, targets, error=error, exact=lambda of: exact_scores[of]
    )


def make(count, seed, *, ties):
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.2
    scores = rng.normal(0, 0.1, count) + same * 0.2
    if ties:
        scores = scores.round(1 if ties == "many" else 2)
    return scores.astype(np.float32), same


@pytest.mark.parametrize("ties", [None, "some", "many"])
@pytest.mark.parametrize("count", [50, 3000, 20_000])
def test_equals_the_rule_of_distances_and_scikit_learn(count, ties):
    for seed in range(5):
        scores, same = make(count, seed, ties=ties)
        reached, refused = rates(scores, same, TARGETS)
        theirs, theirs_refused = tar_at_far(-scores[same], -scores[~same], TARGETS)
        assert refused == theirs_refused
        for mine, other in zip(reached, theirs, strict=True):
            assert (mine.target, mine.tar, mine.far) == (other.target, other.tar, other.far)
            assert (mine.threshold, mine.coarse) == (-other.threshold, other.coarse)
        far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
        for point in reached:
            assert point.tar == tar[far <= point.target][-1]


@pytest.mark.parametrize("ties", [None, "some", "many"])
def test_wrong_last_bits_do_not_show(ties):
    """Scores within ``error`` of the exact ones give the exact rates, ties included."""
    rng = np.random.default_rng(1)
    for seed in range(20):
        exact, same = make(4000, seed, ties=ties)
        exact = exact.astype(np.float64)
        for error in (1e-6, 1e-3, 0.2, 10.0):
            noisy = (exact + rng.uniform(-error, error, len(exact)) * 0.99).astype(np.float32)
            got = rates(noisy, same, TARGETS, error=error, exact_scores=exact)
            assert got == rates(exact.astype(np.float32), same, TARGETS, exact_scores=exact)


@pytest.mark.parametrize("ties", [None, "some", "many"])
@pytest.mark.parametrize("count", [12, 200, 5000, 50_000])
def test_nearest_point_is_that_of_scikit_learns_curve(count, ties):
    for seed in range(8):
        scores, same = make(count, seed, ties=ties)
        if same.all() or not same.any():
            continue
        far, tar, _ = roc_curve(same, scores)
        far, tar = far[::-1], tar[::-1]
        for mine in tar_at_nearest_far(scores, same, TARGETS):
            _, place = min((abs(f - mine.target), i) for i, f in enumerate(far.tolist()))
            assert (mine.far, mine.tar) == (far[place], tar[place])


def test_nearest_point_where_all_scores_are_equal():
    same = np.arange(10) < 5
    points = tar_at_nearest_far(np.ones(10, dtype=np.float32), same, (1e-3, 0.9))
    assert [(p.far, p.tar) for p in points] == [(0.0, 0.0), (1.0, 1.0)]


def test_refused_coarse_and_everything():
    same = np.arange(110) < 10
    scores = np.linspace(1, 0, 110, dtype=np.float32)
    reached, refused = rates(scores, same, (0.005, 0.01, 0.1, 1.0))
    assert [(r.target, r.impostor_pairs, r.needed) for r in refused] == [(0.005, 100, 200)]
    assert [p.coarse for p in reached] == [True, False, False]
    assert reached[-1].threshold == -np.inf and reached[-1].far == 1.0
    for wrong in (0, -1, 1.5, np.nan):
        with pytest.raises(ValueError, match="FAR target"):
            scores_needed(10, (wrong,))
