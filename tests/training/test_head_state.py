"""What head and optimizers carry between steps, beside weights, is in every checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from arcface_plus import load_model
from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.distributed import start_world
from arcface_plus.runs.configuration import load_config
from arcface_plus.runs.train import train

CONFIG = """
name: whole
seed: 1
data: {source: synthetic, num_classes: 9, images_per_class: 4, size: 32, workers: 0}
model: {name: iresnet18, embedding_dim: 8, width: 8, dropout: 0.2, fix_last_gain: false}
head: {mma_weight: 0.0}
optim: {lr: 0.05}
train: {steps: 4, global_batch: 9, accumulate: 2, log_every: 1, checkpoint_every: 2,
        precision: fp32, device: cpu}
"""
# What to train, and what the checkpoint must hold for it.
HEADS = {
    "linear with bias": (
        ["--head.logits", "linear", "--head.bias", "true"],
        {"head.bias", "momentum.head.bias"},
    ),
    "curricularface": (
        ["--head.adaptive", "{kind: curricularface, s: 8, momentum: 0.5}"],
        {"head.running.t"},
    ),
    "adaface": (
        ["--head.adaptive", "{kind: adaface, s: 8, momentum: 0.5}"],
        {"head.running.mean", "head.running.deviation"},
    ),
    "uniface": (
        ["--head.adaptive", "{kind: uniface, s: 8}", "--head.sample_rate", "0.5"],
        {"head.threshold", "momentum.head.threshold"},
    ),
    "adacos": (["--head.adaptive", "{kind: adacos}"], {"head.running.s"}),
    "sub-centres": (
        ["--head.centres", "3", "--head.sample_rate", "0.5", "--head.mma_weight", "0.1"],
        {"head.centre_counts"},
    ),
    "adamw, sampled": (
        ["--optim.kind", "adamw", "--optim.lr", "0.002", "--head.sample_rate", "0.5"],
        {"exp_avg.head.weight", "step.head.weight", "exp_avg_sq.model.conv1.weight"},
    ),
    "lamb, averaged": (
        ["--optim.kind", "lamb", "--optim.lr", "0.01", "--train.ema", "0.6"],
        {"step.model.conv1.weight", "exp_avg_sq.head.weight", "average.conv1.weight"},
    ),
    "elasticface": (["--head.adaptive", "{kind: elasticface, s: 8, std: 0.2}"], set()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_resumed_run_is_the_uninterrupted_one(tmp_path: Path, name: str) -> None:
    overrides, held = HEADS[name]
    if "lamb" in name:
        pytest.importorskip("timm", reason="the extra timm is absent")
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    whole = train(path, overrides)
    resumed = tmp_path / "resumed"
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step-00000004")
    (resumed / "model.safetensors").unlink()
    train(path, [*overrides, "--name", "resumed"], resume="auto")
    ends = [load_model(run).state_dict() for run in (whole, resumed)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert losses(whole) == losses(resumed)
    with start_world("cpu") as world:
        stored = Checkpoints(whole / "checkpoints", world)
        stored = stored.stored_names(whole / "checkpoints" / "step-00000004")
    assert held <= stored


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


def test_configuration_is_resolved_with_every_number(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    config = load_config(path, HEADS["adaface"][0])
    assert "start_deviation: 100.0" in config.to_yaml()
