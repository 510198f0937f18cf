from __future__ import annotations

import math

import pytest
from ranks_helpers import exercise


@pytest.mark.parametrize("world", [2, 3])
def test_helpers(run_ranks, world: int) -> None:
    results = run_ranks(exercise, world)
    exponentials = [math.exp(r) for r in range(world)]
    for rank, got in enumerate(results):
        assert got["gathered"] == [[[float(r)] * 2] * (r + 1) for r in range(world)]
        # Summed over ranks (1 + 2 + …), then times the world size.
        assert got["grad"] == [[world * world * (world + 1) / 2] * 2] * (rank + 1)
        assert got["sum"] == sum(range(world)) and got["sum_grad"] == 1
        assert got["logsum"] == pytest.approx(math.log(sum(exponentials)))
        assert got["logsum_grad"] == pytest.approx(
            [exponentials[rank] / sum(exponentials), 0.0 if rank else 1.0]
        )
        assert got["max"] == [world - 1, 0]
        assert got["objects"] == [f"from {r}" for r in range(world)]
        assert got["told"] == world - 1
        assert got["mean"] == [(world - 1) / 2] * 2 and got["tracked"] == 0
        assert got["ring"] == [float((rank - 1) % world)] * ((rank - 1) % world)
