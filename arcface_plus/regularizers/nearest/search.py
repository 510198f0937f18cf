"""Exact nearest neighbours on the unit sphere, each unordered pair of blocks multiplied once.

The rows as given define which row is nearest, however they are multiplied: the one of the largest
cosine. Columns whose cosines full precision cannot distinguish are compared in float64 by the
difference of the rows; distances that then differ by less than 6e-8 rad are a tie, and the lowest
index wins it. A bf16 search has an error bound and multiplies again, in full precision, everything
the bound leaves open, so it finds the same neighbours. Where the bound would leave too much open
(rows in a tight cone) the search runs in full precision from the start.

float32 rows on a GPU go through one fused Triton kernel, which compares in fp32 (differences of
rows below 1e-6 of a cosine) and never makes the host wait; ``precision`` is then without effect.

Extra memory: a bf16 copy of the rows where bf16 is used, a table of at most 16 MiB + n·d bytes, and
some 20 MiB of scratch.
"""

from __future__ import annotations

import importlib.util
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from arcface_plus.models.autocast import has_native_bf16
from arcface_plus.regularizers.geometry.sphere import UnitRows, full_precision, matrix_rows
from arcface_plus.regularizers.nearest.ranking import (
    nearest_at_once,
    nearest_from_table,
    squared_chord,
)
from arcface_plus.regularizers.nearest.tables import Search, group_maxima

Precision = Literal["auto", "fp32", "bf16"]
_NORM_TOLERANCE, _HALF_NORM_TOLERANCE = 1e-5, 1e-2
_FEWEST_ROWS_FOR_BF16 = 2048
_FEWEST_ENTRIES_FOR_BF16 = 64
_PROBED_ROWS = 128
_MOST_ROWS_AT_ONCE = 512  # a product of 1 MiB; more rows are cheaper by blocks and groups


class Nearest(NamedTuple):
    """Cosine (n,) and index (n,) int64 of the nearest row."""

    cosine: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple's own method gives way


