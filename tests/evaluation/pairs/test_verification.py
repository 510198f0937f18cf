from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from arcface_plus.evaluation.pairs.verification import squared_distances, t_interval, verify


def faces(pairs: int = 200, dim: int = 16, noise: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    is_same = np.arange(pairs) % 2 == 0
    a = rng.normal(size=(pairs, dim))
    b = np.where(is_same[:, None], a + noise * rng.normal(size=a.shape), rng.normal(size=a.shape))
    return a, b, is_same


def test_distances_are_of_unit_vectors():
    a, b, _ = faces(50)
    naive = []
    for x, y in zip(a, b, strict=True):
        x, y = x / np.sqrt(sum(x * x)), y / np.sqrt(sum(y * y))
        naive.append(sum((x - y) ** 2))
    assert np.allclose(squared_distances(a, b), naive, rtol=1e-14)
    assert np.array_equal(squared_distances(a, a), np.zeros(50))
    # Powers of two change no digit; other memory orders neither.
    assert np.array_equal(
        squared_distances(a * 1024, np.asfortranarray(b)), squared_distances(a, b)
    )
    assert np.array_equal(squared_distances(a[:, ::-1][:, ::-1], b), squared_distances(a, b))


def test_distances_do_not_cancel():
    a = np.array([[1.0, 0.0]])
    b = np.array([[1.0, 1e-9]])
    assert squared_distances(a, b)[0] == pytest.approx(1e-18, rel=1e-6)  # 2 - 2 cos gives 0


def test_blocks_change_nothing(monkeypatch):
    a, b, _ = faces(50)
    whole = squared_distances(a, b)
    monkeypatch.setattr("arcface_plus.evaluation.pairs.verification._ROWS_AT_ONCE", 7)
    assert np.array_equal(squared_distances(a, b), whole)
    a[45] = 0
    with pytest.raises(ValueError, match=r"embeddings_a\[45\] is zero"):
        squared_distances(a, b)


def test_result_is_consistent():
    a, b, same = faces()
    result = verify(a, b, same, folds=5, fars=(0.5, 0.05, 0.001))
    assert len(result.fold_accuracies) == len(result.thresholds) == result.folds == 5
    assert result.accuracy == np.mean(result.fold_accuracies)
    assert result.accuracy_std == np.std(result.fold_accuracies)  # population
    expected = stats.t.interval(
        0.95, 4, loc=result.accuracy, scale=stats.sem(result.fold_accuracies)
    )
    assert result.confidence_interval == pytest.approx(np.clip(expected, 0, 1), rel=1e-12)
    values = np.array([0.70, 0.74, 0.72])
    expected = stats.t.interval(0.95, 2, loc=0.72, scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected, rel=1e-12)
    assert result.auc == pytest.approx(roc_auc_score(same, -squared_distances(a, b)), abs=1e-12)
    assert list(result.tar_at_far) == [0.5, 0.05] and result.coarse_fars == (0.05,)
    assert result.refused_fars == {0.001: 1000}
    assert (result.genuine_pairs, result.impostor_pairs) == (100, 100)


def test_any_real_dtype_and_lists():
    a, b, same = faces(40)
    wide = verify(a.astype(np.float32).astype(np.float64), b, same, 4)
    assert verify(a.astype(np.float32), b.tolist(), same.astype(int).tolist(), 4) == wide
    integers = (a * 100).astype(np.int8), (b * 30).astype(np.int64)
    assert 0 < verify(*integers, same, 4).accuracy <= 1
    assert verify(a * 1e-40, b * 1e30, same, 4).accuracy == verify(a, b, same, 4).accuracy


def test_to_dict_is_json():
    a, b, same = faces()
    result = verify(a, b, same, fars=(1.0, 0.1, 1e-5))
    back = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert back["accuracy"] == result.accuracy
    assert back["tar_at_far"] == {"1": 1.0, "0.1": result.tar_at_far[0.1]}
    assert back["tar_thresholds"]["1"] is None  # accept everything
    assert back["refused_fars"] == {"1e-05": 100_000} and back["folds"] == 10


def test_interval_stays_in_range():
    assert t_interval(np.array([1.0, 1.0, 0.9]))[1] == 1.0
    assert t_interval(np.array([0.0, 0.1]))[0] == 0.0
    assert t_interval(np.ones(10)) == (1.0, 1.0)


def spoil(value, where=(3, 2)):
    a, b, same = faces(20)
    b[where] = value
    return a, b, same


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (spoil(np.nan), r"embeddings_b\[3\] has NaN or infinite values"),
        (spoil(np.inf), r"embeddings_b\[3\] has NaN"),
        (spoil(0.0, where=3), r"embeddings_b\[3\] is zero.*\(1 such"),
        (spoil(1e-170 * np.ones(16), where=3), r"norm that float64 cannot hold"),
        (spoil(1e200), r"norm that float64 cannot hold \(largest value 1e\+200"),
        ((np.ones((4, 2)), np.ones((5, 2)), [1, 0, 1, 0]), r"\(4, 2\).*\(5, 2\)"),
        ((np.ones((4, 2)), np.ones((4, 3)), [1, 0, 1, 0]), "as many rows"),
        ((np.ones((4, 2)), np.ones((4, 2)), [1, 0, 1]), "as many rows"),
        ((np.ones(4), np.ones(4), [1, 0, 1, 0]), r"must be \(rows, dimensions\)"),
        ((np.ones((4, 0)), np.ones((4, 0)), [1, 0, 1, 0]), r"must be \(rows, dimensions\)"),
        ((np.ones((4, 2), complex), np.ones((4, 2)), [1, 0, 1, 0]), "real numbers"),
        ((np.ones((4, 2)), np.ones((4, 2)), [1, 0, 1, 2]), "is_same: labels must be one list"),
        ((np.ones((4, 2)), np.ones((4, 2)), [1, 0, 1, np.nan]), "is_same: labels"),
        ((np.ones((4, 2)), np.ones((4, 2)), ["a"] * 4), "is_same: labels"),
        ((np.ones((4, 2)), np.ones((4, 2)), [1, 1, 1, 1]), "All 4 pairs are genuine"),
        ((np.ones((4, 2)), np.ones((4, 2)), [0, 0, 0, 0]), "All 4 pairs are impostor"),
        ((np.ones((1, 2)), np.ones((1, 2)), [1]), "1 pairs cannot make 2 folds"),
        ((np.ones((0, 2)), np.ones((0, 2)), []), "labels|cannot make 2 folds"),
    ],
)
def test_bad_input_names_the_cause(arguments, match):
    with pytest.raises(ValueError, match=match):
        verify(*arguments, folds=2)


