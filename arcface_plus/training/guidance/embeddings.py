"""Embeddings that another net made of the training images before training began."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class ImageEmbeddings:
    """The embeddings that another net made of N training images, by the images' places.

    ``matrix`` (M, T), which may be mapped from a file; ``rows`` (N,) of the images in it, −1 where
    there is none. ``describe(index)`` names an image.
    """

    def __init__(
        self, matrix: np.ndarray, rows: np.ndarray, describe: Callable[[int], str]
    ) -> None:
        self.matrix, self.rows, self.describe = matrix, rows, describe

    @property
    def dim(self) -> int:
        return int(self.matrix.shape[1])

    def take(self, indices: np.ndarray) -> Tensor:
        """Return the embeddings (b, T) float32 of images ``indices``; ValueError for an absent."""
        rows = self.rows[indices]
        if (rows < 0).any():
            where = self.describe(int(indices[rows < 0][0]))
            raise ValueError(f"there is no embedding of {where}: it could not be read before")
        return torch.from_numpy(np.asarray(self.matrix[rows], dtype=np.float32))
