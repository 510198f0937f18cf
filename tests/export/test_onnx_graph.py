"""ONNX files of others as the source: brought into the same form, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arcface_plus.export.onnx_file import export_onnx
from arcface_plus.models import Preprocessing, load_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

MINE = Preprocessing(mean=127.5, std=64.0, channels="bgr", size=8)


def write_foreign(
    path: Path, *, batch: int | str = "N", first: str = "Conv", flatten: str = "Flatten"
) -> Path:
    """Write Conv (or Mul and Conv) - Conv - Flatten - Gemm, its nodes called "Mul"."""
    helper, from_array = onnx.helper, onnx.numpy_helper.from_array
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.normal(size=(6, 3, 3, 3)),
        "w1": rng.normal(size=(4, 6, 1, 1)),
        "fc": rng.normal(size=(256, 5)) / 16,
        "two": np.full((1, 3, 1, 1), 2.0),
    }
    nodes = {
        "Conv": helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        "Mul": helper.make_node("Mul", ["x", "two"], ["x2"]),
    }
    chosen = [nodes["Conv"]]
    if first == "Mul":
        chosen = [nodes["Mul"], helper.make_node("Conv", ["x2", "w0"], ["a"], pads=[1, 1, 1, 1])]
    chosen += [
        helper.make_node("Conv", ["a", "w1"], ["b"]),
        {
            "Flatten": helper.make_node("Flatten", ["b"], ["c"]),
            "Reshape": helper.make_node("Reshape", ["b", "one row"], ["c"]),
        }[flatten],
        helper.make_node("Gemm", ["c", "fc"], ["embedding"]),
    ]
    for number, node in enumerate(chosen):
        node.name = f"Mul_{number}"
        node.doc_string = "built at /home/someone/net.py"
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 3, 8, 8])
    result = helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, [batch, 5])
    stored = [from_array(w.astype(np.float32), name) for name, w in weights.items()]
    stored.append(from_array(np.array([1, -1]), "one row"))
    graph = helper.make_graph(chosen, "built here", [given], [result], stored)
    opsets = [helper.make_opsetid("", 11)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="other")
    helper.set_model_props(model, {"author": "someone"})
    onnx.save(model, path)
    return path


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


def run(path: Path, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(inputs)})[0]


def as_foreign(images: np.ndarray) -> np.ndarray:
    return ((images[..., ::-1].astype(np.float32) - 127.5) / 64).transpose(0, 3, 1, 2)


def as_client(images: np.ndarray) -> np.ndarray:
    return ((images.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("batch", ["N", 1])
def test_foreign_files_get_the_common_form(tmp_path, images, batch):
    source = write_foreign(tmp_path / "theirs.onnx", batch=batch)
    path = export_onnx(load_model(source, preprocessing=MINE), tmp_path / "ours.onnx")
    each = [run(source, as_foreign(images[i : i + 1])) for i in range(len(images))]
    expected = np.concatenate(each)
    np.testing.assert_allclose(run(path, as_client(images)), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected).max() > 1
    model = onnx.load(path)
    assert not any(node.name.startswith("Mul") for node in model.graph.node)
    assert b"/home/someone" not in path.read_bytes()
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["author"] == "someone" and "arcface_plus.architecture" not in facts
    assert load_model(path).preprocessing == Preprocessing(std=127.5, size=8)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_foreign_files_of_old_opsets_in_other_precisions(tmp_path, images, precision):
    source = load_model(write_foreign(tmp_path / "theirs.onnx"), preprocessing=MINE)
    calibration = list(images) if precision == "int8" else None
    path = tmp_path / "ours.onnx"
    export_onnx(source, path, precision=precision, calibration=calibration)
    expected = run(tmp_path / "theirs.onnx", as_foreign(images))
    found = run(path, as_client(images))
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert 1e-6 < error.max() < {"fp16": 0.01, "int8": 0.1}[precision]
    again = load_model(path)
    assert again.preprocessing == Preprocessing(std=127.5, size=8)
    with pytest.raises(ValueError, match=r"are (fp16|quantised) already.*export from the fp32"):
        export_onnx(again, tmp_path / "twice.onnx", precision="fp16")


def test_what_cannot_be_folded_is_refused_with_the_reason(tmp_path):
    source = write_foreign(tmp_path / "theirs.onnx", first="Mul")
    with pytest.raises(ValueError, match=r"ours.onnx: .*in bgr cannot be folded: the input is not"):
        export_onnx(load_model(source, preprocessing=MINE), tmp_path / "ours.onnx")
    # Where nothing must be folded, any beginning is right, whatever its nodes are called.
    same = load_model(source, preprocessing=Preprocessing(std=127.5, size=8))
    path = export_onnx(same, tmp_path / "ours.onnx")
    assert onnx.load(path).graph.node[0].name == "node_Mul_0"


def test_a_batch_that_is_fixed_inside_the_graph_is_noticed(tmp_path):
    source = write_foreign(tmp_path / "theirs.onnx", batch=1, flatten="Reshape")
    with pytest.raises(ValueError, match=r"cannot run it in batches of 1, 2 and 5 .*a free batch"):
        export_onnx(load_model(source, preprocessing=MINE), tmp_path / "ours.onnx")
    assert not (tmp_path / "ours.onnx").exists()
