"""A tensor for one rank while another comes from elsewhere: the step of a ring."""

from __future__ import annotations

from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor

from arcface_plus.clock import counted_as
from arcface_plus.distributed import Group, rank


def ring_exchange(
    tensor: Tensor,
    *,
    send_to: int,
    receive_from: int,
    shape: Sequence[int],
    group: Group = None,
) -> Tensor:
    """Send ``tensor`` to one rank while receiving a tensor of ``shape`` from another.

    Ranks are group ranks. Both sides must know the shapes; the dtype is that of ``tensor``. An
    empty shape dimension on either side is sent as nothing.
    """
    me = rank(group)
    if send_to == me and receive_from == me:
        return tensor
    if tensor.is_cuda and "cuda:nccl" not in dist.get_backend_config(group):
        staged = tensor.cpu()  # gloo sends from the host alone
        received = ring_exchange(
            staged, send_to=send_to, receive_from=receive_from, shape=shape, group=group
        )
        return received.to(tensor.device)
    received = tensor.new_empty(tuple(shape))
    operations = []
    if tensor.numel():
        tensor = tensor.contiguous()
        operations.append(dist.P2POp(dist.isend, tensor, group=group, group_peer=send_to))
    if received.numel():
        operations.append(dist.P2POp(dist.irecv, received, group=group, group_peer=receive_from))
    if operations:
        with counted_as("communication_share"):
            for work in dist.batch_isend_irecv(operations):
                work.wait()
    return received
