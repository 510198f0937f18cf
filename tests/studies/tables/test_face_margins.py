"""The comparison of losses on faces: split, pairs and every row executed, shrunk."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.runs.configuration import load_config
from arcface_plus.studies.tables.face_margins import (
    CONFIG,
    MEASURES,
    ROWS,
    chosen_rows,
    read_results,
    table_markdown,
    table_rows,
)


def test_rows_differ_in_the_loss_alone(repository: Path) -> None:
    path = repository / "configs" / "faces" / f"{CONFIG}.yaml"
    plain = load_config(path)
    for row in ROWS:
        changed = load_config(path, row.overrides)
        back = changed.model_copy(
            update={"head": plain.head, "branch": changed.branch.model_copy(update=OFF)}
        )
        assert back == plain
    heads = {row.label: load_config(path, row.overrides).head for row in ROWS}
    assert heads["softmax"].logits == "linear"
    assert (heads["CosFace"].margin.m2, heads["CosFace"].margin.m3) == (0, 0.35)
    assert heads["ArcFace"] == plain.head and plain.head.mma_weight == 0
    assert heads["ArcFace+"].mma_weight == 0.03
    adaptive = heads["CurricularFace"].adaptive
    margin = plain.head.margin
    assert adaptive is not None
    assert (adaptive.m, adaptive.s, adaptive.extension) == (margin.m2, margin.s, margin.extension)
    assert load_config(path, ROWS[-1].overrides).branch.enabled


OFF = {"enabled": False}


@pytest.fixture
def data(cli, tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for person in range(9):
        (tmp_path / "crops" / f"p{person}").mkdir(parents=True)
        face = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (56, 56))
        for i in range(4):
            noisy = np.clip(face + rng.integers(0, 30, face.shape), 0, 255).astype(np.uint8)
            (tmp_path / "crops" / f"p{person}" / f"{i}.jpg").write_bytes(encode_jpeg(noisy))
    split = tmp_path / "split"
    words = [tmp_path / "crops", split, "--test-people", 4, "--leave-out", "p7"]
    assert cli("data", "split", *words).exit_code == 0
    words = [split / "test", split, "--name", "heldout", "--folds", 2, "--pairs-per-fold", 3]
    assert cli("data", "pairs", *words, "--size", 56).exit_code == 0
    return split


@pytest.mark.slow
def test_study_trains_every_row_and_writes_the_table(cli, data: Path, tmp_path: Path) -> None:
    shrunk = ["--data.path", data / "train", "--data.workers", 0, "--model.width", 8]
    shrunk += ["--train.steps", 3, "--train.global_batch", 4, "--schedule.warmup_steps", 0]
    shrunk += ["--train.log_every", 1, "--branch.start_step", 0, "--branch.classes", 2]
    shrunk += ["--branch.hard_classes", 3, "--evaluation.folds", 2]
    pairs = f"{{path: {data / 'heldout.txt'}, root: {data / 'test'}}}"
    shrunk += ["--evaluation.sets", f"{{heldout: {data / 'heldout.bin'}, lfw: {pairs}}}"]
    words = ["study", "face-margins", "--output", tmp_path / "out", "--runs", tmp_path / "runs"]
    part = cli(*words, "--train", "--seeds", "1,2", "--rows", "arcface", *shrunk)
    assert part.exit_code == 0, part.stderr
    assert part.stdout.count("not run") == 2 * (len(ROWS) - 1)
    done = cli(*words, "--train", "--seeds", "1,2", *shrunk)
    assert done.exit_code == 0, done.stderr
    runs = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/verification.json"))
    assert len(runs) == 2 * len(ROWS) and f"{CONFIG}-arcface-seed1" in runs
    again = cli(*words, "--train", "--seeds", "1,2", *shrunk)  # nothing is left to train
    assert again.exit_code == 0 and "step 1/3" not in again.stdout
    for other, message in (("--train.steps", "steps: 3 → 4"), ("--train.stepz", "stepz")):
        refused = cli(*words, "--train", "--seeds", "1,2", *shrunk, other, 4)
        assert refused.exit_code == 2 and message in refused.stderr
    text = (tmp_path / "out" / "face_margins.md").read_text()
    assert text.count("| 2 |") == 2 * len(ROWS) and "not run" not in text and "lfw AUC" in text
    lines = (tmp_path / "runs" / f"{CONFIG}-closeness-seed1" / "metrics.jsonl").read_text()
    assert '"diversity"' in lines
    assert (tmp_path / "out" / "face_margins.csv").read_text().count("\n") == 1 + 4 * len(ROWS)


def test_table_takes_differences_seed_by_seed(tmp_path: Path) -> None:
    scores = {"arcface": {1: 0.70, 2: 0.72}, "cosface": {1: 0.71, 2: 0.75, 3: 0.9}}
    for suffix, by_seed in scores.items():
        for seed, accuracy in by_seed.items():
            folder = tmp_path / f"{CONFIG}-{suffix}-seed{seed}"
            folder.mkdir()
            result = {"results": {"lfw": {"accuracy": accuracy, "auc": accuracy}}}
            (folder / "verification.json").write_text(json.dumps(result))
    table = table_rows(read_results(tmp_path, [1, 2, 3]))
    assert {(r["row"], r["measure"]) for r in table} == {
        (label, measure) for label in ("ArcFace", "CosFace") for measure in MEASURES
    }
    cos = next(r for r in table if r["row"] == "CosFace" and r["measure"] == "accuracy")
    assert cos["mean"] == pytest.approx((71 + 75 + 90) / 3) and cos["runs"] == 3
    assert cos["difference"] == pytest.approx(2)
    # t quantile of one degree of freedom at 97.5 %, deviation √2 of (1, 3), two runs
    assert cos["difference_interval"] == pytest.approx(12.7062 * 1.0, rel=1e-4)
    text = table_markdown(table, "accuracy")
    assert "| softmax | not run |" in text and "+2.00 (± 12.71)" in text
    alone = table_rows(read_results(tmp_path, [3]))
    assert alone[0]["row"] == "CosFace" and math.isnan(alone[0]["difference"])
    assert "| CosFace | 1 | 90.00 |  |" in table_markdown(alone, "accuracy")


def test_unknown_rows_and_missing_runs_are_refused(cli, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="arcfase"):
        chosen_rows(["arcfase"])
    answer = cli("study", "face-margins", "--output", tmp_path / "out", "--runs", tmp_path)
    assert answer.exit_code == 2 and "--train" in answer.stderr
    answer = cli("study", "face-margins", "--output", tmp_path / "out", "--optim.lr", "1")
    assert answer.exit_code == 2 and "without --train" in answer.stderr
    answer = cli("study", "face-margins", "--output", tmp_path / "out", "--rows", "arcface")
    assert answer.exit_code == 2 and "without --train" in answer.stderr
    folder = tmp_path / f"{CONFIG}-arcface-seed1"
    folder.mkdir()
    (folder / "verification.json").write_text('{"results": ')
    answer = cli("study", "face-margins", "--output", tmp_path / "out", "--runs", tmp_path)
    assert answer.exit_code == 2 and "verification.json is damaged" in answer.stderr
    assert not (tmp_path / "out").exists()
