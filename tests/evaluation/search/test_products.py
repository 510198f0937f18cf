from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.pairs import verification
from arcface_plus.evaluation.pairs.verification import row_products
from arcface_plus.evaluation.search import products
from arcface_plus.evaluation.search.products import pair_products, unit_rows


def unit(count, dim=32, seed=0):
    rng = np.random.default_rng(seed)
    return unit_rows(rng.normal(size=(count, dim)), str)


def pairs_among(left, right, count, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.choice(left, count).astype(np.int32),
        rng.choice(right, count).astype(np.int32),
    )


@pytest.mark.parametrize("cost", [0, 10**9])
@pytest.mark.parametrize("block", [1, 7, 256])
@pytest.mark.parametrize("case", ["gallery × probe", "anywhere", "sorted", "one row", "reversed"])
def test_every_way_gives_the_products(monkeypatch, case, block, cost):
    """Row by row or by blocks: no rounding, so the same to the last bit."""
    monkeypatch.setattr(products, "_BLOCK_ROWS", block)
    monkeypatch.setattr(verification, "_GATHERED_AT_ONCE", 64)
    monkeypatch.setattr(products, "_CELLS_PER_GATHER", cost)
    rows = unit(300)
    left, right = np.arange(0, 300, 9), np.arange(1, 300, 2)
    a, b = pairs_among(left, right, 1000)
    if case == "anywhere":
        a, b = pairs_among(np.arange(300), np.arange(300), 1000)
    elif case == "sorted":
        order = np.lexsort((b, a))
        a, b = a[order], b[order]
    elif case == "one row":
        a[:] = 17
    elif case == "reversed":
        a, b = b, a
    got = pair_products(rows, a, b)
    wanted = (rows[a].astype(np.float64) * rows[b]).sum(axis=1)
    np.testing.assert_array_equal(got, wanted)


def test_the_cheaper_way_is_taken(monkeypatch):
    taken = []
    plain = verification.row_products
    monkeypatch.setattr(
        verification, "row_products", lambda *a: (taken.append(len(a[1])), plain(*a))[1]
    )
    rows = unit(1000)
    pair_products(rows, *pairs_among(np.arange(1000), np.arange(1000), 500))
    pair_products(rows, *pairs_among(np.arange(40), np.arange(40, 400), 5000))
    pair_products(rows, *pairs_among(np.arange(400), np.arange(400), 50_000))
    assert taken == [500]


@pytest.mark.parametrize("dim", [1, 2, 128, 512, 20_000])
def test_products_have_no_rounding(dim):
    """Whole numbers of 2⁻⁵² in Python's unbounded integers give the same sums."""
    rng = np.random.default_rng(0)
    rows = unit_rows(np.exp(rng.normal(size=(40, dim)) * 3), str)
    whole = np.rint(rows.astype(np.float64) * 2.0**26).astype(np.int64)
    np.testing.assert_array_equal(whole / 2.0**26, rows)
    wide = rows.astype(np.float64)
    got = wide @ wide.T
    for i, j in ((0, 1), (3, 3), (39, 7)):
        exact = sum(int(x) * int(y) for x, y in zip(whole[i], whole[j], strict=True))
        assert got[i, j] * 2.0**52 == exact


def test_equal_rows_have_equal_products_wherever_they_stand():
    rng = np.random.default_rng(0)
    base = unit(50, 511)
    rows = base[rng.integers(0, 50, 6000)]
    place = rng.permutation(6000)
    for count in (1, 2, 3, 777, 6000):
        there = row_products(rows, place[:count], base, np.zeros(count, dtype=int))
        blocks = rows[place[:count]].astype(np.float64) @ base.astype(np.float64).T
        np.testing.assert_array_equal(there, blocks[:, 0])


def test_unit_rows():
    raw = np.random.default_rng(0).normal(size=(9000, 6)).astype(np.float32)
    got = unit_rows(raw, str)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-6)
    for scale in (2.0**-100, 2.0**100):  # squares of these do not fit into float32
        np.testing.assert_array_equal(unit_rows(raw * np.float32(scale), str), got)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (0.0, "row 8500 is zero, so"),
        (np.nan, "row 8500 has NaN"),
        (np.inf, "row 8500 has NaN or inf"),
        (1e200, "row 8500 has a norm that float64 cannot hold"),
    ],
)
def test_rows_without_direction(value, match):
    raw = np.ones((9000, 6))
    raw[8500] = value
    with pytest.raises(ValueError, match=match):
        unit_rows(raw, lambda row: f"row {row}")
    for wrong in (np.ones(3), np.ones((3, 0)), np.ones((2, 2), dtype=complex)):
        with pytest.raises(ValueError, match="must be"):
            unit_rows(wrong, str)
