"""A checkpoint of several ranks holds what a margin keeps and learns, for any number of ranks."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from ranks_training import train_jobs

from arcface_plus.runs.train import train

CONFIG = """
name: whole
seed: 1
data: {source: synthetic, num_classes: 13, images_per_class: 6, size: 32, workers: 0}
model: {name: iresnet18, embedding_dim: 16, width: 8, dropout: 0.0}
head: {mma_weight: 0.0}
optim: {lr: 0.05, clip_norm: 1.0}
train: {steps: 4, global_batch: 13, log_every: 1, checkpoint_every: 2, precision: fp32, device: cpu,
        freeze_batch_norm: true}
"""
KINDS = {
    "uniface": ["--head.adaptive", "{kind: uniface, s: 8}"],
    "adaface": [
        "--head.adaptive",
        "{kind: adaface, s: 8, momentum: 0.5, start_mean: 4, start_deviation: 1}",
    ],
    "curricularface": ["--head.adaptive", "{kind: curricularface, s: 8, momentum: 0.5}"],
    "adacos": ["--head.adaptive", "{kind: adacos}"],
    "adamw": ["--optim.kind", "adamw", "--optim.lr", "0.001", "--head.sample_rate", "0.5"],
    "averaged": ["--train.ema", "0.5", "--head.margin.s", "8"],
    "sub-centres": ["--head.centres", "3", "--head.mma_weight", "0.1", "--head.margin.s", "8"],
}


if importlib.util.find_spec("timm"):
    KINDS["lamb"] = ["--optim.kind", "lamb", "--optim.lr", "0.01"]


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.slow
def test_two_ranks_train_like_one_and_one_goes_on_where_they_stopped(run_ranks, tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    words = {kind: [*own, "--name", f"{kind}-two"] for kind, own in KINDS.items()}
    run_ranks(train_jobs, 2, [{"config": path, "overrides": some} for some in words.values()])
    for kind, overrides in words.items():
        one = train(path, [*overrides, "--name", f"{kind}-one"])
        two = tmp_path / f"{kind}-two"
        assert losses(two) == pytest.approx(losses(one), rel=2e-5), kind
        shutil.rmtree(two / "checkpoints" / "step-00000004")
        (two / "model.safetensors").unlink()
        train(path, overrides, resume="auto")
        assert losses(two) == pytest.approx(losses(one), rel=2e-5), kind
