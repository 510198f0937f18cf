"""ONNX files as models: signature, preprocessing, damaged files, and a published network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from arcface_plus.models import load_model, model_hash, save_model
from arcface_plus.models.onnx_model import PREPROCESSING_KEY, OnnxModel
from arcface_plus.models.preprocessing import Preprocessing

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SMALL = Preprocessing(size=4)
INPUT = ["N", 3, 4, 4]


def write_flatten(
    path: Path,
    *,
    input_shape: list[str | int],
    output_shape: list[str | int] | None = None,
    preprocessing: Preprocessing | None = None,
    outputs: int = 1,
    input_type: int = onnx.TensorProto.FLOAT,
) -> Path:
    """Write a network that flattens its input: what it should return is plain to see."""
    helper = onnx.helper
    names = [f"embedding{i}" for i in range(outputs)]
    output_shape = output_shape or [input_shape[0], 48]
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["input"], [name]) for name in names],
        "flatten",
        [helper.make_tensor_value_info("input", input_type, input_shape)],
        [helper.make_tensor_value_info(name, input_type, output_shape) for name in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if preprocessing is not None:
        helper.set_model_props(model, {PREPROCESSING_KEY: preprocessing.to_json()})
    onnx.save(model, path)
    return path


def test_stored_preprocessing_is_read_and_can_be_replaced(tmp_path: Path) -> None:
    stored = Preprocessing(std=127.5, size=4, channels="bgr")
    path = write_flatten(tmp_path / "net.onnx", input_shape=INPUT, preprocessing=stored)
    model = load_model(path)
    assert isinstance(model, OnnxModel)
    assert (model.name, model.embedding_dim, model.training) == ("net", 48, False)
    assert model.preprocessing == stored
    assert load_model(path, preprocessing=SMALL).preprocessing == SMALL


def test_foreign_files_need_a_preprocessing(tmp_path: Path) -> None:
    path = write_flatten(tmp_path / "net.onnx", input_shape=INPUT)
    with pytest.raises(ValueError, match=r"net.onnx: .*fix: give --preprocessing"):
        load_model(path)


@pytest.mark.parametrize(
    ("input_shape", "output_shape"),
    [(["N", 3, 4, 4], ["N", 48]), ([1, 3, 4, 4], [1, 48]), (["N", 3, "H", "W"], ["N", "D"])],
)
def test_rows_are_those_of_the_network(
    tmp_path: Path, input_shape: list[str | int], output_shape: list[str | int]
) -> None:
    path = write_flatten(tmp_path / "net.onnx", input_shape=input_shape, output_shape=output_shape)
    model = OnnxModel(path, preprocessing=SMALL)
    assert model.embedding_dim == 48
    x = torch.randn(5, 3, 4, 4).to(memory_format=torch.channels_last)
    assert torch.equal(model(x), x.flatten(1))
    assert model(x.double().requires_grad_()).dtype == torch.float32
    assert model(x[:0]).shape == (0, 48)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"input_shape": ["N", 3, 8, 8]},
            r"tensor\(float\) .*\(N, 3, 4, 4\); fix: give one of its",
        ),
        ({"input_shape": ["N", 1, 4, 4]}, r"float \(N, 3, size, size\); fix: give another"),
        ({"input_shape": [8, 3, 4, 4]}, "batch is fixed at 8"),
        ({"input_shape": INPUT, "outputs": 2}, "one output: this has 1 and 2; fix: .* --detector"),
        ({"input_shape": INPUT, "input_type": onnx.TensorProto.DOUBLE}, r"tensor\(double\)"),
        ({"input_shape": ["N", 3, 4]}, r"float \(N, 3, size, size\)"),
    ],
)
def test_other_signatures_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    path = write_flatten(tmp_path / "net.onnx", **options)
    with pytest.raises(ValueError, match=f"net.onnx: .*{message}"):
        OnnxModel(path, preprocessing=SMALL)


def test_a_detector_is_not_asked_how_faces_must_be_normalised(tmp_path: Path) -> None:
    path = write_flatten(tmp_path / "net.onnx", input_shape=INPUT, outputs=9)
    with pytest.raises(ValueError, match=r"no embedding network.* this has 1 and 9"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"not an onnx file", b"\x08\x08" * 50])
def test_damaged_files_name_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"net.onnx(: onnxruntime cannot| is no ONNX)"):
        load_model(path, preprocessing=SMALL)


def test_damaged_preprocessing_names_the_file(tmp_path: Path) -> None:
    path = write_flatten(tmp_path / "net.onnx", input_shape=INPUT)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {PREPROCESSING_KEY: "{}"})
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"net.onnx: preprocessing lacks channels"):
        load_model(path)


def test_hash_is_that_of_the_file_and_it_cannot_be_saved(tmp_path: Path) -> None:
    path = write_flatten(tmp_path / "net.onnx", input_shape=INPUT, preprocessing=SMALL)
    model = load_model(path)
    assert model_hash(path) == model_hash(model) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="cannot save a OnnxModel"):
        save_model(model, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="no stem"):
        _ = model.stem


def test_published_mobilefacenet_gives_its_published_embeddings(shared_data: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    model = load_model(
        shared_data / "models" / "mobilefacenet_y1.onnx", preprocessing=Preprocessing(std=128.0)
    )
    assert model.embedding_dim == 128
    published = np.load(shared_data / "embeddings" / "lfw_mobilefacenet_y1.npz")
    rows = np.linspace(0, len(published["files"]) - 1, 24).astype(int)
    folder = shared_data / "lfw" / "images"
    bgr = np.stack([cv2.imread(str(folder / str(published["files"][row]))) for row in rows])
    images = torch.from_numpy(bgr[..., ::-1].copy())
    embeddings = sum(
        model(model.preprocessing.apply(batch)) for batch in (images, images.flip(2))
    ).numpy()
    expected = published["emb"][rows]
    error = np.linalg.norm(embeddings - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert error.max() < 1e-4
