"""What each rank does in the tests of MMA across shards."""

from __future__ import annotations

import torch
import torch.distributed as dist

from arcface_plus.distributed import shard_bounds
from arcface_plus.regularizers.nearest.cache import NeighbourCache
from arcface_plus.regularizers.sharded.class_mma import ClassMMA
from arcface_plus.regularizers.sharded.mma import sharded_mma_loss, sharded_mma_value_and_gradient


def my_shard(weight: torch.Tensor, rank: int) -> torch.Tensor:
    low, high = shard_bounds(len(weight), dist.get_world_size())[rank]
    return weight[low:high].clone().requires_grad_()


def loss_and_gradient(rank, weight, rows=None, precision="auto"):
    shard = my_shard(weight, rank)
    generator = torch.Generator().manual_seed(7)
    loss = sharded_mma_loss(shard, rows=rows, generator=generator, precision=precision)
    (2 * loss).backward()
    return loss.item(), shard.grad / 2


def angles_and_neighbours(rank, weight):
    terms = sharded_mma_value_and_gradient(my_shard(weight, rank), need_gradient=False)
    assert terms.gradient is None
    return terms.angle, terms.index


def nearest_classes(rank, weight):
    return ClassMMA(len(weight)).nearest(my_shard(weight, rank))


def error_of(rank, weight):
    try:
        sharded_mma_loss(my_shard(weight, rank))
    except ValueError as error:
        return str(error)
    return None


def value_of_bad_rows(rank, weight):
    terms = sharded_mma_value_and_gradient(my_shard(weight, rank), on_bad_rows="nan")
    return terms.value.item()


def losses_with_cache(rank, weights, refresh_every):
    cache = NeighbourCache(refresh_every)
    return [sharded_mma_loss(my_shard(weight, rank), neighbours=cache).item() for weight in weights]


def backward_without_a_group(rank, weight):
    """Run backward where a collective would fail: without a process group."""
    shard = my_shard(weight, rank)
    loss = sharded_mma_loss(shard)
    dist.barrier()
    dist.destroy_process_group()
    loss.backward()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    return bool(shard.grad.isfinite().all())
