"""Cosine similarities of unit rows: float32 for all, float64 for those that decide.

Shapes: T rows, D dimensions, P pairs.

float32 products are fast, but their last bits depend on where a row stands in a block. Two equal
rows may then differ, and ties break by chance. So whatever a threshold or a rank depends on is
computed again in float64, row by row: ``product_error`` bounds how far the two can be apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

_UNIT_ROUNDOFF = 2.0**-24
_SMALLEST_NORM = 1e-150  # squares below lose digits, then vanish
_ROWS_AT_ONCE = 8192
_GATHERED_AT_ONCE = 2048  # both sides of a block stay in a cache of a few megabytes
_BLOCK_ROWS = 256
_WORKERS = 8  # bounds the blocks held at once
# A product of gathered rows costs as much as this many cells of a matrix product: measured 60 to
# 100 at 512 dimensions on AVX-512 cores.
_CELLS_PER_GATHER = 60


def product_error(dimensions: int) -> float:
    """Return by how much a float32 product of unit rows can miss the float64 one, in any order.

    γ = D·u / (1 − D·u) of Higham, times Σ|aᵢbᵢ| <= 1 and a little for rows of length 1 + u.
    """
    return float(1.01 * dimensions * _UNIT_ROUNDOFF)


def unit_rows(rows: np.ndarray, describe: Callable[[int], str]) -> np.ndarray:
    """Return ``rows`` (T, D) normalised in float64, as (T, D) float32.

    Raises ValueError, in the words of ``describe(row)``, for a row that is not finite or is zero.
    """
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or not rows.shape[1]:
        raise ValueError(
            f"Embeddings must be (rows, dimensions) of real numbers, but are {rows.dtype} of shape "
            f"{rows.shape}."
        )
    unit = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        wide = rows[part].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
        bad = np.flatnonzero(~np.isfinite(norms) | (norms < _SMALLEST_NORM))
        if bad.size:
            row = wide[bad[0]]
            what = "is zero" if not row.any() else "has NaN or infinite values"
            if np.isfinite(row).all() and row.any():
                what = "has a norm that float64 cannot hold"
            raise ValueError(
                f"{describe(start + int(bad[0]))} {what}, so it has no direction to compare."
            )
        unit[part] = wide / norms[:, None]
    return unit


def pair_products(unit: np.ndarray, rows_a: np.ndarray, rows_b: np.ndarray) -> np.ndarray:
    """Return the products (P,) float32 of rows ``rows_a`` and ``rows_b`` of ``unit`` (T, D).

    Many pairs of few rows are read off blocks of the matrix product; few pairs of many rows are
    multiplied row by row. Memory beyond the result: a sorting of the pairs, 9 bytes each, and a
    block of 256 × T.
    """
    used_a, used_b = _used(rows_a, len(unit)), _used(rows_b, len(unit))
    used = used_a | used_b
    # A product is symmetric: pairs among all rows need half of the square alone.
    whole, half = used_a.sum() * used_b.sum(), used.sum() * (used.sum() + _BLOCK_ROWS) // 2
    if min(whole, half) > _CELLS_PER_GATHER * len(rows_a):
        return _gathered_products(unit, rows_a, rows_b)
    if half < whole:
        rows_a, rows_b = np.minimum(rows_a, rows_b), np.maximum(rows_a, rows_b)
        used_a = used_b = used
    return _block_products(unit, rows_a, rows_b, used_a, used_b, triangle=bool(half < whole))


def exact_products(
    unit_a: np.ndarray, rows_a: np.ndarray, unit_b: np.ndarray, rows_b: np.ndarray
) -> np.ndarray:
    """Return the products (P,) of rows of two float32 matrices, computed in float64.

    Equal rows give equal products, wherever they stand.
    """
    products = np.empty(len(rows_a), dtype=np.float64)
    for start in range(0, len(rows_a), _GATHERED_AT_ONCE):
        part = slice(start, start + _GATHERED_AT_ONCE)
        a = unit_a[rows_a[part]].astype(np.float64)
        a *= unit_b[rows_b[part]]
        products[part] = a.sum(axis=1)
    return products


def _used(rows: np.ndarray, count: int) -> np.ndarray:
    used = np.zeros(count, dtype=bool)
    used[rows] = True
    return used


def _gathered_products(unit: np.ndarray, rows_a: np.ndarray, rows_b: np.ndarray) -> np.ndarray:
    products = np.empty(len(rows_a), dtype=np.float32)
    for start in range(0, len(rows_a), _GATHERED_AT_ONCE):
        part = slice(start, start + _GATHERED_AT_ONCE)
        np.einsum("ij,ij->i", unit[rows_a[part]], unit[rows_b[part]], out=products[part])
    return products


def _block_products(
    unit: np.ndarray,
    rows_a: np.ndarray,
    rows_b: np.ndarray,
    used_a: np.ndarray,
    used_b: np.ndarray,
    *,
    triangle: bool,
) -> np.ndarray:
    """Multiply blocks of the rows used on the left with those on the right; pick the pairs."""
    left, right = np.flatnonzero(used_a), np.flatnonzero(used_b)
    blocks, width = -(-len(left) // _BLOCK_ROWS), len(right)
    place = (np.cumsum(used_a) - 1).astype(np.int32)[rows_a]
    order, limits = _block_order(place // _BLOCK_ROWS, blocks)
    cell = place % _BLOCK_ROWS
    if _BLOCK_ROWS * width >= 2**31:
        cell = cell.astype(np.int64)
    cell *= width
    cell += (np.cumsum(used_b) - 1).astype(np.int32)[rows_b]
    columns = unit[right]
    products = np.empty(len(rows_a), dtype=np.float32)
    workers = min(_WORKERS, os.cpu_count() or 1, blocks)

    def multiply(worker: int) -> None:
        cells = np.empty((_BLOCK_ROWS, width), dtype=np.float32)
        for block in range(worker, blocks, workers):
            start = block * _BLOCK_ROWS
            first = start if triangle else 0  # columns further left are never paired
            lines = unit[left[start : start + _BLOCK_ROWS]]
            np.matmul(lines, columns[first:].T, out=cells[: len(lines), first:])
            part = slice(limits[block], limits[block + 1])
            pairs = part if order is None else order[part]
            products[pairs] = cells.ravel()[cell[pairs]]

    # A thread a block, one core each: threads of one product wait for each other at every step,
    # which on a machine that others use too takes longer than one core alone.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        list(pool.map(multiply, range(workers)))  # list: raises what a worker raised
    return products


def _block_order(block: np.ndarray, blocks: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the pairs sorted by block (None: they are), and where each block begins and ends."""
    limits = np.concatenate([[0], np.cumsum(np.bincount(block, minlength=blocks))])
    if (block[1:] >= block[:-1]).all():
        return None, limits
    narrow = block.astype(np.min_scalar_type(blocks))  # of one or two bytes: a radix sort
    order = np.argsort(narrow, kind="stable")
    # Half of argsort's own 8 bytes a pair.
    return order.astype(np.uint32) if len(order) < 2**32 else order, limits
