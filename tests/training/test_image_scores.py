"""Scores: the running mean of an image's own cosine, and their quantile."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from arcface_plus.randomness import branch_generator
from arcface_plus.training.image_scores import ImageScores, order_of_outputs

CPU = torch.device("cpu")
GO, SKIP = torch.tensor(0.0), torch.tensor(1.0)


def test_scores_move_a_tenth_of_the_way_for_images_seen_alone() -> None:
    scores = ImageScores(5, 0.9, CPU)
    seen = torch.tensor([3, 1])
    scores.learn(seen, torch.tensor([0.8, -0.2]), GO)
    assert scores.values.tolist() == pytest.approx([0, -0.02, 0, 0.08, 0])
    scores.learn(seen, torch.tensor([0.8, -0.2], dtype=torch.float64), GO)
    assert scores.values.tolist() == pytest.approx([0, -0.038, 0, 0.152, 0])
    assert scores.values.dtype == torch.float32


def test_a_skipped_step_leaves_them_whatever_it_saw() -> None:
    scores = ImageScores(3, 0.9, CPU)
    scores.learn(torch.tensor([0, 1]), torch.tensor([0.5, 0.5]), GO)
    before = scores.values.clone()
    scores.learn(torch.tensor([0, 2]), torch.tensor([torch.nan, 0.3]), SKIP)
    assert torch.equal(scores.values, before)


def test_an_image_twice_in_a_batch_counts_once_by_its_first_cosine() -> None:
    scores = ImageScores(4, 0.5, CPU)
    scores.learn(torch.tensor([2, 0, 2, 2, 0]), torch.tensor([0.8, 0.2, 0.1, 0.0, 0.9]), GO)
    assert scores.values.tolist() == pytest.approx([0.1, 0, 0.4, 0])


def test_quantile_and_scores_of_members() -> None:
    scores = ImageScores(10, 0.9, CPU)
    scores.values.copy_(torch.tensor([9, 3, 1, 0, 5, 8, 2, 7, 6, 4]) / 10)
    members = [np.array([1, 4]), np.array([9])]
    read, threshold = scores.read(members, 0.2, 100_000, branch_generator(0, 0))
    assert [r.tolist() for r in read] == [pytest.approx([0.3, 0.5]), pytest.approx([0.4])]
    assert threshold == pytest.approx(0.2), "two of ten lie below it"


def test_quantile_of_a_sample_comes_near() -> None:
    scores = ImageScores(50_000, 0.9, CPU)
    scores.values.copy_(torch.rand(50_000, generator=torch.Generator().manual_seed(0)))
    _, threshold = scores.read([np.array([0])], 0.2, 10_000, branch_generator(0, 0))
    assert threshold == pytest.approx(0.2, abs=0.015)
    _, again = scores.read([np.array([0])], 0.2, 10_000, branch_generator(0, 0))
    assert threshold == again


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_outputs_of_micro_batches_find_their_places(accumulate: int) -> None:
    # Ranks of 4, 3 and 3 images; the head returns the first micro-batch of all ranks, and so on.
    order = order_of_outputs([4, 3, 3], accumulate).tolist()
    assert sorted(order) == list(range(10))
    if accumulate == 2:
        assert order == [0, 1, 4, 5, 7, 8, 2, 3, 6, 9]
