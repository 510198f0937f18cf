"""The rows of an index most similar to a query, exact, with or without faiss.

Shapes: Q queries, N rows of the index, D dimensions, K wanted.

A block of rows at a time is normalised and multiplied in float32, by faiss or by NumPy. That finds
candidates: all rows whose product is within twice its largest error of the K-th. These alone are
multiplied exactly (``products``) and ordered by falling cosine, ties by row. So both find the same.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from arcface_plus.evaluation.pairs.verification import row_products
from arcface_plus.evaluation.search.products import Describe, unit_rows

ROWS_AT_ONCE = 65_536


def find_faiss() -> Any | None:
    """Return the module faiss, None where the extra ``search`` is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError:
        return None


def nearest_rows(
    queries: np.ndarray,
    index: np.ndarray,
    top: int,
    *,
    describe: Describe,
    faiss: Any | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``top`` rows of ``index`` (N, D) nearest to each query, and their cosines.

    ``queries`` (Q, D); neither need be normalised; ``index`` may be mapped from a file.
    ``describe`` names a row of the index in messages. Both results are (Q, min(top, N)): rows
    int64, cosines float64.

    Raises ValueError for another D, ``top`` below 1 and a row without direction.
    """
    if top < 1:
        raise ValueError(f"top is {top}, but must be at least 1.")
    if queries.shape[1] != index.shape[1]:
        raise ValueError(
            f"the query has {queries.shape[1]} dimensions, the index {index.shape[1]}: it was made "
            "by another model. Embed its photographs with this one."
        )
    unit = unit_rows(queries, "the embedding of query {}".format)
    best_rows = np.empty((len(unit), 0), dtype=np.int64)
    best = np.empty((len(unit), 0))
    for start in range(0, len(index), ROWS_AT_ONCE):
        block = np.asarray(index[start : start + ROWS_AT_ONCE], dtype=np.float32)
        rows, cosines = _best_of_block(unit, block, start, top, describe, faiss)
        best_rows = np.concatenate([best_rows, rows + start], axis=1)
        best = np.concatenate([best, cosines], axis=1)
        order = np.lexsort((best_rows, -best))[:, :top]
        best_rows = np.take_along_axis(best_rows, order, axis=1)
        best = np.take_along_axis(best, order, axis=1)
    return best_rows, best


def _best_of_block(
    queries: np.ndarray,
    block: np.ndarray,
    start: int,
    top: int,
    describe: Describe,
    faiss: Any | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest ``top`` rows of a block to each query, in order, and their cosines."""
    norms = np.linalg.norm(block, axis=1)
    if not (np.isfinite(norms) & (norms > 0)).all():
        unit_rows(block, describe, start)  # names the row
    scaled = block / norms[:, None]
    count = min(top, len(block))
    # Rows, grid and sum are each rounded: |error| <= (D + 4) 2^-24 for unit rows.
    margin = 2 * (block.shape[1] + 4) * 2.0**-24
    found = _candidates(queries, scaled, count, margin, faiss)
    rows = np.empty((len(queries), count), dtype=np.int64)
    cosines = np.empty((len(queries), count))
    for number, near in enumerate(found):
        exact = unit_rows(block[near], describe)
        same = np.full(len(near), number)
        products = row_products(queries, same, exact, np.arange(len(near)))
        order = np.lexsort((near, -products))[:count]
        rows[number], cosines[number] = near[order], products[order]
    return rows, cosines


def _candidates(
    queries: np.ndarray, scaled: np.ndarray, count: int, margin: float, faiss: Any | None
) -> list[np.ndarray]:
    """Return, for each query, all rows within ``margin`` of its ``count``-th largest product."""
    if faiss is None:
        products = queries @ scaled.T
        least = np.partition(products, -count, axis=1)[:, -count] - margin
        return [np.flatnonzero(row >= floor) for row, floor in zip(products, least, strict=True)]
    wanted = count
    while True:
        wanted = min(2 * wanted + 8, len(scaled))
        products, rows = faiss.knn(queries, scaled, wanted, metric=faiss.METRIC_INNER_PRODUCT)
        least = products[:, count - 1] - margin
        # More rows may be so near that faiss had to leave some out: ask for more.
        if wanted == len(scaled) or (products[:, -1] < least).all():
            kept = products >= least[:, None]
            return [near[keep] for near, keep in zip(rows, kept, strict=True)]
