"""Initial class weights that no number of ranks changes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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
