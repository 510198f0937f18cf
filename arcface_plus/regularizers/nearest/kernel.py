"""Nearest rows on a GPU: product and maximum in one kernel, so that no block of cosines is written.

A program multiplies one tile of rows by one tile of columns in fp32 (no TF32), turns cosines into
squared chords, and folds them into one 64-bit key a row and a column, ``chord bits · 2³² | index``,
by an atomic minimum: non-negative floats order as their bits do, a minimum does not depend on the
order of programs, and of equal chords the lowest index wins. Chords too short for 2 − 2cos are
summed from differences, in the few tiles that have them. Nothing here makes the host wait.

Imported only where rows are on a GPU; with TRITON_INTERPRET=1 it runs on the CPU, for tests.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from arcface_plus.regularizers.nearest.tables import Search

_COLUMNS_AT_ONCE = 1 << 17
_TILE, _DEPTH = 64, 32  # larger tiles spill registers
_LAST_INDEX, _INFINITY = 0xFFFFFFFF, 0x7F800000


@triton.jit
def nearest_kernel(
    a_ptr,
    b_ptr,
    own_ptr,
    best_a_ptr,
    best_b_ptr,
    n,
    m,
    offset,
    d,
    SYMMETRIC: tl.constexpr,
    HAS_OWN: tl.constexpr,
    BOTH_WAYS: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Fold tile (i, j) of a (n, d) times b (m, d) into the keys; b's indices start at ``offset``.

    SYMMETRIC: b is a, the diagonal is left out, and tiles below it are done by their mirror image.
    """
    i = tl.program_id(0)
    j = tl.program_id(1)
    if j >= i * SYMMETRIC:
        rows = (i * TILE + tl.arange(0, TILE)).to(tl.int64)
        columns = (j * TILE + tl.arange(0, TILE)).to(tl.int64)
        row_in, column_in = rows < n, columns < m
        cosine = tl.zeros((TILE, TILE), dtype=tl.float32)
        for k in range(0, d, DEPTH):
            ks = k + tl.arange(0, DEPTH)
            a_in = row_in[:, None] & (ks < d)[None, :]
            b_in = column_in[:, None] & (ks < d)[None, :]
            a = tl.load(a_ptr + rows[:, None] * d + ks[None, :], mask=a_in, other=0.0)
            b = tl.load(b_ptr + columns[:, None] * d + ks[None, :], mask=b_in, other=0.0)
            cosine = tl.dot(a, tl.trans(b), cosine, input_precision="ieee")
        chord = tl.maximum(2.0 - 2.0 * cosine, 0.0)
        close = cosine > 0.999999
        if tl.max(close.to(tl.int32).reshape(TILE * TILE), axis=0) > 0:
            exact = tl.zeros((TILE, TILE), dtype=tl.float32)
            for k in range(d):
                a_k = tl.load(a_ptr + rows * d + k, mask=row_in, other=0.0)
                b_k = tl.load(b_ptr + columns * d + k, mask=column_in, other=0.0)
                difference = a_k[:, None] - b_k[None, :]
                exact += difference * difference
            chord = tl.where(close, exact, chord)
        counts = row_in[:, None] & column_in[None, :]
        if SYMMETRIC:
            counts = counts & (rows[:, None] != columns[None, :])
        if HAS_OWN:
            own = tl.load(own_ptr + rows, mask=row_in, other=-1)
            counts = counts & (own[:, None] != columns[None, :] + offset)
        chord = tl.where(counts, chord, float("inf"))
        bits = chord.to(tl.int32, bitcast=True).to(tl.int64) << 32
        key = tl.min(bits | (columns[None, :] + offset), axis=1)
        tl.atomic_min(best_a_ptr + rows, key, mask=row_in)
        if BOTH_WAYS:
            key = tl.min(bits | rows[:, None], axis=0)
            tl.atomic_min(best_b_ptr + columns, key, mask=column_in)


def nearest_by_kernel(search: Search, *, both: bool) -> tuple[Tensor, Tensor]:
    """Return the nearest column of each query and, with ``both``, the reverse; −1 where none is.

    Where the queries are the columns, a row is not its own neighbour, and both are one.
    """
    queries, columns, own = search
    a = queries.block(0, len(queries)).contiguous()
    of_queries = _no_keys(len(a), a)
    if queries is columns:
        _launch(a, a, None, of_queries, of_queries, 0, symmetric=True)
        return _indices(of_queries), _indices(of_queries)
    of_columns = _no_keys(len(columns), a)
    at_once = len(columns) if both else _COLUMNS_AT_ONCE
    for low in range(0, len(columns), at_once):
        block = columns.block(low, low + at_once).contiguous()
        _launch(a, block, own, of_queries, of_columns if both else None, low, symmetric=False)
    return _indices(of_queries), _indices(of_columns)


def _no_keys(count: int, like: Tensor) -> Tensor:
    return torch.full((count,), torch.iinfo(torch.int64).max, dtype=torch.int64, device=like.device)


def _indices(keys: Tensor) -> Tensor:
    """Return the index in each key; −1 where nothing was found."""
    index = keys & _LAST_INDEX
    return torch.where((keys >> 32) == _INFINITY, -1, index)


def _launch(
    a: Tensor,
    b: Tensor,
    own: Tensor | None,
    of_a: Tensor,
    of_b: Tensor | None,
    offset: int,
    *,
    symmetric: bool,
) -> None:
    tile = min(_TILE, max(16, triton.next_power_of_2(max(len(a), len(b)))))
    grid = (triton.cdiv(len(a), tile), triton.cdiv(len(b), tile))
    nearest_kernel[grid](
        a,
        b,
        of_a if own is None else own.contiguous(),
        of_a,
        of_a if of_b is None else of_b,
        len(a),
        len(b),
        offset,
        a.shape[1],
        SYMMETRIC=symmetric,
        HAS_OWN=own is not None,
        BOTH_WAYS=of_b is not None,
        TILE=tile,
        DEPTH=_DEPTH,
        num_warps=8,
    )
