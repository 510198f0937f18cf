"""Exact nearest neighbours on the unit sphere, each unordered pair of blocks multiplied once.

The rows as given define which row is nearest, however they are multiplied: the one of the largest
cosine. Columns whose cosines full precision cannot distinguish are compared in float64 by the
difference of the rows; distances that then differ by less than 6e-8 rad are a tie, and the lowest
index wins it. A search in half precision has an error bound and multiplies again, in full
precision, everything the bound leaves open, so it finds the same neighbours. Where the bound would
leave too much open (rows in a tight cone) the search runs in full precision from the start.

On a GPU the table is made in the same way, in fp16: as fast there as bf16, with an eighth of its
error. What is left open is multiplied by a Triton kernel, which compares in fp32 (differences of
rows below 1e-6 of a cosine) and never makes the host wait.

Extra memory: a copy of the rows in half precision where that is used, a table of at most 16 MiB
(512 MiB on a GPU) + n·d bytes, and some 20 MiB of scratch (150 MiB).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from arcface_plus import devices
from arcface_plus.models.autocast import has_fast_bf16
from arcface_plus.regularizers.geometry.sphere import UnitRows, full_precision, matrix_rows
from arcface_plus.regularizers.nearest.ranking import (
    nearest_at_once,
    nearest_from_table,
    squared_chord,
)
from arcface_plus.regularizers.nearest.tables import GroupMaxima, Search, group_maxima

Precision = Literal["auto", "fp32", "bf16"]
_NORM_TOLERANCE, _HALF_NORM_TOLERANCE = 1e-5, 1e-2
_FEWEST_ROWS_FOR_HALF = 2048
_FEWEST_ENTRIES_FOR_HALF = 64
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
    ``bf16`` (half precision: bf16, or fp16 on a GPU; on a CPU only where the rows let it be
    certified cheaply, else fp32), or ``auto``, which is half where the processor multiplies that
    faster and there is enough to multiply. Returns ``cosine``
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
    may_look = devices.host_may_look(queries.device)
    if may_look and queries is columns and len(queries) <= _MOST_ROWS_AT_ONCE:
        return nearest_at_once(search), none[1]
    table, reverse = group_maxima(search, half=_half(search, precision), both=both)
    rank = _ranking(queries)
    of_queries = rank(table, search)
    if reverse is None or queries is columns:
        return of_queries, of_queries if reverse else none[1]
    return of_queries, rank(reverse, Search(columns, queries, None))


def _ranking(unit: UnitRows) -> Callable[[GroupMaxima, Search], Tensor]:
    """Return what ends a search: a GPU without Triton, and float64 there, make the host wait."""
    on_gpu = not devices.host_may_look(unit.device)
    if on_gpu and unit.dtype == torch.float32 and importlib.util.find_spec("triton") is not None:
        from arcface_plus.regularizers.nearest.kernel import nearest_by_kernel  # needs a compiler

        return nearest_by_kernel
    return nearest_from_table


def _normalised(rows: Tensor, *, exact: bool) -> Tensor:
    """Return ``rows`` of unit norm to their last digits, which a search trusts."""
    norms = torch.linalg.vector_norm(rows, dim=1)
    off = (norms - 1).abs()
    may_look = devices.host_may_look(rows.device)
    if may_look:
        odd = ~(off <= (_NORM_TOLERANCE if exact else _HALF_NORM_TOLERANCE))
        if bool(odd.any()):
            first = int(odd.int().argmax())
            raise ValueError(
                f"row {first} of unit_rows has norm {float(norms[first]):.6g}, but rows must be of "
                "unit norm; normalise them first, and look for zero or NaN rows."
            )
    if not exact or not may_look or bool((off > 16 * torch.finfo(rows.dtype).eps).any()):
        rows = rows / norms[:, None]
    return rows.contiguous()


def _half(search: Search, precision: Precision) -> torch.dtype | None:
    """Return the half precision in which to make the table; None for the rows' own."""
    queries, columns, _ = search
    if queries.dtype != torch.float32 or precision == "fp32":
        return None
    much = (
        min(len(queries), len(columns)) >= _FEWEST_ROWS_FOR_HALF
        and queries.shape[1] >= _FEWEST_ENTRIES_FOR_HALF
    )
    if not devices.host_may_look(queries.device):
        return torch.float16 if much or precision == "bf16" else None
    wanted = precision == "bf16" or (much and has_fast_bf16())
    return torch.bfloat16 if wanted and _bf16_pays(search) else None


def _bf16_pays(search: Search) -> bool:
    """Return whether the certificate would leave little open, judging by a sample of queries.

    A product in bf16 costs at most half of one in fp32; looking again at a group costs its columns
    twice, as small products do.
    """
    queries, columns, own = search
    step = max(1, len(queries) // _PROBED_ROWS)
    picked = torch.arange(0, len(queries), step, device=queries.device)
    sample = Search(UnitRows(queries.take(picked)), columns, None if own is None else own[picked])
    table, _ = group_maxima(sample, half=torch.bfloat16)
    best = table.values.view(torch.bfloat16).float().amax(0)
    left_open = (table.values >= table.thresholds(best, 0, len(picked))).sum(0).float()
    looks = left_open.clamp_max(len(columns) / (2 * table.group)) * table.group * 2
    return float(looks.mean()) < 0.24 * len(columns)
