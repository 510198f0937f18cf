"""Exact nearest neighbours on the unit sphere, each unordered pair of blocks multiplied once.

Which row is nearest is defined by the rows as given, not by how they are multiplied: the largest
cosine; columns whose cosines full precision cannot tell apart are compared in float64 by the
difference of the rows; what is then nearer to each other than 6e-8 rad is a tie, and the lowest
index wins it. A bf16 search comes with an error bound and looks again in full precision at
everything the bound leaves open, so it gives the same neighbours; where too much would be left open
(rows in a tight cone) the full-precision search is taken.

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

from arcface_plus.regularizers.geometry.sphere import (
    UnitRows,
    full_precision,
    matrix_rows,
)
from arcface_plus.regularizers.nearest.ranking import (
    Search,
    nearest_at_once,
    nearest_from_table,
    squared_chord,
)
from arcface_plus.regularizers.nearest.tables import (
    GroupMaxima,
    cross_maxima,
    one_way_maxima,
    self_maxima,
)

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
    float64 rows are searched in float64. ``precision`` changes the time, not the answer: ``fp32``,
    ``bf16`` (where the rows let it be certified cheaply, else fp32), or ``auto``, which is bf16
    where the processor multiplies it natively and there is enough to multiply. Returns ``cosine``
    in the rows' dtype (at least float32) and ``index``; no gradient flows.

    Ties go to the lowest index. Raises ValueError for fewer than two rows, and on the CPU for a row
    that is not of unit norm (zero, NaN, not normalised), naming the first; on a GPU such rows are
    not looked for, as that would stall it: their cosine is meaningless.
    """
    _check_precision(precision)
    rows = matrix_rows(unit_rows)
    if rows.shape[0] < 2:
        raise ValueError(
            f"unit_rows has {rows.shape[0]} row(s), but a nearest other row needs at least two."
        )
    with full_precision(rows.device):
        unit = _as_unit(rows, "unit_rows", exact=unit_rows.dtype == rows.dtype)
        index = search_self(unit, precision=precision)
        return Nearest(_cosines(unit, unit, index), index)


def nearest_between(
    a_rows: Tensor, b_rows: Tensor, *, precision: Precision = "auto"
) -> tuple[Nearest, Nearest]:
    """Find each row's nearest row of the other set, both ways from one product.

    ``a_rows`` (n, d) and ``b_rows`` (m, d) are of unit norm and one dtype. Returns (for a, for b);
    ties, precision and errors as ``nearest_neighbors``. An empty set gives and gets nothing.
    """
    _check_precision(precision)
    a, b = matrix_rows(a_rows), matrix_rows(b_rows)
    if a.shape[1] != b.shape[1] or a.dtype != b.dtype:
        raise ValueError(
            f"a_rows {tuple(a.shape)} {a.dtype} and b_rows {tuple(b.shape)} {b.dtype} must agree "
            "in width and dtype."
        )
    with full_precision(a.device):
        a_unit = _as_unit(a, "a_rows", exact=a_rows.dtype == a.dtype)
        b_unit = _as_unit(b, "b_rows", exact=b_rows.dtype == b.dtype)
        of_a, of_b = search_between(a_unit, b_unit, precision=precision)
        return (
            Nearest(_cosines(a_unit, b_unit, of_a), of_a),
            Nearest(_cosines(b_unit, a_unit, of_b), of_b),
        )


def search_self(unit: UnitRows, *, precision: Precision = "auto") -> Tensor:
    """Return the index (n,) of the nearest other row; ``unit`` keeps its rows, at least two."""
    if _has_kernel(unit):
        return _kernel_search(unit, unit, own=True)[0]
    bf16 = _takes_bf16(unit, len(unit), precision) and _bf16_pays(unit, unit, own=True)
    if not bf16 and len(unit) <= _MOST_ROWS_AT_ONCE:
        return nearest_at_once(unit)
    table = self_maxima(unit, bf16=bf16)
    own = torch.arange(len(unit), device=unit.device)
    return nearest_from_table(table, Search(unit, unit, own, table.group))


def search_between(
    a: UnitRows, b: UnitRows, *, precision: Precision = "auto"
) -> tuple[Tensor, Tensor]:
    """Return for each row of ``a`` its nearest row of ``b``, and the reverse; −1 where none is."""
    if not len(a) or not len(b):
        none = [torch.full((len(x),), -1, dtype=torch.int64, device=x.device) for x in (a, b)]
        return none[0], none[1]
    if _has_kernel(a):
        return _kernel_search(a, b, own=False)
    bf16 = (
        _takes_bf16(a, len(b), precision)
        and _bf16_pays(a, b, own=False)
        and _bf16_pays(b, a, own=False)
    )
    of_a, of_b = cross_maxima(a, b, bf16=bf16)
    return (
        nearest_from_table(of_a, Search(a, b, None, of_a.group)),
        nearest_from_table(of_b, Search(b, a, None, of_b.group)),
    )


