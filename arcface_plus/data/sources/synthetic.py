"""Seeded images without faces, for benchmarks and tests of everything but accuracy."""

from __future__ import annotations

import cv2
import numpy as np

from arcface_plus.data.lazy_images import ImageSource


class SyntheticFaces(ImageSource):
    """A class is a smooth random pattern; its images are that pattern with noise.

    Any image is made on demand from (seed, class, image): ten million classes cost no memory.
    """

    def __init__(self, num_classes: int, images_per_class: int, *, size: int = 112, seed: int = 0):
        self.num_classes, self.images_per_class = num_classes, images_per_class
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.num_classes * self.images_per_class

    @property
    def labels(self) -> np.ndarray:  # type: ignore[override]
        return np.repeat(np.arange(self.num_classes, dtype=np.int64), self.images_per_class)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return image ``index`` (S, S, 3) uint8 and its label."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} is not one of {len(self)} synthetic images")
        label, number = divmod(int(index), self.images_per_class)
        pattern = np.random.default_rng([self.seed, label]).uniform(40, 215, (7, 7, 3))
        image = cv2.resize(pattern, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
        # From 1: NumPy takes a key that ends in 0 for the key without it, the pattern's.
        generator = np.random.default_rng([self.seed, label, number + 1])
        image += 12 * generator.standard_normal((self.size, self.size, 1))
        return np.clip(image, 0, 255).astype(np.uint8), label

    def describe(self, index: int) -> str:
        return f"synthetic image {index} (seed {self.seed})"
