"""Initial class weights that no number of ranks changes: drawn, or means of embeddings."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_plus.randomness import class_weight_generator

BLOCK = 1024


def initial_class_weights(seed: int, lo: int, hi: int, dim: int, *, std: float = 0.01) -> Tensor:
    """Return rows lo…hi−1 of the class-weight matrix, (hi − lo, dim) float32, N(0, std²).

    Rows are made in blocks of 1 024 by NumPy's Philox keyed by (seed, block): the same bits on
    every CPU and at every world size, and no rank makes more than the blocks it touches.
    """
    weight = np.empty((hi - lo, dim), dtype=np.float32)
    rows = np.empty((BLOCK, dim), dtype=np.float32)
    for block in range(lo // BLOCK, -(-hi // BLOCK)):
        class_weight_generator(seed, block).standard_normal(dtype=np.float32, out=rows)
        first, last = max(lo, block * BLOCK), min(hi, (block + 1) * BLOCK)
        weight[first - lo : last - lo] = rows[first - block * BLOCK : last - block * BLOCK]
    return torch.from_numpy(weight).mul_(std)


class ClassMeans:
    """The directions of the mean unit embeddings of classes lo…hi−1.

    Embeddings are summed as whole numbers, so that neither their order nor their division into
    batches changes a bit. Source of the idea: imprinted weights (Qi, Brown, Lowe, CVPR 2018).
    """

    _STEPS = 2.0**40  # in 1; leaves room for 2²² images of a class

    def __init__(self, lo: int, hi: int, dim: int) -> None:
        self.lo, self.hi = lo, hi
        self._sums = torch.zeros(hi - lo, dim, dtype=torch.int64)

    def add(self, embeddings: Tensor, labels: Tensor) -> None:
        """Count embeddings (B, dim) with labels (B,) of any class; others' are passed over."""
        mine = (labels >= self.lo) & (labels < self.hi)
        unit = F.normalize(embeddings[mine].to(torch.float64), dim=1)
        whole = (unit * self._STEPS).round().to(torch.int64)
        self._sums.index_add_(0, labels[mine] - self.lo, whole)

    def rows(self, *, std: float = 0.01) -> tuple[Tensor, Tensor]:
        """Return the rows (hi − lo, dim) float32 and which of them (hi − lo,) have a direction.

        Each is as long as a row drawn from N(0, std²) is on average, so that a learning rate turns
        it as fast. A class without an image, or whose embeddings cancel out, has none.
        """
        sums = self._sums.to(torch.float64)
        length = std * math.sqrt(sums.shape[1])
        return (F.normalize(sums, dim=1) * length).float(), self._sums.any(dim=1)
