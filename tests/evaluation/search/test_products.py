from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.search import products
from arcface_plus.evaluation.search.products import (
    exact_products,
    pair_products,
    product_error,
    unit_rows,
)


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
    """Row by row, by blocks of two sides, by the triangle: each within the rounding error."""
    monkeypatch.setattr(products, "_BLOCK_ROWS", block)
    monkeypatch.setattr(products, "_GATHERED_AT_ONCE", 64)
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
    assert got.dtype == np.float32
    assert np.abs(got - wanted).max() <= product_error(32)
    np.testing.assert_array_equal(got > 0.5, wanted > 0.5)


def test_the_cheaper_way_is_taken(monkeypatch):
    taken = []
    for name in ("_gathered_products", "_block_products"):
        plain = getattr(products, name)
        monkeypatch.setattr(
            products,
            name,
            lambda *a, _name=name, _plain=plain, **k: (taken.append((_name, k)), _plain(*a, **k))[
                1
            ],
        )
    rows = unit(1000)
    pair_products(rows, *pairs_among(np.arange(1000), np.arange(1000), 500))
    pair_products(rows, *pairs_among(np.arange(40), np.arange(40, 400), 5000))
    pair_products(rows, *pairs_among(np.arange(400), np.arange(400), 50_000))
    assert [name for name, _ in taken] == ["_gathered_products"] + 2 * ["_block_products"]


def test_error_bound_holds_and_is_no_wild_guess():
    rng = np.random.default_rng(0)
    for dim in (2, 128, 512):
        rows = unit_rows(rng.normal(size=(2000, dim)) + 1, str)
        got = rows @ rows.T
        wanted = rows.astype(np.float64) @ rows.T.astype(np.float64)
        missed = np.abs(got - wanted).max()
        assert missed <= product_error(dim) < 1e-4


def test_equal_rows_have_equal_exact_products_wherever_they_stand():
    rng = np.random.default_rng(0)
    base = unit(50, 511)
    rows = base[rng.integers(0, 50, 6000)]
    place = rng.permutation(6000)
    for count in (1, 2, 3, 777, 6000):
        there = exact_products(rows, place[:count], base, np.zeros(count, dtype=int))
        back = exact_products(base, np.zeros(count, dtype=int), rows, place[:count])
        np.testing.assert_array_equal(there, back)
        for vector in base[:5]:
            same = np.flatnonzero((rows[place[:count]] == vector).all(axis=1))
            assert len(np.unique(there[same])) <= 1


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
