"""ONNX files as networks to train: equal to onnxruntime, saved without the file, hostile graphs."""

from __future__ import annotations

import base64
import sys
import zlib
from pathlib import Path

import pytest
import torch

from arcface_plus.models import Preprocessing, load_model, model_hash, save_model
from arcface_plus.models.imports import onnx_net
from arcface_plus.models.imports.onnx_net import OnnxNet

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx2torch")

SMALL = Preprocessing(size=8)


@pytest.fixture
def net(tmp_path: Path, write_net) -> OnnxNet:
    return OnnxNet.from_file(write_net(tmp_path / "net.onnx"), SMALL)


@pytest.mark.parametrize("batch", ["N", 1])
def test_it_gives_what_onnxruntime_gives(tmp_path, write_net, batch) -> None:
    path = write_net(tmp_path / "net.onnx", batch=batch)
    net, reference = OnnxNet.from_file(path, SMALL), load_model(path, preprocessing=SMALL)
    x = torch.randn(6, 3, 8, 8)
    with torch.no_grad():
        ours, theirs = net(x), reference(x)
    assert torch.allclose(ours, theirs, atol=1e-5) and theirs.abs().max() > 0.1
    assert (net.embedding_dim, net.preprocessing) == (5, SMALL)


def test_all_weights_learn_slopes_too(net) -> None:
    names = {name for name, _ in net.named_parameters()}
    assert {"net.PRelu.weight", "net.PRelu_1.weight", "net.Conv.bias", "net.Gemm.weight"} <= names
    count = sum(p.numel() for p in net.parameters())
    assert count == 6 * 27 + 6 + 6 + 1 + 7 * 54 + 5 * 28 + 5 + 5 + 5, "all but running statistics"
    net.train()(torch.randn(4, 3, 8, 8)).square().sum().backward()
    gradients = {name: p.grad.abs().sum() for name, p in net.named_parameters()}
    assert gradients["net.Conv.weight"] > 0 and gradients["net.PRelu.weight"] > 0
    assert net.stem is net.net.Conv


def test_it_is_saved_and_loaded_without_the_file(tmp_path, net) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.1)
    (tmp_path / "net.onnx").unlink()
    path = save_model(net, tmp_path / "model.safetensors")
    again = load_model(path)
    x = torch.randn(3, 3, 8, 8)
    assert isinstance(again, OnnxNet) and not again.training
    assert torch.equal(again(x), net(x)) and again.preprocessing == SMALL
    assert model_hash(again) == model_hash(net) == model_hash(path)
    assert save_model(again, tmp_path / "b.safetensors").read_bytes() == path.read_bytes()
    assert len(net.architecture["graph"]) < 3000, "the graph is kept without its weights"


def test_a_wrong_conversion_is_refused(tmp_path, write_net, monkeypatch) -> None:
    path = write_net(tmp_path / "net.onnx")
    right = onnx_net._converted

    def wrong(model):
        module = right(model)
        module.Gemm.bias.data += 1
        return module

    monkeypatch.setattr(onnx_net, "_converted", wrong)
    with pytest.raises(ValueError, match=r"net\.onnx.*differs from onnxruntime by "):
        OnnxNet.from_file(path, SMALL)


def test_an_operator_that_cannot_be_converted_is_named(tmp_path, write_net) -> None:
    path = write_net(
        tmp_path / "net.onnx", last=[onnx.helper.make_node("Hardmax", ["embedding"], ["out"])]
    )
    with pytest.raises(ValueError, match=r"net\.onnx.*cannot convert.*Hardmax"):
        OnnxNet.from_file(path, SMALL)


def test_without_onnx2torch_the_extra_is_named(tmp_path, write_net, monkeypatch) -> None:
    path = write_net(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    with pytest.raises(ValueError, match=r"arcface_plus\[onnx2torch\]"):
        OnnxNet.from_file(path, SMALL)


def packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


@pytest.mark.parametrize(
    "graph",
    [
        "",
        packed(b"")[:-8],
        "&&&",
        base64.b64encode(b"no zlib").decode(),
        packed(b"\xff no protobuf"),
    ],
)
def test_a_damaged_graph_is_refused(graph) -> None:
    with pytest.raises(ValueError, match="graph"):
        OnnxNet("onnx", graph=graph, embedding_dim=5, size=SMALL.size, preprocessing=SMALL)


def test_a_graph_cannot_ask_for_all_memory(net) -> None:
    model = onnx_net._with_zeros(net.architecture["graph"])
    model.graph.initializer[0].dims[0] = 1 << 40
    with pytest.raises(ValueError, match="weights; at most"):
        OnnxNet(
            "onnx",
            graph=onnx_net._without_weights(model),
            embedding_dim=5,
            size=SMALL.size,
            preprocessing=SMALL,
        )
    bomb = packed(bytes(onnx_net._LARGEST_GRAPH + 10))
    assert len(bomb) < 200_000
    with pytest.raises(ValueError, match="graph"):
        OnnxNet("onnx", graph=bomb, embedding_dim=5, size=SMALL.size, preprocessing=SMALL)


def test_published_mobilefacenet_converts(shared_data: Path) -> None:
    net = OnnxNet.from_file(shared_data / "models" / "mobilefacenet_y1.onnx", Preprocessing())
    assert sum(p.numel() for p in net.parameters()) == 993_600
    assert len(net.architecture["graph"]) < 10_000
