"""Whoever trains reads a batch's images only as long as they stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arcface_plus import load_model
from arcface_plus.data.batches.loader import TrainLoader
from arcface_plus.runs.train import train

# What might keep images: micro-batches, a second pass.
WORDS = [
    "--train.steps=10",
    "--train.accumulate=2",
    "--branch={enabled: true, interval: 2, classes: 3, hard_classes: 4, easy: 3, hard: 1}",
]


def spoiling(plain, stay: int):
    """Iterate as ``plain``, but fill a batch's images with noise when the ``stay``-th after comes.

    Like memory that is used again, as early as may be.
    """

    def spoilt(self):
        held = []
        for batch in plain(self):
            held.append(batch.images)
            if len(held) > stay:
                held.pop(0).random_()
            yield batch

    return spoilt


def weights(path: Path, name: str, *words: str) -> torch.Tensor:
    folder = train(path, [*WORDS, "--name", name, *words])
    state = load_model(folder).state_dict()
    return torch.cat([value.double().flatten() for value in state.values()])


@pytest.mark.parametrize(("stay", "same"), [(2, True), (0, False)])
def test_training_keeps_no_images_longer(tiny, monkeypatch, stay, same):
    """The second case is the check of the first: noise in the batch in use is noticed."""
    want = weights(tiny, "plain")
    monkeypatch.setattr(TrainLoader, "__iter__", spoiling(TrainLoader.__iter__, stay))
    assert torch.equal(weights(tiny, "spoilt"), want) == same


def test_training_with_workers_is_training_without(tiny):
    """With more batches than places for them: 6."""
    assert torch.equal(weights(tiny, "one", "--data.workers=1"), weights(tiny, "none"))
