"""The most similar classes: an exact search in blocks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from arcface_plus.losses.closeness import similar_classes
from arcface_plus.losses.closeness.similar_classes import most_similar_classes, shard_rows_of


def dense(samples, own, weight, count):
    cosine = F.normalize(samples, dim=1) @ F.normalize(weight, dim=1).t()
    cosine[torch.arange(len(own)), own] = -2
    return cosine.argsort(dim=1, descending=True)[:, :count]


@pytest.mark.parametrize("count", [1, 7, 39, 500])
@pytest.mark.parametrize("block", [1, 1 << 22])
def test_equals_sorting_all_cosines(monkeypatch, count: int, block: int) -> None:
    monkeypatch.setattr(similar_classes, "_BLOCK_NUMBERS", block)
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 8, generator=g, dtype=torch.float64) * 1e-3
    samples = torch.randn(6, 8, generator=g, dtype=torch.float64, requires_grad=True)
    own = torch.tensor([0, 3, 39, 3, 17, 20])
    samples.data[0] = weight[0]  # its own class is the nearest, and must not be found
    got = most_similar_classes(samples, own, weight, 40, count)
    assert torch.equal(got, dense(samples.detach(), own, weight, min(count, 39)))
    assert not (got == own[:, None]).any()


def test_union_without_the_excluded() -> None:
    classes = torch.tensor([[1, 5], [5, 9]])
    rows, total = shard_rows_of(classes, torch.tensor([9, 2]), 10)
    assert rows.tolist() == [1, 5] and total == 2
