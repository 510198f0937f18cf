"""The only home of process groups.

Every helper is the identity (or the obvious one-rank answer) where no process group exists, so that
code written for N ranks is the code that runs on one.

Shapes: W ranks, B_r rows on rank r, B = sum of B_r.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from arcface_plus.clock import counted_as
from arcface_plus.process_group import process_group, time_limit
from arcface_plus.watch import Watch

Group = dist.ProcessGroup | None
ALONE: Group = cast("dist.ProcessGroup", object())  # this process, whatever the world
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Describe this process among its peers.

    ``control`` is a second, gloo group for host-side agreement (checkpoint planning, small
    objects): it never queues behind the accelerator's collectives. ``watch`` knows what the other
    ranks are doing, and whether one of them failed.
    """

    rank: int
    size: int
    device: torch.device
    control: Group = None
    watch: Watch = field(default_factory=Watch, compare=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextlib.contextmanager
def start_world(device: str = "auto", timeout: float = 1800.0) -> Iterator[World]:
    """Join the processes that torchrun started, or make a world of one.

    ``device``: ``auto`` takes this process's GPU where there is one, else the CPU; ``cpu`` and
    ``cuda`` insist. NCCL serves CUDA tensors and gloo serves CPU tensors in the same group. Where a
    host has more processes than GPUs, they share them, and gloo serves all: slow, for tests.
    ``timeout``: seconds that a rank may be waited for.

    Where the block raises, the other ranks are told why. An error that is but the consequence of
    another rank's becomes PeerFailed, with that rank's message. The process group of several ranks
    then stays as it is: to destroy it would wait for them; end the process.

    Raises ValueError for an unknown device, or ``cuda`` on a machine without one.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {device!r}, but must be one of auto, cpu, cuda.")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ValueError("device is 'cuda', but torch sees no CUDA device; use --device cpu.")
    use_cuda = has_cuda and device != "cpu"
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    torch_device, is_shared = torch.device("cpu"), False
    if use_cuda:
        cards, ranks = torch.cuda.device_count(), os.environ.get("WORLD_SIZE", "1")
        is_shared = int(os.environ.get("LOCAL_WORLD_SIZE", ranks)) > cards
        torch_device = torch.device("cuda", local_rank % cards)
        torch.cuda.set_device(torch_device)
    backend = "cpu:gloo,cuda:nccl" if use_cuda and not is_shared else "gloo"
    with process_group(torch_device, timeout, backend) as watch:
        control = dist.new_group(backend="gloo", timeout=time_limit(timeout))
        assert isinstance(control, dist.ProcessGroup)  # this process is in it
        # A rank that finds bad input and leaves at once would break connections that the others
        # are still making, and hide its message behind theirs.
        dist.barrier(group=control)
        yield World(watch.rank, watch.size, torch_device, control=control, watch=watch)


def new_host_group() -> Group:
    """Return a gloo group of all ranks, for a thread of its own; called by all ranks together.

    Collectives of two threads on one group would interleave. None without a process group.
    """
    made = dist.new_group(backend="gloo") if dist.is_initialized() else None
    return cast("Group", made)


def rank(group: Group = None) -> int:
    """Return this process's rank in ``group``; 0 without a process group."""
    return dist.get_rank(group) if dist.is_initialized() and group is not ALONE else 0


def world_size(group: Group = None) -> int:
    """Return how many ranks ``group`` has; 1 without a process group."""
    return dist.get_world_size(group) if dist.is_initialized() and group is not ALONE else 1


def shard_bounds(total: int, parts: int) -> list[tuple[int, int]]:
    """Return the ``[lo, hi)`` of each of ``parts`` shards of ``total`` rows.

    Cut as ``torch.chunk`` cuts (which DTensor and checkpoints need): all shards but the last
    non-empty one have ``ceil(total / parts)`` rows; trailing shards may be empty.
    """
    step = -(-total // parts)
    return [(min(total, r * step), min(total, (r + 1) * step)) for r in range(parts)]


def contiguous_part(total: int, rank: int, size: int) -> tuple[int, int]:
    """Return the ``[lo, hi)`` of a rank's part when ``total`` items are dealt evenly."""
    base, extra = divmod(total, size)
    lo = rank * base + min(rank, extra)
    return lo, lo + base + (1 if rank < extra else 0)


def all_reduce_sum(tensor: Tensor, group: Group = None) -> Tensor:
    """Sum ``tensor`` over ranks in place and return it."""
    if world_size(group) > 1:
        with counted_as("communication_share"):
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM, group=group)
    return tensor


def all_reduce_max(tensor: Tensor, group: Group = None) -> Tensor:
    """Take the elementwise maximum of ``tensor`` over ranks in place and return it."""
    if world_size(group) > 1:
        with counted_as("communication_share"):
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=group)
    return tensor


def broadcast(tensor: Tensor, source: int = 0, group: Group = None) -> Tensor:
    """Copy ``tensor`` from group rank ``source`` into every rank's ``tensor`` and return it."""
    if world_size(group) > 1:
        with counted_as("communication_share"):
            dist.broadcast(tensor, group_src=source, group=group)
    return tensor