def nearest_neighbors(unit_rows: Tensor, *, precision: Precision = "auto") -> Nearest:
    """Find the nearest other row of every row, exactly and without an n × n matrix.

    ``unit_rows`` (n, …) are of unit norm; half-precision rows are normalised again in float32,
    float64 rows are searched in float64. ``precision`` changes the time, not the result: ``fp32``,
    ``bf16`` (where the rows let it be certified cheaply, else fp32), or ``auto``, which is bf16
    where the processor multiplies it natively and there is enough to multiply. Returns ``cosine``
    in the rows' dtype (at least float32) and ``index``; no gradient flows.

    Ties go to the lowest index. Raises ValueError for fewer than two rows, and on the CPU for a row
    that is not of unit norm (zero, NaN, not normalised), naming the first; a GPU does not check its
    rows, which would stall it: the cosine of a bad row is meaningless there.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision is {precision!r}, but must be one of auto, fp32, bf16.")
    rows = matrix_rows(unit_rows)
    if rows.shape[0] < 2:
        raise ValueError(
            f"unit_rows has {rows.shape[0]} row(s), but a nearest other row needs at least two."
        )
    with full_precision(rows.device):
        unit = UnitRows(_normalised(rows, exact=unit_rows.dtype == rows.dtype))
        index = search_self(unit, precision=precision)
        own = torch.arange(len(unit), device=unit.device)
        chords = [
            squared_chord(unit.take(i), unit.take(j))
            for i, j in zip(own.split(1024), index.split(1024), strict=True)
        ]
        return Nearest((1 - torch.cat(chords) / 2).to(rows.dtype), index)


def search_self(unit: UnitRows, *, precision: Precision = "auto") -> Tensor:
    """Return the index (n,) of the nearest other row; −1 where there is none."""
    own = torch.arange(len(unit), device=unit.device)
    return _search(Search(unit, unit, own), both=True, precision=precision)[0]


def search_between(
    a: UnitRows, b: UnitRows, *, precision: Precision = "auto"
) -> tuple[Tensor, Tensor]:
    """Return for each row of ``a`` its nearest row of ``b``, and the reverse; −1 where none is."""
    return _search(Search(a, b, None), both=True, precision=precision)


def search_few(
    queries: Tensor, columns: UnitRows, own: Tensor | None, *, precision: Precision = "auto"
) -> Tensor:
    """Return the nearest column of each query (r, d), the columns made block by block.

    ``own`` (r,) is the column that query i is itself, −1 where there is none. The result is −1
    where a query has no neighbour.
    """
    search = Search(UnitRows(queries), columns, own)
    return _search(search, both=False, precision=precision)[0]


def _search(search: Search, *, both: bool, precision: Precision) -> tuple[Tensor, Tensor]:
    """Return the nearest column of each query and, with ``both``, the reverse."""
    queries, columns, _ = search
    none = [torch.full((len(x),), -1, device=queries.device) for x in (queries, columns)]
    if not len(queries) or not len(columns):
        return none[0], none[1]
    if _has_kernel(queries):
        from arcface_plus.regularizers.nearest.kernel import nearest_by_kernel  # needs a compiler

        return nearest_by_kernel(search, both=both)
    if queries is columns and len(queries) <= _MOST_ROWS_AT_ONCE:
        return nearest_at_once(search), none[1]
    bf16 = _takes_bf16(search, precision)
    table, reverse = group_maxima(search, bf16=bf16, both=both)
    of_queries = nearest_from_table(table, search)
    if reverse is None or queries is columns:
        return of_queries, of_queries if reverse else none[1]
    return of_queries, nearest_from_table(reverse, Search(columns, queries, None))


def _normalised(rows: Tensor, *, exact: bool) -> Tensor:
    """Return ``rows`` of unit norm to their last digits, which a search trusts."""
    norms = torch.linalg.vector_norm(rows, dim=1)
    off = (norms - 1).abs()
    if not rows.is_cuda:
        odd = ~(off <= (_NORM_TOLERANCE if exact else _HALF_NORM_TOLERANCE))
        if bool(odd.any()):
            first = int(odd.int().argmax())
            raise ValueError(
                f"row {first} of unit_rows has norm {float(norms[first]):.6g}, but rows must be of "
                "unit norm; normalise them first, and look for zero or NaN rows."
            )
    if not exact or rows.is_cuda or bool((off > 16 * torch.finfo(rows.dtype).eps).any()):
        rows = rows / norms[:, None]
    return rows.contiguous()


def _takes_bf16(search: Search, precision: Precision) -> bool:
    queries, columns, _ = search
    if queries.dtype != torch.float32 or precision == "fp32":
        return False
    much_and_fast = (
        min(len(queries), len(columns)) >= _FEWEST_ROWS_FOR_BF16
        and queries.shape[1] >= _FEWEST_ENTRIES_FOR_BF16
        and queries.device.type == "cpu"
        and has_native_bf16(queries.device)
    )
    return (precision == "bf16" or much_and_fast) and _bf16_pays(search)


def _bf16_pays(search: Search) -> bool:
    """Return whether the certificate would leave little open, judging by a sample of queries.

    A product in bf16 costs at most half of one in fp32; looking again at a group costs its columns
    twice, as small products do.
    """
    queries, columns, own = search
    step = max(1, len(queries) // _PROBED_ROWS)
    picked = torch.arange(0, len(queries), step, device=queries.device)
    sample = Search(UnitRows(queries.take(picked)), columns, None if own is None else own[picked])
    table, _ = group_maxima(sample, bf16=True)
    best = table.values.view(torch.bfloat16).float().amax(0)
    left_open = (table.values >= table.thresholds(best, 0, len(picked))).sum(0).float()
    looks = left_open.clamp_max(len(columns) / (2 * table.group)) * table.group * 2
    return float(looks.mean()) < 0.24 * len(columns)


def _has_kernel(unit: UnitRows) -> bool:
    """Return whether the fused kernel serves these rows; a GPU without it searches in blocks."""
    fits = unit.device.type == "cuda" and unit.dtype == torch.float32
    return fits and importlib.util.find_spec("triton") is not None
