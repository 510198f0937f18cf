"""From a table of group maxima to the nearest row on a GPU: the host never waits.

Which groups of columns are open differs from query to query, and only the device knows. So a
program takes a tile of queries and some groups, looks which of them are open to any of its queries,
and multiplies those alone, in fp32 (no TF32): first every query's best group, then all that may
hold a column as near. Queries with the same best group stand together, so that few programs have
much to do. Where everything is open (rows in a tight cone) that is the whole
product in fp32: slow, and still exact.

Cosines become squared chords, folded into one 64-bit key a query, ``chord bits · 2³² | index``, by
an atomic minimum: non-negative floats order as their bits do, a minimum does not depend on the
order of programs, and of equal chords the lowest index wins. Chords too short for 2 − 2cos are
summed from differences, in the few tiles that have them.

Imported only where rows are on a GPU; with TRITON_INTERPRET=1 it runs on the CPU, for tests.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from arcface_plus.regularizers.nearest.tables import GroupMaxima, Search

_COLUMNS_AT_ONCE = 1 << 17
_TILE, _DEPTH = 64, 32  # larger tiles spill registers
_GROUPS = 32  # of a program: enough that looking at closed ones costs little
_LAST_INDEX, _INFINITY = 0xFFFFFFFF, 0x7F800000


@triton.jit
def nearest_kernel(
    a_ptr,
    b_ptr,
    own_ptr,
    order_ptr,
    table_ptr,
    least_ptr,
    best_ptr,
    n,
    m,
    first,
    d,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    HAS_OWN: tl.constexpr,
    TILE: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Fold the open ones of GROUPS groups of b (m, d) into the keys of TILE queries of a (n, d).

    Query ``order[i]`` is open to group g where ``table[g, order[i]]`` reaches ``least[order[i]]``.
    The first column of b has the index ``first``, and the first group is its.
    """
    places = tl.program_id(0) * TILE + tl.arange(0, TILE)
    row_in = places < n
    rows = tl.load(order_ptr + places, mask=row_in, other=0)
    least = tl.load(least_ptr + rows, mask=row_in, other=0)
    best = tl.full((TILE,), 0x7FFFFFFFFFFFFFFF, dtype=tl.int64)
    begin = tl.program_id(1) * GROUPS
    for group in range(begin, min(begin + GROUPS, tl.cdiv(m, GROUP))):
        # A table is small enough for 32 bits: see its budget of memory.
        value = tl.load(table_ptr + group * n + rows, mask=row_in, other=0)
        is_open = ((value >= least) & row_in).to(tl.int32)
        if tl.max(is_open, axis=0) > 0:
            for start in range(group * GROUP, min(group * GROUP + GROUP, m), TILE):
                columns = (start + tl.arange(0, TILE)).to(tl.int64)
                column_in = columns < m
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
                if HAS_OWN:
                    own = tl.load(own_ptr + rows, mask=row_in, other=-1)
                    counts = counts & (own[:, None] != columns[None, :] + first)
                chord = tl.where(counts, chord, float("inf"))
                bits = chord.to(tl.int32, bitcast=True).to(tl.int64) << 32
                best = tl.minimum(best, tl.min(bits | (columns[None, :] + first), axis=1))
    tl.atomic_min(best_ptr + rows, best, mask=row_in)


def nearest_by_kernel(table: GroupMaxima, search: Search) -> Tensor:
    """Return each query's nearest column (n,), −1 where there is none but its own."""
    queries, columns, _ = search
    rows = queries.block(0, len(queries)).contiguous()
    keys = torch.full((len(rows),), torch.iinfo(torch.int64).max, device=rows.device)
    best = table.values.max(0)
    order = best.indices.argsort()
    at_once = max(_COLUMNS_AT_ONCE // table.group, 1) * table.group
    for look in ("best", "open"):
        least = best.values
        if look == "open":  # all that may hold a column as near as what the best group held
            chord = (keys >> 32).to(torch.int32).view(torch.float32)
            least = table.thresholds(1 - chord / 2, 0, len(rows))
        for low in range(0, len(columns), at_once):
            block = columns.block(low, low + at_once).contiguous()
            _launch(rows, block, low, search.own, order, table, least, keys)
    none = keys >> 32 >= _INFINITY
    return torch.where(none, -1, keys & _LAST_INDEX)


def _launch(
    rows: Tensor,
    block: Tensor,
    first: int,
    own: Tensor | None,
    order: Tensor,
    table: GroupMaxima,
    least: Tensor,
    keys: Tensor,
) -> None:
    """Fold the columns ``block``, whose first has the index ``first``, into ``keys`` (n,)."""
    groups = table.values[first // table.group :]
    grid = (
        triton.cdiv(len(rows), _TILE),
        triton.cdiv(triton.cdiv(len(block), table.group), _GROUPS),
    )
    nearest_kernel[grid](
        rows,
        block,
        keys if own is None else own.contiguous(),
        order,
        groups,
        least,
        keys,
        len(rows),
        len(block),
        first,
        rows.shape[1],
        GROUP=table.group,
        GROUPS=_GROUPS,
        HAS_OWN=own is not None,
        TILE=_TILE,
        DEPTH=_DEPTH,
        num_warps=8,
    )
