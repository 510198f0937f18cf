from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.pairs.pca import verify_with_pca
from arcface_plus.evaluation.pairs.verification import verify


@pytest.fixture
def pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two of eight dimensions tell people apart, six are noise of the same size."""
    rng = np.random.default_rng(0)
    is_same = np.tile([True, False], 60)
    a, b = rng.normal(size=(2, 120, 8)) * ([3] * 2 + [1] * 6)
    b[is_same, :2] = a[is_same, :2] + 0.3 * rng.normal(size=(60, 2))
    return a, b, is_same


def naive(a: np.ndarray, b: np.ndarray, is_same: np.ndarray, components: int, folds: int):
    """A loop over folds and thresholds; the projection from the covariance's eigenvectors."""
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    accuracies, limits = [], []
    for test in np.array_split(np.arange(len(a)), folds):
        train = np.setdiff1d(np.arange(len(a)), test)
        both = np.concatenate([a[train], b[train]])
        vectors = np.linalg.eigh(np.cov(both.T))[1][:, ::-1][:, :components]
        x, y = ((each - both.mean(axis=0)) @ vectors for each in (a, b))
        x, y = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, y))
        distances = ((x - y) ** 2).sum(axis=1)
        scores = [((distances < t) == is_same)[train].mean() for t in np.arange(0, 4, 0.01)]
        limit = np.arange(0, 4, 0.01)[int(np.argmax(scores))]
        accuracies.append(((distances < limit) == is_same)[test].mean())
        limits.append(limit)
    return accuracies, limits


@pytest.mark.parametrize("components", [2, 5])
def test_equals_a_loop_over_folds(pairs, components: int) -> None:
    result, distances = verify_with_pca(*pairs, components, 6)
    accuracies, limits = naive(*pairs, components, 6)
    assert result.fold_accuracies == pytest.approx(accuracies)
    assert result.thresholds == pytest.approx(limits)
    assert distances.shape == (120,) and 0 <= distances.min() < distances.max() <= 4


def test_dropping_noise_helps_here(pairs) -> None:
    assert verify_with_pca(*pairs, 2, 6)[0].accuracy > verify(*pairs, folds=6).accuracy


def test_a_fold_does_not_see_its_own_pairs(pairs) -> None:
    """Pairs of the last fold may change at will without changing the others' distances."""
    a, b, is_same = pairs
    changed = a.copy()
    changed[100:] = np.random.default_rng(1).normal(size=(20, 8))
    _, before = verify_with_pca(a, b, is_same, 3, 6)
    _, after = verify_with_pca(changed, b, is_same, 3, 6)
    assert not np.allclose(before[:100], after[:100]), "the other folds train on them"
    own = np.s_[100:]
    only_own = a.copy()
    only_own[100] = a[100] * 2  # the same direction
    _, same = verify_with_pca(only_own, b, is_same, 3, 6)
    assert np.allclose(before[own], same[own])


def test_more_components_than_there_are_is_refused(pairs) -> None:
    with pytest.raises(ValueError, match="9 components needs 1 to 8"):
        verify_with_pca(*pairs, 9, 6)
    with pytest.raises(ValueError, match="0 components"):
        verify_with_pca(*pairs, 0, 6)
    with pytest.raises(ValueError, match="as many rows"):
        verify_with_pca(pairs[0], pairs[1][:5], pairs[2], 2, 6)
