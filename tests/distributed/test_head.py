"""The governing test: loss and gradients do not depend on how many processes there are."""

from __future__ import annotations

import pytest
import torch
from ranks_head import dense_reference, train_cases

from arcface_plus.losses.margins.adacos import AdaCos
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import UniFace

CASES = {
    "plain": {},
    "one class a rank and fewer": {"classes": 5, "batch": 6},
    "unequal batches": {"shares": [1, 3, 2]},
    "accumulation": {"accumulate": 3},
    "accumulation, unequal": {"accumulate": 2, "shares": [3, 1]},
    "sampled classes": {"rate": 0.1},
    "sampled classes, accumulation": {"rate": 0.1, "accumulate": 2, "shares": [1, 2]},
    "sampled classes, dense gradient": {"rate": 0.1, "dense": True, "shares": [2, 1]},
    "recomputed logits": {"chunk": 64},
    "no penalty": {"mma_weight": 0.0},
    "linear with bias": {"linear": True, "bias": True, "chunk": 64, "shares": [2, 1], "steps": 2},
    "sub-centres": {"centres": 3, "shares": [1, 3, 2]},
    "sub-centres, few classes": {"centres": 2, "classes": 5, "batch": 8, "chunk": 2},
    "sub-centres, sampled": {"centres": 3, "rate": 0.1, "accumulate": 2, "shares": [1, 2]},
    "bias, fewer classes than ranks": {"linear": True, "bias": True, "classes": 3, "batch": 8},
}


# Embeddings of the little net have norms of 0.5 to 2: margins that look at them are set for those.
MARGINS = {
    "mv_am": MVSoftmax(s=16, t=0.3),
    "mv_arc": MVSoftmax("arc", m=0.5, s=16, weighting="fixed"),
    "curricularface": CurricularFace(s=16),
    "magface": MagFace(l_a=0.4, u_a=3, s=16, penalty=0.7),
    "magface_hard": MagFace(l_a=0.4, u_a=3, s=16, penalty=0.7, extension="hard"),
    "adaface": AdaFace(s=16, start_mean=1.0, start_deviation=0.5),
    "elasticface_arc": ElasticFace(s=16, std=0.1),
    "elasticface_cos_plus": ElasticFace("cos", m=0.35, s=16, std=0.1, order="rank"),
    "elasticface_published_plus": ElasticFace(s=16, std=0.1, order="argsort"),
    "uniface": UniFace(s=16, negatives=0.7),
    "adacos": AdaCos(),
    "adacos_fixed": AdaCos(dynamic=False),
}
# What each margin is put through, and in which precision.
SETTINGS = {
    "plain": {"dtype": "float64"},
    "few classes": {"dtype": "float64", "classes": 3, "batch": 8},
    "sampled, accumulated, recomputed, unequal": {
        "dtype": "float32", "rate": 0.1, "accumulate": 2, "shares": [1, 3, 2], "chunk": 16,
        "mma_weight": 0.0,
    },
}  # fmt: skip


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.double() - want).norm() / want.norm().clamp_min(1e-300)).item()


def check(case: dict, results: list[dict], tolerance: float) -> None:
    world = len(results)
    want = dense_reference(case, world)
    for result in results:
        assert result["losses"] == pytest.approx(want["losses"], rel=tolerance)
        assert result["losses"] == results[0]["losses"], "one number, the same on every rank"
        assert result["norm"] == pytest.approx(want["norm"], rel=tolerance)
        for got, expected in zip(result["backbone_grads"], want["backbone_grads"], strict=True):
            assert relative(got, expected) <= tolerance
        for got, expected in zip(result["backbone"], want["backbone"], strict=True):
            assert relative(got, expected) <= tolerance
    assert [r["lo"] for r in results[1:]] == [r["hi"] for r in results[:-1]]
    for sharded in ("weight_grad", "weight", "bias_grad", "bias", "centre_counts"):
        if sharded in results[0]:
            whole = torch.cat([r[sharded] for r in results])
            assert relative(whole, want[sharded]) <= tolerance, sharded
    for result in results:
        for named in ("learned", "learned_grads", "state"):
            assert result[named] == pytest.approx(want.get(named, {}), rel=tolerance), named
            assert result[named] == results[0][named], "equal on every rank"
    if "embedding_grad" in results[0]:
        gathered = torch.cat([r["embedding_grad"] for r in results]) / world
        assert relative(gathered, want["embedding_grad"]) <= tolerance


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_world_size_trains_the_dense_model(run_ranks, world: int) -> None:
    size = {"classes": 1003, "dim": 32, "batch": 24, "steps": 3}
    cases = {
        f"{name}, {dtype}": {**size, "dtype": dtype, **case}
        for dtype in ("float32", "float64")
        for name, case in CASES.items()
    }
    check_all(run_ranks, world, cases)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_margin_trains_the_dense_model(run_ranks, world: int) -> None:
    size = {"classes": 203, "dim": 16, "batch": 24, "steps": 2}
    cases = {
        f"{name}, {setting}": {**size, "margin": margin, **case}
        for name, margin in MARGINS.items()
        for setting, case in SETTINGS.items()
    }
    check_all(run_ranks, world, cases)


def check_all(run_ranks, world: int, cases: dict[str, dict]) -> None:
    # One set of processes for all: starting them costs more than most cases.
    per_rank = run_ranks(train_cases, world, list(cases.values()))
    for index, (name, case) in enumerate(cases.items()):
        tolerance = 1e-5 if case["dtype"] == "float32" else 1e-10
        try:
            check(case, [results[index] for results in per_rank], tolerance)
        except AssertionError as error:
            raise AssertionError(f"case '{name}' at world size {world}: {error}") from error
