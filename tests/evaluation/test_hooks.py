from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from arcface_plus.data.pairs.sets import PairSet, save_pairs_bin
from arcface_plus.evaluation.hooks import PairEvaluation, open_pair_sets
from arcface_plus.evaluation.report.section import MainNumbers
from arcface_plus.evaluation.settings import EvaluationConfig
from arcface_plus.models import Preprocessing, build_model


@pytest.fixture
def pairs() -> PairSet:
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    same = [(i, i) for i in range(10)]
    other = [(i, i + 1) for i in range(10)]
    rows = [pair for both in zip(same, other, strict=True) for pair in both]
    return PairSet(
        list(faces),
        [True, False] * 10,
        index_a=np.array([a for a, _ in rows]),
        index_b=np.array([b for _, b in rows]),
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(
        "iresnet18", width=8, size=32, embedding_dim=8, preprocessing=Preprocessing(size=32)
    )


def test_numbers_history_and_file(pairs, model, tmp_path: Path) -> None:
    evaluation = PairEvaluation({"mine": pairs}, EvaluationConfig(folds=5))
    for step in (0, 7):
        numbers = evaluation(model, step)
    assert set(numbers) == {f"mine/{key}" for key in ("accuracy", "accuracy_std", "auc", "eer")}
    assert numbers["mine/accuracy"] == evaluation.last["mine"].result.accuracy
    assert model.training, "the trainer's mode comes back"
    evaluation.score_raw_pixels()
    evaluation.write(tmp_path / "v.json", {"step": 10})
    written = json.loads((tmp_path / "v.json").read_text())
    assert [(e["step"], e["set"]) for e in written["history"]] == [(0, "mine"), (7, "mine")]
    assert written["model"] == {"step": 10}
    assert written["untrained_net"]["mine"]["step"] == 0
    assert written["raw_pixels"]["mine"]["accuracy"] >= 0.9, "identical pixels are easy"
    assert written["results"]["mine"]["folds"] == 5
    view = written["results"]["mine"]["distribution"]
    assert view["positives"] + view["negatives"] == len(pairs)


def test_scoring_a_step_again_replaces_it(pairs, model) -> None:
    evaluation = PairEvaluation({"mine": pairs}, EvaluationConfig())
    for step in (3, 3):
        evaluation(model, step)
    assert len(evaluation.history) == 1


def test_recalls_what_an_interrupted_run_logged(pairs, tmp_path: Path) -> None:
    lines = [
        {"step": 1, "kind": "train", "loss": 3.0},
        {"step": 2, "kind": "verification", "mine/accuracy": 0.7, "mine/accuracy_std": 0.1,
         "mine/auc": 0.8, "mine/eer": 0.2, "gone/accuracy": 0.5},
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluation = PairEvaluation({"mine": pairs}, EvaluationConfig())
    evaluation.recall(tmp_path / "metrics.jsonl")
    evaluation.recall(tmp_path / "absent.jsonl")
    (entry,) = evaluation.history
    assert (entry["step"], entry["set"], entry["auc"]) == (2, "mine", 0.8)


def test_report_sections_hold_the_baselines(pairs, model) -> None:
    evaluation = PairEvaluation({"mine": pairs}, EvaluationConfig())
    evaluation(model, 0)
    evaluation(model, 5)
    evaluation.score_raw_pixels()
    (section,) = evaluation.report_sections()
    assert list(section.baselines) == ["raw pixels", "before training"]
    assert isinstance(section.baselines["before training"], MainNumbers)
    assert [step for step, _ in section.history] == [0, 5]
    assert section.result is evaluation.last["mine"].result


def test_absent_set_is_an_error_that_names_it(tmp_path: Path) -> None:
    config = EvaluationConfig.model_validate({"sets": {"lfw": str(tmp_path / "lfw.bin")}})
    with pytest.raises(FileNotFoundError, match=r"evaluation\.sets\.lfw: .*lfw\.bin"):
        open_pair_sets(config, size=112)
    (tmp_path / "lfw.bin").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"evaluation\.sets\.lfw"):
        open_pair_sets(config, size=112)


def test_opens_what_is_there(tmp_path: Path) -> None:
    face = np.zeros((32, 32, 3), np.uint8)
    save_pairs_bin(tmp_path / "a.bin", [face] * 8, [True, False] * 2)
    config = {"sets": {"a": str(tmp_path / "a.bin")}, "folds": 2}
    sets = open_pair_sets(EvaluationConfig.model_validate(config), size=32)
    assert len(sets["a"]) == 4


def test_folds_that_cut_a_set_wrongly_are_found_before_a_run_begins(tmp_path: Path) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    save_pairs_bin(tmp_path / "p.bin", list(faces), [True] * 3 + [False] * 3 + [True, False] * 3)
    sets = {"p": {"path": tmp_path / "p.bin"}}
    assert open_pair_sets(EvaluationConfig(sets=sets, folds=2), size=32)["p"]
    with pytest.raises(ValueError, match=r"evaluation\.sets\.p: fold 1 of 4 .*evaluation\.folds"):
        open_pair_sets(EvaluationConfig(sets=sets, folds=4), size=32)
