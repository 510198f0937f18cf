"""Random state dicts and a small ONNX file that the network tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
MakeState = Callable[[Shapes], dict[str, Tensor]]


@pytest.fixture
def make_state() -> MakeState:
    """Fill a layout with float64 values that keep a deep network's activations of order one."""

    def make(shapes: Shapes) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        state = {}
        for key, shape in shapes.items():
            normal = torch.randn(shape, generator=generator, dtype=torch.float64)
            uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
            if key.endswith("num_batches_tracked"):
                state[key] = torch.tensor(7)
            elif key.endswith("running_var"):
                state[key] = 0.5 + uniform
            elif key.endswith(("running_mean", "bias")):
                state[key] = 0.3 * normal
            elif len(shape) == 1:  # gains of batch norms, slopes of PReLUs
                state[key] = 0.3 + uniform
            else:
                state[key] = normal * (2 / torch.Size(shape[1:]).numel()) ** 0.5
        return state

    return make


def _numbers(name: str, *shape: int, low: float = -0.5) -> Any:
    onnx = pytest.importorskip("onnx")
    return onnx.numpy_helper.from_array(
        np.random.default_rng(len(name) + sum(shape)).uniform(low, 1, shape).astype(np.float32),
        name,
    )


def _write_net(path: Path, *, last: list | None = None, batch: str | int = "N") -> Path:
    """Write Conv-PReLU-Conv-PReLU-Flatten-Gemm-BatchNorm for (3, 8, 8), 5 numbers an embedding."""
    onnx = pytest.importorskip("onnx")
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
        _numbers("w1", 6, 3, 3, 3), _numbers("b1", 6), _numbers("s1", 6, 1, 1), _numbers("s2", 1),
        _numbers("w2", 7, 6, 3, 3), _numbers("w3", 5, 28), _numbers("b3", 5),
        _numbers("g", 5, low=0.5), _numbers("h", 5), _numbers("m", 5), _numbers("v", 5, low=0.5),
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
