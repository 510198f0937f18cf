from __future__ import annotations

import numpy as np
import pytest
import torch

from arcface_plus.distributed import shard_bounds
from arcface_plus.losses.head.initial import BLOCK, initial_class_weights


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
def test_shards_of_any_cut_are_one_matrix(parts: int) -> None:
    classes = 2 * BLOCK + 77
    whole = initial_class_weights(5, 0, classes, 6)
    cut = [initial_class_weights(5, lo, hi, 6) for lo, hi in shard_bounds(classes, parts)]
    assert torch.equal(torch.cat(cut), whole)


def test_distribution_and_distinct_rows() -> None:
    weight = initial_class_weights(0, 0, 4 * BLOCK, 64)
    assert weight.dtype == torch.float32
    assert weight.mean().abs() < 1e-4 and weight.std().item() == pytest.approx(0.01, rel=0.01)
    unit = torch.nn.functional.normalize(weight, dim=1)
    cosine = unit @ unit.t()
    assert cosine.fill_diagonal_(-1).max() < 0.9, "no two rows, and no two blocks, alike"


def test_seed_and_row_decide() -> None:
    assert not torch.equal(initial_class_weights(0, 0, 5, 4), initial_class_weights(1, 0, 5, 4))
    assert initial_class_weights(0, 3, 3, 4).shape == (0, 4)


def test_is_the_documented_generator() -> None:
    key = np.array([9, 1], dtype=np.uint64)
    rows = np.random.Generator(np.random.Philox(key=key)).standard_normal((BLOCK, 3), np.float32)
    got = initial_class_weights(9, BLOCK + 10, BLOCK + 12, 3)
    np.testing.assert_allclose(got.numpy(), 0.01 * rows[10:12], rtol=1e-6)
