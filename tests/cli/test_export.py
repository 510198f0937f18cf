from __future__ import annotations

import json

import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.models import Preprocessing, build_model, load_model, model_hash, save_model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    stated = Preprocessing(size=32)
    save_model(
        build_model("iresnet18", embedding_dim=8, width=8, size=32, preprocessing=stated), path
    )
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder of four people with three images each, and a list of pairs."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    lines = []
    for person in "abcd":
        (folder / person).mkdir()
        for number in range(1, 4):
            image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            (folder / person / f"{person}_{number:04d}.jpg").write_bytes(encode_jpeg(image))
        other = "b" if person == "a" else "a"
        lines += [f"{person}\t{i}\t{j}" for i, j in ((1, 2), (1, 3), (2, 3))]
        lines += [f"{person}\t{i}\t{other}\t{j}" for i, j in ((1, 2), (1, 3), (2, 3))]
    (folder / "pairs.txt").write_text("\n".join(["4\t3", *lines]) + "\n")
    return folder


@pytest.mark.slow
def test_a_card_with_int8_is_a_model_and_measured(cli, weights, faces, tmp_path):
    folder = tmp_path / "card"
    words = ["--precision", "int8", "--calibrate", faces, "--license", "mit", "--data", "noise"]
    pairs = ["--pairs", faces / "pairs.txt", "--root", faces]
    done = cli(
        *("export", "--model", weights, "--output", f"{folder}/", "--data-license", "unknown"),
        *words,
        *pairs,
    )
    assert done.exit_code == 0, done.stderr
    names = {"README.md", "config.json", "model.onnx", "model.safetensors", "model_int8.onnx"}
    assert {path.name for path in folder.iterdir()} == names
    shown = done.stdout.replace("\n", "")
    assert all(f"wrote {folder / name}" in shown for name in names)
    assert shown.count("compared to") == 2
    assert model_hash(load_model(folder)) == model_hash(weights)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    # What the card says of a file is what ``verify`` finds.
    compared = ["--compare", folder, "--json", tmp_path / "r.json"]
    again = cli("verify", "--model", folder / "model_int8.onnx", *pairs, *compared)
    assert again.exit_code == 0, again.stderr
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert result["genuine_pairs"] == result["impostor_pairs"] == 12
    other = result["comparisons"][0]["other"]["accuracy"]
    assert f"| `model_int8.onnx` | pairs | {result['accuracy']:.5f} | {other:.5f} |" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "card"], "give --license"),
        (["--output", "a.onnx", "--precision", "fp8"], "fp32, fp16, int8"),
        (["--output", "a.onnx", "--precision", "int8"], "--calibrate IMAGES"),
        (["--output", "a.onnx", "--calibrate", "nowhere"], "nowhere does not exist"),
        (["--output", "a.onnx", "--pairs", "nowhere.txt"], "nowhere.txt"),
        (["--output", "nowhere/a.onnx"], "does not exist"),
        (["--output", "a.safetensors", "--license", "mit"], "no place for licences"),
    ],
)
def test_bad_requests_end_with_one_line(cli, weights, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    done = cli("export", "--model", weights, *words)
    assert done.exit_code == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
