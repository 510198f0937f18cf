"""Class means and rows of another head are the same bits at any number of processes."""

from __future__ import annotations

import numpy as np
import pytest
from ranks_beginning import first_class_weights

from arcface_plus.runs.train import train


@pytest.mark.slow
def test_first_class_weights_do_not_depend_on_ranks(run_ranks, tiny) -> None:
    first = train(tiny)  # 13 classes
    options = [
        "--name", "second", "--model.init", str(first), "--data.num_classes", "17",
        "--head.init", "class_means", "--head.from_head", str(first), "--head.from_names", "labels",
    ]  # fmt: skip
    results = {
        world: run_ranks(first_class_weights, world, str(tiny), options) for world in (1, 2, 3)
    }
    (one, said) = results[1][0]
    assert one.shape == (17, 16) and np.abs(one).max(axis=1).min() > 0
    words = " ".join(said)
    assert "13 keep their row" in words and "4 begin at the mean of their embeddings" in words
    for ranks in (results[2], results[3]):
        assert np.array_equal(np.concatenate([rows for rows, _ in ranks]), one)
    means = one[13:] / np.linalg.norm(one[13:], axis=1, keepdims=True)
    assert np.linalg.norm(one[13:], axis=1) == pytest.approx(0.04, rel=1e-5)
    assert np.abs(means @ means.T - np.eye(4)).max() > 0.01, "directions of one net, not drawn"
