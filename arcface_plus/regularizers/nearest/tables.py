"""Largest cosine of every row with every group of columns, from products of blocks.

The matrix of all cosines never exists. A block of it is multiplied, reduced to one number a group
of consecutive columns (and, for the other direction, of rows), and overwritten. What stays is a
table n × n/group, small enough to keep and sharp enough that only a few groups a row have to be
looked at again (``ranking``).

Products in half precision are reduced as 16-bit integers, which order like the floats they are
where those are not negative; negative maxima count as zero. ``GroupMaxima`` carries a bound on its
own error.

Shapes: n queries, m columns, d entries, G groups of ``group`` columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from arcface_plus import devices
from arcface_plus.regularizers.geometry.sphere import UnitRows

_SMALLEST_GROUP = 64
_TABLE_BYTES = 16 << 20  # beside a quarter of what the queries themselves take
_TABLE_BYTES_GPU = 512 << 20
_BLOCK_FULL, _BLOCK_HALF, _BLOCK_GPU = 512, 1024, 8192
# Unit round-off: 8 and 11 significant bits, taken twice as coarse as they are.
_ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


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
            own = (self.own[picked] - first)[:, None]
            inside = (own >= 0) & (own < cosine.shape[1])
            column = own.clamp(0, cosine.shape[1] - 1)
            hidden = cosine.gather(1, column).masked_fill_(inside, -math.inf)
            cosine.scatter_(1, column, hidden)


@dataclass(frozen=True)
class GroupMaxima:
    """Hold the largest cosine of query i with group g in ``values[g, i]`` (G, n).

    ``values`` are cosines, or int16 bit patterns of non-negative cosines in ``half`` precision. The
    true maximum is within ``slack[i]`` of the value before its rounding to that, if it was rounded.
    """

    values: Tensor
    group: int
    slack: Tensor
    half: torch.dtype | None = None

    def thresholds(self, cosine: Tensor, low: int, high: int) -> Tensor:
        """Return the least value of queries ``low`` to ``high`` that may hide ``cosine``."""
        slack = self.slack[low:high]
        if self.half is None:
            return cosine - slack
        least = (cosine / (1 + _ROUNDING[self.half]) - slack).clamp_min_(0).float()
        nearest = least.to(self.half)
        # The next number up, where this one is below.
        return nearest.view(torch.int16) + (nearest.float() < least)


def full_slack(dtype: torch.dtype, width: int) -> float:
    """Return how far apart two computed cosines of equal pairs of rows may lie.

    Rounding of a d-term product in ``dtype`` grows as the root of d in practice; sixteen units
    leave a factor of four above what random and parallel rows of 512 entries show.
    """
    return 16 * torch.finfo(dtype).eps * max(1.0, math.sqrt(width / 512))


def group_maxima(
    search: Search, *, half: torch.dtype | None, both: bool = False
) -> tuple[GroupMaxima, GroupMaxima | None]:
    """Return the maxima of the queries over groups of columns, with ``both`` also the reverse.

    Multiplies in ``half`` precision, or in the rows' own where it is None. Where the queries are
    the columns, both tables are one, and each unordered pair of blocks is multiplied once. Columns
    are made block by block.
    """
    rows, columns, _ = search
    n, d = rows.shape
    same = rows is columns
    whole, lost = (rows.block(0, n), None) if half is None else _rounded(rows, half)
    block = _block_size(whole)
    group = _group_size(n, len(columns), whole)
    if both:
        group = max(group, _group_size(len(columns), n, whole))
    part = min(group, block)
    table = _empty_table(n, len(columns), group, whole)
    reverse = table if same else _empty_table(len(columns), n, group, whole) if both else None
    columns_lost = [whole.new_zeros(1, dtype=torch.float32)]
    scratch = torch.empty(block * block, dtype=whole.dtype, device=whole.device)
    for j, j_end in _blocks(len(columns), block):
        these = columns.block(j, j_end)
        if half is not None:
            these, these_lost = _round_block(these, half)
            columns_lost.append(these_lost)
        for i, i_end in _blocks(j_end if same else n, block):
            product = _product(whole[i:i_end], these, part, scratch)
            if not same or i == j:  # among themselves, rows meet on the diagonal alone
                search.hide_own(product[: i_end - i], slice(i, i_end), j)
            ordered = product if half is None else product.view(torch.int16)
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
    found = GroupMaxima(table, group, slack, half)
    return found, None if reverse is None else GroupMaxima(reverse, group, slack_reverse, half)


def _block_size(rows: Tensor) -> int:
    if not devices.host_may_look(rows.device):  # a launch takes as long as a small product
        return min(_BLOCK_GPU, max(_SMALLEST_GROUP, 1 << (len(rows) - 1).bit_length()))
    return _BLOCK_HALF if rows.dtype in _ROUNDING else _BLOCK_FULL


def _group_size(queries: int, columns: int, rows: Tensor) -> int:
    """Return the smallest power of two, from 64, whose table stays within its budget of memory."""
    bytes_ = _TABLE_BYTES if devices.host_may_look(rows.device) else _TABLE_BYTES_GPU
    budget = bytes_ + queries * rows.shape[1]  # a quarter of fp32 queries
    size = _SMALLEST_GROUP
    while queries * -(-columns // size) * rows.itemsize > budget:
        size *= 2
    return size


def _rounded(unit: UnitRows, half: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the rows rounded to ``half`` (n, d) and the norm of what that took from each (n,)."""
    rounded = torch.empty(unit.shape, dtype=half, device=unit.device)
    lost = torch.empty(len(unit), device=unit.device)
    for low, high in _blocks(len(unit), devices.rows_at_once(unit.device)):
        rounded[low:high], lost[low:high] = _round_block(unit.block(low, high), half)
    return rounded, lost


def _round_block(block: Tensor, half: torch.dtype) -> tuple[Tensor, Tensor]:
    rounded = block.to(half)
    return rounded, torch.linalg.vector_norm(rounded.float().sub_(block), dim=1)


def _slack(lost: Tensor, other_largest: Tensor, width: int) -> Tensor:
    """|a·b − ã·b̃| ≤ |a − ã||b| + |ã||b − b̃| with measured residuals, plus fp32 accumulation.

    Tensor cores cut sums off where other units round them, hence 2⁻²² a term.
    """
    return lost + other_largest * (1 + lost) + (width + 8) * 2.0**-22


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
    # Zero is the bit pattern of the cosine 0 in half precision, and the floor.
    least, dtype = (0, torch.int16) if like.dtype in _ROUNDING else (-math.inf, like.dtype)
    return torch.full((-(-columns // group), queries), least, dtype=dtype, device=like.device)


def _blocks(count: int, block: int) -> Iterator[tuple[int, int]]:
    for low in range(0, count, block):
        yield low, min(count, low + block)
