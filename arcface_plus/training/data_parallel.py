"""The net on all ranks: gradients averaged, in an order that never changes; compiled if wanted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from arcface_plus.distributed import World
from arcface_plus.training.settings import TrainConfig


def data_parallel(model: nn.Module, world: World, train: TrainConfig) -> DistributedDataParallel:
    """Return ``model`` with gradients averaged over all ranks.

    ``model`` itself stays as it is: evaluations call it, never compiled, and its state dict is the
    same. A compiled net has static shapes and torch's own cache of compiled code.
    """
    device = world.device
    ddp = DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )
    # Ranks keep statistics of their own batches; they are averaged before anything is scored. Said
    # by the name since torch 2.13 and by the one before it, which has no meaning later.
    ddp.forward_sync_buffers = ddp.broadcast_buffers = False
    if train.gradient_compression == "bf16":
        ddp.register_comm_hook(None, bf16_compress_hook)
    if train.compile:
        ddp.compile(dynamic=False)  # in place; the last, smaller batch does not exist here
    return ddp


def settle(
    ddp: DistributedDataParallel,
    embed: Callable[[Tensor], Tensor],
    world: World,
    train: TrainConfig,
) -> None:
    """Let DDP choose its buckets before the first step, which would be summed in others.

    It does so after a process's first backward pass, in the order in which gradients come. Above
    two ranks the buckets decide the order of a sum, so a resumed run would have other bits. Two
    passes of black images through ``embed``, of which nothing stays: gradients, statistics and
    random numbers are as before. Called by all ranks together.
    """
    if world.size <= 2:  # a sum of two has but one order
        return
    module, size = ddp.module, ddp.module.preprocessing.size
    count = train.global_batch // world.size // train.accumulate
    images = torch.zeros((count, size, size, 3), dtype=torch.uint8, device=world.device)
    kept = [buffer.clone() for buffer in module.buffers()]
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        for _ in range(2):
            embed(images).float().sum().backward()
    module.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in zip(module.buffers(), kept, strict=True):
            buffer.copy_(before)
