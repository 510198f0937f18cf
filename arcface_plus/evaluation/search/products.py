"""Cosine similarities of unit rows, exact to the last bit.

Shapes: T rows, D dimensions, P pairs.

BLAS adds up in an order of its own, so that two equal rows may have different products, and ties
break by chance. Here they cannot. The entries of unit rows are multiples of 2⁻²⁶, hence the
products of two entries are multiples of 2⁻⁵², and no sum of some of them exceeds ‖a‖‖b‖ = 1:
float64 holds every sum as it is, in whatever order. Thresholds and ranks therefore do not depend on
blocks, threads or machines. The grid is about as fine as float32, in which the rows are kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from arcface_plus.evaluation.pairs import verification

Describe = Callable[[int], str]
EmbeddingSets = dict[str, tuple[np.ndarray, np.ndarray | None]]
_GRID = 2.0**26
_ROWS_AT_ONCE = 8192
_BLOCK_ROWS = 256
# A product of gathered rows costs as much as this many cells of a matrix product: measured 60 to
# 100 at 512 dimensions on AVX-512 cores.
_CELLS_PER_GATHER = 60


def check_sets(sets: EmbeddingSets) -> None:
    """Raise ValueError for sets of embeddings (rows, D) that cannot be searched.

    ``sets``: name → embeddings, and a label a row, or None for people without name.
    """
    for name, (rows, labels) in sets.items():
        labelled = labels is None or np.shape(labels) == np.shape(rows)[:1]
        if np.ndim(rows) != 2 or not len(rows) or not labelled:
            beside = "" if labels is None else f", their labels {np.shape(labels)}"
            raise ValueError(
                f"The {name} must be (rows, dimensions), at least one row, with a label a row if "
                f"any, but are {np.shape(rows)}{beside}."
            )
    dims = {name: rows.shape[1] for name, (rows, _) in sets.items()}
    if len(set(dims.values())) > 1:
        listed = ", ".join(f"{name} {dim}" for name, dim in dims.items())
        raise ValueError(
            f"Embeddings of different dimensions cannot be compared: {listed}; embed all with one "
            "model."
        )


def unit_rows(rows: np.ndarray, describe: Describe, start: int = 0) -> np.ndarray:
    """Return ``rows`` (T, D) normalised and rounded to the grid, as (T, D) float32.

    Raises ValueError, in the words of ``describe(start + row)``, for a row that is not finite or is
    zero.
    """
    verification.real_matrix(rows, "an array of embeddings")
    unit = np.empty(rows.shape, dtype=np.float32)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        wide = verification.unit_rows(rows[part], describe, start + first)
        unit[part] = np.rint(wide * _GRID) / _GRID
    return unit


def pair_products(unit: np.ndarray, rows_a: np.ndarray, rows_b: np.ndarray) -> np.ndarray:
    """Return the products (P,) float64 of rows ``rows_a`` and ``rows_b`` of ``unit`` (T, D).

    Many pairs of few rows are read off blocks of the matrix product; few pairs of many rows are
    multiplied row by row. Memory beyond the result: about 18 bytes a pair, and a block of 256 × T.
    """
    left, line = _distinct(rows_a, len(unit))
    right, column = _distinct(rows_b, len(unit))
    if len(left) * len(right) > _CELLS_PER_GATHER * len(rows_a):
        return verification.row_products(unit, rows_a, unit, rows_b)
    blocks = -(-len(left) // _BLOCK_ROWS)
    block = (line // _BLOCK_ROWS).astype(np.min_scalar_type(blocks))  # one or two bytes sort fast
    order = np.argsort(block, kind="stable")
    limits = np.cumsum(np.bincount(block, minlength=blocks))
    columns = unit[right].astype(np.float64).T
    products, space = np.empty(len(rows_a)), np.empty((_BLOCK_ROWS, len(right)))
    for number, pairs in enumerate(np.split(order, limits[:-1])):
        start = number * _BLOCK_ROWS
        lines = unit[left[start : start + _BLOCK_ROWS]].astype(np.float64)
        cells = np.matmul(lines, columns, out=space[: len(lines)])
        products[pairs] = cells[line[pairs] - start, column[pairs]]
    return products


def _distinct(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that occur, and the place among them of each of ``rows`` (P,)."""
    used = np.bincount(rows, minlength=count) > 0
    return np.flatnonzero(used), (np.cumsum(used, dtype=np.int32) - 1)[rows]
