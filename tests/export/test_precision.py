from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.export.onnx_file import export_onnx
from arcface_plus.export.precision import CALIBRATION_IMAGES, calibration_images
from arcface_plus.models import load_model

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def quantised(make_network, faces, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    return export_onnx(make_network(), path, precision="int8", calibration=list(faces))


def test_int8_has_a_quarter_of_the_size_and_close_embeddings(
    quantised, make_network, embed_by_hand, faces, tmp_path
):
    whole = export_onnx(make_network(), tmp_path / "whole.onnx")
    assert quantised.stat().st_size < 0.4 * whole.stat().st_size
    model = load_model(quantised)
    found, expected = embed_by_hand(model, faces), embed_by_hand(make_network(), faces)
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert 1e-4 < error.max() < 0.1


def test_int8_is_standard_onnx_with_int8_weights(quantised):
    model = onnx.load(quantised)
    onnx.checker.check_model(model, full_check=True)
    assert {each.domain for each in model.opset_import} == {""}
    kinds = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv", "Gemm"} <= kinds
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    (fc,) = [t for name, t in stored.items() if name.startswith("fc") and "_quantized" in name][:1]
    assert fc.data_type == onnx.TensorProto.INT8


def test_calibration_takes_images_from_all_over():
    images = [np.full((4, 4, 3), i % 256, np.uint8) for i in range(1000)]
    chosen = calibration_images(images, 4, resize=False)
    assert chosen.shape == (CALIBRATION_IMAGES, 4, 4, 3)
    assert chosen[0, 0, 0, 0] == 0 and chosen[-1, 0, 0, 0] == 999 % 256
    few = calibration_images(images[:3], 4, resize=False)
    assert few[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert calibration_images(images[:3], 8, resize=True).shape == (3, 8, 8, 3)
