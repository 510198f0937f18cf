"""What each process of test_helpers.py runs."""

from __future__ import annotations

import torch

from arcface_plus import distributed as d
from arcface_plus.exchange import ring_exchange
from arcface_plus.models.batch_statistics import average_batch_norm_buffers


def exercise(rank: int) -> dict:
    size = d.world_size()
    rows = torch.full((rank + 1, 2), float(rank))
    out: dict = {"gathered": [t.tolist() for t in d.all_gather_rows(rows)]}
    x = torch.ones(rank + 1, 2, requires_grad=True)
    everyone = d.gather_rows(x)
    (everyone * (rank + 1)).sum().backward()  # each rank's own view of one loss
    out["grad"] = x.grad.tolist()
    y = torch.tensor([float(rank)], requires_grad=True)
    total = d.sum_over_ranks(y)
    total.backward()
    out["sum"], out["sum_grad"] = total.item(), y.grad.item()
    # One rank alone has anything to add to the second sample, as where a shard is empty.
    z = torch.tensor([float(rank), -torch.inf if rank else 0.5], requires_grad=True)
    logsum = d.logsumexp_over_ranks(z)
    logsum.sum().backward()
    out["logsum"], out["logsum_grad"] = logsum[0].item(), z.grad.tolist()
    out["max"] = d.all_reduce_max(torch.tensor([rank, -rank])).tolist()
    out["objects"] = d.gather_objects(f"from {rank}")
    out["told"] = d.broadcast_object(rank, source=size - 1)
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.fill_(float(rank))
    average_batch_norm_buffers(norm)
    out["mean"], out["tracked"] = norm.running_mean.tolist(), norm.num_batches_tracked.item()
    out["ring"] = ring_exchange(
        torch.full((rank,), float(rank)),
        send_to=(rank + 1) % size,
        receive_from=(rank - 1) % size,
        shape=((rank - 1) % size,),
    ).tolist()
    return out
