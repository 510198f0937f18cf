"""No step makes the host wait for a GPU between log steps; found on the CPU, by what it calls.

But a step with a pass of the second branch, which must: see its test.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from watch import HostWaits, NoWaits, as_on_a_gpu

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import UniFace
from arcface_plus.regularizers.nearest import search
from arcface_plus.regularizers.penalty import AngularPenalty
from arcface_plus.runs.train import train
from arcface_plus.training.trainer import Trainer

ONE_PENALTY = ["--head.mma_weight", "0"]
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
    "cosine": ["--regularizer", "{kind: cosine, weight: 0.1, layers: all}", *ONE_PENALTY],
    "riesz": ["--regularizer", "{kind: riesz, weight: 0.1, layers: all}", *ONE_PENALTY],
    "log": ["--regularizer", "{kind: log, weight: 0.1, layers: hidden}"],
    "mhe": ["--regularizer", "{kind: mhe, weight: 0.1, fraction: 0.5, half_space: true}",
            *ONE_PENALTY],
    "smooth-mma": ["--regularizer", "{kind: smooth_mma, weight: 0.1, layers: all}", *ONE_PENALTY],
}  # fmt: skip
MARGINS = {"magface": MagFace, "adaface": AdaFace, "curricularface": CurricularFace,
           "mv_softmax": MVSoftmax, "elasticface": ElasticFace, "uniface": UniFace}  # fmt: skip
ADAPTIVE = tuple(MARGINS)
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
    kept = {k: v for k, v in last.items() if isinstance(v, float) and k not in clocks}
    return {k: v for k, v in kept.items() if not k.endswith("_share")}


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


def test_a_pass_of_the_second_branch_waits(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It decodes images that the scores choose, which the step before has moved on the device."""
    watch_steps(monkeypatch)
    with as_on_a_gpu(), pytest.raises(HostWaits, match="cpu"):
        train(tiny, [*CASES["branch"], *SHORT])


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

    def waiting(trainer, loss, outputs, rate):  # type: ignore[no-untyped-def]
        assert loss.item() > 0
        return update(trainer, loss, outputs, rate)

    monkeypatch.setattr(Trainer, "_update", waiting)
    watch_steps(monkeypatch)
    with as_on_a_gpu(), pytest.raises(HostWaits, match="_local_scalar_dense"):
        train(tiny, SHORT)


@pytest.mark.parametrize("case", [*ADAPTIVE, "arcface", "softmax", "rows"])
def test_a_forward_pass_copies_nothing_that_is_not_pinned(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tensors of a GPU without values; forward alone, as autograd asks for a real device."""
    margins = {"arcface": {"margin": Margin(s=8)}, "softmax": {"margin": None, "bias": True}}
    margins |= {"rows": {"margin": Margin(s=8), "mma_rows": 5, "sample_rate": 0.5}}
    options = margins.get(case) or {"margin": MARGINS[case](), "sample_rate": 0.5}
    head = ClassifierHead(30, 8, **options)
    # What has a device but no memory is neither pinned nor multiplied by a kernel.
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(search, "_ranking", lambda unit: no_ranking)
    with FakeTensorMode(), torch.no_grad():
        for module in head.modules():
            for name, value in [*module._parameters.items(), *module._buffers.items()]:
                if value is not None:
                    fake = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                    kept = nn.Parameter(fake) if name in module._parameters else fake
                    setattr(module, name, kept)
        x = torch.empty(6, 8, device="cuda")
        labels = torch.empty(6, dtype=torch.int64, device="cuda")
        with NoWaits():
            output = head(x, labels, 3)
        assert output.loss.device.type == output.target_cosine.device.type == "cuda"
        with pytest.raises(HostWaits, match=r"cpu to cuda"), NoWaits():
            torch.ones(3).to("cuda")
        with pytest.raises(HostWaits, match=r"cpu to cuda"), NoWaits():
            torch.tensor([1.0, 2.0], device="cuda")


@pytest.mark.parametrize("kind", ["riesz", "log", "mhe", "smooth_mma"])
def test_a_penalty_copies_nothing_that_is_not_pinned(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    penalty = AngularPenalty(kind, fraction=0.5 if kind == "mhe" else 1.0)
    with FakeTensorMode():
        weight = torch.empty(30, 8, device="cuda", requires_grad=True)
        with NoWaits():
            loss = penalty(weight, generator=torch.Generator())
        assert loss.device.type == "cuda" and loss.requires_grad


def no_ranking(table, given):  # type: ignore[no-untyped-def]
    return torch.empty(len(given.queries), dtype=torch.int64, device=given.queries.device)
