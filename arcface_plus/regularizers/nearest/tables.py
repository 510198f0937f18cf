"""Largest cosine of every row with every group of columns, from products of blocks.

The matrix of all cosines never exists. A block of it is multiplied, reduced to one number a group
of consecutive columns (and, for the other direction, of rows), and overwritten. What stays is a
table n × n/group, small enough to keep and sharp enough that only a few groups a row have to be
looked at again (``ranking``).

bf16 products are reduced as 16-bit integers, which order like the floats they are where those are
not negative; negative maxima count as zero. ``GroupMaxima`` carries a bound on its own error.

Shapes: n queries, m columns, d entries, G groups of ``group`` columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from arcface_plus.regularizers.geometry.sphere import UnitRows

_SMALLEST_GROUP = 64
_TABLE_BYTES = 16 << 20  # beside a quarter of what the queries themselves take
_BLOCK_FULL, _BLOCK_BF16 = 512, 1024
_BF16_ROUNDING = 2.0**-8  # unit round-off: 8 significant bits


class Search(NamedTuple):
    """Name what is searched: the nearest of ``columns`` (m, d) for each of ``queries`` (n, d).

    ``own[i]`` (n,) is the column that is query i itself, no neighbour of it; −1 where there is
    none. Nothing is hidden where ``own`` is None.
    """

    queries: UnitRows
    columns: UnitRows
    own: Tensor | None

    def hide_own(self, cosine: Tensor, picked: slice | Tensor, first: int | Tensor = 0) -> None:
        """Write −∞ where the ``picked`` queries meet themselves; ``cosine`` is from ``first`` on.

        ``first`` is a column, or a column for each query.
        """
        if self.own is not None:
            own = self.own[picked] - first
            inside = ((own >= 0) & (own < cosine.shape[1])).nonzero().flatten()
            cosine[inside, own[inside]] = -math.inf


@dataclass(frozen=True)
class GroupMaxima:
    """Hold the largest cosine of query i with group g in ``values[g, i]`` (G, n).

    ``values`` are cosines, or int16 bit patterns of non-negative bf16 cosines. The true maximum is
    within ``slack[i]`` of the value before its rounding to bf16, if it was rounded.
    """

    values: Tensor
    group: int
    slack: Tensor

    def thresholds(self, cosine: Tensor, low: int, high: int) -> Tensor:
        """Return the least value of queries ``low`` to ``high`` that may hide ``cosine``."""
        slack = self.slack[low:high]
        if self.values.dtype != torch.int16:
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


def group_maxima(
    search: Search, *, bf16: bool, both: bool = False
) -> tuple[GroupMaxima, GroupMaxima | None]:
    """Return the maxima of the queries over groups of columns, with ``both`` also the reverse.

    Where the queries are the columns, both tables are one, and each unordered pair of blocks is
    multiplied once. Columns are made block by block.
    """
    rows, columns, _ = search
    n, d = rows.shape
    block, same = (_BLOCK_BF16 if bf16 else _BLOCK_FULL), rows is columns
    whole, lost = _rounded(rows) if bf16 else (rows.block(0, n), None)
    group = _group_size(n, len(columns), d, whole.itemsize)
    if both:
        group = max(group, _group_size(len(columns), n, d, whole.itemsize))
    part = min(group, block)
    table = _empty_table(n, len(columns), group, whole)
    reverse = table if same else _empty_table(len(columns), n, group, whole) if both else None
    columns_lost = [whole.new_zeros(1, dtype=torch.float32)]
    scratch = torch.empty(block * block, dtype=whole.dtype, device=whole.device)
    for j, j_end in _blocks(len(columns), block):
        these = columns.block(j, j_end)
        if bf16:
            these, these_lost = _round_block(these)
            columns_lost.append(these_lost)
        for i, i_end in _blocks(j_end if same else n, block):
            product = _product(whole[i:i_end], these, part, scratch)
            search.hide_own(product[: i_end - i], slice(i, i_end), j)
            ordered = product.view(torch.int16) if bf16 else product
            _fold(table, ordered.unflatten(1, (-1, part)).amax(2)[: i_end - i].t(), j // group, i)
            if reverse is not None and not (same and i == j):
                folded = ordered.unflatten(0, (-1, part)).amax(1)[:, : j_end - j]
                _fold(reverse, folded, i // group, j)
    if lost is None:
        slack, slack_reverse = (whole.new_full((len(x),), full_slack(rows.dtype, d))
                                for x in (rows, columns))  # fmt: skip
    else:
        others = torch.cat(columns_lost)
        slack, slack_reverse = _slack(lost, others.max(), d), _slack(others[1:], lost.max(), d)
    found = GroupMaxima(table, group, slack)
    return found, None if reverse is None else GroupMaxima(reverse, group, slack_reverse)


def _group_size(queries: int, columns: int, width: int, itemsize: int) -> int:
    """Return the smallest power of two, from 64, whose table stays within its budget of memory."""
    budget = _TABLE_BYTES + queries * width  # a quarter of fp32 queries
    size = _SMALLEST_GROUP
    while queries * -(-columns // size) * itemsize > budget:
        size *= 2
    return size


def _rounded(unit: UnitRows) -> tuple[Tensor, Tensor]:
    """Return the rows rounded to bf16 (n, d) and the norm of what rounding took from each (n,)."""
    rounded = torch.empty(unit.shape, dtype=torch.bfloat16, device=unit.device)
    lost = torch.empty(len(unit), device=unit.device)
    for low, high in _blocks(len(unit), _BLOCK_FULL):
        rounded[low:high], lost[low:high] = _round_block(unit.block(low, high))
    return rounded, lost


def _round_block(block: Tensor) -> tuple[Tensor, Tensor]:
    rounded = block.to(torch.bfloat16)
    return rounded, torch.linalg.vector_norm(rounded.float().sub_(block), dim=1)


def _slack(lost: Tensor, other_largest: Tensor, width: int) -> Tensor:
    """|a·b − ã·b̃| ≤ |a − ã||b| + |ã||b − b̃| with measured residuals, plus fp32 accumulation."""
    return lost + other_largest * (1 + lost) + (width + 8) * 2.0**-23


def _product(a: Tensor, b: Tensor, part: int, scratch: Tensor) -> Tensor:
    """Return a·bᵀ in ``scratch``, padded with −∞ to whole groups of ``part``."""
    m, k = len(a), len(b)
    rows, columns = (-(-x // part) * part for x in (m, k))
    out = scratch[: rows * columns].view(rows, columns)
    if (rows, columns) == (m, k):
        return torch.mm(a, b.t(), out=out)
    out.fill_(-math.inf)[:m, :k] = torch.mm(a, b.t())
    return out


def _fold(table: Tensor, folded: Tensor, group: int, query: int) -> None:
    """Take ``folded`` maxima (groups, queries) into ``table`` from (group, query) on."""
    target = table[group : group + folded.shape[0], query : query + folded.shape[1]]
    torch.maximum(target, folded, out=target)


def _empty_table(queries: int, columns: int, group: int, like: Tensor) -> Tensor:
    # Zero is the bit pattern of the bf16 cosine 0, and the floor.
    least, dtype = (0, torch.int16) if like.dtype == torch.bfloat16 else (-math.inf, like.dtype)
    return torch.full((-(-columns // group), queries), least, dtype=dtype, device=like.device)


def _blocks(count: int, block: int) -> Iterator[tuple[int, int]]:
    for low in range(0, count, block):
        yield low, min(count, low + block)
