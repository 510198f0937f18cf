"""The configuration of Table A1 and its study, cut from records and executed, shrunk."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.pairs.sets import save_pairs_bin
from arcface_plus.data.records.reader import RecordWriter
from arcface_plus.runs.configuration import load_config
from arcface_plus.studies.repeats.comparison import Comparison
from arcface_plus.studies.repeats.records import read_runs
from arcface_plus.studies.tables import closeness_table
from arcface_plus.studies.tables.closeness_table import (
    CONFIG,
    ROWS,
    SETS,
    table_markdown,
    table_rows,
    wanted_runs,
)


@pytest.fixture
def config(repository: Path) -> Path:
    return repository / "configs" / "closeness" / f"{CONFIG}.yaml"


def test_rows_differ_in_the_two_weights_alone(config: Path) -> None:
    assert len({row.name for row in ROWS}) == 7
    plain = load_config(config)
    for row in ROWS:
        changed = load_config(config, row.overrides)
        branch = changed.branch
        assert (branch.closeness_weight, branch.diversity_weight) == (row.closeness, row.diversity)
        same = {"closeness_weight": 0.5, "diversity_weight": 2.0}
        back = changed.model_copy(
            update={"name": plain.name, "branch": branch.model_copy(update=same)}
        )
        assert back == plain
    first = ROWS[0]
    assert (first.closeness, first.diversity) == (0.5, 2.0), "the paper's own setting"
    assert all(f"{number:.2f}" in config.read_text() for number in first.paper)


def test_the_schedule_is_in_epochs_of_its_images(config: Path) -> None:
    loaded = load_config(config)
    epoch = 679_000 // loaded.train.global_batch
    assert loaded.train.steps == 25 * epoch and loaded.branch.start_step == 5 * epoch
    assert loaded.schedule.milestones == (10 * epoch, 18 * epoch, 22 * epoch)
    assert "not run here" in config.read_text().lower()


@pytest.fixture
def data(cli, tmp_path: Path) -> Path:
    """Ten of twelve people, cut from a larger file, and the three pair sets."""
    rng = np.random.default_rng(0)
    faces = [cv2.resize(rng.integers(0, 256, (7, 7, 3), np.uint8), (112, 112)) for _ in range(12)]
    with RecordWriter(tmp_path / "all" / "train.rec") as writer:
        for label, face in enumerate(faces):
            for _ in range(1 + label % 4):
                writer.write(encode_jpeg(face), label)
    cut = cli("data", "subset", tmp_path / "all", tmp_path / "cut", "--identities", 10)
    assert cut.exit_code == 0, cut.output
    pairs = [(i % 12, (i if i % 2 else i + 1) % 12) for i in range(20)]
    for name in SETS:
        images = [encode_jpeg(faces[i]) for pair in pairs for i in pair]
        save_pairs_bin(tmp_path / f"{name}.bin", images, [bool(i % 2) for i in range(20)])
    return tmp_path


@pytest.mark.slow
def test_study_trains_what_is_missing_and_writes_the_table(
    cli, data: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closeness_table, "ROWS", ROWS[:2])
    shrunk = ["--data.path", data / "cut" / "train.rec", "--data.num_classes", 10]
    shrunk += ["--data.workers", 1, "--model.width", 8, "--train.device", "cpu"]
    shrunk += ["--train.global_batch", 8, "--train.steps", 2, "--train.log_every", 1]
    shrunk += ["--branch.start_step", 0, "--branch.classes", 3, "--branch.hard_classes", 4]
    for name in SETS:
        shrunk += [f"--evaluation.sets.{name}", data / f"{name}.bin"]
    words = ["study", "table-a1", "--output", data / "out", "--runs", data / "runs"]
    words += ["--configs", config.parent]
    done = cli(*words, "--train", *shrunk)
    assert done.exit_code == 0, done.output
    for row in ROWS[:2]:
        folder = data / "runs" / row.name
        entries = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        first = next(e for e in entries if e["kind"] == "train")
        extra = row.closeness * first["closeness"] + row.diversity * first["diversity"]
        assert first["loss"] == pytest.approx(first["classification"] + extra, rel=1e-6)
    with (data / "out" / "table_a1.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2 and all(0 <= float(row["LFW"]) <= 100 for row in table)
    assert table[1]["IJB-C (paper)"] == "86.33"
    again = cli(*words, "--train", *shrunk)  # nothing is trained anew
    assert again.exit_code == 0 and "step 1/2" not in again.output


def test_table_says_what_was_not_run(finished_run, tmp_path: Path) -> None:
    finished_run(tmp_path / ROWS[2].name, pairs={"lfw": {"accuracy": 0.9876}})
    wanted = wanted_runs(tmp_path)
    table = table_rows(Comparison([run.label for run in wanted], read_runs(wanted, tmp_path)))
    assert [row["LFW"] for row in table] == [None, None, pytest.approx(98.76)] + [None] * 4
    text = table_markdown(table).splitlines()
    assert text[2].startswith("| 1 | 0.5 | 2 | not run | 99.28 | not run | 88.59 |")
    assert "| 98.76 | 99.40 | not run |" in text[4]
    assert "82.55 | 86.02" in text[4]


def test_settings_without_training_are_refused(cli, tmp_path: Path) -> None:
    answer = cli("study", "table-a1", "--output", tmp_path, "--optim.lr", "1")
    assert answer.exit_code == 2 and "without --train" in answer.stderr
