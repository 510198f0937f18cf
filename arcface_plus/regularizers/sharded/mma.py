"""MMA of a weight whose rows are cut over ranks: the same loss on every rank, eq. (6) and (8).

The neighbours are searched without a graph; value and closed-form gradient are then computed
together for the n chosen pairs, all communication included, so that backward only scales this
shard's gradient. With ``rows=r`` nothing travels round the ring: every rank gets the r rows and
finds their nearest in its own shard; the owners of the nearest of all then send those rows round.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from arcface_plus import devices
from arcface_plus.devices import rows_at_once, to_device
from arcface_plus.distributed import (
    Group,
    all_gather_rows,
    all_reduce_max,
    all_reduce_sum,
    broadcast,
    gather_sizes,
)
from arcface_plus.regularizers.geometry.angles import pair_terms, project_rows
from arcface_plus.regularizers.geometry.closed_form import attach_closed_form
from arcface_plus.regularizers.geometry.sphere import (
    UnitRows,
    bad_row_message,
    first_bad_row,
    full_precision,
    matrix_rows,
    row_norms,
    sample_rows,
)
from arcface_plus.regularizers.nearest.cache import NeighbourCache
from arcface_plus.regularizers.nearest.search import Precision, search_few
from arcface_plus.regularizers.sharded.ring import Shards, located, nearer, ring_pairs, ring_search

BadRows = Literal["raise", "nan"]


class MMATerms(NamedTuple):
    """Hold MMA's value and what it was made from.

    ``value`` () float32, or float64 for a float64 weight. ``gradient`` (n, …) of the value, or None
    where it was not asked for. ``angle`` (k,) in radians and ``index`` (k,) of the nearest row, for
    the k = n rows or the k = r sampled ones. Where ``touched`` (t,) is not None, ``gradient`` is
    (t, …): that of those rows, in ascending order, all others being zero. A row that is there more
    than once has its gradient the first time, and zero after that.
    """

    value: Tensor
    gradient: Tensor | None
    angle: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple's own method gives way
    touched: Tensor | None = None


def sharded_mma_loss(
    shard: Tensor,
    *,
    group: Group = None,
    sizes: Sequence[int] | None = None,
    rows: int | None = None,
    generator: torch.Generator | None = None,
    neighbours: NeighbourCache | None = None,
    precision: Precision = "auto",
) -> Tensor:
    """Return the MMA loss of all ranks' rows; its gradient is that of this rank's ``shard``.

    ``shard`` (n_r, …) may be empty; all ranks of ``group`` call together with equal arguments.
    ``sizes`` are the ranks' row counts, found by a collective where not given. The gradient is that
    of the one global loss, not scaled by the number of ranks. Rank 0's ``generator`` draws the
    sampled rows. The rest is as ``mma_loss``.
    """
    terms = sharded_mma_value_and_gradient(
        shard,
        group=group,
        sizes=sizes,
        rows=rows,
        generator=generator,
        neighbours=neighbours,
        precision=precision,
        need_gradient=torch.is_grad_enabled() and shard.requires_grad,
    )
    return attach_gradient(shard, terms)


def sharded_mma_value_and_gradient(
    shard: Tensor,
    *,
    group: Group = None,
    sizes: Sequence[int] | None = None,
    rows: int | None = None,
    generator: torch.Generator | None = None,
    neighbours: NeighbourCache | None = None,
    precision: Precision = "auto",
    need_gradient: bool = True,
    on_bad_rows: BadRows = "raise",
) -> MMATerms:
    """Compute ``sharded_mma_loss`` and this shard's gradient outside autograd.

    ``need_gradient`` must be equal on all ranks. ``angle`` and ``index`` (global) are of this
    rank's rows (n_r,), or of all r sampled rows. A row without direction raises ValueError, or
    gives NaN, on every rank.
    """
    matrix = matrix_rows(shard)
    if sizes is None:
        sizes = gather_sizes(matrix.shape[0], matrix.device, group)
    shards = Shards(sizes, group)
    _check_arguments(shards.total, rows, neighbours)
    with full_precision(shard.device):
        norms = row_norms(matrix)
        may_look = devices.host_may_look(matrix.device)
        bad = _first_bad_row(norms, shards) if may_look else -1
        if bad >= 0 and on_bad_rows == "raise":
            raise ValueError(bad_row_message(bad))
        if bad >= 0:
            nan = torch.full_like(matrix, math.nan)
            none = torch.full((len(matrix),), -1, device=matrix.device)
            terms = MMATerms(
                matrix.new_full((), math.nan), nan, torch.full_like(norms, math.nan), none
            )
        elif rows is None or rows >= shards.total:
            terms = _all_rows(matrix, norms, shards, neighbours, precision)
        else:
            terms = _some_rows(matrix, norms, shards, rows, generator, precision)
    gradient = terms.gradient
    if gradient is None or not need_gradient:
        return terms._replace(gradient=None, touched=None)
    return terms._replace(gradient=gradient.view(gradient.shape[0], *shard.shape[1:]))


def attach_gradient(weight: Tensor, terms: MMATerms) -> Tensor:
    """Return ``terms.value`` with ``terms.gradient`` as its gradient with respect to ``weight``."""
    if terms.gradient is None:
        return terms.value
    return attach_closed_form(weight, terms.value, terms.gradient, terms.touched)


def pick_rows(terms: MMATerms, rows: Tensor) -> MMATerms:
    """Return ``terms`` with the gradient of ``rows`` (p,) alone, as (p, …), touched or not."""
    assert terms.gradient is not None
    if terms.touched is None:
        return terms._replace(gradient=terms.gradient[rows])
    if not len(terms.touched):  # an empty shard
        return terms._replace(gradient=terms.gradient[rows], touched=None)
    at = torch.searchsorted(terms.touched, rows).clamp_max_(len(terms.touched) - 1)
    hit = (terms.touched[at] == rows).view(-1, *[1] * (terms.gradient.ndim - 1))
    return terms._replace(gradient=torch.where(hit, terms.gradient[at], 0), touched=None)


def _check_arguments(total: int, rows: int | None, neighbours: NeighbourCache | None) -> None:
    """Raise ValueError for what MMA cannot be computed of."""
    if total < 2:
        raise ValueError(f"MMA needs at least two rows, but the weight has {total}; leave it out.")
    if rows is not None and rows < 1:
        raise ValueError(f"rows is {rows}, but must be at least 1, or None for all rows.")
    if rows is not None and neighbours is not None:
        raise ValueError("rows and neighbours exclude each other: sampled rows change every step.")


def _first_bad_row(norms: Tensor, shards: Shards) -> int:
    """Return the first row of all ranks without a direction, or −1; every rank gets the same."""
    bad = first_bad_row(norms)
    from_end = 0 if bad < 0 else shards.total - (shards.start + bad)
    worst = all_reduce_max(torch.tensor([from_end], device=norms.device), shards.group)
    return shards.total - int(worst) if int(worst) else -1


def _all_rows(
    matrix: Tensor,
    norms: Tensor,
    shards: Shards,
    neighbours: NeighbourCache | None,
    precision: Precision,
) -> MMATerms:
    unit = UnitRows(matrix / norms[:, None])
    del matrix
    if neighbours is None:
        index = ring_search(unit, shards, precision=precision)
    else:
        index = neighbours.lookup(len(unit), lambda: ring_search(unit, shards, precision=precision))
    gradient = torch.zeros(unit.shape, dtype=unit.dtype, device=unit.device)
    angle = ring_pairs(unit, shards, index, gradient)
    _project_all(gradient, unit, norms, -1 / shards.total)
    total = all_reduce_sum(angle.sum(dtype=torch.float64), shards.group)
    return MMATerms((-total / shards.total).to(angle.dtype), gradient, angle, index)


def _some_rows(
    matrix: Tensor,
    norms: Tensor,
    shards: Shards,
    rows: int,
    generator: torch.Generator | None,
    precision: Precision,
) -> MMATerms:
    unit = UnitRows(matrix, norms)
    drawn = to_device(sample_rows(shards.total, rows, generator), matrix.device)
    drawn = broadcast(drawn.contiguous(), group=shards.group)
    queries = _show_rows(unit, drawn, shards)
    index = _nearest_of_all_ranks(queries, drawn, unit, shards, precision)
    partners = _show_rows(unit, index, shards)
    # A place for every row of a pair, whichever rank has it: how many are here only the device
    # knows. What others have stands last, and gets nothing.
    both = torch.cat([drawn, index])[: 0 if shards.is_empty else None]
    places = torch.where(shards.have(both), both, shards.end).sort().values
    touched = (places - shards.start).clamp_max_(len(unit) - 1)
    gradient = torch.zeros(len(places), unit.shape[1], dtype=unit.dtype, device=unit.device)
    angle = torch.empty(rows, dtype=unit.dtype, device=unit.device)
    at_once = rows_at_once(unit.device)
    for low in range(0, rows, at_once):
        part = slice(low, low + at_once)
        pairs = pair_terms(queries[part], partners[part], drawn[part], index[part])
        angle[part] = pairs.angle
        for row, pull in ((drawn[part], pairs.pull_a), (index[part], pairs.pull_b)):
            if len(places):
                here = shards.have(row)
                at = torch.searchsorted(places, torch.where(here, row, places[0]))
                gradient.index_add_(0, at, torch.where(here[:, None], pull, 0))
    _project_all(gradient, unit, norms, -1 / rows, touched)
    return MMATerms(
        -angle.mean(dtype=torch.float64).to(angle.dtype), gradient, angle, index, touched
    )


def _show_rows(unit: UnitRows, index: Tensor, shards: Shards) -> Tensor:
    """Give every rank the unit rows of global ``index`` (r,), as (r, d)."""
    if shards.is_empty:
        shown = torch.zeros(len(index), unit.shape[1], dtype=unit.dtype, device=unit.device)
    else:
        mine = unit.take((index - shards.start).clamp(0, len(unit) - 1))
        shown = torch.where(shards.have(index)[:, None], mine, 0)
    return all_reduce_sum(shown, shards.group)


def _nearest_of_all_ranks(
    queries: Tensor, drawn: Tensor, unit: UnitRows, shards: Shards, precision: Precision
) -> Tensor:
    """Return the global index (r,) of the nearest other row, from the nearest of each shard."""
    index = torch.full_like(drawn, -1)
    if len(unit):
        own = drawn - shards.start
        found = search_few(queries, unit, own, precision=precision)
        index = torch.where(found == own, -1, found)  # a shard of one row has no other
    mine = torch.stack(located(UnitRows(queries), unit, index, shards.start), dim=1)
    answers = all_gather_rows(mine[None], shards.group, sizes=[1] * shards.world)
    pairs = ((answer[0, :, 0], answer[0, :, 1].long()) for answer in answers)
    return functools.reduce(nearer, pairs)[1]


def _project_all(
    gradient: Tensor, unit: UnitRows, norms: Tensor, scale: float, touched: Tensor | None = None
) -> None:
    """Make ``gradient`` (t, d) that of the rows ``touched`` (t,), or of all rows, in place."""
    at_once = rows_at_once(gradient.device)
    for low in range(0, len(gradient), at_once):
        part = slice(low, min(len(gradient), low + at_once))
        if touched is None:
            project_rows(gradient[part], unit.block(low, part.stop), norms[part], scale)
        else:
            project_rows(gradient[part], unit.take(touched[part]), norms[touched[part]], scale)
