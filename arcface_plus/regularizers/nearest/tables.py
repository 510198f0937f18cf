"""Largest cosine of every row with every group of columns, from products of blocks.

The matrix of all cosines never exists. A block of it is multiplied, reduced both ways to one number
a group of consecutive columns (and, for the other side, of rows), and overwritten. What stays is a
table n × n/group, small enough to keep and sharp enough that only a few groups a row have to be
looked at again (``nearest_rank``).

bf16 products are reduced as 16-bit integers, which order like the floats they are where those are
not negative; negative maxima count as zero. ``GroupMaxima`` carries a bound on its own error.

Shapes: n queries, m columns, d entries, G groups of ``group`` columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from arcface_plus.regularizers.geometry.sphere import UnitRows

_SMALLEST_GROUP = 64
_TABLE_BYTES = 16 << 20  # beside a quarter of what the queries themselves take
_BLOCK_FULL, _BLOCK_BF16, _BLOCK_DIAGONAL = 512, 1024, 128
_BF16_ROUNDING = 2.0**-8  # unit round-off: 8 significant bits


@dataclass(frozen=True)
class GroupMaxima:
    """Hold the largest cosine of query i with group g in ``values[g, i]`` (G, n).

    ``values`` are cosines, or int16 bit patterns of non-negative bf16 cosines. The true maximum is
    within ``slack[i]`` of the value before its rounding to bf16, if it was rounded.
    """

    values: Tensor
    group: int
    slack: Tensor

    @property
    def is_bf16(self) -> bool:
        return self.values.dtype == torch.int16

    def thresholds(self, cosine: Tensor, low: int, high: int) -> Tensor:
        """Return the least value of queries ``low`` to ``high`` that may stand for ``cosine``."""
        slack = self.slack[low:high]
        if not self.is_bf16:
            return cosine - slack
        least = (cosine / (1 + _BF16_ROUNDING) - slack).clamp_min_(0).float()
        bits = least.view(torch.int32)
        return ((bits + 0xFFFF) >> 16).to(torch.int16)  # the next bf16 number up


def full_slack(dtype: torch.dtype, width: int) -> float:
    """Return how far apart two computed cosines of equal pairs of rows may lie.

    Rounding of a d-term product in ``dtype`` grows as the root of d in practice; sixteen units
    leave a factor of four above what random and parallel rows of 512 entries show.
    """
    return 16 * torch.finfo(dtype).eps * max(1.0, math.sqrt(width / 512))


def group_size(queries: int, columns: int, width: int, itemsize: int) -> int:
    """Return the smallest power of two, from 64, whose table stays within its budget of memory."""
    budget = _TABLE_BYTES + queries * width  # a quarter of fp32 queries
    size = _SMALLEST_GROUP
    while queries * -(-columns // size) * itemsize > budget:
        size *= 2
    return size


def round_to_bf16(unit: UnitRows) -> tuple[Tensor, Tensor]:
    """Return the rows rounded to bf16 (n, d) and the norm of what rounding took from each (n,)."""
    rounded = torch.empty(unit.shape, dtype=torch.bfloat16, device=unit.device)
    residual = torch.empty(len(unit), device=unit.device)
    for low in range(0, len(unit), 512):
        high = min(len(unit), low + 512)
        rounded[low:high], residual[low:high] = _round_block(unit.block(low, high))
    return rounded, residual


def _round_block(block: Tensor) -> tuple[Tensor, Tensor]:
    rounded = block.to(torch.bfloat16)
    return rounded, torch.linalg.vector_norm(rounded.float().sub_(block), dim=1)


def _bf16_slack(residual: Tensor, other_largest: Tensor | float, width: int) -> Tensor:
    """|a·b − ã·b̃| ≤ |a − ã||b| + |ã||b − b̃| with measured residuals, plus fp32 accumulation."""
    return residual + other_largest * (1 + residual) + (width + 8) * 2.0**-23


class _Folder:
    """Multiply two blocks and fold the product's maxima into tables."""

    def __init__(self, block: int, group: int, dtype: torch.dtype, device: torch.device) -> None:
        self.block, self.group = block, group
        self.part = min(group, block)
        self._scratch = torch.empty(block * block, dtype=dtype, device=device)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a·bᵀ in scratch memory, padded with −∞ to whole groups."""
        m, k = a.shape[0], b.shape[0]
        rows, columns = (-(-x // self.part) * self.part for x in (m, k))
        out = self._scratch[: rows * columns].view(rows, columns)
        if (rows, columns) == (m, k):
            return torch.mm(a, b.t(), out=out)
        out.fill_(-math.inf)[:m, :k] = torch.mm(a, b.t())
        return out

    def fold_rows(self, table: Tensor, product: Tensor, row: int, column: int, rows: int) -> None:
        """Take maxima over columns: what rows ``row``… see in the groups from ``column`` on."""
        folded = _as_ordered(product).unflatten(1, (-1, self.part)).amax(2)[:rows].t()
        self._store(table, folded, column, row)

    def fold_columns(
        self, table: Tensor, product: Tensor, row: int, column: int, columns: int
    ) -> None:
        """Take maxima over rows: what columns ``column``… see in the groups from ``row`` on."""
        folded = _as_ordered(product).unflatten(0, (-1, self.part)).amax(1)[:, :columns]
        self._store(table, folded, row, column)

    def _store(self, table: Tensor, folded: Tensor, first: int, query: int) -> None:
        at = first // self.group
        target = table[at : at + folded.shape[0], query : query + folded.shape[1]]
        torch.maximum(target, folded, out=target)


def _as_ordered(product: Tensor) -> Tensor:
    return product.view(torch.int16) if product.dtype == torch.bfloat16 else product


def _empty_table(queries: int, columns: int, group: int, like: Tensor) -> Tensor:
    shape = (-(-columns // group), queries)
    if like.dtype == torch.bfloat16:  # zero is the bit pattern of the cosine 0, and the floor
        return torch.zeros(shape, dtype=torch.int16, device=like.device)
    return torch.full(shape, -math.inf, dtype=like.dtype, device=like.device)


def _blocks(count: int, block: int, start: int = 0) -> Iterator[tuple[int, int]]:
    for low in range(start, count, block):
        yield low, min(count, low + block)


def _upper_blocks(count: int, block: int, fine: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (i, i_end, j, j_end) covering every pair i ≤ j once, finer at the diagonal."""
    for i, i_end in _blocks(count, block):
        for k, k_end in _blocks(i_end, fine, start=i):
            for j, j_end in _blocks(i_end, fine, start=k):
                yield k, k_end, j, j_end
        for j, j_end in _blocks(count, block, start=i_end):
            yield i, i_end, j, j_end