@pytest.mark.parametrize("folds", [1, 0, -3, 21])
def test_folds_out_of_range(folds):
    with pytest.raises(ValueError, match="20 pairs cannot make"):
        verify(*faces(20), folds=folds)


@pytest.mark.parametrize(
    ("is_same", "folds", "said"),
    [
        ([True] * 10 + [False] * 10, 4, r"fold 1 of 4 \(pairs 0 to 4\) holds genuine"),
        ([True, False] * 6 + [False] * 8, 3, r"fold 3 of 3 \(pairs 14 to 19\) holds impostor"),
    ],
)
def test_a_fold_of_one_kind_is_refused_with_the_fix(is_same, folds, said):
    """A sorted list, or one that was made with another number of folds, would score well."""
    a, b, _ = faces(20)
    with pytest.raises(ValueError, match=f"{said} pairs alone.*--folds"):
        verify(a, b, np.array(is_same), folds=folds)
    assert verify(a, b, np.tile([True, False], 10), folds=folds).folds == folds


def test_lfw_to_the_last_digit(shared_data):
    from arcface_plus.evaluation.embedding.files import read_embedded_pairs

    pairs = read_embedded_pairs(
        shared_data / "embeddings" / "lfw_mobilefacenet_y1.npz", shared_data / "lfw" / "pairs.txt"
    )
    result = verify(pairs.embeddings_a, pairs.embeddings_b, pairs.is_same, pairs.folds)
    expected = "0.99167 0.99833 0.99667 0.99333 0.98833 0.99833 0.98500 0.99833 1.00000 0.99500"
    assert " ".join(f"{accuracy:.5f}" for accuracy in result.fold_accuracies) == expected
    assert (f"{result.accuracy:.5f}", f"{result.accuracy_std:.5f}") == ("0.99450", "0.00466")
    assert f"{result.auc:.6f}" == "0.999043"
    assert list(result.tar_at_far) == [1e-1, 1e-2, 1e-3] and result.coarse_fars == (1e-3,)
    assert result.refused_fars == {1e-4: 10_000, 1e-5: 100_000}
