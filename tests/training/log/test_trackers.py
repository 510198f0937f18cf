"""What trackers besides metrics.jsonl are told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import arcface_plus as ap


@pytest.fixture
def tiny_run(tiny: Path, tmp_path: Path):
    def train(*words: str) -> Path:
        return ap.train(
            tiny,
            ["--output", str(tmp_path), "--schedule.kind", "milestones", *words],
            resume="auto",
        )

    return train


@pytest.mark.slow
def test_wandb_is_told_the_log_and_a_resumed_run_goes_on_in_the_same_one(
    tiny_run, monkeypatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    told: list[tuple[str, dict[str, Any]]] = []
    log = wandb.Run.log

    def hear(run: Any, values: dict[str, Any], **options: Any) -> None:
        told.append((run.id, dict(values)))
        log(run, values, **options)

    monkeypatch.setattr(wandb.Run, "log", hear)
    folder = tiny_run("--train.wandb", "faces", "--train.steps", "3")
    tiny_run("--train.wandb", "faces", "--train.steps", "6")
    steps = [values["step"] for _, values in told if "train/loss" in values]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert {identity for identity, _ in told} == {(folder / "wandb.txt").read_text().strip()}
    assert len(list((folder / "wandb").glob("offline-run-*/run-*.wandb"))) == 2


def test_without_the_package_nothing_is_begun(tiny_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "arcface_plus\[wandb\]"'):
        tiny_run("--train.wandb", "faces")
    assert not (tmp_path / "tiny").exists()
