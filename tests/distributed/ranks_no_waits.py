"""What each rank does in the tests of hosts that do not wait for their GPUs."""

from __future__ import annotations

import torch
from watch import NoWaits, as_on_a_gpu

from arcface_plus.distributed import contiguous_part, world_size
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin


def losses_and_gradients(rank, classes, options, watched):
    """Return loss and gradient of two micro-batches, with nothing that waits where ``watched``."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(14, 8, generator=generator)
    labels = torch.randint(classes, (14,), generator=generator)
    world = world_size()
    parts = [contiguous_part(14, r, world) for r in range(world)]
    lo, hi = parts[rank]
    mine = embeddings[lo:hi].requires_grad_()
    head = ClassifierHead(classes, 8, Margin(s=8), mma_weight=0.3, **options)

    def step():
        plan = head.plan_step(labels[lo:hi], 3, sizes=[b - a for a, b in parts])
        total = torch.zeros(())
        for part in (0, 1):
            cuts = [contiguous_part(b - a, part, 2) for a, b in parts]
            first, last = cuts[rank]
            output = head(
                mine[first:last],
                labels[lo:hi][first:last],
                plan=plan,
                sizes=[b - a for a, b in cuts],
                with_mma=part == 1,
            )
            output.loss.backward()
            total = total + output.loss.detach()
        return total

    if not watched:
        loss = step()
    else:
        with as_on_a_gpu(), NoWaits():
            loss = step()
    return loss.item(), mine.grad, head.weight.grad.to_dense()
