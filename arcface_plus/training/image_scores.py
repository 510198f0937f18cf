"""A score for every training image: the running mean of its cosine to its own class.

Shapes: N images, B of a step's global batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from arcface_plus.data.batches.score_sampling import threshold_sample
from arcface_plus.distributed import contiguous_part
from arcface_plus.losses.head.plan import StepPlan


class ImageScores:
    """Scores (N,) float32 on the device, from 0; equal on all ranks if what they learn is."""

    def __init__(self, images: int, momentum: float, device: torch.device) -> None:
        self.momentum, self.device = momentum, device
        self.values = torch.zeros(images, device=device)

    @torch.no_grad()
    def learn(self, indices: Tensor, cosine: Tensor, skip: Tensor) -> None:
        """score ← momentum·score + (1 − momentum)·``cosine`` (B,) of images ``indices`` (B,).

        Nothing changes where ``skip`` () is not 0. An image may be in a batch twice, standing in
        for an unreadable one: its first cosine counts.
        """
        old = self.values[indices]
        new = self.momentum * old + (1 - self.momentum) * cosine.to(old.dtype)
        new = torch.where(skip.bool(), old, new)
        # All who write to one place write the same: which one comes last then does not matter.
        self.values.index_copy_(0, indices, _first_of_equal(indices, new))

    def read(
        self,
        members: Sequence[np.ndarray],
        quantile: float,
        most: int,
        generator: np.random.Generator,
    ) -> tuple[list[np.ndarray], float]:
        """Return the scores of the images of each of ``members``, and the ``quantile`` of all.

        That is the ⌊quantile·n⌋-th smallest, from 0, of n = ``most`` scores drawn at random, or of
        all. Synchronises the host with the device, once.
        """
        drawn = threshold_sample(len(self.values), most, generator)
        every = slice(None) if drawn is None else torch.from_numpy(drawn).to(self.device)
        some = self.values[every]
        # An order statistic, unlike an interpolated one, has the same bits on every device.
        threshold = some.sort().values[int(quantile * len(some))].reshape(1)
        flat = torch.from_numpy(np.concatenate(members)).to(self.device)
        read = torch.cat([threshold, self.values[flat]]).cpu().numpy()
        ends = np.cumsum([len(own) for own in members])[:-1]
        return np.split(read[1:], ends), float(read[0])


def order_of_outputs(sizes: Sequence[int], accumulate: int) -> Tensor:
    """Return the places (B,) in the global batch of what the head returns, micro-batches in turn.

    ``sizes``: how many images each rank has in a step.
    """
    plan = StepPlan(tuple(sizes), 0, None)
    places = []
    for part in range(accumulate):
        bounds = (contiguous_part(size, part, accumulate) for size in sizes)
        places.append(plan.take([hi - lo for lo, hi in bounds]))
    return torch.from_numpy(np.concatenate(places))


def _first_of_equal(keys: Tensor, values: Tensor) -> Tensor:
    """Return ``values`` (B,), each replaced by that of the first of its equals among ``keys``."""
    order = keys.argsort(stable=True)
    ordered = keys[order]
    is_start = torch.ones_like(keys, dtype=torch.bool)
    is_start[1:] = ordered[1:] != ordered[:-1]
    places = torch.arange(len(keys), device=keys.device)
    first = torch.where(is_start, places, 0).cummax(dim=0).values
    return torch.empty_like(values).index_copy_(0, order, values[order][first])
