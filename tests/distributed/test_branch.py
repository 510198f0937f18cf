"""The second branch is the same at every number of processes: images, loss, gradients, scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from ranks_branch import branch_steps, make_config, with_reference
from ranks_training import train_jobs

from arcface_plus import load_model

CASES = {
    "threshold": {},
    "soft": {"branch": {"mining": "soft"}},
    "accumulation": {"train": {"accumulate": 2}},
    "few images a class": {"data": {"images_per_class": 2, "num_classes": 31}},
    "shards without centres": {
        "data": {"num_classes": 7, "images_per_class": 9},
        "branch": {"classes": 2, "hard_classes": 2},
    },
    "closeness alone": {"branch": {"diversity_weight": 0.0}, "train": {"steps": 1}},
    "diversity alone": {"branch": {"closeness_weight": 0.0}, "train": {"steps": 1}},
    "unreadable images": {"data": {"on_bad_image": "quarantine", "images_per_class": 9}},
}

TOLERANCE = 1e-12  # in float64


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got.double() - want).norm() / want.norm()).item()


def whole_weight(step: int, results: list[dict]) -> torch.Tensor:
    return torch.cat([r["steps"][step]["weight"] for r in results])


def check_first_step(results: list[dict], want: dict) -> None:
    """Against float64 in one process, from the chosen images on."""
    for result in results:
        got = result["steps"][0]
        assert got["loss"] == pytest.approx(want["loss"], rel=TOLERANCE)
        assert got["parts"][:3] == pytest.approx(want["parts"], rel=TOLERANCE)
        assert relative(got["backbone"], want["backbone"]) <= TOLERANCE
    assert relative(whole_weight(0, results), want["weight"]) <= TOLERANCE


def check_same(results: list[dict], single: dict) -> None:
    """Against the same code in one process, over all steps."""
    for result in results:
        for step, (got, want) in enumerate(zip(result["steps"], single["steps"], strict=True)):
            for key in ("batch", "indices", "classes", "rows"):
                assert got[key] == want[key], f"{key} of step {step}"
            assert got["loss"] == results[0]["steps"][step]["loss"], "the same on every rank"
            assert got["loss"] == pytest.approx(want["loss"], rel=TOLERANCE)
            assert got["parts"] == pytest.approx(want["parts"], rel=TOLERANCE, abs=TOLERANCE)
        assert torch.equal(result["scores"], results[0]["scores"]), "the same on every rank"
        # Kept in float32.
        torch.testing.assert_close(result["scores"], single["scores"], rtol=0, atol=1e-6)
    for step, want in enumerate(single["steps"]):
        read = [i for result in results for i in result["steps"][step]["read"] or []]
        assert read == (want["read"] or []), f"images of step {step}"
    listed = {index for result in results for index in result["quarantined"]}
    assert listed == set(single["quarantined"])


@pytest.mark.slow
def test_every_world_size_chooses_and_learns_the_same(run_ranks, tmp_path: Path) -> None:
    cases = list(CASES.values())
    ((single, dense),) = run_ranks(with_reference, 1, cases, tmp_path / "1")
    worlds = {1: [single]}
    for world in (2, 3):
        worlds[world] = run_ranks(branch_steps, world, cases, tmp_path / str(world))
    for world, per_rank in worlds.items():
        for index, name in enumerate(CASES):
            results = [results[index] for results in per_rank]
            try:
                check_first_step(results, dense[index])
                check_same(results, single[index])
            except AssertionError as error:
                raise AssertionError(f"case '{name}' at world size {world}: {error}") from error
    by_case = dict(zip(CASES, single, strict=True))
    first = by_case["unreadable images"]["steps"][0]
    chosen = [index for images in first["indices"] for index in images]
    assert chosen != first["read"], "otherwise nothing was replaced"
    # Every second step has a pass, with 4 classes of 3 + 2 images.
    passes = [step["indices"] for step in by_case["threshold"]["steps"]]
    assert passes[1] is None and len(passes[0]) == len(passes[2]) == 4
    assert all(len(images) == 5 for images in passes[0])
    repeated = by_case["few images a class"]["steps"][0]["indices"]
    assert all(len(set(images)) == 2 for images in repeated)


def job(config: Path, *overrides: str, resume: str = "never") -> dict:
    return {"config": config, "overrides": [*overrides], "resume": resume}


@pytest.mark.slow
def test_a_resumed_run_of_three_processes_equals_the_uninterrupted_one(
    run_ranks, tmp_path: Path
) -> None:
    """With batch statistics, dropout and unequal batches: everything a checkpoint must hold."""
    changes = {
        "train": {"freeze_batch_norm": False, "steps": 6, "checkpoint_every": 3, "log_every": 1},
        "model": {"dropout": 0.2},
    }
    path = tmp_path / "branch.yaml"
    path.write_text(make_config(changes, tmp_path / "runs").to_yaml())
    run_ranks(train_jobs, 3, [job(path)])
    whole, cut = tmp_path / "runs" / "branch", tmp_path / "runs" / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    (cut / "model.safetensors").unlink()
    run_ranks(train_jobs, 3, [job(path, "--name", "cut", resume="auto")])
    a, b = load_model(whole).state_dict(), load_model(cut).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    logs = [
        [
            (e["loss"], e.get("closeness"), e.get("diversity"), e.get("score_threshold"))
            for e in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            if e["kind"] == "train"
        ]
        for folder in (whole, cut)
    ]
    assert logs[0] == logs[1] and [entry[1] is None for entry in logs[0]] == [False, True] * 3
