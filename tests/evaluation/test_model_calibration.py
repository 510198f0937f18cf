from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions
from arcface_plus.evaluation.model_calibration import (
    calibrate,
    calibration_file,
    load_calibration,
    save_calibration,
)
from arcface_plus.evaluation.pairs.calibration import fit_ratios
from arcface_plus.evaluation.scoring import Scoring, score_model
from arcface_plus.models import Preprocessing, build_model, model_hash, save_model


def small(seed: int = 0, std: float = 128.0):
    torch.manual_seed(seed)
    preprocessing = Preprocessing(size=32, std=std)
    return build_model(
        "iresnet18", embedding_dim=8, width=8, size=32, preprocessing=preprocessing
    ).eval()


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def entry(model):
    """60 pairs of 12 people, half of them genuine, each person a pattern with noise."""
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (12, 32, 32, 3))
    images = np.clip(people[:, None] + rng.normal(0, 60, (12, 5, 32, 32, 3)), 0, 255)
    who_a = np.arange(60) % 12
    who_b = np.where(np.arange(60) < 30, who_a, (who_a + 1 + np.arange(60) // 12) % 12)
    order = rng.permutation(60)
    pairs = PairSet(
        images.reshape(60, 32, 32, 3).astype(np.uint8),
        (who_a == who_b)[order],
        index_a=(who_a * 5)[order],
        index_b=(who_b * 5 + 1 + np.arange(60) % 4)[order],
        names=[f"p{i // 5}" for i in range(60)],
        folds=5,
        name="patterns",
    )
    scored = score_model(
        Path("m"),
        model,
        [(Path("p"), pairs)],
        Scoring(fars=(0.5, 0.1, 0.01)),
        EmbeddingOptions(flip=False),
        lambda name: nullcontext(lambda done, total: None),
    )
    return scored[0]


def test_what_is_recorded(entry, model, tmp_path):
    found = calibrate(entry)
    assert found.origin.model_hash == model_hash(model) and found.origin.flip is False
    assert found.pairs.name == "patterns" and (found.pairs.basis, found.pairs.units) == (
        "people",
        12,
    )
    assert (found.pairs.genuine, found.pairs.impostor) == (30, 30)
    cosines = 1 - entry.section.distances / 2
    assert found.ratios == fit_ratios(cosines, entry.section.is_same)
    assert [each.far for each in found.thresholds] == [0.5, 0.1], "30 pairs do not resolve 0.01"
    for each in found.thresholds:
        impostors, genuine = cosines[~entry.section.is_same], cosines[entry.section.is_same]
        assert np.mean(impostors > each.cosine + 1e-12) <= each.far
        assert np.mean(genuine > each.cosine + 1e-12) == each.tar > 0
    assert [each.coarse for each in found.thresholds] == [False, True]
    assert 0 < found.held_out.min_cllr <= found.held_out.cllr < 1 and found.held_out.folds == 5
    save_calibration(found, tmp_path / "c.json")
    assert load_calibration(tmp_path / "c.json", model) == found
    assert load_calibration(tmp_path / "none.json", model) is None


def test_threshold_of_choice(entry):
    found = calibrate(entry)
    assert found.threshold().far == 0.5, "the lowest rate that is not coarse"
    assert found.threshold(0.1).far == 0.1
    with pytest.raises(ValueError, match=r"0\.01 is recorded, only for 0\.5, 0\.1"):
        found.threshold(0.01)
    coarse = found.model_copy(update={"thresholds": found.thresholds[1:]})
    assert coarse.threshold().far == 0.1
    assert found.model_copy(update={"thresholds": ()}).threshold() is None


def test_a_calibration_of_another_model_is_refused(entry, model, tmp_path):
    save_calibration(calibrate(entry), tmp_path / "c.json")
    for other in (small(seed=1), small(std=127.5)):
        with pytest.raises(ValueError, match="of another model"):
            load_calibration(tmp_path / "c.json", other)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda held: held.pop("ratios"), "ratios"),
        (lambda held: held.update(format_version=2), "format_version"),
        (lambda held: held.update(more=1), "more"),
        (lambda held: held["ratios"]["cosines"].reverse(), "must not fall"),
        (lambda held: held["ratios"]["log_ratios"].pop(), "as many"),
        (lambda held: held["ratios"].update(log_ratios=["x"]), "log_ratios"),
        (lambda held: held["thresholds"][0].update(far=0), "far"),
        (lambda held: held["thresholds"][0].update(cosine=float("nan")), r"c\.json"),
        (lambda held: held["ratios"]["log_ratios"].__setitem__(0, float("-inf")), r"c\.json"),
    ],
)
def test_damaged_files_are_refused(entry, model, tmp_path, change, match):
    path = tmp_path / "c.json"
    save_calibration(calibrate(entry), path)
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))
    with pytest.raises(ValueError, match=match) as raised:
        load_calibration(path, model)
    assert "calibrate again" in str(raised.value) and "c.json" in str(raised.value)
    for content in (b"", b"{", b"\xff\xfe", b"[1]"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"c\.json: not a calibration"):
            load_calibration(path, model)


def test_where_it_is_kept(model, tmp_path):
    run = tmp_path / "run"
    save_model(model, run / "model.safetensors")
    assert calibration_file(run) == run / "calibration.json"
    assert calibration_file(run / "model.safetensors") == run / "calibration.json"
    save_model(model, tmp_path / "m.safetensors")
    assert calibration_file(tmp_path / "m.safetensors").name == "m.safetensors.calibration.json"
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        calibration_file(tmp_path / "none.onnx")
