"""From a table of group maxima to the exact nearest row.

For every query, its best group is multiplied in full precision, then every group that may hold a
column as near by its bound. Columns that full precision cannot distinguish are compared in float64
by the difference of the rows; of equal ones the lowest index wins. So the result does not depend on
how the table was made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_plus.regularizers.nearest.tables import GroupMaxima, Search, full_slack

_QUERIES_AT_ONCE = 16384
_ENTRIES_AT_ONCE = 1 << 20
_ROWS_AT_ONCE = 256
_MOST_GROUPS = 32  # to look at for one query; beyond, a whole row in float64 is cheaper
_MOST_TIES = 48  # to list for one query; beyond, a whole row in float64 is cheaper
TIE_UNIT = 2.0**-48  # of the squared chord: rows within 6e-8 rad are at the same distance


def nearest_from_table(table: GroupMaxima, search: Search) -> Tensor:
    """Return each query's nearest column (n,), −1 where there is none but its own."""
    queries = search.queries
    index = torch.full((len(queries),), -1, dtype=torch.int64, device=queries.device)
    within = full_slack(queries.dtype, queries.shape[1])
    for low in range(0, len(index), _QUERIES_AT_ONCE):
        high = min(len(index), low + _QUERIES_AT_ONCE)
        values = table.values[:, low:high]
        top = values.max(0).indices
        rows = torch.argsort(top, stable=True)
        best = torch.empty(high - low, dtype=queries.dtype, device=queries.device)
        for part, cosine in _products(search, rows + low, top[rows], table.group):
            best[rows[part]] = cosine.amax(1)
        near = _NearColumns(best, within)
        open_groups = values >= table.thresholds(near.least, low, high)
        near.crowded = open_groups.sum(0, dtype=torch.int32) > _MOST_GROUPS
        groups, rows = open_groups.logical_and_(~near.crowded).nonzero().unbind(1)
        for part, cosine in _products(search, rows + low, groups, table.group):
            near.add(rows[part], groups[part] * table.group, cosine)
        index[low:high] = near.nearest(search, low)
    return index


def nearest_at_once(search: Search) -> Tensor:
    """Return what ``nearest_from_table`` does, from one product: for few rows."""
    queries, columns, _ = search
    cosine = torch.mm(queries.block(0, len(queries)), columns.block(0, len(columns)).t())
    search.hide_own(cosine, slice(None))
    near = _NearColumns(cosine.amax(1), full_slack(queries.dtype, queries.shape[1]))
    rows = torch.arange(len(cosine), device=cosine.device)
    near.add(rows, torch.zeros_like(rows), cosine)
    return near.nearest(search, 0)


