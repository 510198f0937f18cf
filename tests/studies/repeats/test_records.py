"""The numbers of a run: out of its folder, into the file of a study, and out of that again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from arcface_plus.runs.configuration import load_config
from arcface_plus.studies.repeats.records import (
    Record,
    read_records,
    read_run,
    read_runs,
    write_records,
)
from arcface_plus.studies.repeats.runs import Run, settings_hash

PAIRS = {
    "lfw": {
        "accuracy": 0.8386666666666667,
        "auc": 1 / 3,
        "eer": 0.2,
        "tar_at_far": {"0.01": 0.5},
        "fold_accuracies": [0.8, 0.9],
        "intervals": {"accuracy": [0.82, 0.85], "basis": "people"},
        "thresholds": [1.2, 1.3],
    }
}
ACCURACY = {
    "final": {"step": 9, "top1": 0.5, "top5": 0.75},
    "mean_of_last": {"top1": 0.4, "top5": 0.7, "evaluations": 2},
    "minimum_angles": {"classifier": 61.5},
}


def test_a_run_survives_the_file_bit_for_bit(finished_run, tmp_path: Path) -> None:
    log = {"step": 50, "target_angle": 61.1, "nearest_angle": math.nan, "loss": 3.0}
    finished_run(tmp_path / "a-seed4", 4, pairs=PAIRS, accuracy=ACCURACY, log=log)
    wanted = [Run("A+", f"a-seed{seed}", Path("x/base.yaml"), seed=seed) for seed in (4, 5)]
    [one] = read_runs(wanted, tmp_path)  # seed 5 was not run
    assert (one.row, one.seed, one.config, one.step) == ("A+", 4, "base", 50)
    assert one.log == {"target_angle": 61.1}, "what is not a number is left out"
    lfw, images = one.sets["lfw"], one.sets["test images"]
    assert (lfw.accuracy, lfw.auc, lfw.fold_accuracies) == (0.8386666666666667, 1 / 3, (0.8, 0.9))
    assert lfw.accuracy_interval == (0.82, 0.85)
    assert lfw.measured == {"accuracy": lfw.accuracy, "auc": 1 / 3, "eer": 0.2, "tar@0.01": 0.5}
    assert images.measured == {"top1": 0.4, "top5": 0.7, "top1_final": 0.5, "top5_final": 0.75}
    assert one.minimum_angles == {"classifier": 61.5}
    write_records([one, one], tmp_path / "runs.json")
    assert read_records(tmp_path / "runs.json") == [one, one]
    assert len((tmp_path / "runs.json").read_text().splitlines()) == 4, "a run a line"
    write_records([], tmp_path / "none.json")
    assert read_records(tmp_path / "none.json") == []


def test_hash_is_of_what_decides_the_result(tiny: Path) -> None:
    plain = settings_hash(load_config(tiny))
    for same in ("--seed 7", "--name other", "--data.path /x", "--data.workers 3", "--output y"):
        assert settings_hash(load_config(tiny, same.split())) == plain
    # Written out or left at its default: the same.
    assert settings_hash(load_config(tiny, ["--optim.nesterov", "false"])) == plain
    hashes = {plain}
    for other in ("--optim.lr 0.06", "--head.margin.m2 0.4", "--train.steps 7"):
        hashes.add(settings_hash(load_config(tiny, other.split())))
    assert len(hashes) == 4


def test_runs_of_an_earlier_release_are_read(finished_run, tmp_path: Path) -> None:
    """What was null and has been removed or renamed since decides nothing."""
    old, new = (finished_run(tmp_path / name, pairs=PAIRS) for name in ("old", "new"))
    text = (old / "config.yaml").read_text() + "model: {name: iresnet18, weights: null}\n"
    (old / "config.yaml").write_text(text)
    (new / "config.yaml").write_text(text.replace(", weights: null", ""))
    run = Run("a", "a", Path("a.yaml"))
    assert read_run(old, run).settings == read_run(new, run).settings
    (old / "config.yaml").write_text(text.replace("null", "x.pth"))
    with pytest.raises(ValueError, match=r"unknown key 'model\.weights'"):
        read_run(old, run)


RECORD = {"row": "a", "seed": 1, "run": "a-seed1", "config": "c", "settings": "0"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"runs": 3}',
        '{"format": 2, "runs": []}',
        json.dumps({"format": 1, "runs": [RECORD | {"seed": True}]}),
        json.dumps({"format": 1, "runs": [RECORD | {"more": 1}]}),
        json.dumps({"format": 1, "runs": [RECORD | {"sets": {"lfw": {"accuracy": "x"}}}]}),
        json.dumps({"format": 1, "runs": [RECORD | {"sets": {"lfw": {"auc": math.inf}}}]}),
        json.dumps({"format": 1, "runs": [RECORD | {"log": {"target_angle": math.nan}}]}),
        json.dumps({"format": 1, "runs": [{k: RECORD[k] for k in ("row", "seed")}]}),
        json.dumps({"format": 1, "runs": [RECORD | {"sets": {"lfw": {"tar_at_far": {"x": 0.5}}}}]}),
    ],
)
def test_another_file_is_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json is not a study's file of its runs: "):
        read_records(tmp_path / "x.json")


def test_the_smallest_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"format": 1, "runs": [RECORD]}))
    assert read_records(tmp_path / "x.json") == [Record(**RECORD)]
