"""``arcface-plus study``: tables from runs, figures, refusals."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from arcface_plus.data.images import encode_jpeg
from arcface_plus.models import build_model, save_model


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for person in range(6):
        (tmp_path / "crops" / str(person)).mkdir(parents=True)
        face = cv2.resize(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), (40, 40))
        for i in range(4):
            name = tmp_path / "crops" / str(person) / f"{i}.jpg"
            noisy = np.clip(face + rng.integers(0, 9, face.shape), 0, 255)
            name.write_bytes(encode_jpeg(noisy.astype(np.uint8)))
    return tmp_path / "crops"


def test_help_names_the_studies(cli) -> None:
    answer = cli("study", "--help")
    assert answer.exit_code == 0
    for name in ("table1", "table2", "table6", "fig1", "fig4", "table3-cost", "accuracy"):
        assert name in answer.stdout


@pytest.mark.slow
def test_faces_trains_what_is_missing_and_writes_the_table(
    cli, crops: Path, tmp_path: Path
) -> None:
    words = ["study", "faces", "--train", "--seeds", "1,2", "--output", tmp_path / "out"]
    words += ["--runs", tmp_path / "runs", "--data.path", crops, "--data.workers", "0"]
    words += ["--train.global_batch", "4", "--train.steps", "2", "--schedule.warmup_steps", "0"]
    words += ["--evaluation.every", "1"]
    answer = cli(*words)
    assert answer.exit_code == 0, answer.stderr
    text = (tmp_path / "out" / "faces.md").read_text()
    assert text.count("| 2 |") == 5 and "not run" not in text and "classifier" in text
    assert (tmp_path / "out" / "faces_angles.png").stat().st_size > 1000
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("accuracy.json")}
    assert len(before) == 10
    assert cli(*words).exit_code == 0  # nothing is left to train
    assert all(p.stat().st_mtime_ns == then for p, then in before.items())
    runs = sorted((tmp_path / "runs").glob("*-seed*"))[:2]
    answer = cli("study", "accuracy", *runs, "--output", tmp_path / "own")
    assert answer.exit_code == 0 and "celeba299_resnet20" in answer.stdout
    answer = cli("study", "fig1", *runs, "--output", tmp_path / "own")
    assert answer.exit_code == 0 and "of 120 pairs above 0.2" in answer.stdout
    assert (tmp_path / "own" / "fig1.svg").is_file()


def test_without_runs_says_how_to_make_them(cli, tmp_path: Path) -> None:
    answer = cli("study", "table5", "--runs", tmp_path, "--output", tmp_path / "out")
    assert answer.exit_code == 2 and "--train" in answer.stderr
    assert not (tmp_path / "out").exists()


def test_settings_without_training_are_refused(cli, tmp_path: Path) -> None:
    answer = cli("study", "table5", "--output", tmp_path, "--optim.lr", "1")
    assert answer.exit_code == 2 and "--optim.lr" in answer.stderr


def test_seeds_must_be_numbers(cli, tmp_path: Path) -> None:
    answer = cli("study", "table5", "--output", tmp_path, "--seeds", "1,x")
    assert answer.exit_code == 2 and "'1,x'" in answer.stderr


def test_fig2_is_drawn(cli, tmp_path: Path) -> None:
    assert cli("study", "fig2", "--output", tmp_path).exit_code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"fig2.svg", "fig2.png", "fig2.csv"}


def test_fig1_needs_different_names(cli, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(build_model("resnet20", size=16).eval(), tmp_path / "m.safetensors")
    path = tmp_path / "m.safetensors"
    answer = cli("study", "fig1", path, path, "--output", tmp_path)
    assert answer.exit_code == 2 and "same name" in answer.stderr


@pytest.mark.slow
def test_cost_is_measured(cli, tmp_path: Path) -> None:
    words = ["study", "table3-cost", "--model", "vgg19_bn", "--width", "4", "--batch", "2"]
    words += ["--rounds", "1", "--methods", "baseline; MMA", "--device", "cpu"]
    answer = cli(*words, "--output", tmp_path)
    assert answer.exit_code == 0, answer.stderr
    table = (tmp_path / "table3_cost.md").read_text()
    assert "L4-3" in answer.stdout
    if Path("/proc/self/clear_refs").exists():  # where peaks can be measured
        assert int(re.search(r"\| MMA \|[^|]*\|[^|]*\| (\d+) \|", table)[1]) > 0
    words[-3] = "baseline; MMMA"
    answer = cli(*words, "--output", tmp_path)
    assert answer.exit_code == 2 and "MMMA" in answer.stderr


def test_damaged_results_are_named(cli, tmp_path: Path) -> None:
    (tmp_path / "x-seed1").mkdir()
    (tmp_path / "x-seed1" / "config.yaml").write_text("name: x\ndata: {source: digits}\n")
    (tmp_path / "x-seed1" / "accuracy.json").write_text("{}")
    answer = cli("study", "accuracy", tmp_path / "x-seed1", "--output", tmp_path / "out")
    assert answer.exit_code == 2 and "accuracy.json" in answer.stderr