def _products(
    search: Search, rows: Tensor, groups: Tensor, group: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the (query, group) pairs, sorted by group, with cosines (pairs, group).

    The cosines are overwritten by the next slice.
    """
    queries, columns, _ = search
    at_once = max(1, _ENTRIES_AT_ONCE // group)
    shape = min(len(rows), at_once), group
    out = torch.empty(shape, dtype=queries.dtype, device=queries.device)
    for low in range(0, len(rows), at_once):
        part = slice(low, min(len(rows), low + at_once))
        found, counts = torch.unique_consecutive(groups[part], return_counts=True)
        stop = 0
        for one, count in zip(found.tolist(), counts.tolist(), strict=True):
            block = columns.block(one * group, (one + 1) * group)
            start, stop = stop, stop + count
            for first in range(start, stop, _ROWS_AT_ONCE):
                last = min(stop, first + _ROWS_AT_ONCE)
                picked = queries.take(rows[low + first : low + last])
                out[first:last, : len(block)] = torch.mm(picked, block.t())
                out[first:last, len(block) :] = -math.inf
        cosine = out[:stop]
        search.hide_own(cosine, rows[part], groups[part] * group)
        yield part, cosine


class _NearColumns:
    """List the columns that full precision cannot distinguish from each query's ``best`` (k,).

    ``crowded`` (k,): the queries with too many to list, which are ranked in float64.
    """

    def __init__(self, best: Tensor, within: float) -> None:
        self.least = (best - within).clamp_min_(-2.0)  # −∞ is no column
        self.count = torch.zeros(len(best), dtype=torch.int64, device=best.device)
        self.crowded = torch.zeros_like(self.count, dtype=torch.bool)
        self.rows: list[Tensor] = []
        self.columns: list[Tensor] = []

    def add(self, rows: Tensor, first: Tensor, cosine: Tensor) -> None:
        """Take in ``cosine`` (p, c) of the queries ``rows`` (p,) with columns from ``first``."""
        pair, at = (cosine >= self.least[rows][:, None]).nonzero().unbind(1)
        found = rows[pair]
        self.count += torch.bincount(found, minlength=len(self.count))
        few = self.count[found] <= _MOST_TIES
        self.rows.append(found[few])
        self.columns.append(first[pair[few]] + at[few])

    def nearest(self, search: Search, low: int) -> Tensor:
        """Return the nearest column (k,) of the queries from ``low`` on; −1 where none is."""
        index = torch.full_like(self.count, -1)
        crowded = self.crowded | (self.count > _MOST_TIES)
        if self.rows:
            rows, columns = torch.cat(self.rows), torch.cat(self.columns)
            index[rows] = columns
            tied = ((self.count > 1) & ~crowded)[rows].nonzero().flatten()
            if len(tied):
                _settle(index, search, rows[tied], columns[tied], low)
        at = crowded.nonzero().flatten()
        if len(at):
            index[at] = _rank_in_float64(search, at + low)
        return index


def _settle(index: Tensor, search: Search, rows: Tensor, columns: Tensor, low: int) -> None:
    """Write the nearest by float64 of the ``columns`` listed for ``rows`` (p,) into ``index``.

    ``rows`` and ``index`` count from query ``low`` on.
    """
    key = torch.cat([
        squared_chord(search.queries.take(i + low), search.columns.take(j))
        for i, j in zip(rows.split(1024), columns.split(1024), strict=True)
    ]).div_(TIE_UNIT).round_()  # fmt: skip
    least = key.new_full(index.shape, math.inf).scatter_reduce_(0, rows, key, "amin")
    won = (key == least[rows]).nonzero().flatten()
    index[rows] = len(search.columns)
    index.scatter_reduce_(0, rows[won], columns[won], "amin")


def squared_chord(a: Tensor, b: Tensor) -> Tensor:
    """Return ‖â − b̂‖² = 2(1 − cos) of rows (k, d) of nearly unit norm, in float64 (k,).

    The difference is exact, so that close rows keep their digits; what the norms differ by through
    rounding is taken out.
    """
    a, b = a.double(), b.double()
    norm_a, norm_b = torch.linalg.vector_norm(a, dim=1), torch.linalg.vector_norm(b, dim=1)
    difference = (a - b).square_().sum(1)
    return difference.sub_((norm_a - norm_b).square_()).clamp_min_(0).div_(norm_a * norm_b)


def _rank_in_float64(search: Search, picked: Tensor) -> Tensor:
    """Rank all columns of the ``picked`` queries by a float64 product: for nearly equal rows."""
    index = torch.full_like(picked, -1)
    for part in torch.arange(len(picked), device=picked.device).split(_ROWS_AT_ONCE):
        rows = F.normalize(search.queries.take(picked[part]).double())
        best = torch.full((len(part),), math.inf, dtype=torch.float64, device=picked.device)
        for low in range(0, len(search.columns), 1024):
            block = F.normalize(search.columns.block(low, low + 1024).double())
            cosine = torch.mm(rows, block.t())
            search.hide_own(cosine, picked[part], low)
            key = cosine.neg_().add_(1).mul_(2 / TIE_UNIT).clamp_min_(0).round_()
            least, first = key.amin(1), key.argmin(1)  # the first of equal ones
            nearer = least < best
            best = torch.where(nearer, least, best)
            index[part] = torch.where(nearer, first + low, index[part])
    return index
