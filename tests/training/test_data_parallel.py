"""The net under DDP: compiled, its gradients compressed, the same bits after a resume."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
import torch._dynamo.utils
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

import arcface_plus as ap
from arcface_plus.devices import SideCopies

KINDS = ["--schedule.kind", "milestones", "--schedule.warmup_steps", "0"]


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.slow
def test_a_compiled_net_trains_like_the_other_and_either_resumes_the_other(
    tiny: Path, monkeypatch
) -> None:
    # All of compiling but C++ and Triton code, which takes minutes on a CPU.
    whole = functools.partialmethod(DistributedDataParallel.compile, backend="aot_eager")
    monkeypatch.setattr(DistributedDataParallel, "compile", whole)
    torch._dynamo.utils.counters.clear()
    eager = ap.train(tiny, ["--name", "eager", *KINDS])
    compiled = ap.train(tiny, ["--name", "compiled", "--train.compile", "true", *KINDS])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-4)
    one, other = (load_file(folder / "model.safetensors") for folder in (eager, compiled))
    assert list(one) == list(other)
    assert all(torch.allclose(one[key], other[key], atol=1e-3) for key in one)
    mixed = ["--name", "mixed", *KINDS]
    ap.train(tiny, [*mixed, "--train.steps", "3", "--train.compile", "true"])
    assert losses(ap.train(tiny, mixed, resume="auto")) == pytest.approx(losses(eager), rel=1e-4)


def test_copies_on_the_cpu_are_the_tensors_themselves() -> None:
    images = torch.arange(3)
    (copy,) = SideCopies(torch.device("cpu"))(images)
    assert copy is images
