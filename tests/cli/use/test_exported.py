"""An exported ONNX file in place of the model that it was written from."""

from __future__ import annotations

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def export(cli, model, output, *words):
    done = cli("export", "--model", model, "--output", output, *words)
    assert done.exit_code == 0, done.output
    return done.stdout.replace("\n", " ")


@pytest.mark.slow
def test_an_fp32_file_stands_for_its_source_and_no_other_does(cli, calibrated, tmp_path):
    index, face, half = tmp_path / "index.npz", tmp_path / "face.onnx", tmp_path / "half.onnx"
    model, photos = calibrated.model, (calibrated.photo(0), calibrated.photo(1))
    done = cli("embed", "--model", model, "--input", calibrated.photos, "--output", index)
    assert done.exit_code == 0
    export(cli, model, face)
    copy = tmp_path / "copy.safetensors"
    export(cli, model, copy)
    answers = []
    for file in (model, face, copy):
        one = cli("compare", *photos, "--model", file, "--prior", "0.01")
        assert one.exit_code == 0 and "probability" in one.stdout, one.output
        two = cli("search", "--index", index, "--model", file, "--query", photos[0])
        assert two.exit_code == 0 and "likelihood ratio" in two.stdout, two.output
        answers.append((one.stdout, two.stdout))
    assert answers[0] == answers[1] == answers[2]

    assert "calibrate that file anew" in export(cli, face, half, "--precision", "fp16")
    assert not (tmp_path / "half.onnx.calibration.json").exists()
    search = ["search", "--index", index, "--query", photos[0]]
    refused = cli(*search, "--model", half)
    assert refused.exit_code == 2 and "export writes in fp32" in refused.stderr

    stated = '{"mean": 100, "std": 127.5, "channels": "rgb", "size": 32, "flip_sum": true}'
    refused = cli(*search, "--model", face, "--preprocessing", stated)
    assert refused.exit_code == 2 and "made by another model" in refused.stderr

    # Tools that quantise a file keep its metadata.
    file = onnx.load(face)
    weights = file.graph.initializer[0]
    changed = onnx.numpy_helper.to_array(weights) + 1
    weights.CopyFrom(onnx.numpy_helper.from_array(changed, weights.name))
    onnx.save(file, face)
    refused = cli(*search, "--model", face)
    assert refused.exit_code == 2 and "made by another model" in refused.stderr
    refused = cli("compare", *photos, "--model", face)
    assert refused.exit_code == 2 and "of another model" in refused.stderr
