"""A teacher and an old net add the same at every number of processes; resumed runs are exact."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks_guidance import guided_steps, train_one

from arcface_plus import load_model
from arcface_plus.runs.train import train

STILL = [
    "--train.freeze_batch_norm", "true", "--train.steps", "2", "--schedule.warmup_steps", "0",
    "--optim.lr", "0.001",  # otherwise rounding has grown by the second step
]  # fmt: skip


@pytest.fixture
def words(tiny: Path) -> list[str]:
    few = ["--train.steps", "2", "--schedule.warmup_steps", "0"]
    teacher = train(tiny, ["--name", "teacher", "--model.embedding_dim", "24", *few])
    old = train(tiny, ["--name", "old", "--model.width", "12", *few])
    return [
        "--train.teacher.model", str(teacher), "--train.teacher.cosine", "3",
        "--train.teacher.relational", "5", "--train.compatible_with", str(old),
        "--train.global_batch", "13",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("sample_rate", ["1.0", "0.4"])
def test_losses_and_gradients_do_not_depend_on_ranks(run_ranks, tiny, words, sample_rate) -> None:
    options = [*words, *STILL, "--head.sample_rate", sample_rate, "--train.accumulate", "2"]
    if sample_rate == "1.0":
        options[-1] = "1"  # relations are those of a micro-batch, whose images ranks change
    else:
        options += ["--train.teacher.relational", "0"]
    results = {
        world: run_ranks(guided_steps, world, str(tiny), [*options, "--name", f"world{world}"])
        for world in (1, 2, 3)
    }
    ((single, table),) = results[1]
    assert set(single[0]["measured"]) >= {"teacher_cosine", "compatible"}
    for ranks in (results[2], results[3]):
        for steps, theirs in ranks:
            assert np.array_equal(theirs, table), "stored embeddings have the same bits"
            for got, want, first in zip(steps, single, ranks[0][0], strict=True):
                assert got["loss"] == first["loss"], "the same on every rank"
                assert got["loss"] == pytest.approx(want["loss"], rel=2e-5)
                assert got["measured"] == pytest.approx(want["measured"], rel=2e-5)
                for name in ("net", "projection"):
                    off = (got[name] - want[name]).norm() / want[name].norm()
                    assert off < 1e-4 and want[name].norm() > 0, name
                assert torch.equal(got["projection"], first["projection"])


@pytest.mark.slow
def test_a_resumed_run_of_two_processes_equals_the_uninterrupted_one(
    run_ranks, tiny, words
) -> None:
    run_ranks(train_one, 2, str(tiny), words, "never")
    whole, cut = tiny.parent / "runs" / "tiny", tiny.parent / "runs" / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    (cut / "model.safetensors").unlink()
    run_ranks(train_one, 2, str(tiny), [*words, "--name", "cut"], "auto")
    a, b = load_model(whole).state_dict(), load_model(cut).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
