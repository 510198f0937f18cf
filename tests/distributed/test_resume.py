"""A run that goes on at another number of processes, again and again, is the run of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from ranks_resume import train_noting_images

from arcface_plus.checkpoints.metadata import SafeReader, read_metadata

# Batch statistics frozen, no dropout: what is left of a rank is how sums are split.
CONFIG = """
name: one
seed: 1
data: {source: synthetic, num_classes: 13, images_per_class: 6, size: 32, workers: 0}
model: {name: iresnet18, embedding_dim: 16, width: 8, dropout: 0.0}
head: {adaptive: {kind: curricularface, s: 16, m: 0.3}}
optim: {lr: 0.02}
schedule: {kind: milestones, milestones: [7]}
branch: {enabled: true, interval: 2, classes: 3, hard_classes: 4, easy: 3, hard: 1}
train: {steps: 15, global_batch: 13, log_every: 1, checkpoint_every: 3, precision: fp32,
        device: cpu, freeze_batch_norm: true}
"""
# Of a tensor's largest entry, in float64.
TOLERANCE = 1e-11


def tensors_of(snapshot: Path) -> dict[str, torch.Tensor]:
    known = read_metadata(snapshot).state_dict_metadata
    wanted = {
        name: torch.empty(m.size, dtype=m.properties.dtype)
        for name, m in known.items()
        if not name.startswith("random.")
    }
    dcp.load(wanted, storage_reader=SafeReader(snapshot), no_dist=True)
    return wanted


def images(ranks: list) -> dict[int, list[tuple]]:
    """Return the images of each step and pass, in order, from what every rank saw."""
    steps: dict[int, list[tuple]] = {}
    for seen in zip(*ranks, strict=True):
        assert len({step for step, _ in seen}) == 1
        steps.setdefault(seen[0][0], []).extend(i for _, mine in seen for i in mine)
    return steps


@pytest.mark.slow
def test_resumed_by_1_2_3_1_and_4_processes(run_ranks, tmp_path: Path) -> None:
    config = tmp_path / "one.yaml"
    config.write_text(CONFIG + f"output: {tmp_path / 'runs'}\n")
    whole = images(run_ranks(train_noting_images, 1, str(config), [], "never"))
    parts: dict[int, list[tuple]] = {}
    for number, world in enumerate([1, 2, 3, 1, 4]):
        words = ["--name", "many", "--train.steps", str(3 * (number + 1))]
        resume = "auto" if number else "never"
        parts |= images(run_ranks(train_noting_images, world, str(config), words, resume))
    assert parts == whole and len(whole) == 15
    one, many = (
        tmp_path / "runs" / name / "checkpoints" / "step-00000015" for name in ("one", "many")
    )
    want, got = tensors_of(one), tensors_of(many)
    assert want.keys() == got.keys()
    kinds = ("head.weight", "momentum.head.weight", "head.running", "branch.scores", "momentum.mod")
    assert all(any(name.startswith(kind) for name in want) for kind in kinds)
    far = {
        name: (value - got[name]).abs().max().item() / value.abs().max().item()
        for name, value in want.items()
        if value.is_floating_point() and value.abs().max() > 0
    }
    assert max(far.values()) < TOLERANCE, sorted(far.items(), key=lambda item: -item[1])[:5]
    first = json.loads((one / "state.json").read_text())
    last = json.loads((many / "state.json").read_text())
    differing = {key for key in first if first[key] != last[key]}
    assert differing <= {"world_size", "config", "losses"} and last["world_size"] == 4
    recent = [[x for x in end["losses"]["recent"] if x is not None] for end in (first, last)]
    assert len(recent[0]) == 15 and recent[1] == pytest.approx(recent[0], rel=TOLERANCE)
