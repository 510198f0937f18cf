"""The comparison of losses on faces: split, pairs and every row executed, shrunk."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.runs.configuration import load_config
from arcface_plus.studies.repeats.runs import Row
from arcface_plus.studies.tables.face_margins import (
    CONFIG,
    chosen_rows,
    face_rows,
)


@pytest.fixture
def path(repository: Path) -> Path:
    return repository / "configs" / "faces" / f"{CONFIG}.yaml"


@pytest.fixture
def rows(path: Path) -> tuple[Row, ...]:
    return face_rows(path)


def test_rows_differ_in_the_loss_alone(path: Path, rows: tuple[Row, ...]) -> None:
    plain = load_config(path)
    for row in rows:
        changed = load_config(path, row.overrides)
        back = changed.model_copy(
            update={"head": plain.head, "branch": changed.branch.model_copy(update=OFF)}
        )
        assert back == plain
    heads = {row.label: load_config(path, row.overrides).head for row in rows}
    assert heads["softmax"].logits == "linear"
    assert (heads["CosFace"].margin.m2, heads["CosFace"].margin.m3) == (0, 0.35)
    assert heads["ArcFace"] == plain.head and plain.head.mma_weight == 0
    assert heads["ArcFace+"].mma_weight == 0.03
    adaptive = heads["CurricularFace"].adaptive
    margin = plain.head.margin
    assert adaptive is not None
    assert (adaptive.m, adaptive.s, adaptive.extension) == (margin.m2, margin.s, margin.extension)
    assert load_config(path, rows[-1].overrides).branch.enabled


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
def test_study_trains_every_row_and_writes_the_table(cli, data, rows, tmp_path: Path) -> None:
    shrunk = ["--data.path", data / "train", "--data.workers", 0, "--model.width", 8]
    shrunk += ["--train.steps", 3, "--train.global_batch", 4, "--schedule.warmup_steps", 0]
    shrunk += ["--train.log_every", 1, "--branch.start_step", 0, "--branch.classes", 2]
    shrunk += ["--branch.hard_classes", 3, "--evaluation.folds", 2]
    pairs = f"{{path: {data / 'heldout.txt'}, root: {data / 'test'}}}"
    shrunk += ["--evaluation.sets", f"{{heldout: {data / 'heldout.bin'}, lfw: {pairs}}}"]
    words = ["study", "face-margins", "--output", tmp_path / "out", "--runs", tmp_path / "runs"]
    part = cli(*words, "--train", "--seeds", "1,2", "--rows", "arcface", *shrunk)
    assert part.exit_code == 0, part.stderr
    assert part.stdout.count("not run") == 2 * (len(rows) - 1)
    done = cli(*words, "--train", "--seeds", "1,2", *shrunk)
    assert done.exit_code == 0, done.stderr
    runs = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/verification.json"))
    assert len(runs) == 2 * len(rows) and f"{CONFIG}-arcface-seed1" in runs
    again = cli(*words, "--train", "--seeds", "1,2", *shrunk)  # nothing is left to train
    assert again.exit_code == 0 and "step 1/3" not in again.stdout
    for other, message in (("--train.steps", "steps: 3 → 4"), ("--train.stepz", "stepz")):
        refused = cli(*words, "--train", "--seeds", "1,2", *shrunk, other, 4)
        assert refused.exit_code == 2 and message in refused.stderr
    text = (tmp_path / "out" / "face_margins.md").read_text()
    assert text.count("| 2 |") == 2 * len(rows) and "not run" not in text and "lfw AUC" in text
    lines = (tmp_path / "runs" / f"{CONFIG}-closeness-seed1" / "metrics.jsonl").read_text()
    assert '"diversity"' in lines
    assert (tmp_path / "out" / "face_margins.csv").read_text().count("\n") == 1 + 4 * len(rows)


def study(cli, output: Path, runs: Path, *words: object):
    return cli("study", "face-margins", "--output", output, "--runs", runs, *words)


def test_table_takes_differences_seed_by_seed(cli, finished_run, tmp_path: Path) -> None:
    scores = {"arcface": {1: 0.70, 2: 0.72}, "cosface": {1: 0.71, 2: 0.75, 3: 0.9}}
    for suffix, by_seed in scores.items():
        for seed, accuracy in by_seed.items():
            pairs = {"lfw": {"accuracy": accuracy, "auc": accuracy}}
            log = {"step": 9, "target_angle": 60.0 + seed, "nearest_angle": 70.04}
            name = f"{CONFIG}-{suffix}-seed{seed}"
            finished_run(tmp_path / "runs" / name, seed, pairs=pairs, log=log)
    done = study(cli, tmp_path / "out", tmp_path / "runs")
    assert done.exit_code == 0, done.stderr
    # t quantile of one degree of freedom at 97.5 %: 12.7062; deviation √2 of (1, 3), two pairs
    assert "| CosFace | 3 | 78.67 ± 10.02 (± 24.88) | +2.00 (± 12.71, p = 0.3) |" in done.stdout
    assert "| softmax | not run |  |  |" in done.stdout
    assert "| loss | own class | nearest class |" in done.stdout
    assert "| ArcFace | 61.5° | 70.0° |" in done.stdout and "| softmax | – | – |" in done.stdout
    # The file of the runs gives the same table again, without the runs, with any row as reference.
    kept = tmp_path / "out" / "face_margins.json"
    again = study(cli, tmp_path / "again", kept)
    assert again.exit_code == 0, again.stderr
    for name in ("md", "csv", "tex", "json", "svg"):
        files = [tmp_path / folder / f"face_margins.{name}" for folder in ("out", "again")]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    other = study(cli, tmp_path / "other", kept, "--reference", "cosface", "--seeds", "1,3")
    assert "| ArcFace | 1 | 70.00 | −1.00 |" in other.stdout


def test_margins_of_the_rows_are_those_of_the_file(repository: Path) -> None:
    for name, warmup in (("celeba299_iresnet18", 600), ("faces1446_iresnet18", 1200)):
        path = repository / "configs" / "faces" / f"{name}.yaml"
        row = next(row for row in face_rows(path) if row.label == "CurricularFace")
        assert load_config(path, row.overrides).head.adaptive.warmup_steps == warmup


PAGE = Path(__file__).resolve().parents[3] / "docs" / "face_margins.md"
MARKED = re.compile(
    r"<!-- table of (\w+), differences from (\w+) -->\n(.*?)\n<!-- end -->", re.DOTALL
)
TABLES = MARKED.findall(PAGE.read_text(encoding="utf-8"))


def test_every_committed_file_of_runs_has_its_table_in_the_page() -> None:
    files = {path.stem for path in (PAGE.parent / "results").glob("*_iresnet18.json")}
    assert files and files == {name for name, _, _ in TABLES}


@pytest.mark.parametrize(("name", "reference", "table"), TABLES)
def test_committed_runs_give_the_committed_table(
    cli, repository, tmp_path, name: str, reference: str, table: str
) -> None:
    words = ["--config", name, "--configs", repository / "configs" / "faces"]
    kept = PAGE.parent / "results" / f"{name}.json"
    done = study(cli, tmp_path, kept, *words, "--reference", reference)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "face_margins.md").read_text(encoding="utf-8") == table
    assert (tmp_path / "face_margins.json").read_bytes() == kept.read_bytes()


def test_unknown_rows_and_missing_runs_are_refused(cli, finished_run, rows, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="arcfase"):
        chosen_rows(rows, ["arcfase"])
    answer = cli("study", "face-margins", "--output", tmp_path / "out", "--runs", tmp_path)
    assert answer.exit_code == 2 and "--train" in answer.stderr
    answer = cli("study", "face-margins", "--output", tmp_path / "out", "--optim.lr", "1")
    assert answer.exit_code == 2 and "without --train" in answer.stderr
    answer = cli("study", "face-margins", "--output", tmp_path / "out", "--rows", "arcface")
    assert answer.exit_code == 2 and "without --train" in answer.stderr
    folder = finished_run(tmp_path / f"{CONFIG}-arcface-seed1", 1)
    (folder / "verification.json").write_text('{"results": ')
    answer = cli("study", "face-margins", "--output", tmp_path / "out", "--runs", tmp_path)
    assert answer.exit_code == 2 and "verification.json is damaged" in answer.stderr
    answer = study(cli, tmp_path / "out", tmp_path, "--reference", "sofmax")
    assert answer.exit_code == 2 and "sofmax: no such row; choose of softmax" in answer.stderr
    answer = study(cli, tmp_path / "out", folder / "config.yaml", "--train")
    assert answer.exit_code == 2 and "is a file; to train" in answer.stderr
    (tmp_path / "x.json").write_text('{"format": 1, "runs": [{"row": "softmax"}]}')
    answer = study(cli, tmp_path / "out", tmp_path / "x.json")
    assert answer.exit_code == 2 and "runs.0.seed: Field required" in answer.stderr
    assert not (tmp_path / "out").exists()
