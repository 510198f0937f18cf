"""Runs with a second branch: when it works, what it leaves alone, exact resume, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader, load

from arcface_plus import load_config, load_model
from arcface_plus.data.sources.synthetic import SyntheticFaces
from arcface_plus.distributed import World
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.runs.train import train
from arcface_plus.training.second_branch import SecondBranch

BRANCH = ["--branch.enabled", "true", "--branch.interval", "2", "--branch.classes", "4",
          "--branch.easy", "3", "--branch.hard_classes", "6"]  # fmt: skip


def lines(folder: Path) -> list[dict]:
    entries = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [entry for entry in entries if entry["kind"] == "train"]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).state_dict()


def same(a: Path, b: Path) -> bool:
    first, second = state(a), state(b)
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_before_its_start_a_run_is_the_plain_one_bit_for_bit(tiny: Path) -> None:
    plain = train(tiny)
    late = train(tiny, [*BRANCH, "--name", "late", "--branch.start_step", "4"])
    losses = [[entry["loss"] for entry in lines(folder)] for folder in (plain, late)]
    assert losses[0][:4] == losses[1][:4] and losses[0][4] != losses[1][4]
    assert ["closeness" in entry for entry in lines(late)] == [False] * 4 + [True, False]
    assert all("closeness" not in entry for entry in lines(plain))
    (first, second) = (tensors_at(folder, 3) for folder in (plain, late))
    assert first.keys() == second.keys() - {"branch.scores"}
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert second["branch.scores"].count_nonzero() > 0, "scores are kept from the first step on"


def tensors_at(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, by name."""
    reader = FileSystemReader(folder / "checkpoints" / f"step-{step:08d}")
    known = reader.read_metadata().state_dict_metadata
    wanted = {name: torch.empty(m.size, dtype=m.properties.dtype) for name, m in known.items()}
    load(wanted, storage_reader=reader, no_dist=True)
    return wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [[], ["--branch.mining", "soft", "--head.sample_rate", "0.5"]], ids=["hard", "soft"]
)
def test_a_resumed_run_equals_the_uninterrupted_one(tiny: Path, change: list[str]) -> None:
    options = [*BRANCH, *change, "--model.dropout", "0.3"]
    whole = train(tiny, options)
    cut = whole.parent / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    train(tiny, [*options, "--name", "cut"], resume="auto")
    assert same(whole, cut)
    for key in ("loss", "closeness", "diversity", "hard_classes", "score_threshold"):
        got, want = ([e.get(key) for e in lines(folder)] for folder in (cut, whole))
        assert got == want, key
    assert [e["hard_classes"] > 0 for e in lines(whole) if "hard_classes" in e] == [True] * 3


def test_the_loss_is_the_weighted_sum_and_the_weights_matter(tiny: Path) -> None:
    one = ["--train.steps", "1", "--schedule.warmup_steps", "0"]
    first = lines(train(tiny, [*BRANCH, *one]))[0]
    known = first["classification"] + 0.03 * first["mma"]
    extra = 0.5 * first["closeness"] + 2.0 * first["diversity"]
    assert first["loss"] == pytest.approx(known + extra, rel=1e-6)
    assert first["closeness"] > 0 and first["diversity"] > 0
    alone = [*BRANCH, *one, "--name", "alone", "--branch.diversity_weight", "0",
             "--branch.closeness_weight", "3"]  # fmt: skip
    entry = lines(train(tiny, alone))[0]
    assert entry["loss"] == pytest.approx(known + 3 * first["closeness"], rel=1e-6)


def test_accumulation_learns_the_same_scores(tiny: Path) -> None:
    still = [*BRANCH, "--train.freeze_batch_norm", "true"]
    whole = train(tiny, still)
    parts = train(tiny, [*still, "--name", "parts", "--train.accumulate", "3"])
    for key in ("loss", "closeness", "diversity", "score_threshold"):
        want = [entry.get(key) for entry in lines(whole)]
        got = [entry.get(key) for entry in lines(parts)]
        assert [g is None for g in got] == [w is None for w in want]
        numbers = [(g, w) for g, w in zip(got, want, strict=True) if w is not None]
        assert [g for g, _ in numbers] == pytest.approx([w for _, w in numbers], rel=5e-5, abs=1e-5)


def test_unreadable_images_are_replaced_and_listed(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SyntheticFaces.read

    def sometimes(self, index: int):
        if index % 6 == 2:  # one image of every class
            raise ValueError(f"{self.describe(index)} is damaged")
        return read(self, index)

    monkeypatch.setattr(SyntheticFaces, "read", sometimes)
    options = [*BRANCH, "--branch.easy", "5", "--branch.interval", "1"]
    folder = train(tiny, [*options, "--data.on_bad_image", "quarantine"])
    listed = (folder / "quarantine-rank0.jsonl").read_text().splitlines()
    indices = [json.loads(line)["index"] for line in listed]
    assert len(set(indices)) == len(indices) and all(i % 6 == 2 for i in indices)
    # Every pass takes all six images of a class: more are met than batches alone would meet.
    assert len(indices) > 10
    with pytest.raises(ValueError, match="is damaged"):
        train(tiny, [*options, "--name", "stops"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision(tiny: Path, precision: str) -> None:
    folder = train(tiny, [*BRANCH, "--train.precision", precision, "--train.steps", "3"])
    assert all(np.isfinite(e["closeness"]) for e in lines(folder) if "closeness" in e)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--branch.classes", "13", "--branch.hard_classes", "13"], "there are 13 classes"),
        (["--branch.classes", "8"], r"hard_classes \(6\) must be at least classes \(8\)"),
        (["--branch.start_step", "6"], r"branch\.start_step \(6\) must be below train\.steps"),
        (["--branch.closeness_weight", "0", "--branch.diversity_weight", "0"], "both 0"),
    ],
)
def test_refusals(tiny: Path, change: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny, [*BRANCH, *change])
    assert not (tiny.parent / "runs").exists()


def test_a_pass_that_gives_a_process_no_batch_is_refused(tiny: Path) -> None:
    config = load_config(tiny, [*BRANCH, "--branch.classes", "2", "--branch.easy", "2"])
    source, head = SyntheticFaces(13, 6, size=32), ClassifierHead(13, 16, None)

    def of(ranks: int) -> SecondBranch:
        world = World(0, ranks, torch.device("cpu"))
        parts = {"data": config.data, "train": config.train, "seed": config.seed}
        return SecondBranch(config.branch, world, source=source, head=head, **parts)

    of(3)
    with pytest.raises(ValueError, match="6 images of 2 classes over 4 processes"):
        of(4)


def test_a_branch_cannot_be_changed_or_added_on_the_way(tiny: Path) -> None:
    train(tiny, [*BRANCH, "--train.steps", "3", "--train.checkpoint_every", "3"])
    with pytest.raises(ValueError, match=r"branch\.interval: 2 → 3"):
        train(tiny, [*BRANCH, "--branch.interval", "3"], resume="auto")
    with pytest.raises(ValueError, match=r"branch\.enabled: True → False"):
        train(tiny, [*BRANCH, "--branch.enabled", "false"], resume="auto")
