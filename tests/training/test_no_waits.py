"""No step makes the host wait for a GPU between log steps; found on the CPU, by what it calls.

The energies and smooth MMA on layers are not among the cases: they do wait, and say so.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from watch import HostWaits, NoWaits, as_on_a_gpu

from arcface_plus.runs.train import train
from arcface_plus.training.trainer import Trainer

SAMPLED = ["--head.sample_rate", "0.4"]
CASES = {
    "arcface": [],
    "fp16": ["--train.precision", "fp16", "--optim.clip_norm", "1", "--train.accumulate", "2"],
    "partial-fc": [*SAMPLED, "--optim.clip_norm", "1", "--train.accumulate", "2"],
    "partial-fc-dense": [*SAMPLED, "--head.sample_dense", "true"],
    "partial-fc-mma-rows": [*SAMPLED, "--head.mma_rows", "5"],
    "mma-rows": ["--head.mma_rows", "5", "--head.class_chunk", "4"],
    "mma-reused": ["--head.mma_refresh_every", "2", "--train.on_nonfinite", "skip"],
    "cosface": ["--head.margin", "{m2: 0, m3: 0.35, s: 16}", "--head.filter_threshold", "0.9"],
    "softmax": ["--head.margin", "{}", "--head.logits", "linear", "--head.bias", "true"],
    "branch": ["--branch.enabled", "true", "--branch.classes", "3", "--branch.hard_classes", "4",
               "--branch.interval", "9"],
    "mma-of-layers": ["--regularizer", "{kind: mma, weight: 0.07, layers: hidden}"],
    "orthogonal": ["--regularizer", "{kind: orthogonal, weight: 0.001, layers: hidden}"],
}  # fmt: skip
ADAPTIVE = ["magface", "adaface", "curricularface", "mv_softmax", "elasticface", "uniface"]
CASES |= {
    kind: ["--head.margin", "{}", "--head.adaptive", f"{{kind: {kind}, s: 16}}", *SAMPLED]
    for kind in ADAPTIVE
}
SHORT = ["--train.steps", "2", "--schedule.warmup_steps", "0"]


def numbers(folder: Path) -> dict[str, float]:
    """Return what the last line of a run's log says of what was computed."""
    entries = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    (*_, last) = (entry for entry in entries if entry["kind"] == "train")
    clocks = ("images_per_second", "data_wait", "seconds_left")
    return {k: v for k, v in last.items() if isinstance(v, float) and k not in clocks}


def watch_steps(monkeypatch: pytest.MonkeyPatch, first: int = 0) -> None:
    """Refuse what waits in steps from ``first`` on: a pass of the branch, at step 0, does wait."""
    step = Trainer.train_step

    def watched(trainer, batch) -> None:  # type: ignore[no-untyped-def]
        with NoWaits() if batch.step >= first else contextlib.nullcontext():
            step(trainer, batch)

    monkeypatch.setattr(Trainer, "train_step", watched)


@pytest.mark.parametrize("case", CASES)
def test_steps_never_wait_and_compute_what_the_cpu_computes(
    case: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*CASES[case], *SHORT]
    expected = numbers(train(tiny, [*options, "--name", "cpu"]))
    watch_steps(monkeypatch, first=1 if case == "branch" else 0)
    with as_on_a_gpu():
        found = numbers(train(tiny, [*options, "--name", "gpu"]))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


PLANTED = {
    "item": lambda x: x[0].item(),
    "if": lambda x: 1 if (x > 0).any() else 0,
    "float": lambda x: float(x.sum()),
    "tolist": lambda x: x.tolist(),
    "mask": lambda x: x[x > 0],
    "written mask": lambda x: x.__setitem__(x > 0, torch.arange(2.0)),
    "unique": lambda x: x.unique(),
    "bincount": lambda x: torch.bincount(x.long()),
    "repeats": lambda x: x.repeat_interleave(x.long()),
    "coalesce": lambda x: torch.sparse_coo_tensor(torch.zeros(1, 4).long(), x, (5,)).coalesce(),
    "numpy": lambda x: x.numpy(),
    "cpu": lambda x: x.cpu(),
    "equal": lambda x: torch.equal(x, x),
    "index of a tensor": lambda x: x[x.long().max()],
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_finds_what_waits(name: str) -> None:
    with pytest.raises(HostWaits), NoWaits():
        PLANTED[name](torch.tensor([0.0, 1, 0, 2]))


def test_finds_what_waits_in_a_step(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = Trainer._update

    def waiting(trainer, loss):  # type: ignore[no-untyped-def]
        assert loss.item() > 0
        return update(trainer, loss)

    monkeypatch.setattr(Trainer, "_update", waiting)
    watch_steps(monkeypatch)
    with as_on_a_gpu(), pytest.raises(HostWaits, match="_local_scalar_dense"):
        train(tiny, SHORT)
