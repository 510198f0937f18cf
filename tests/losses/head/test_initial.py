from __future__ import annotations

import numpy as np
import pytest
import torch

from arcface_plus.distributed import shard_bounds
from arcface_plus.losses.head.initial import BLOCK, ClassMeans, initial_class_weights


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


def naive_means(embeddings: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    rows = []
    for c in range(classes):
        unit = [e / np.linalg.norm(e) for e, label in zip(embeddings, labels, strict=True)
                if label == c]  # fmt: skip
        mean = np.mean(unit, axis=0)
        rows.append(mean / np.linalg.norm(mean) * 0.01 * np.sqrt(embeddings.shape[1]))
    return np.array(rows)


def test_class_means_are_directions_of_mean_unit_embeddings() -> None:
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(60, 7)) * 30, rng.permutation(np.arange(60) % 5)
    means = ClassMeans(0, 5, 7)
    means.add(torch.from_numpy(embeddings).float(), torch.from_numpy(labels))
    rows, known = means.rows()
    assert known.all() and rows.dtype == torch.float32
    assert np.allclose(rows.numpy(), naive_means(embeddings, labels, 5), atol=1e-7)


def test_class_means_have_the_same_bits_in_any_order_batches_and_shards() -> None:
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.randn(101, 16, generator=generator)
    labels = torch.randint(0, 7, (101,), generator=generator)
    whole = ClassMeans(0, 7, 16)
    whole.add(embeddings, labels)
    order = torch.randperm(101, generator=generator)
    shards = [ClassMeans(0, 3, 16), ClassMeans(3, 7, 16)]
    for part in order.split(9):
        for shard in shards:
            shard.add(embeddings[part], labels[part])
    assert torch.equal(torch.cat([shard.rows()[0] for shard in shards]), whole.rows()[0])


def test_a_class_without_direction_is_told() -> None:
    means = ClassMeans(1, 4, 3)
    x = torch.tensor([[1.0, 0, 0], [2.0, 0, 0], [-5.0, 0, 0], [0, 1.0, 0]])
    means.add(x, torch.tensor([0, 1, 1, 2]))  # class 0 is elsewhere, class 1 cancels out
    rows, known = means.rows()
    assert known.tolist() == [False, True, False]
    assert rows[1, 1] == pytest.approx(0.01 * 3**0.5) and rows[0].abs().max() == 0
    assert torch.isfinite(rows).all()
