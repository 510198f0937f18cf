"""The classes most like given samples, searched over class weights that are split among ranks.

Shapes: K samples, C classes, C_r of this rank's shard, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arcface_plus.distributed import (
    Group,
    all_gather_rows,
    all_reduce_sum,
    rank,
    shard_bounds,
    world_size,
)
from arcface_plus.losses.directions import unit_directions

# Cosines are made in blocks of about this many numbers.
_BLOCK_NUMBERS = 1 << 22


@torch.no_grad()
def most_similar_classes(
    samples: Tensor,
    own: Tensor,
    shard: Tensor,
    num_classes: int,
    count: int,
    *,
    group: Group = None,
) -> Tensor:
    """Return the ``count`` classes of largest cosine to each sample, other than its own.

    ``samples`` (K, D) and their classes ``own`` (K,) int64 are equal on all ranks; ``shard``
    (C_r, D) are this rank's class weights, cut as ``shard_bounds`` cuts. Returns (K, n) int64 with
    n = min(``count``, C − 1), by falling cosine, equal on all ranks. Of classes whose cosines agree
    to rounding either may come first.
    """
    bounds = shard_bounds(num_classes, world_size(group))
    lo, hi = bounds[rank(group)]
    assert len(shard) == hi - lo
    wanted = min(count, num_classes - 1)
    cosine, label = _best_of_shard(unit_directions(samples), own, shard, lo, wanted)
    sizes = [min(wanted, b - a) for a, b in bounds]
    cosines = torch.cat(all_gather_rows(cosine.t(), group, sizes=sizes))
    labels = torch.cat(all_gather_rows(label.t(), group, sizes=sizes))
    best = cosines.topk(wanted, dim=0).indices
    return labels.gather(0, best).t()


def _best_of_shard(
    unit: Tensor, own: Tensor, shard: Tensor, lo: int, wanted: int
) -> tuple[Tensor, Tensor]:
    """Return cosines and classes (K, min(wanted, C_r)) of the shard's best, own classes last."""
    best = unit.new_empty(len(unit), 0)
    label = torch.empty(len(unit), 0, dtype=torch.int64, device=unit.device)
    block = max(wanted, _BLOCK_NUMBERS // max(1, len(unit)))
    for first in range(0, len(shard), block):
        rows = shard[first : first + block]
        cosine = unit @ unit_directions(rows).to(unit.dtype).t()
        classes = torch.arange(lo + first, lo + first + len(rows), device=unit.device)
        cosine.masked_fill_(classes == own[:, None], -torch.inf)
        best = torch.cat([best, cosine], dim=1)
        label = torch.cat([label, classes.expand(len(unit), -1)], dim=1)
        best, chosen = best.topk(min(wanted, best.shape[1]), dim=1)
        label = label.gather(1, chosen)
    return best, label


@torch.no_grad()
def shard_rows_of(
    classes: Tensor, excluded: Tensor, num_classes: int, *, group: Group = None
) -> tuple[Tensor, int]:
    """Return the rows (P_r,) of this rank's shard in the union of ``classes`` without ``excluded``.

    ``classes`` (…) and ``excluded`` (…) int64 are equal on all ranks. Also returns P, the number of
    such rows over all ranks. Synchronises the host with the device.
    """
    lo, hi = shard_bounds(num_classes, world_size(group))[rank(group)]
    chosen = torch.zeros(hi - lo, dtype=torch.bool, device=classes.device)
    for wanted, taken in ((classes, True), (excluded, False)):
        inside = wanted[(wanted >= lo) & (wanted < hi)]
        chosen[inside - lo] = taken
    rows = chosen.nonzero().squeeze(1)
    total = torch.tensor([len(rows)], dtype=torch.int64, device=rows.device)
    return rows, int(all_reduce_sum(total, group).item())
