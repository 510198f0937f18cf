from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from arcface_plus.evaluation.embedding.embed import embed
from arcface_plus.models.preprocessing import Preprocessing


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name, self.embedding_dim, self.preprocessing = "tiny", 3, Preprocessing(size=8)
        self.fc = nn.Linear(192, 3)

    def forward(self, x):
        return self.fc(x.flatten(1))


def images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


def embed_here(rank: int, count: int) -> np.ndarray:
    return embed(TinyNet(), images(count), batch_size=2)


def fail_on_one(rank: int, broken: int) -> str:
    mine = images(7)
    mine[broken] = mine[broken][:4]
    try:
        embed(TinyNet(), mine, batch_size=2)
    except ValueError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize("count", [7, 2, 1])
def test_every_rank_returns_all_rows(run_ranks, count):
    alone = embed_here(0, count)
    assert np.ptp(alone, axis=1).min() > 0.1
    results = run_ranks(embed_here, 3, count)
    for rows in results:
        assert rows.shape == (count, 3) and np.array_equal(rows, alone)


@pytest.mark.slow
def test_one_ranks_failure_is_everyones(run_ranks):
    messages = run_ranks(fail_on_one, 3, 6)
    assert all("image 6 is 8 x 4" in message for message in messages)
    assert [message.startswith("rank 2: ") for message in messages] == [True, True, False]