def search_few(
    queries: Tensor, columns: UnitRows, own: Tensor | None, *, precision: Precision = "auto"
) -> Tensor:
    """Return the nearest column of each query (r, d), the columns made block by block.

    ``own`` (r,) is the column that query i is itself; −1 where none is.
    """
    picked = UnitRows.of_unit(queries)
    if _has_kernel(picked):
        return _kernel_search(picked, columns, own=own)[0]
    bf16 = _takes_bf16(picked, len(columns), precision)
    table = one_way_maxima(queries, columns, own, bf16=bf16)
    return nearest_from_table(table, Search(picked, columns, own, table.group))


def _check_precision(precision: str) -> None:
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision is {precision!r}, but must be one of auto, fp32, bf16.")


def _as_unit(rows: Tensor, name: str, *, exact: bool) -> UnitRows:
    norms = torch.linalg.vector_norm(rows, dim=1)
    tolerance = _NORM_TOLERANCE if exact else _HALF_NORM_TOLERANCE
    if not rows.is_cuda:
        odd = ~((norms - 1).abs() <= tolerance)
        if bool(odd.any()):
            first = int(odd.int().argmax())
            raise ValueError(
                f"row {first} of {name} has norm {float(norms[first]):.6g}, but rows must be of "
                "unit norm; normalise them first, and look for zero or NaN rows."
            )
    # What is compared are directions; a search trusts norms to their last digits.
    spread = 16 * torch.finfo(rows.dtype).eps
    if not exact or rows.is_cuda or bool(((norms - 1).abs() > spread).any()):
        rows = rows / norms[:, None]
    return UnitRows.of_unit(rows.contiguous())


def _cosines(rows: UnitRows, columns: UnitRows, index: Tensor) -> Tensor:
    cosine = torch.empty(len(index), dtype=rows.dtype, device=rows.device)
    if len(columns):
        for low in range(0, len(index), 1024):
            part = slice(low, min(len(index), low + 1024))
            chord = squared_chord(rows.block(part.start, part.stop), columns.take(index[part]))
            cosine[part] = 1 - chord / 2
    return cosine


def _has_native_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _takes_bf16(unit: UnitRows, columns: int, precision: Precision) -> bool:
    if precision == "bf16" or unit.dtype != torch.float32:
        return precision == "bf16" and unit.dtype == torch.float32
    return (
        precision == "auto"
        and min(len(unit), columns) >= _FEWEST_ROWS_FOR_BF16
        and unit.shape[1] >= _FEWEST_ENTRIES_FOR_BF16
        and unit.device.type == "cpu"
        and _has_native_bf16()
    )


def _bf16_pays(queries: UnitRows, columns: UnitRows, *, own: bool) -> bool:
    """Return whether the certificate would leave little open, judging by a sample of queries.

    A product in bf16 costs at most half of one in fp32; looking again at a group costs its columns
    twice, as small products do.
    """
    step = max(1, len(queries) // _PROBED_ROWS)
    sample = torch.arange(0, len(queries), step, device=queries.device)
    table = one_way_maxima(queries.take(sample), columns, sample if own else None, bf16=True)
    looks = _groups_left_open(table).clamp_max(len(columns) / (2 * table.group)) * table.group * 2
    return float(looks.mean()) < 0.24 * len(columns)


def _groups_left_open(table: GroupMaxima) -> Tensor:
    best = table.values.view(torch.bfloat16).float().amax(0)
    reach = table.thresholds(best, 0, table.values.shape[1])
    return (table.values >= reach).sum(0).float()


def _has_kernel(unit: UnitRows) -> bool:
    """Return whether the fused kernel serves these rows; a GPU without it searches in blocks."""
    if unit.device.type != "cuda" or unit.dtype != torch.float32:
        return False
    return importlib.util.find_spec("triton") is not None


def _kernel_search(
    rows: UnitRows, columns: UnitRows, *, own: Tensor | bool | None
) -> tuple[Tensor, Tensor]:
    from arcface_plus.regularizers.nearest import kernel as nearest_triton  # needs a GPU's compiler

    return nearest_triton.search(rows, columns, own=own)
