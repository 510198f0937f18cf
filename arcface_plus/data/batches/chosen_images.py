"""Read given images beside the ordered batches: decoded by threads, changed by keyed draws."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from arcface_plus.data.batches.augmentation import augment
from arcface_plus.data.batches.loader import Batch
from arcface_plus.data.batches.order import SPARES
from arcface_plus.data.batches.score_sampling import (
    ClassMembers,
)
from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.image_source import (
    ImageSource,
    fit_square,
)
from arcface_plus.randomness import branch_augmentation_generator

# An image as it is trained on, the index of what was read, and what could not be read.
_Read = tuple[np.ndarray, int, list[tuple[int, str]]]


class ChosenImages:
    """Reads chosen images of ``source`` in threads while the step goes on.

    Which image is read in which form depends on (seed, step, image, slot) alone.
    """

    def __init__(
        self, source: ImageSource, config: DataConfig, members: ClassMembers, seed: int
    ) -> None:
        self.source, self.config, self.members, self.seed = source, config, members, seed
        # Decoding leaves the interpreter's lock, so that threads are as good as processes here.
        self._pool = ThreadPoolExecutor(max(1, config.workers), thread_name_prefix="chosen")

    def start(self, step: int, indices: np.ndarray, first_slot: int = 0) -> Callable[[], Batch]:
        """Begin to read ``indices`` (n,), slots ``first_slot`` on; call the result for the batch.

        Under ``on_bad_image: quarantine`` an image that cannot be read is replaced by the next of
        its class that can, and listed in the batch's ``quarantined``; else, or where none can, the
        call raises ValueError naming image and step.
        """
        reading = [
            self._pool.submit(self._read, step, int(index), first_slot + position)
            for position, index in enumerate(indices)
        ]
        return lambda: self._collect(step, reading)

    def _collect(self, step: int, reading: list[Future[_Read]]) -> Batch:
        try:
            read = [future.result() for future in reading]
        finally:
            for future in reading:
                future.cancel()
        size = self.config.size
        images = np.empty((len(read), size, size, 3), dtype=np.uint8)
        indices = np.empty(len(read), dtype=np.int64)
        bad: dict[int, str] = {}
        for position, (image, index, reasons) in enumerate(read):
            images[position], indices[position] = image, index
            bad |= dict(reasons)
        return Batch(
            step,
            torch.from_numpy(images),
            torch.from_numpy(self.members.labels[indices].astype(np.int64)),
            torch.from_numpy(indices),
            sorted(bad.items()),
        )

    def _read(self, step: int, wanted: int, slot: int) -> _Read:
        bad: list[tuple[int, str]] = []
        for index in [wanted, *self.members.others(wanted, SPARES)]:
            try:
                image, _ = self.source.read(index)
                image = fit_square(image, self.config.size, where=self.source.describe(index))
            except (ValueError, OSError) as error:
                if self.config.on_bad_image != "quarantine":
                    raise ValueError(
                        f"{error} (step {step}); remove the image, or set "
                        "--data.on_bad_image quarantine to go on without it."
                    ) from error
                bad.append((index, str(error)))
                continue
            generator = branch_augmentation_generator(self.seed, step, index, slot)
            return augment(image, self.config.augment, generator), index, bad
        raise ValueError(
            f"step {step}: none of {len(bad)} images of one class can be read; the last reason "
            f"was: {bad[-1][1]}"
        )
