"""Nearest rows and their gradients across shards, in a ring; no rank ever holds all rows.

Unit shards travel from rank to rank, and each unordered pair of shards is multiplied once, on one
rank: for an even number of ranks the last hop is multiplied by the lower half only. What a
travelling shard's rows find goes straight back to their owner. For the gradients the shards go all
the way round, and every rank takes its rows' neighbours from them as they come by; what those gain
goes round as one sum for each shard, to its owner.

Every message has a size that all ranks know: which rows are whose neighbours only the devices know,
and no host asks them. Traffic per rank: W/2 shards for the search, 2(W − 1) for the gradients.

Shapes: W ranks; rank r holds rows start_r to start_r + n_r of n, with d entries. Indices are
global.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from arcface_plus.devices import rows_at_once
from arcface_plus.distributed import Group, rank, world_size
from arcface_plus.exchange import ring_exchange
from arcface_plus.regularizers.geometry.angles import pair_terms
from arcface_plus.regularizers.geometry.sphere import UnitRows
from arcface_plus.regularizers.nearest.ranking import TIE_UNIT, squared_chord
from arcface_plus.regularizers.nearest.search import Precision, search_between, search_self


class Shards:
    """Say which rank holds which rows: ``sizes[r]`` rows from ``starts[r]`` on, in rank order.

    ``me`` is this rank; its rows are ``start`` to ``end``. ``total`` counts the rows of all ranks.
    """

    def __init__(self, sizes: Sequence[int], group: Group) -> None:
        assert len(sizes) == world_size(group)
        self.sizes, self.group = sizes, group
        self.me, self.world = rank(group), len(sizes)
        *self.starts, self.total = itertools.accumulate(sizes, initial=0)
        self.start = self.starts[self.me]
        self.end = self.start + sizes[self.me]
        self.is_empty = not sizes[self.me]

    def have(self, index: Tensor, owner: int | None = None) -> Tensor:
        """Return whether rows ``index`` (k,) are in the shard of ``owner``, or of this rank."""
        owner = self.me if owner is None else owner
        low = self.starts[owner]
        return (index >= low) & (index < low + self.sizes[owner])


def nearer(best: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the nearer of two (squared chord (k,), index (k,)), ties to the lower index."""
    (best_chord, best_index), (chord, index) = best, found
    best_key, key = (best_chord / TIE_UNIT).round(), (chord / TIE_UNIT).round()
    wins = (key < best_key) | ((key == best_key) & (index < best_index))
    return torch.where(wins, chord, best_chord), torch.where(wins, index, best_index)


def located(rows: UnitRows, columns: UnitRows, index: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Return (squared chord, global index) of local neighbours ``index`` (k,), −1 being none."""
    chord = torch.full(index.shape, math.inf, dtype=torch.float64, device=index.device)
    at_once, found = rows_at_once(index.device), index >= 0
    for low in range(0, len(index) if len(columns) else 0, at_once):
        part = slice(low, low + at_once)
        neighbours = columns.take(index[part].clamp_min(0))
        squared = squared_chord(rows.block(low, low + at_once), neighbours)
        chord[part] = torch.where(found[part], squared, math.inf)
    return chord, torch.where(found, index + start, -1)


def ring_search(unit: UnitRows, shards: Shards, *, precision: Precision = "auto") -> Tensor:
    """Return the global index (n_r,) of the nearest other row of each of this rank's rows.

    A row without direction, which nothing is near, gets one as well: its angle will be NaN.
    """
    me, world, group = shards.me, shards.world, shards.group
    index = search_self(unit, precision=precision)
    if world == 1:
        return index.clamp_min_(0)
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
    return best[1].clamp_min(0)


def ring_pairs(unit: UnitRows, shards: Shards, index: Tensor, gradient: Tensor) -> Tensor:
    """Add dθ/dŵ, not yet projected, to every rank's ``gradient`` (n_r, d); return θ (n_r,).

    ``index`` (n_r,) is the nearest other row of each of this rank's rows.
    """
    angle = torch.empty(len(unit), dtype=unit.dtype, device=unit.device)
    at_once = rows_at_once(unit.device)
    if shards.world == 1:  # no copy of all partners; sums in another order
        for own in torch.arange(len(unit), device=unit.device).split(at_once):
            gained = unit.take(index[own])
            _add_own_side(angle, gradient, unit, own, index, gained, 0)
            gradient.index_add_(0, index[own], gained)
        return angle
    partners = _partners(unit, shards, index)
    for own, rows in zip(
        torch.arange(len(unit), device=unit.device).split(at_once),
        partners.split(at_once),
        strict=True,
    ):
        _add_own_side(angle, gradient, unit, own, index, rows, shards.start)
    _bring_home(gradient, shards, index, partners)
    return angle


def _partners(unit: UnitRows, shards: Shards, index: Tensor) -> Tensor:
    """Return a copy of the rows ``index`` (n_r,) of all ranks, (n_r, d)."""
    me, world = shards.me, shards.world
    shard = unit.block(0, len(unit))
    partners = torch.zeros_like(shard)
    for hop in range(world):
        owner = (me + hop) % world
        if hop:
            shard = ring_exchange(
                shard,
                send_to=(me - 1) % world,
                receive_from=(me + 1) % world,
                shape=(shards.sizes[owner], unit.shape[1]),
                group=shards.group,
            )
        if len(shard):
            rows = shard.index_select(0, _places(shards, index, owner))
            partners = torch.where(shards.have(index, owner)[:, None], rows, partners)
    return partners


def _bring_home(gradient: Tensor, shards: Shards, index: Tensor, gained: Tensor) -> None:
    """Add what rows ``index`` (n_r,) of all ranks have ``gained`` (n_r, d) to their gradients.

    The sum for a shard starts at the rank before its owner and goes downwards, round to the owner.
    """
    me, world = shards.me, shards.world
    total = gradient.new_empty(0)
    for hop in range(1, world + 1):
        owner = (me + hop) % world
        shape = shards.sizes[owner], gradient.shape[1]
        if hop == 1:
            total = gradient.new_zeros(shape)
        else:
            total = ring_exchange(
                total,
                send_to=(me - 1) % world,
                receive_from=(me + 1) % world,
                shape=shape,
                group=shards.group,
            )
        if len(total):
            mine = torch.where(shards.have(index, owner)[:, None], gained, 0)
            total.index_add_(0, _places(shards, index, owner), mine)
    gradient += total


def _places(shards: Shards, index: Tensor, owner: int) -> Tensor:
    """Return rows ``index`` (k,) as rows of the shard of ``owner``; any where they are not."""
    return (index - shards.starts[owner]).clamp_(0, shards.sizes[owner] - 1)


def _add_own_side(
    angle: Tensor,
    gradient: Tensor,
    unit: UnitRows,
    own: Tensor,
    index: Tensor,
    partner_rows: Tensor,
    start: int,
) -> None:
    """Add to the rows ``own`` and turn ``partner_rows`` into what the partners gain."""
    pairs = pair_terms(unit.take(own), partner_rows, own + start, index[own])
    angle[own] = pairs.angle
    gradient.index_add_(0, own, pairs.pull_a)
    partner_rows.copy_(pairs.pull_b)
