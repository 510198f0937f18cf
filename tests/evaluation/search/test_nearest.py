from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.search import nearest
from arcface_plus.evaluation.search.nearest import find_faiss, nearest_rows


@pytest.fixture(params=["NumPy", "faiss"])
def engine(request):
    if request.param == "NumPy":
        return None
    return pytest.importorskip("faiss", reason="needs the extra search")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(nearest, "ROWS_AT_ONCE", 100)


def naive(queries: np.ndarray, index: np.ndarray, top: int) -> tuple[list, list]:
    """Sort all rows by exact cosine (equal rows have equal ones), then by row."""
    rows, cosines = [], []
    for query in queries.astype(np.float64):
        found = []
        for row, each in enumerate(index.astype(np.float64)):
            cosine = query @ each / np.linalg.norm(query) / np.linalg.norm(each)
            found.append((-round(cosine, 6), row))
        found.sort()
        rows.append([row for _, row in found[:top]])
        cosines.append([-cosine for cosine, _ in found[:top]])
    return rows, cosines


@pytest.mark.parametrize("top", [1, 7, 150, 2000])
def test_nearest_rows_are_those_of_a_loop(engine, top):
    rng = np.random.default_rng(0)
    index = rng.normal(size=(330, 16)).astype(np.float32)
    index[50:70] = index[3]  # one photograph many times, in two blocks and at another length
    index[[120, 250]] = 8 * index[3]
    queries = np.concatenate([3 * index[[3, 7]], rng.normal(size=(4, 16))]).astype(np.float32)
    rows, cosines = nearest_rows(queries, index, top, describe=str, faiss=engine)
    wanted_rows, wanted = naive(queries, index, top)
    assert rows.shape == (6, min(top, 330)) and rows.dtype == np.int64
    assert rows.tolist() == wanted_rows
    np.testing.assert_allclose(cosines, wanted, atol=2e-6)
    assert cosines[0, 0] == pytest.approx(1, abs=1e-6) and rows[0, 0] == 3


def test_ties_and_near_ties_are_settled_alike_with_and_without_faiss():
    faiss = pytest.importorskip("faiss", reason="needs the extra search")
    rng = np.random.default_rng(1)
    centre = rng.normal(size=64)
    # Cosines that differ in the last digits of float32 only.
    index = (centre + 1e-6 * rng.normal(size=(450, 64))).astype(np.float32)
    index[::5] = index[0]
    queries = (centre + 1e-3 * rng.normal(size=(3, 64))).astype(np.float32)
    ours = nearest_rows(queries, index, 20, describe=str)
    theirs = nearest_rows(queries, index, 20, describe=str, faiss=faiss)
    assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
    assert (np.diff(ours[1]) <= 0).all()
    order = np.lexsort((ours[0], -ours[1]))
    assert (order == np.arange(20)).all()


def test_what_cannot_be_searched(engine):
    index = np.ones((120, 4), dtype=np.float32)
    query = np.ones((1, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="query has 3 dimensions, the index 4"):
        nearest_rows(query[:, :3], index, 1, describe=str, faiss=engine)
    with pytest.raises(ValueError, match="top is 0"):
        nearest_rows(query, index, 0, describe=str, faiss=engine)
    for wrong in (0.0, np.nan, np.inf):
        index[111] = wrong
        with pytest.raises(ValueError, match="row 111"):
            nearest_rows(query, index, 1, describe="row {}".format, faiss=engine)


def test_faiss_is_optional(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    assert find_faiss() is None
