"""The governing test: loss and gradients do not depend on how many processes there are."""

from __future__ import annotations

import pytest
import torch
from ranks_head import dense_reference, train_cases

CASES = {
    "plain": {},
    "one class a rank and fewer": {"classes": 5, "batch": 6},
    "unequal batches": {"shares": [1, 3, 2]},
    "accumulation": {"accumulate": 3},
    "accumulation, unequal": {"accumulate": 2, "shares": [3, 1]},
    "sampled classes": {"rate": 0.1},
    "sampled classes, accumulation": {"rate": 0.1, "accumulate": 2, "shares": [1, 2]},
    "recomputed logits": {"chunk": 64},
    "no penalty": {"mma_weight": 0.0},
    "linear": {"linear": True},
    "linear with bias": {"linear": True, "bias": True, "chunk": 64, "shares": [2, 1]},
    "bias, fewer classes than ranks": {"linear": True, "bias": True, "classes": 3, "batch": 8},
}


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.double() - want).norm() / want.norm().clamp_min(1e-300)).item()


def check(case: dict, results: list[dict], tolerance: float) -> None:
    want = dense_reference(case)
    world = len(results)
    for result in results:
        assert result["losses"] == pytest.approx(want["losses"], rel=tolerance)
        assert result["losses"] == results[0]["losses"], "one number, the same on every rank"
        assert result["norm"] == pytest.approx(want["norm"], rel=tolerance)
        for got, expected in zip(result["backbone_grads"], want["backbone_grads"], strict=True):
            assert relative(got, expected) <= tolerance
        for got, expected in zip(result["backbone"], want["backbone"], strict=True):
            assert relative(got, expected) <= tolerance
    assert [r["lo"] for r in results[1:]] == [r["hi"] for r in results[:-1]]
    for sharded in ("weight_grad", "weight", "bias_grad", "bias"):
        if sharded in results[0]:
            whole = torch.cat([r[sharded] for r in results])
            assert relative(whole, want[sharded]) <= tolerance, sharded
    if "embedding_grad" in results[0]:
        gathered = torch.cat([r["embedding_grad"] for r in results]) / world
        assert relative(gathered, want["embedding_grad"]) <= tolerance


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_world_size_trains_the_dense_model(run_ranks, world: int, dtype: str) -> None:
    cases = [
        {"classes": 1003, "dim": 32, "batch": 24, "steps": 3, "dtype": dtype, **extra}
        for extra in CASES.values()
    ]
    per_rank = run_ranks(train_cases, world, cases)
    tolerance = 1e-5 if dtype == "float32" else 1e-10
    for index, (name, case) in enumerate(zip(CASES, cases, strict=True)):
        try:
            check(case, [results[index] for results in per_rank], tolerance)
        except AssertionError as error:
            raise AssertionError(f"case '{name}' at world size {world}: {error}") from error
