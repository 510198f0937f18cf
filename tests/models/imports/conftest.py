"""A small ONNX file whose net has what published face nets have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")


def numbers(name: str, *shape: int, low: float = -0.5):
    return onnx.numpy_helper.from_array(
        np.random.default_rng(len(name) + sum(shape)).uniform(low, 1, shape).astype(np.float32),
        name,
    )


def _write_net(path: Path, *, last: list | None = None, batch: str | int = "N") -> Path:
    """Write Conv-PReLU-Conv-PReLU-Flatten-Gemm-BatchNorm for (3, 8, 8), 5 numbers an embedding."""
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["input", "w1", "b1"], ["a"], kernel_shape=[3, 3], strides=[2, 2],
             pads=[1, 1, 1, 1]),
        node("PRelu", ["a", "s1"], ["b"]),
        node("Conv", ["b", "w2"], ["c"], kernel_shape=[3, 3]),
        node("PRelu", ["c", "s2"], ["d"]),
        node("Flatten", ["d"], ["e"]),
        node("Gemm", ["e", "w3", "b3"], ["f"], transB=1),
        node("BatchNormalization", ["f", "g", "h", "m", "v"], ["embedding"]),
        *(last or []),
    ]  # fmt: skip
    weights = [
        numbers("w1", 6, 3, 3, 3), numbers("b1", 6), numbers("s1", 6, 1, 1), numbers("s2", 1),
        numbers("w2", 7, 6, 3, 3), numbers("w3", 5, 28), numbers("b3", 5), numbers("g", 5, low=0.5),
        numbers("h", 5), numbers("m", 5), numbers("v", 5, low=0.5),
    ]  # fmt: skip
    info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [info("input", kind, [batch, 3, 8, 8])],
        [info(nodes[-1].output[0], kind, [batch, 5])],
        weights,
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, path)
    return path


@pytest.fixture
def write_net() -> Callable[..., Path]:
    """``write_net(path)`` -> the path of an ONNX file, embeddings of 5 numbers for 8 × 8 pixels."""
    return _write_net
