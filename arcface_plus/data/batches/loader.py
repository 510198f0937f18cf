"""Deterministic batches: the same images in the same form at every step.

Which images, and how each is changed, depends on (seed, step) alone; ranks take contiguous parts of
the global batch, workers decode straight into the batch's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from arcface_plus.data.batches.augmentation import augment
from arcface_plus.data.batches.order import (
    SPARES,
    BatchPlan,
    OrderedSteps,
)
from arcface_plus.data.settings import AugmentConfig, DataConfig
from arcface_plus.data.sources.image_source import (
    ImageSource,
    fit_square,
)
from arcface_plus.randomness import augmentation_generator


@dataclass
class Batch:
    """One rank's images of a step: images (b, S, S, 3) uint8 RGB, labels and indices (b,) int64.

    ``quarantined`` lists what could not be read, as ``(index, reason)``.
    """

    step: int
    images: Tensor
    labels: Tensor
    indices: Tensor
    quarantined: list[tuple[int, str]]

    def pin_memory(self) -> Batch:
        self.images, self.labels = self.images.pin_memory(), self.labels.pin_memory()
        return self


@dataclass(frozen=True)
class _Stop:
    """Why a batch could not be made. Raised in the main process: there the message stays itself."""

    message: str


class _PlannedBatches(Dataset["Batch | _Stop"]):
    """Maps a plan to its batch; lives in the workers."""

    def __init__(
        self, source: ImageSource, size: int, augment: AugmentConfig, seed: int, quarantine: bool
    ) -> None:
        self.source, self.size, self.augment = source, size, augment
        self.seed, self.quarantine = seed, quarantine

    def __getitem__(self, plan: BatchPlan) -> Batch | _Stop:
        try:
            return self._make(plan)
        except ValueError as error:
            return _Stop(str(error))

    def _make(self, plan: BatchPlan) -> Batch:
        images = np.empty((plan.length, self.size, self.size, 3), dtype=np.uint8)
        labels = np.empty(plan.length, dtype=np.int64)
        indices = np.empty(plan.length, dtype=np.int64)
        bad: dict[int, str] = {}
        for position in range(plan.length):
            indices[position] = self._fill(plan, position, images, labels, bad)
        return Batch(
            plan.step,
            torch.from_numpy(images),
            torch.from_numpy(labels),
            torch.from_numpy(indices),
            sorted(bad.items()),
        )

    def _fill(
        self,
        plan: BatchPlan,
        position: int,
        images: np.ndarray,
        labels: np.ndarray,
        bad: dict[int, str],
    ) -> int:
        """Put the image of ``position``, or the next that can be read, there; return its index."""
        # As many for the first position as for the last: otherwise ranks would change the outcome.
        candidates = plan.candidates[position : position + 1 + SPARES].tolist()
        for index in candidates:
            if index in bad:
                continue
            try:
                image, label = self.source.read(index)
                image = fit_square(image, self.size, where=self.source.describe(index))
            except (ValueError, OSError) as error:
                if not self.quarantine:
                    raise ValueError(
                        f"{error} (step {plan.step}); remove the image, or set "
                        "--data.on_bad_image quarantine to go on without it."
                    ) from error
                bad[index] = str(error)
                continue
            generator = augmentation_generator(self.seed, plan.epoch, index)
            images[position], labels[position] = augment(image, self.augment, generator), label
            return index
        raise ValueError(
            f"step {plan.step}: none of {len(candidates)} consecutive images can be read; the last "
            f"reason was: {bad[candidates[-1]]}"
        )


class TrainLoader:
    """Iterates over batches of steps ``start`` to ``stop``, in order, decoding ahead."""

    def __init__(
        self,
        source: ImageSource,
        config: DataConfig,
        steps: OrderedSteps,
        *,
        pin_memory: bool = False,
    ) -> None:
        self.source, self.config, self.steps, self.pin_memory = source, config, steps, pin_memory
        self._batches = _PlannedBatches(
            source, config.size, config.augment, steps.seed, config.on_bad_image == "quarantine"
        )

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; ValueError names step and image where one cannot be made."""
        loader = DataLoader(
            self._batches,
            batch_size=None,  # a plan is already a batch
            sampler=self.steps,  # type: ignore[arg-type]
            num_workers=self.config.workers,
            worker_init_fn=_start_worker,
            prefetch_factor=4 if self.config.workers else None,
            pin_memory=self.pin_memory,
            # Nothing here draws from it. But DataLoader would take a number from the global
            # generator, and a resumed run would have other dropout masks than one that ran on.
            generator=torch.Generator(),
        )
        for made in loader:
            if isinstance(made, _Stop):
                raise ValueError(made.message)
            yield made

    def describe_step(self, step: int, *, most: int = 8) -> str:
        """Name some of the images of a step (of all ranks), for messages."""
        indices = self.steps.global_indices(step)
        names = [self.source.describe(int(i)) for i in indices[:most]]
        more = f" and {len(indices) - most} more" if len(indices) > most else ""
        return "; ".join(names) + more


def _start_worker(worker: int) -> None:
    # One image at a time a worker: threads inside OpenCV would fight over the same cores.
    cv2.setNumThreads(0)
