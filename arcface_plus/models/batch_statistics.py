"""Running statistics of batch norms, which every rank collects of its own batches."""

from __future__ import annotations

import torch
from torch import nn

from arcface_plus.distributed import Group, all_reduce_sum, world_size


def average_batch_norm_buffers(module: nn.Module, group: Group = None) -> None:
    """Average the floating-point buffers (running statistics) of ``module`` over ranks, in place.

    Before a model is scored, saved or exported all ranks must hold the same one.
    """
    buffers = [b for b in module.buffers() if b.is_floating_point()]
    if world_size(group) == 1 or not buffers:
        return
    flat = torch.cat([b.detach().flatten().float() for b in buffers])
    all_reduce_sum(flat, group).div_(world_size(group))
    for buffer, values in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))
