"""MMA of a weight whose rows are cut over ranks: the loss of ``mma``, the same on every rank.

Value and gradient are computed in forward, all communication included; backward only scales this
shard's gradient. With ``rows=r`` nothing travels round the ring: the r rows are given to every
rank, each answers with its nearest, and the winners' owners show theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arcface_plus.distributed import (
    Group,
    all_gather_rows,
    all_reduce_max,
    all_reduce_sum,
    broadcast,
    gather_sizes,
    world_size,
)
from arcface_plus.regularizers.geometry.angles import pair_terms
from arcface_plus.regularizers.geometry.sphere import (
    UnitRows,
    first_bad_row,
    full_precision,
    matrix_rows,
    row_norms,
)
from arcface_plus.regularizers.mma import (
    BadRows,
    MMATerms,
    attach_gradient,
    bad_row_message,
    check_arguments,
    mean_angle,
    mma_value_and_gradient,
    nan_terms,
    project_all,
    sample_rows,
    shaped_as,
)
from arcface_plus.regularizers.nearest.cache import NeighbourCache
from arcface_plus.regularizers.nearest.search import (
    Precision,
    search_few,
)
from arcface_plus.regularizers.sharded.ring import (
    Shards,
    located,
    nearer,
    ring_pairs,
    ring_search,
)

_ROWS_AT_ONCE = 512


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
        touched_only=True,
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
    touched_only: bool = False,
    on_bad_rows: BadRows = "raise",
) -> MMATerms:
    """Compute ``sharded_mma_loss`` and this shard's gradient outside autograd.

    ``need_gradient`` must be equal on all ranks. ``angle`` and ``index`` (global) are of this
    rank's rows (n_r,), or of all r sampled rows. A row without direction raises ValueError, or
    gives NaN, on every rank.
    """
    if world_size(group) == 1:
        return mma_value_and_gradient(
            shard,
            rows=rows,
            generator=generator,
            neighbours=neighbours,
            precision=precision,
            need_gradient=need_gradient,
            touched_only=touched_only,
            on_bad_rows=on_bad_rows,
        )
    matrix = matrix_rows(shard)
    if sizes is None:
        sizes = gather_sizes(matrix.shape[0], matrix.device, group)
    shards = Shards.of(sizes, group)
    check_arguments(shards.total, rows, neighbours)
    with full_precision(shard.device):
        norms = row_norms(matrix)
        if not matrix.is_cuda and (bad := _first_bad_row(norms, shards)) >= 0:
            if on_bad_rows == "raise":
                raise ValueError(bad_row_message(bad))
            return nan_terms(shard, matrix, need_gradient=need_gradient)
        if rows is None or rows >= shards.total:
            terms = _all_rows(matrix, norms, shards, neighbours, precision)
        else:
            terms = _some_rows(matrix, norms, shards, rows, generator, precision)
    if not need_gradient:
        return terms._replace(gradient=None, touched=None)
    return shaped_as(shard, terms, touched_only=touched_only)


def sharded_nearest_angles(
    shard: Tensor,
    *,
    group: Group = None,
    sizes: Sequence[int] | None = None,
    precision: Precision = "auto",
) -> MMATerms:
    """Return the angle of each of this rank's rows to the nearest other row on any rank."""
    return sharded_mma_value_and_gradient(
        shard, group=group, sizes=sizes, precision=precision, need_gradient=False
    )


def _first_bad_row(norms: Tensor, shards: Shards) -> int:
    """Return the first row of all ranks without a direction, or −1; every rank gets the same."""
    bad = first_bad_row(norms) if len(norms) else -1
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
    project_all(gradient, unit, norms, -1 / shards.total)
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
    drawn = sample_rows(shards.total, rows, generator).to(matrix.device)
    drawn = broadcast(drawn.contiguous(), group=shards.group)
    queries = _show_rows(unit, drawn, shards)
    index = _nearest_of_all_ranks(queries, drawn, unit, shards, precision)
    partners = _show_rows(unit, index, shards)
    both = torch.cat([drawn, index])
    touched = torch.unique(both[shards.mine(both)]) - shards.start
    gradient = unit.take(touched).zero_()
    angle = torch.empty(rows, dtype=unit.dtype, device=unit.device)
    for low in range(0, rows, _ROWS_AT_ONCE):
        part = slice(low, low + _ROWS_AT_ONCE)
        pairs = pair_terms(queries[part], partners[part], drawn[part], index[part])
        angle[part] = pairs.angle
        for row, pull in ((drawn[part], pairs.pull_a), (index[part], pairs.pull_b)):
            mine = shards.mine(row)
            at = torch.searchsorted(touched, row[mine] - shards.start)
            gradient.index_add_(0, at, pull[mine])
    project_all(gradient, unit, norms, -1 / rows, touched)
    return MMATerms(mean_angle(angle), gradient, angle, index, touched)


def _show_rows(unit: UnitRows, index: Tensor, shards: Shards) -> Tensor:
    """Give every rank the unit rows of global ``index`` (r,), as (r, d)."""
    shown = torch.zeros(len(index), unit.shape[1], dtype=unit.dtype, device=unit.device)
    at = shards.mine(index)
    shown[at] = unit.take(index[at] - shards.start)
    return all_reduce_sum(shown, shards.group)


def _nearest_of_all_ranks(
    queries: Tensor, drawn: Tensor, unit: UnitRows, shards: Shards, precision: Precision
) -> Tensor:
    """Return the global index (r,) of the nearest other row: each rank's answer, then the best."""
    index = torch.full_like(drawn, -1)
    if len(unit):
        own = drawn - shards.start
        found = search_few(queries, unit, own, precision=precision)
        index = torch.where(found == own, -1, found)  # a shard of one row has no other
    mine = torch.stack(located(UnitRows(queries), unit, index, shards.start), dim=1)
    answers = all_gather_rows(mine[None], shards.group, sizes=[1] * shards.world)
    best = (answers[0][0, :, 0], answers[0][0, :, 1].long())
    for answer in answers[1:]:
        best = nearer(best, (answer[0, :, 0], answer[0, :, 1].long()))
    return best[1]
