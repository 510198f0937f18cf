"""Nearest rows and their gradients across shards, in a ring; no rank ever holds all rows.

Unit shards travel from rank to rank, and each unordered pair of shards is multiplied once, on one
rank: for an even number of ranks the last hop is multiplied by the lower half only. What a
travelling shard's rows find goes straight back to their owner. For the gradients each rank asks the
owners of its rows' neighbours for those rows, and sends what they gain home.

Traffic per rank: W/2 shards for the search, two for the gradients.

Shapes: W ranks; rank r holds rows start_r to start_r + n_r of n, with d entries. Indices are
global.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from arcface_plus.distributed import Group, all_gather_rows, rank, ring_exchange, world_size
from arcface_plus.regularizers.geometry.angles import pair_terms
from arcface_plus.regularizers.geometry.sphere import UnitRows
from arcface_plus.regularizers.nearest.ranking import TIE_UNIT, squared_chord
from arcface_plus.regularizers.nearest.search import Precision, search_between, search_self

_PAIRS_AT_ONCE = 512


class Shards:
    """Say which rank holds which rows: ``sizes[r]`` rows from ``starts[r]`` on, in rank order.

    ``me`` is this rank and ``start`` its first row; ``total`` counts the rows of all ranks.
    """

    def __init__(self, sizes: Sequence[int], group: Group) -> None:
        assert len(sizes) == world_size(group)
        self.sizes, self.group = sizes, group
        self.me, self.world = rank(group), len(sizes)
        *self.starts, self.total = itertools.accumulate(sizes, initial=0)
        self.start = self.starts[self.me]

    def mine(self, index: Tensor) -> Tensor:
        """Return where ``index`` (k,) is in this rank's shard, as positions in ``index``."""
        end = self.start + self.sizes[self.me]
        return ((index >= self.start) & (index < end)).nonzero().flatten()

    def owners(self, index: Tensor) -> Tensor:
        """Return the rank that holds each row of ``index`` (k,)."""
        ends = torch.tensor([*self.starts[1:], self.total], device=index.device)
        return torch.bucketize(index, ends, right=True)


def nearer(best: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the nearer of two (squared chord (k,), index (k,)), ties to the lower index."""
    (best_chord, best_index), (chord, index) = best, found
    best_key, key = (best_chord / TIE_UNIT).round(), (chord / TIE_UNIT).round()
    wins = (key < best_key) | ((key == best_key) & (index < best_index))
    return torch.where(wins, chord, best_chord), torch.where(wins, index, best_index)


def located(rows: UnitRows, columns: UnitRows, index: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Return (squared chord, global index) of local neighbours ``index`` (k,), −1 being none."""
    chord = torch.full(index.shape, math.inf, dtype=torch.float64, device=index.device)
    for at in (index >= 0).nonzero().flatten().split(_PAIRS_AT_ONCE):
        chord[at] = squared_chord(rows.take(at), columns.take(index[at]))
    return chord, torch.where(index >= 0, index + start, -1)


def ring_search(unit: UnitRows, shards: Shards, *, precision: Precision = "auto") -> Tensor:
    """Return the global index (n_r,) of the nearest other row of each of this rank's rows."""
    me, world, group = shards.me, shards.world, shards.group
    index = search_self(unit, precision=precision)
    if world == 1:
        return index
    best = located(unit, unit, index, shards.start)
    shard, width = unit.block(0, len(unit)), unit.shape[1]
    for hop in range(1, world // 2 + 1):
        owner, asker = (me + hop) % world, (me - hop) % world
        travels = [2 * hop != world or r < hop for r in range(world)]  # whether rank r multiplies
        # The neighbour that multiplies next needs the shard; one that does not gets nothing.
        shard = ring_exchange(
            shard if travels[(me - 1) % world] else shard[:0],
            send_to=(me - 1) % world,
            receive_from=(me + 1) % world,
            shape=(shards.sizes[owner] if travels[me] else 0, width),
            group=group,
        )
        theirs = UnitRows(shard)
        of_mine, of_theirs = search_between(unit, theirs, precision=precision)
        best = nearer(best, located(unit, theirs, of_mine, shards.starts[owner]))
        message = torch.stack(located(theirs, unit, of_theirs, shards.start), dim=1)
        answer = ring_exchange(
            message,
            send_to=owner,
            receive_from=asker,
            shape=(len(unit) if travels[asker] else 0, 2),
            group=group,
        )
        if len(answer):
            best = nearer(best, (answer[:, 0], answer[:, 1].long()))
    return best[1]


def ring_pairs(unit: UnitRows, shards: Shards, index: Tensor, gradient: Tensor) -> Tensor:
    """Add dθ/dŵ, not yet projected, to every rank's ``gradient`` (n_r, d); return θ (n_r,).

    ``index`` (n_r,) is the nearest other row of each of this rank's rows.
    """
    angle = torch.empty(len(unit), dtype=unit.dtype, device=unit.device)
    if shards.world == 1:  # no copy of all partners; sums in another order
        for own in torch.arange(len(unit), device=unit.device).split(_PAIRS_AT_ONCE):
            gained = unit.take(index[own])
            _add_own_side(angle, gradient, unit, own, index, gained, 0)
            gradient.index_add_(0, index[own], gained)
        return angle
    owners = shards.owners(index)
    requests = [(owners == r).nonzero().flatten() for r in range(shards.world)]
    counts = torch.tensor([[len(at) for at in requests]], device=unit.device)
    asked = torch.cat(all_gather_rows(counts, shards.group, sizes=[1] * shards.world)).tolist()
    for hop in range(shards.world):
        owner, asker = (shards.me + hop) % shards.world, (shards.me - hop) % shards.world
        mine, wanted = requests[owner], asked[asker][shards.me]
        partners = index[mine] - shards.starts[owner]
        lent = ring_exchange(
            partners, send_to=owner, receive_from=asker, shape=(wanted,), group=shards.group
        )
        partner_rows = ring_exchange(
            unit.take(lent),
            send_to=asker,
            receive_from=owner,
            shape=(len(mine), unit.shape[1]),
            group=shards.group,
        )
        _add_own_side(angle, gradient, unit, mine, index, partner_rows, shards.start)
        gained = ring_exchange(
            partner_rows,
            send_to=owner,
            receive_from=asker,
            shape=(wanted, unit.shape[1]),
            group=shards.group,
        )
        gradient.index_add_(0, lent, gained)
    return angle


def _add_own_side(
    angle: Tensor,
    gradient: Tensor,
    unit: UnitRows,
    mine: Tensor,
    index: Tensor,
    partner_rows: Tensor,
    start: int,
) -> None:
    """Add to the rows ``mine`` and turn ``partner_rows`` into what the partners gain."""
    for at, rows in zip(
        mine.split(_PAIRS_AT_ONCE), partner_rows.split(_PAIRS_AT_ONCE), strict=True
    ):
        pairs = pair_terms(unit.take(at), rows, at + start, index[at])
        angle[at] = pairs.angle
        gradient.index_add_(0, at, pairs.pull_a)
        rows.copy_(pairs.pull_b)
