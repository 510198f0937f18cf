"""Which image is trained on when: a function of (seed, epoch) alone.

Neither the number of ranks, nor workers, nor a restart changes it. Step k of an epoch takes slice k
of that epoch's permutation, which is one of all images or made window by window (``windows``); the
last incomplete global batch of an epoch is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from arcface_plus.data.batches.windows import Run, Windows
from arcface_plus.distributed import contiguous_part
from arcface_plus.randomness import epoch_generator

# How many successors of an image may replace it where it cannot be read.
SPARES = 64


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """Return the permutation of ``range(num_samples)`` for one epoch, 4 bytes a sample (uint32)."""
    if not 0 < num_samples < 2**32:
        raise ValueError(f"an epoch has 1 to 2**32 − 1 samples, got {num_samples}.")
    order = np.arange(num_samples, dtype=np.uint32)
    epoch_generator(seed, epoch).shuffle(order)
    return order


class BatchPlan(NamedTuple):
    """One rank's part of one optimizer step.

    ``candidates`` (n + SPARES,) are consecutive indices of the epoch's order, this rank's n first:
    where the image at one position cannot be read, the first of the next SPARES that can takes its
    place. That may be an image of the batch itself, which is then in it twice. Which image replaces
    another depends on the position in the epoch's order alone, so ranks need not agree.
    """

    step: int
    epoch: int
    length: int
    candidates: np.ndarray
    ahead: tuple[Run, ...] = ()
    """Runs of images that later steps need: whoever reads them in sequence now saves waiting."""


class _Permutation:
    """The order of one epoch at a time, of all images."""

    def __init__(self, num_samples: int, seed: int) -> None:
        self.num_samples, self.seed = num_samples, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.uint32)

    def at(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the images at ``places`` (n,) of an epoch's order."""
        if epoch != self._epoch:
            self._order = self._order[:0].copy()  # free it first: never two permutations at once
            self._order = epoch_order(self.num_samples, self.seed, epoch)
            self._epoch = epoch
        return self._order[places]

    def ahead(self, epoch: int, first: int, last: int | None) -> tuple[Run, ...]:
        """Return nothing: what comes next lies anywhere."""
        return ()


class OrderedSteps:
    """Iterate over the batch plans of steps ``start`` to ``stop`` for one rank.

    ``window``: shuffle in windows of about so many images instead of in all, see ``windows``. Holds
    one permutation, or a few windows, at a time. Raises ValueError where an epoch has fewer samples
    than a global batch.
    """

    def __init__(
        self,
        num_samples: int,
        global_batch: int,
        *,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        size: int = 1,
        window: int | None = None,
    ) -> None:
        if global_batch > num_samples:
            raise ValueError(
                f"train.global_batch is {global_batch}, but there are only {num_samples} training "
                "images: no epoch would hold one batch; set --train.global_batch lower."
            )
        self.num_samples, self.global_batch, self.seed = num_samples, global_batch, seed
        self.steps_per_epoch = num_samples // global_batch
        self.start, self.stop = start, stop
        self.lo, self.hi = contiguous_part(global_batch, rank, size)
        self._order: _Permutation | Windows = (
            _Permutation(num_samples, seed)
            if window is None
            else Windows(num_samples, seed, window)
        )

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def global_indices(self, step: int) -> np.ndarray:
        """Return the indices (global_batch,) of a step over all ranks."""
        epoch, part = divmod(step, self.steps_per_epoch)
        first = part * self.global_batch
        return self._order.at(epoch, np.arange(first, first + self.global_batch))

    def plan(self, step: int) -> BatchPlan:
        epoch, part = divmod(step, self.steps_per_epoch)
        first = part * self.global_batch
        wanted = np.arange(first + self.lo, first + self.hi + SPARES) % self.num_samples
        candidates = self._order.at(epoch, wanted).astype(np.int64)
        # From the batch before on, so that each window is begun once; at the start, from nothing.
        before = None if step == self.start else first - self.global_batch
        ahead = self._order.ahead(epoch, first, before)
        return BatchPlan(step, epoch, self.hi - self.lo, candidates, ahead)

    def __iter__(self) -> Iterator[BatchPlan]:
        return map(self.plan, range(self.start, self.stop))
