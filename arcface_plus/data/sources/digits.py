"""The 8 × 8 handwritten digits inside scikit-learn: a data set that needs no file.

Credit: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998 (its 1797 test images; ``sklearn.datasets.load_digits``).
"""

from __future__ import annotations

import numpy as np

from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.data.sources.holdout import split_by_class

TEST_SHARE = 0.2
_WHITE = 16  # their grey levels count from 0 to 16


class DigitImages(ImageSource):
    """One of two fixed parts of the digits, as (8, 8, 3) uint8 RGB.

    A fifth of each class is for testing (359 of 1797 images), the others for training. The two
    come from the same writers, so accuracy here says that training works and little more.
    """

    def __init__(self, *, train: bool) -> None:
        # Late: it costs a second, and other sources need none of it.
        from sklearn.datasets import load_digits

        digits = load_digits()
        self.class_names = [str(digit) for digit in range(10)]
        self.num_classes = len(self.class_names)
        labels = digits.target.astype(np.int64)
        self._indices = split_by_class(labels, self.class_names, TEST_SHARE)[0 if train else 1]
        self.labels = labels[self._indices]
        levels = np.rint(digits.images[self._indices] * (255 / _WHITE)).astype(np.uint8)
        self._images = np.repeat(levels[..., None], 3, axis=3)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return np.array(self._images[index])

    def describe(self, index: int) -> str:
        return f"digit {self._indices[index]} of scikit-learn"
