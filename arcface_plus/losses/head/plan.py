"""What the micro-batches of an optimizer step share, and what earlier ones of them leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass
class StepPlan:
    """What all micro-batches of one optimizer step share.

    ``total`` samples over all ranks and micro-batches, ``sizes`` of them on each rank; ``rows`` of
    this shard that take part, or None where all do, and ``share`` of each, which its pull by MMA is
    multiplied by. ``taken``: how many samples of each rank
    earlier micro-batches had. ``observed``: the numbers of those samples, all ranks', that move the
    margin's state, and ``state`` as it was before the step.
    """

    sizes: tuple[int, ...]
    step: int
    rows: Tensor | None
    share: Tensor | None = None
    taken: list[int] = field(default_factory=list)
    observed: list[Tensor] = field(default_factory=list)
    state: dict[str, Tensor] | None = None

    @property
    def total(self) -> int:
        return sum(self.sizes)

    def take(self, sizes: Sequence[int]) -> np.ndarray:
        """Return the places (B,) in the step's global batch of the next micro-batch's samples.

        ``sizes``: how many each rank brings. A rank's samples follow those of the ranks before it.
        """
        taken = self.taken or [0] * len(self.sizes)
        starts = np.cumsum([0, *self.sizes[:-1]])
        places = [
            start + done + np.arange(size)
            for start, done, size in zip(starts, taken, sizes, strict=True)
        ]
        self.taken = [done + size for done, size in zip(taken, sizes, strict=True)]
        return np.concatenate(places)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise ValueError where ``labels`` are not int64 in 0…num_classes − 1."""
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64, got {labels.dtype}.")
    fine = ((labels >= 0) & (labels < num_classes)).all()
    if labels.is_cuda:
        torch._assert_async(fine)  # reading the answer here would stall every step
    elif not fine:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0].item()
        raise ValueError(
            f"label {wrong} is outside 0…{num_classes - 1}; the head was built for "
            f"{num_classes} classes."
        )
