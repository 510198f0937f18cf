"""Whole runs in several processes: same numbers as one process, exact resume, other world sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks_training import train_collapsing, train_jobs, train_scored, train_with_a_bad_rank

from arcface_plus import load_model
from arcface_plus.data.batches.order import OrderedSteps
from arcface_plus.data.pairs.sets import save_pairs_bin
from arcface_plus.runs.train import train

CONFIG = """
name: tiny
seed: 1
data: {source: synthetic, num_classes: 13, images_per_class: 6, size: 32, workers: 0,
       augment: {affine: 0.5, rotate: 10, brightness: 0.1}}
model: {name: iresnet18, embedding_dim: 16, width: 8, dropout: 0.2}
head: {margin: {s: 16}}
optim: {lr: 0.05}
schedule: {kind: cosine, warmup_steps: 2}
train: {steps: 6, global_batch: 13, log_every: 1, checkpoint_every: 3, precision: fp32, device: cpu}
"""
# What makes a step independent of the number of ranks: no batch statistics, no dropout masks.
STILL = ["--train.freeze_batch_norm", "true", "--model.dropout", "0.0"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG + f"output: {tmp_path / 'runs'}\n")
    return path


def job(config: Path, name: str, *overrides: str, resume: str = "never") -> dict:
    return {"config": config, "overrides": ["--name", name, *overrides], "resume": resume}


def column(config: Path, name: str, key: str) -> list[float]:
    lines = (config.parent / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [entry.get(key) for entry in map(json.loads, lines) if entry["kind"] == "train"]


def weights(config: Path, name: str) -> dict[str, torch.Tensor]:
    return load_model(config.parent / "runs" / name).state_dict()


def flat(named: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in named.values()])


def interrupted_copy(config: Path, name: str, copy: str) -> None:
    """Make ``copy`` what the run ``name`` was after its first checkpoint."""
    runs = config.parent / "runs"
    shutil.copytree(runs / name, runs / copy)
    shutil.rmtree(runs / copy / "checkpoints" / "step-00000006")
    (runs / copy / "model.safetensors").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_train_like_one_and_resume_exactly(run_ranks, config, world) -> None:
    train(config, ["--name", "one", *STILL])
    run_ranks(train_jobs, world, [job(config, "many", *STILL), job(config, "whole")])
    one, many = (column(config, name, "loss") for name in ("one", "many"))
    assert many == pytest.approx(one, rel=2e-5)
    assert column(config, "many", "target_angle") == pytest.approx(
        column(config, "one", "target_angle"), rel=2e-5
    )
    interrupted_copy(config, "whole", "resumed")
    interrupted_copy(config, "many", "fewer")
    run_ranks(train_jobs, world, [job(config, "resumed", resume="auto")])
    whole, resumed = weights(config, "whole"), weights(config, "resumed")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert column(config, "resumed", "loss") == column(config, "whole", "loss")
    # A checkpoint of several ranks goes on in one, momenta and all.
    train(config, ["--name", "fewer", *STILL], resume="auto")
    assert column(config, "fewer", "loss") == pytest.approx(one, rel=2e-5)


@pytest.mark.slow
def test_compressed_gradients_are_the_gradients_rounded_and_resume_exactly(
    run_ranks, config
) -> None:
    calm = [*STILL, "--optim.lr", "0.0003"]  # at 0.05 the loss rises, and rounding grows with it
    words = ["--train.gradient_compression", "bf16", *calm]
    run_ranks(train_jobs, 2, [job(config, "plain", *calm), job(config, "short", *words)])
    plain, short = column(config, "plain", "loss"), column(config, "short", "loss")
    assert short == pytest.approx(plain, rel=5e-3) and short[2:] != plain[2:]
    interrupted_copy(config, "short", "resumed")
    run_ranks(train_jobs, 2, [job(config, "resumed", *words, resume="auto")])
    short, resumed = weights(config, "short"), weights(config, "resumed")
    assert all(torch.equal(short[key], resumed[key]) for key in short)


PENALTIES = {
    "orthogonal": ["--regularizer.weight", "1e-2"],
    "mhe": ["--regularizer.weight", "0.1", "--regularizer.fraction", "0.3"],
    "mma": ["--regularizer.weight", "0.1", "--train.accumulate", "2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_penalised_layers_and_accuracy_do_not_depend_on_the_processes(
    run_ranks, config, world
) -> None:
    """Of net and class weights, drawn rows and micro-batches included; 10 classes over 3 ranks."""
    words = ["--data.source", "digits", "--data.num_classes", "null", "--head.mma_weight", "0"]
    words += ["--evaluation.accuracy", "true", "--evaluation.every", "3", *STILL]
    words += ["--optim.lr", "0.002"]  # at higher ones the loss rises, and rounding grows with it
    jobs = []
    for kind, own in PENALTIES.items():
        train(config, ["--name", f"one-{kind}", "--regularizer.kind", kind, *own, *words])
        jobs.append(job(config, f"many-{kind}", "--regularizer.kind", kind, *own, *words))
    run_ranks(train_jobs, world, jobs)
    for kind in PENALTIES:
        penalty = "mma" if kind == "mma" else "regularizer"
        for key in ("loss", penalty):
            one, many = (column(config, f"{n}-{kind}", key) for n in ("one", "many"))
            assert many == pytest.approx(one, rel=3e-5), (kind, key)
        results = [
            json.loads((config.parent / "runs" / f"{n}-{kind}" / "accuracy.json").read_text())
            for n in ("one", "many")
        ]
        assert results[0]["final"]["top1"] == pytest.approx(results[1]["final"]["top1"], abs=0.01)
        one, many = (r["minimum_angles"] for r in results)
        assert many == pytest.approx(one, rel=1e-3)


@pytest.mark.slow
def test_non_finite_loss_on_one_rank_stops_or_skips_on_all(run_ranks, config) -> None:
    """The bad rank's samples alone are spoiled: the others must hear of it, at the same step."""
    bad_rank, bad_step = 1, 3
    jobs = [
        job(config, "stop", *STILL),
        job(config, "skip", *STILL, "--train.on_nonfinite", "skip"),
    ]
    for stopped, skipped in run_ranks(train_with_a_bad_rank, 2, jobs, bad_rank, bad_step):
        assert f"step {bad_step}: the loss or its gradient is not finite" in stopped
        assert not skipped
    runs = config.parent / "runs"
    assert not (runs / "stop" / "model.safetensors").exists()
    steps = [p.name for p in (runs / "stop" / "checkpoints").glob("step-*")]
    assert steps == ["step-00000003"], "none of the state after the bad step"
    facts = json.loads((runs / "skip" / "forensics" / f"step-{bad_step:06d}.json").read_text())
    spoiled = [image["index"] for image in facts["images"] if image["embedding_norm"] == "nan"]
    planned = OrderedSteps(78, 13, seed=1, start=0, stop=6).global_indices(bad_step)
    assert sorted(spoiled) == sorted(planned[7:].tolist()), "rank 1's part of 13 images"
    # The run that goes on logs no loss of the bad step, and real ones before and after it.
    logged = [column(config, name, "loss") for name in ("stop", "skip")]
    assert logged[0] == logged[1][:bad_step] and None not in logged[0]
    assert [loss is None for loss in logged[1]] == [step == bad_step for step in range(6)]
    assert all(torch.isfinite(value).all() for value in weights(config, "skip").values())


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_the_best_model_and_patience_on_several_processes(run_ranks, config, world) -> None:
    """All ranks go back to the best step's weights, and stop after the same evaluation."""
    faces = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    save_pairs_bin(config.parent / "pairs.bin", list(faces), [True, False] * 2)
    words = [*STILL, "--evaluation.sets", f"{{pairs: {config.parent / 'pairs.bin'}}}"]
    words += ["--evaluation.folds", "2", "--evaluation.every", "1"]
    words += ["--train.best", "pairs/accuracy", "--train.keep_checkpoints", "1"]
    scores = {1: 0.6, 2: 0.9, 3: 0.7}
    still = ["--schedule.kind", "milestones", "--schedule.warmup_steps", "1"]
    words += still
    for steps in ("2", "4", "6"):
        train(config, ["--name", f"one-{steps}", *STILL, *still, "--train.steps", steps])
    jobs = [job(config, "best", *words), job(config, "gave-up", *words, "--train.patience", "2")]
    run_ranks(train_scored, world, jobs, scores)
    expected = flat(weights(config, "one-2"))
    for name, steps in (("best", 6), ("gave-up", 4)):
        folder = config.parent / "runs" / name
        measured = json.loads((folder / "verification.json").read_text())
        assert measured["model"] == {"step": 2, "chosen_by": "pairs/accuracy"}
        assert [entry["step"] for entry in measured["history"]][-1] == 2
        assert len(column(config, name, "loss")) == steps
        found, last = flat(weights(config, name)), flat(weights(config, f"one-{steps}"))
        assert (found - expected).norm() < 0.02 * (last - expected).norm(), name
        kept = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
        assert kept == ["step-00000002", f"step-{steps:08d}"]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_a_collapse_is_told_once_by_all_processes_together(run_ranks, config, world) -> None:
    name = f"falls-{world}"
    said = run_ranks(train_collapsing, world, [job(config, name, "--optim.lr", "0.5")])
    assert said[0].count("this run is collapsing") == 1
    assert not any("collapsing" in others for others in said[1:])
    lines = (config.parent / "runs" / name / "metrics.jsonl").read_text().splitlines()
    warned = [entry for entry in map(json.loads, lines) if entry["kind"] == "warning"]
    assert ["opposite poles" in entry["message"] for entry in warned] == [True]


def test_batch_too_small_for_the_processes(run_ranks, config) -> None:
    with pytest.raises(AssertionError, match="batch normalisation needs at least 2"):
        run_ranks(train_jobs, 2, [job(config, "small", "--train.global_batch", "3")])
    assert not (config.parent / "runs" / "small").exists()
