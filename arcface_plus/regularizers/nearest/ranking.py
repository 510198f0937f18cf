"""From a table of group maxima to the exact nearest row.

For every query: multiply its best group in full precision, then every other group whose bound says
that it may hold something as near. Columns that full precision cannot tell apart are settled in
float64 from the difference of the rows, the lowest index winning what is equal even then. So the
answer does not depend on how the table was made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from arcface_plus.regularizers.geometry.sphere import UnitRows
from arcface_plus.regularizers.nearest.tables import (
    GroupMaxima,
    full_slack,
    hide_own,
    one_way_maxima,
)

_QUERIES_AT_ONCE = 16384
_ENTRIES_AT_ONCE = 1 << 20
_ROWS_AT_ONCE = 256
_MOST_GROUPS = 32  # to look at for one query; beyond, a whole row is cheaper
_MOST_TIES = 48  # to list for one query on average; beyond, a float64 product is cheaper
TIE_UNIT = 2.0**-48  # of the squared chord: rows within 6e-8 rad are at the same distance


@dataclass(frozen=True)
class Search:
    """Name what is searched: ``own[i]`` (n,) is the column that is query i itself, if any."""

    queries: UnitRows
    columns: UnitRows
    own: Tensor | None
    group: int

    def part(self, picked: Tensor) -> Search:
        """Return the search of the ``picked`` queries alone."""
        own = None if self.own is None else self.own[picked]
        return Search(UnitRows.of_unit(self.queries.take(picked)), self.columns, own, self.group)

    def products(self, rows: Tensor, groups: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of the (query, group) pairs, sorted by group, with cosines (pairs, group).

        The cosines are overwritten by the next slice.
        """
        at_once = max(1, _ENTRIES_AT_ONCE // self.group)
        like = self.queries
        out = torch.empty(min(len(rows), at_once), self.group, dtype=like.dtype, device=like.device)
        gathered = torch.empty(_ROWS_AT_ONCE, like.shape[1], dtype=like.dtype, device=like.device)
        for low in range(0, len(rows), at_once):
            part = slice(low, min(len(rows), low + at_once))
            yield part, self._product(rows[part], groups[part], out[: part.stop - low], gathered)

    def _product(self, rows: Tensor, groups: Tensor, out: Tensor, gathered: Tensor) -> Tensor:
        whole = self.queries.whole
        assert whole is not None
        found, counts = torch.unique_consecutive(groups, return_counts=True)
        low = 0
        for group, count in zip(found.tolist(), counts.tolist(), strict=True):
            first, last = group * self.group, min(len(self.columns), (group + 1) * self.group)
            block = self.columns.block(first, last).t()
            for start in range(low, low + count, _ROWS_AT_ONCE):
                stop = min(low + count, start + _ROWS_AT_ONCE)
                queries = gathered[: stop - start]
                torch.index_select(whole, 0, rows[start:stop], out=queries)
                if last - first == self.group:
                    torch.mm(queries, block, out=out[start:stop])
                else:
                    out[start:stop].fill_(-math.inf)[:, : last - first] = torch.mm(queries, block)
            low += count
        if self.own is not None:
            hide_own(out, self.own[rows] - groups * self.group)
        return out


def nearest_from_table(table: GroupMaxima, search: Search) -> Tensor:
    """Return each query's nearest column (n,). Overwrites the table."""
    index = torch.empty(len(search.queries), dtype=torch.int64, device=search.queries.device)
    for low in range(0, len(index), _QUERIES_AT_ONCE):
        high = min(len(index), low + _QUERIES_AT_ONCE)
        index[low:high] = _rank(table, search, low, high)
    return index


@dataclass
class _Best:
    """Collect what the products say of queries ``low``…: winner, and pairs that came close."""

    cosine: Tensor
    column: Tensor
    rows: list[Tensor]
    groups: list[Tensor]
    first: list[Tensor]
    second: list[Tensor]

    def add(self, rows: Tensor, groups: Tensor, low: int, search: Search) -> None:
        """Look at the (query, group) pairs, ``rows`` counted from ``low``."""
        for part, cosine in search.products(rows + low, groups):
            first, at = cosine.max(1)
            column = groups[part] * search.group + at
            second = cosine.scatter_(1, at[:, None], -math.inf).amax(1)
            self.cosine.scatter_reduce_(0, rows[part], first, "amax")
            won = (first == self.cosine[rows[part]]).nonzero().flatten()
            self.column[rows[part][won]] = column[won]
            self.first.append(first)
            self.second.append(second)
        self.rows.append(rows)
        self.groups.append(groups)

    def close_pairs(self, within: float) -> tuple[Tensor, Tensor]:
        """Return the pairs (query, group) of queries with more than one column near their best."""
        rows, groups = torch.cat(self.rows), torch.cat(self.groups)
        first, second = torch.cat(self.first), torch.cat(self.second)
        least = self.cosine[rows] - within
        close = first >= least
        count = torch.zeros_like(self.column)
        count.index_add_(0, rows, close.long() + (second >= least).long())
        keep = (close & (count[rows] > 1)).nonzero().flatten()
        return rows[keep], groups[keep]


def _rank(table: GroupMaxima, search: Search, low: int, high: int) -> Tensor:
    values = table.values[:, low:high]
    count, within = high - low, full_slack(search.queries.dtype, search.queries.shape[1])
    device = values.device
    best = _Best(
        torch.full((count,), -math.inf, dtype=search.queries.dtype, device=device),
        torch.full((count,), -1, dtype=torch.int64, device=device),
        [], [], [], [],
    )  # fmt: skip
    top = values.max(0).indices
    by_group = torch.argsort(top, stable=True)
    best.add(by_group, top[by_group], low, search)

    values.scatter_(0, top[None], -1 if table.is_bf16 else -math.inf)
    open_groups = values >= table.thresholds(best.cosine - within, low, high)
    crowded = _close_crowded(open_groups)
    groups, rows = open_groups.nonzero().unbind(1)
    best.add(rows, groups, low, search)

    rows, groups = best.close_pairs(within)
    if len(rows):
        _settle(best, search, rows, groups, low, within)
    if len(crowded):
        best.column[crowded] = _rank_crowded(search.part(crowded + low), from_bf16=table.is_bf16)
    return best.column


def _close_crowded(open_groups: Tensor) -> Tensor:
    """Return the queries with too many open groups (k,), and close those groups in place."""
    if int(torch.count_nonzero(open_groups)) <= _MOST_GROUPS:
        return open_groups.new_empty(0, dtype=torch.int64)
    crowded = (open_groups.sum(0, dtype=torch.int32) > _MOST_GROUPS).nonzero().flatten()
    open_groups[:, crowded] = False
    return crowded


def _rank_crowded(search: Search, *, from_bf16: bool) -> Tensor:
    """Rank queries that a table left too open: by a sharper table, or at last in float64."""
    if not from_bf16:
        return _rank_in_float64(search)
    whole = search.queries.whole
    assert whole is not None
    table = one_way_maxima(whole, search.columns, search.own, bf16=False)
    return nearest_from_table(
        table, Search(search.queries, search.columns, search.own, table.group)
    )


def _settle(
    best: _Best, search: Search, rows: Tensor, groups: Tensor, low: int, within: float
) -> None:
    """Rank in float64 the columns within ``within`` of the best; ``rows`` come sorted by group."""
    order = torch.argsort(groups, stable=True)
    rows, groups = rows[order], groups[order]
    tied, columns, listed = [], [], 0
    queries = torch.unique(rows)
    for part, cosine in search.products(rows + low, groups):
        pair, at = (cosine >= (best.cosine[rows[part]] - within)[:, None]).nonzero().unbind(1)
        tied.append(rows[part][pair])
        columns.append(groups[part][pair] * search.group + at)
        listed += len(pair)
        if listed > _MOST_TIES * len(queries):
            best.column[queries] = _rank_in_float64(search.part(queries + low))
            return
    best.column[queries] = _nearest_listed(
        search, torch.cat(tied) + low, torch.cat(columns), queries + low
    )


def _nearest_listed(search: Search, rows: Tensor, columns: Tensor, queries: Tensor) -> Tensor:
    """Return for each of ``queries`` (q,), ascending, the nearest of the columns listed for it.

    ``rows`` and ``columns`` (k,) are the list; each query is in ``rows``.
    """
    at = torch.searchsorted(queries, rows)
    key = torch.cat([
        squared_chord(search.queries.take(r), search.columns.take(c))
        for r, c in zip(rows.split(1024), columns.split(1024), strict=True)
    ]).div_(TIE_UNIT).round_()  # fmt: skip
    least = key.new_full(queries.shape, math.inf).scatter_reduce_(0, at, key, "amin")
    won = (key == least[at]).nonzero().flatten()
    nearest = torch.full_like(queries, len(search.columns))
    return nearest.scatter_reduce_(0, at[won], columns[won], "amin")


def nearest_at_once(unit: UnitRows) -> Tensor:
    """Return the nearest other row (n,) of few rows, from one n × n product.

    The answer is that of the tables, which pay only where there are many rows.
    """
    whole = unit.whole
    assert whole is not None
    cosine = torch.mm(whole, whole.t()).fill_diagonal_(-math.inf)
    best, index = cosine.max(1)
    within = full_slack(unit.dtype, unit.shape[1])
    second = cosine.scatter(1, index[:, None], -math.inf).amax(1)
    tied = (second >= best - within).nonzero().flatten()
    if len(tied):
        rows, columns = (cosine[tied] >= (best[tied] - within)[:, None]).nonzero().unbind(1)
        search = Search(unit, unit, torch.arange(len(unit), device=tied.device), len(unit))
        if len(rows) > _MOST_TIES * len(tied):
            index[tied] = _rank_in_float64(search.part(tied))
        else:
            index[tied] = _nearest_listed(search, tied[rows], columns, tied)
    return index


def squared_chord(a: Tensor, b: Tensor) -> Tensor:
    """Return ‖â − b̂‖² = 2(1 − cos) of rows (k, d) of nearly unit norm, in float64 (k,).

    The difference is exact, so that close rows keep their digits; what the norms differ by through
    rounding is taken out.
    """
    a, b = a.double(), b.double()
    norm_a, norm_b = torch.linalg.vector_norm(a, dim=1), torch.linalg.vector_norm(b, dim=1)
    difference = a.sub_(b).square_().sum(1)
    return difference.sub_((norm_a - norm_b).square_()).clamp_min_(0).div_(norm_a * norm_b)


def _rank_in_float64(search: Search) -> Tensor:
    """Rank all columns of every query by a float64 product: for rows that nearly coincide."""
    nearest = []
    whole = search.queries.whole
    assert whole is not None
    for low in range(0, len(whole), 256):
        queries = whole[low : low + 256].double()
        queries /= torch.linalg.vector_norm(queries, dim=1, keepdim=True)
        own = None if search.own is None else search.own[low : low + 256]
        nearest.append(_nearest_in_float64(queries, search.columns, own))
    return torch.cat(nearest)


def _nearest_in_float64(queries: Tensor, columns: UnitRows, own: Tensor | None) -> Tensor:
    best = torch.full((len(queries),), math.inf, dtype=torch.float64, device=queries.device)
    index = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for low in range(0, len(columns), 1024):
        block = columns.block(low, min(len(columns), low + 1024)).double()
        block /= torch.linalg.vector_norm(block, dim=1, keepdim=True)
        cosine = torch.mm(queries, block.t())
        if own is not None:
            hide_own(cosine, own - low)
        key = cosine.neg_().add_(1).mul_(2 / TIE_UNIT).clamp_min_(0).round_()
        least = key.amin(1)
        position = torch.arange(key.shape[1], device=key.device)
        first = torch.where(key == least[:, None], position, key.shape[1]).amin(1)
        nearer = least < best
        best = torch.where(nearer, least, best)
        index = torch.where(nearer, first + low, index)
    return index
