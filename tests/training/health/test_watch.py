"""Whole runs whose gradients are not finite under a loss scale."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from arcface_plus import load_model
from arcface_plus.runs.train import train
from arcface_plus.training import trainer
from arcface_plus.training.health.guard import NonFiniteError
from arcface_plus.training.trainer import Trainer

FP16 = ["--train.precision", "fp16", "--train.steps", "22", "--train.checkpoint_every", "5"]
FP16 += ["--train.global_batch", "4", "--schedule.warmup_steps", "0"]
SCALE, FROM, HALVINGS = 2.0**14, 3, 14


@pytest.fixture
def bad_gradients(monkeypatch: pytest.MonkeyPatch):
    """``bad_gradients(steps)``: in these, one number of the net's gradient is NaN, no loss is."""

    def plan(steps) -> None:
        # The scaler of fp16 with convolutions in bf16: halves are slow on a CPU, and overflow.
        monkeypatch.setattr(trainer, "autocast_dtype", lambda precision: torch.bfloat16)
        real = Trainer._forward_backward

        def spoiled(self, *words):
            output = real(self, *words)
            if self.state.step in steps:
                next(self.model.parameters()).grad[0, 0, 0, 0] = math.nan
            return output

        monkeypatch.setattr(Trainer, "_forward_backward", spoiled)

    return plan


def column(folder: Path, key: str) -> list:
    entries = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [entry.get(key) for entry in entries if entry["kind"] == "train"]


@pytest.mark.slow
def test_nan_gradients_that_no_scale_cures_stop_the_run(tiny: Path, bad_gradients) -> None:
    bad_gradients(range(FROM, 5000))
    words, bad = [*FP16, "--train.log_every", "1"], FROM + HALVINGS
    with pytest.raises(NonFiniteError, match=f"step {bad}: .*step-0000{bad}.json"):
        train(tiny, words)
    folder = tiny.parent / "runs" / "tiny"
    scales = column(folder, "loss_scale")
    assert scales[FROM - 1 :] == [SCALE / 2**k for k in range(HALVINGS + 1)] and scales[-1] == 1
    kept = [loss is not None for loss in column(folder, "loss")]
    assert kept == [step < FROM for step in range(bad)]
    path = folder / "forensics" / f"step-0000{bad}.json"
    facts = json.loads(path.read_text())
    assert facts["gradient_norm"] == "nan" and facts["loss_scale"] == 1.0 and facts["loss"] > 0
    # The newest checkpoint is in the middle of the halvings.
    path.unlink()
    with pytest.raises(NonFiniteError, match=f"step {bad}: "):
        train(tiny, words, resume="auto")
    assert column(folder, "loss_scale") == scales and json.loads(path.read_text()) == facts


@pytest.mark.slow
def test_the_limit_counts_them_and_the_scale_stays_at_one(tiny: Path, bad_gradients) -> None:
    bad_gradients(range(FROM, FROM + HALVINGS + 2))
    words = [*FP16, "--train.on_nonfinite", "skip", "--train.log_every", "1"]
    folder = train(tiny, [*words, "--train.nonfinite_limit", "2"])
    assert all(torch.isfinite(value).all() for value in load_model(folder).state_dict().values())
    end = FROM + HALVINGS
    assert column(folder, "loss_scale")[end - 1 :] == [1.0] * (22 - end + 1)
    assert column(folder, "overflows")[-1] == HALVINGS + 2
    assert all(loss is not None for loss in column(folder, "loss")[end + 2 :])
    with pytest.raises(NonFiniteError, match=r"2 skipped steps, more than .*\(1\)"):
        train(tiny, [*words, "--train.nonfinite_limit", "1", "--name", "less"])
