"""The running average of the weights, by hand and in a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from arcface_plus.models import build_model
from arcface_plus.runs.train import train
from arcface_plus.training.updates.average import WeightAverage, scores


def net():
    torch.manual_seed(0)
    return build_model("iresnet18", width=4, size=16, embedding_dim=4)


def test_it_moves_a_little_after_every_step() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = WeightAverage(model, optimizer, 0.75)
    want: dict[str, torch.Tensor] = {}
    for step in range(4):
        model(torch.randn(4, 3, 16, 16)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                value = value.double()
                want[key] = value if step == 0 else 0.75 * want[key] + 0.25 * value
    kept = average.model.state_dict()
    for key, value in want.items():
        torch.testing.assert_close(kept[key].double(), value, rtol=1e-5, atol=1e-6)
    assert not torch.equal(kept["conv1.weight"], model.conv1.weight)
    assert not torch.equal(kept["bn1.running_mean"], model.bn1.running_mean)
    assert {f"average.{key}" for key in kept} | {"average_steps"} == average.tensors().keys()
    assert int(average.tensors()["average_steps"]) == 4


def test_both_are_scored_and_the_average_last() -> None:
    model = net()
    average = WeightAverage(model, torch.optim.SGD(model.parameters(), lr=0.1), 0.5)
    calls = []

    def evaluate(scored, step: int) -> dict[str, float]:
        assert not scored.training
        calls.append(scored)
        return {"number": float(len(calls)), "step": step}

    found = scores(model, average, {"pairs": evaluate}, 7)
    assert calls == [model, average.model]
    assert list(found) == ["pairs", "pairs_of_weights"]
    assert found["pairs"] == {"number": 2.0, "step": 7}
    assert list(scores(model, None, {"pairs": evaluate}, 8)) == ["pairs"]


CONFIG = """
name: average
seed: 1
data: {source: orl, people: [1, 4], size: 32, workers: 0}
model: {name: iresnet18, embedding_dim: 8, width: 4, dropout: 0.0}
optim: {lr: 0.2}
train: {steps: 4, global_batch: 8, log_every: 2, checkpoint_every: 2, precision: fp32, device: cpu,
        ema: 0.5}
evaluation: {sets: {few: {orl: [5, 8]}}, every: 2, folds: 4, raw_pixels: false}
"""


@pytest.mark.slow
def test_a_run_saves_the_average_and_logs_both(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    try:
        folder = train(path)
    except FileNotFoundError:
        pytest.skip("the embedded faces (the extra quickstart) are absent")
    plain = train(path, ["--train.ema", "null", "--name", "plain"])
    saved = [load_file(run / "model.safetensors") for run in (folder, plain)]
    assert not torch.equal(saved[0]["conv1.weight"], saved[1]["conv1.weight"])
    logs = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (folder, plain)
    ]
    kinds = {entry["kind"] for entry in logs[0]}
    assert kinds >= {"verification", "verification_of_weights"}
    losses = [[e["loss"] for e in log if e["kind"] == "train"] for log in logs]
    assert losses[0] == losses[1], "the average changes nothing of the training"
    of_weights = [e["few/auc"] for e in logs[0] if e["kind"] == "verification_of_weights"]
    assert of_weights == [e["few/auc"] for e in logs[1] if e["kind"] == "verification"]
    report = json.loads((folder / "verification.json").read_text())
    assert report["model"]["average_of_weights"] == 0.5
    last = [e for e in logs[0] if e["kind"] == "verification"][-1]
    assert report["results"]["few"]["auc"] == pytest.approx(last["few/auc"])
