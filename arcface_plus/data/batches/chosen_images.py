"""Read given images beside the ordered batches: decoded by threads, changed by keyed draws."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from arcface_plus.data.batches.augmentation import augment, chosen_draws
from arcface_plus.data.batches.loader import Batch, ImageReader, to_batch
from arcface_plus.data.batches.order import SPARES
from arcface_plus.data.batches.score_sampling import ClassMembers
from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.image_source import ImageSource


class ChosenImages(ImageReader):
    """Reads chosen images of ``source`` in threads while the step goes on.

    Which image is read in which form depends on (seed, step, image, slot) alone.
    """

    def __init__(
        self, source: ImageSource, config: DataConfig, members: ClassMembers, seed: int
    ) -> None:
        super().__init__(source, config, seed)
        self.members = members
        # Decoding leaves the interpreter's lock, so that threads are as good as processes here.
        self._pool = ThreadPoolExecutor(max(1, config.workers), thread_name_prefix="chosen")

    def start(self, step: int, indices: np.ndarray, first_slot: int = 0) -> Callable[[], Batch]:
        """Begin to read ``indices`` (n,), slots ``first_slot`` on; call the result for the batch.

        Under ``on_bad_image: quarantine`` an image that cannot be read is replaced by the next of
        its class that can, and listed in the batch's ``quarantined``; else, or where none can, the
        call raises ValueError naming image and step.
        """
        bad: dict[int, str] = {}
        reading = [
            self._pool.submit(self._read, step, int(index), slot, bad)
            for slot, index in enumerate(indices, start=first_slot)
        ]

        def collect() -> Batch:
            try:
                return to_batch(
                    step, self.config.size, (future.result() for future in reading), bad
                )
            finally:
                for future in reading:
                    future.cancel()

        return collect

    def _read(
        self, step: int, wanted: int, slot: int, bad: dict[int, str]
    ) -> tuple[np.ndarray, int, int]:
        candidates = [wanted, *self.members.others(wanted, SPARES)]
        image, label, index = self.read_first(candidates, step, bad)
        changes, size = self.config.augment, self.config.size
        (draws,) = chosen_draws(changes, size, self.seed, step, [index], slot)
        return augment(image, changes, draws), label, index
