"""What the micro-batches of an optimizer step share, and what earlier ones of them leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass
class StepStatistics:
    """Mean and deviation of the numbers of a step's micro-batches so far, on the device."""

    count: int = 0
    mean: Tensor | None = None
    squares: Tensor | None = None  # Σ (number − mean)²

    def add(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Take in ``numbers`` (B,) and return mean and unbiased deviation () of all so far.

        The deviation of a single number is NaN, as torch has it.
        """
        mean = numbers.mean()
        squares = (numbers - mean).square().sum()
        count = len(numbers)
        if self.mean is not None and self.squares is not None:
            # Two parts' squares about their common mean (Chan et al.).
            whole, apart = self.count + count, mean - self.mean
            squares = self.squares + squares + apart.square() * (self.count * count / whole)
            mean, count = self.mean + apart * (count / whole), whole
        self.count, self.mean, self.squares = count, mean, squares
        return mean, (squares / (count - 1)).sqrt() if count > 1 else mean * torch.nan


@dataclass
class StepPlan:
    """What all micro-batches of one optimizer step share.

    ``total`` samples over all ranks and micro-batches, ``sizes`` of them on each rank; ``rows`` of
    this shard that take part, or None where all do. ``taken``: how many samples of each rank
    earlier micro-batches had. ``statistics`` and ``state``: what they showed, and the margin's
    state before the step.
    """

    sizes: tuple[int, ...]
    step: int
    rows: Tensor | None
    taken: list[int] = field(default_factory=list)
    statistics: StepStatistics = field(default_factory=StepStatistics)
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