def self_maxima(unit: UnitRows, *, bf16: bool) -> GroupMaxima:
    """Return each row's maxima over groups of the other rows; block pairs are multiplied once."""
    whole = unit.whole
    assert whole is not None
    n, d = unit.shape
    rows, slack = (
        whole,
        torch.full((n,), full_slack(unit.dtype, d), dtype=unit.dtype, device=unit.device),
    )
    if bf16:
        rows, residual = round_to_bf16(unit)
        slack = _bf16_slack(residual, residual.max(), d)
    group = group_size(n, n, d, 2 if bf16 else rows.itemsize)
    folder = _Folder(_BLOCK_BF16 if bf16 else _BLOCK_FULL, group, rows.dtype, rows.device)
    table = _empty_table(n, n, group, rows)
    fine = max(folder.part, _BLOCK_DIAGONAL)
    for i, i_end, j, j_end in _upper_blocks(n, folder.block, fine):
        product = folder.product(rows[i:i_end], rows[j:j_end])
        if i == j:
            product.fill_diagonal_(-math.inf)
        else:
            folder.fold_columns(table, product, i, j, j_end - j)
        folder.fold_rows(table, product, i, j, i_end - i)
    return GroupMaxima(table, group, slack)


def cross_maxima(a: UnitRows, b: UnitRows, *, bf16: bool) -> tuple[GroupMaxima, GroupMaxima]:
    """Return the maxima of rows ``a`` over groups of ``b`` and the reverse, from one product."""
    d = a.shape[1]
    full = full_slack(a.dtype, d)
    slacks = [torch.full((len(x),), full, dtype=x.dtype, device=x.device) for x in (a, b)]
    a_rows, b_rows = a.whole, b.whole
    assert a_rows is not None and b_rows is not None
    if bf16:
        (a_rows, a_lost), (b_rows, b_lost) = round_to_bf16(a), round_to_bf16(b)
        slacks = [_bf16_slack(a_lost, b_lost.max(), d), _bf16_slack(b_lost, a_lost.max(), d)]
    group = group_size(max(len(a), len(b)), max(len(a), len(b)), d, 2 if bf16 else a_rows.itemsize)
    folder = _Folder(_BLOCK_BF16 if bf16 else _BLOCK_FULL, group, a_rows.dtype, a_rows.device)
    of_a = _empty_table(len(a), len(b), group, a_rows)
    of_b = _empty_table(len(b), len(a), group, a_rows)
    for i, i_end in _blocks(len(a), folder.block):
        for j, j_end in _blocks(len(b), folder.block):
            product = folder.product(a_rows[i:i_end], b_rows[j:j_end])
            folder.fold_rows(of_a, product, i, j, i_end - i)
            folder.fold_columns(of_b, product, i, j, j_end - j)
    return GroupMaxima(of_a, group, slacks[0]), GroupMaxima(of_b, group, slacks[1])


def one_way_maxima(
    queries: Tensor, columns: UnitRows, own: Tensor | None, *, bf16: bool
) -> GroupMaxima:
    """Return the maxima of ``queries`` (n, d) over groups of ``columns``, made block by block.

    ``own[i]`` (n,) is the column that query i must not meet, itself.
    """
    n, d = queries.shape
    full = full_slack(queries.dtype, d)
    slack = torch.full((n,), full, dtype=queries.dtype, device=queries.device)
    rows, lost = _round_block(queries) if bf16 else (queries, slack)
    largest_lost = lost.new_zeros(())
    group = group_size(n, len(columns), d, 2 if bf16 else rows.itemsize)
    folder = _Folder(_BLOCK_BF16 if bf16 else _BLOCK_FULL, group, rows.dtype, rows.device)
    table = _empty_table(n, len(columns), group, rows)
    for j, j_end in _blocks(len(columns), folder.block):
        block = columns.block(j, j_end)
        if bf16:
            block, block_lost = _round_block(block)
            largest_lost = torch.maximum(largest_lost, block_lost.max())
        for i, i_end in _blocks(n, folder.block):
            product = folder.product(rows[i:i_end], block)
            if own is not None:
                hide_own(product, own[i:i_end] - j)
            folder.fold_rows(table, product, i, j, i_end - i)
    return GroupMaxima(table, group, _bf16_slack(lost, largest_lost, d) if bf16 else slack)


def hide_own(product: Tensor, own: Tensor) -> None:
    """Write −∞ where row i meets column ``own[i]``, for those inside ``product``."""
    inside = ((own >= 0) & (own < product.shape[1])).nonzero().flatten()
    product[inside, own[inside]] = -math.inf
