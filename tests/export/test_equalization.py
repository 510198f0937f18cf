"""Equalised networks compute the same, and keep small channels in 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from arcface_plus.export.equalization import equalize_channels, largest_by_channel
from arcface_plus.export.precision import to_int8

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FACES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def write_chain(activation: str = "PRelu", groups: int = 6, *, read_twice: bool = False):
    """Conv - activation - Conv of ``groups`` - Conv; channels differ by powers of ten."""
    helper, rng = onnx.helper, np.random.default_rng(0)
    sizes = 10.0 ** -np.arange(6)
    weights = {
        "w0": rng.normal(size=(6, 3, 3, 3)) * sizes[:, None, None, None],
        "b0": rng.normal(size=6) * sizes,
        "slope": rng.uniform(0.1, 0.4, (6, 1, 1)),
        "w1": rng.normal(size=(6, 6 // groups, 3, 3)) / sizes[:, None, None, None],
        "w2": rng.normal(size=(4, 6, 1, 1)),
    }
    inputs = ["a", "slope"] if activation == "PRelu" else ["a"]
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], pads=[1, 1, 1, 1], name="first"),
        helper.make_node(activation, inputs, ["b"], name="activation"),
        helper.make_node("Conv", ["b", "w1"], ["c"], group=groups, name="depthwise"),
        helper.make_node("Conv", ["c", "w2"], ["y"], name="last"),
    ]
    results = ["y", "b"] if read_twice else ["y"]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [
            helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", "C", "H", "W"])
            for n in results
        ],
        [onnx.numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["y"], {"x": FACES.numpy()})[0]


@pytest.mark.parametrize("activation", ["PRelu", "Relu"])
def test_channels_become_equal_and_the_result_stays(activation):
    model = write_chain(activation)
    expected = run(model)
    before = largest_by_channel(model, ["a"], FACES)["a"]
    assert before.max() / before.min() > 1e4
    equalize_channels(model, FACES)
    after = largest_by_channel(model, ["a"], FACES)["a"]
    np.testing.assert_allclose(after, 1, rtol=1e-5)
    np.testing.assert_allclose(run(model), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("activation", "groups", "read_twice"),
    [("Sigmoid", 6, False), ("PRelu", 1, False), ("PRelu", 2, False), ("PRelu", 6, True)],
)
def test_other_chains_stay_as_they_are(activation, groups, read_twice):
    model = write_chain(activation, groups, read_twice=read_twice)
    before = model.SerializeToString(deterministic=True)
    equalize_channels(model, FACES)
    assert model.SerializeToString(deterministic=True) == before


def test_int8_keeps_small_channels():
    model = write_chain()
    expected = run(model)
    error = np.linalg.norm(run(to_int8(model, FACES)) - expected) / np.linalg.norm(expected)
    assert error < 0.05  # 0.85 without equalisation


def test_the_largest_of_every_channel_is_that_of_torch():
    conv = nn.Conv2d(3, 5, 3, padding=1)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])],
        "conv",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [
            onnx.numpy_helper.from_array(conv.weight.detach().numpy(), "w"),
            onnx.numpy_helper.from_array(conv.bias.detach().numpy(), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    many = FACES.repeat(3, 1, 1, 1) * torch.arange(36).reshape(-1, 1, 1, 1)  # several batches
    found = largest_by_channel(model, ["y"], many)["y"]
    np.testing.assert_allclose(found, conv(many).abs().amax((0, 2, 3)).detach(), rtol=1e-4)