def gather_sizes(length: int, device: torch.device, group: Group = None) -> list[int]:
    """Return every rank's ``length``. Synchronises the host with the device."""
    if world_size(group) == 1:
        return [length]
    mine = torch.tensor([length], dtype=torch.int64, device=device)
    sizes = torch.empty(world_size(group), dtype=torch.int64, device=device)
    dist.all_gather_into_tensor(sizes, mine, group=group)
    return [int(n) for n in sizes.tolist()]


def all_gather_rows(
    tensor: Tensor, group: Group = None, *, sizes: Sequence[int] | None = None
) -> list[Tensor]:
    """Return every rank's ``tensor``; first dimensions may differ, the others must agree.

    No gradient flows. Pass ``sizes`` (each rank's first dimension) where they are known: finding
    them out costs a collective and a host synchronisation.
    """
    size = world_size(group)
    if size == 1:
        return [tensor]
    if sizes is None:
        sizes = gather_sizes(tensor.shape[0], tensor.device, group)
    assert len(sizes) == size and sizes[rank(group)] == tensor.shape[0]
    # gloo gathers equal shapes only: pad to the longest and cut again.
    longest = max(sizes)
    padded = tensor.detach().contiguous()
    if longest != tensor.shape[0]:
        padded = padded.new_zeros((longest, *tensor.shape[1:]))
        padded[: tensor.shape[0]] = tensor.detach()
    gathered = padded.new_empty((size * longest, *tensor.shape[1:]))
    with counted_as("communication_share"):
        dist.all_gather_into_tensor(gathered, padded, group=group)
    return [gathered[r * longest : r * longest + n] for r, n in enumerate(sizes)]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, group, sizes):
        me = rank(group)
        ctx.group, ctx.scale = group, float(len(sizes))
        ctx.lo = sum(sizes[:me])
        ctx.hi = ctx.lo + sizes[me]
        return torch.cat(all_gather_rows(rows, group, sizes=sizes))

    @staticmethod
    def backward(ctx, grad):
        total = all_reduce_sum(grad.contiguous().clone(), ctx.group)
        return total[ctx.lo : ctx.hi] * ctx.scale, None, None


def gather_rows(rows: Tensor, group: Group = None, *, sizes: Sequence[int] | None = None) -> Tensor:
    """Return all ranks' rows (B_r, …) as one tensor (B, …) that autograd can go back through.

    Backward sums the ranks' gradients of the whole tensor, takes this rank's rows and multiplies
    them by W, over which DDP averages afterwards. So every rank computes one loss of the whole
    batch, from its own part of the classes.
    """
    if world_size(group) == 1:
        return rows
    if sizes is None:
        sizes = gather_sizes(rows.shape[0], rows.device, group)
    return _GatherRows.apply(rows, group, tuple(sizes))


def sum_over_ranks(mine: Tensor, group: Group = None) -> Tensor:
    """Return the sum of ``mine`` over ranks, with this rank's gradient only.

    For a number that every rank computes from parts: its gradient with respect to this rank's part
    is one, and no collective runs in backward.
    """
    if world_size(group) == 1:
        return mine
    total = all_reduce_sum(mine.detach().clone(), group)
    return total + (mine - mine.detach())


def shared_by_ranks(number: Tensor, group: Group = None) -> Tensor:
    """Return ``number``, equal on all ranks, with a gradient that is the sum of all ranks'.

    For a parameter that every rank holds whole and uses in its own part of one loss. Every rank
    must go backward through it, and have called this at the same place.
    """
    if world_size(group) > 1 and number.requires_grad:
        number = number.view_as(number)
        number.register_hook(lambda gradient: all_reduce_sum(gradient.clone(), group))
    return number


def logsumexp_over_ranks(mine: Tensor, group: Group = None) -> Tensor:
    """Return log Σ_r exp(mine_r) elementwise, with this rank's gradient only."""
    size = world_size(group)
    if size == 1:
        return mine
    parts = all_gather_rows(mine, group, sizes=[len(mine)] * size)
    parts[rank(group)] = mine
    return torch.logsumexp(torch.stack(parts), dim=0)


def barrier(group: Group = None) -> None:
    """Wait until every rank of ``group`` is here."""
    if world_size(group) > 1:
        dist.barrier(group=group)


def broadcast_object(value: T, group: Group = None, source: int = 0) -> T:
    """Return rank ``source``'s ``value`` (any picklable object) on every rank."""
    if world_size(group) == 1:
        return value
    holder = [value]
    dist.broadcast_object_list(holder, group_src=source, group=group)
    return holder[0]


def gather_objects(value: T, group: Group = None) -> list[T]:
    """Return every rank's ``value`` (any picklable object), in rank order, on every rank."""
    size = world_size(group)
    if size == 1:
        return [value]
    values: list[T] = [None] * size  # type: ignore[list-item]
    dist.all_gather_object(values, value, group=group)
    return values
