"""IR nets of AdaFace and CVLface under our names, against such a net written anew here."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from arcface_plus.models import build_model, load_model, model_hash
from arcface_plus.models.imports.ir_layout import as_iresnet, ir_prefix


class Se(nn.Module):
    """Squeeze-and-excitation by matrix products."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, max(1, channels // 16), 1, bias=False)
        self.fc2 = nn.Conv2d(max(1, channels // 16), channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean(dim=(2, 3)) @ self.fc1.weight[:, :, 0, 0].T
        gates = torch.sigmoid(squeezed.clamp_min(0) @ self.fc2.weight[:, :, 0, 0].T)
        return torch.einsum("nchw,nc->nchw", x, gates)


class Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, se: bool) -> None:
        super().__init__()
        if inputs == outputs:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(conv, nn.BatchNorm2d(outputs))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        if se:
            self.res_layer.add_module("se_block", Se(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class Ir(nn.Module):
    """An IR-18 with 4 channels at the stem, for 32 pixels."""

    def __init__(
        self, depths: tuple[int, ...] = (2, 2, 2, 2), width: int = 4, se: bool = False
    ) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
        )
        units, inputs = [], width
        for stage, depth in enumerate(depths):
            outputs = width * 2**stage
            units += [Unit(inputs, outputs, 2, se)]
            units += [Unit(outputs, outputs, 1, se) for _ in range(depth - 1)]
            inputs = outputs
        self.body = nn.Sequential(*units)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(inputs * 4, 6),
            nn.BatchNorm1d(6, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.output_layer(self.body(self.input_layer(x)))


@pytest.fixture
def net() -> Ir:
    return with_statistics(Ir())


def with_statistics(net: Ir) -> Ir:
    torch.manual_seed(5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0.1, 0.4)
    return net.eval()


def save(path: Path, net: nn.Module, prefix: str, **others: Tensor) -> Path:
    state = {prefix + key: value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state | others} if path.suffix == ".ckpt" else state | others, path)
    return path


@pytest.mark.parametrize(
    ("file", "prefix", "channels"),
    [
        ("cvlface.pt", "net.", "rgb"),
        ("bare.pth", "", "rgb"),
        ("wrapped.pt", "module.model.net.", "rgb"),
        ("adaface.ckpt", "model.", "bgr"),
    ],
)
def test_embeddings_are_those_of_the_ir_net(tmp_path, net, file, prefix, channels) -> None:
    others = {"head.kernel": torch.randn(6, 3)} if prefix else {}
    path = save(tmp_path / file, net, prefix, **others)
    model = load_model(path)
    assert (model.name, model.embedding_dim) == ("iresnet18", 6)
    assert model.architecture["width"] == 4 and model.architecture["plain_shortcut"] is True
    assert (model.preprocessing.std, model.preprocessing.channels) == (127.5, channels)
    assert model.preprocessing.size == 32
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(x), net(x), atol=1e-5) and model(x).abs().max() > 0.1
    assert len(model_hash(path)) == 64


def test_squeeze_and_excitation_loads_too(tmp_path) -> None:
    torch.manual_seed(6)
    net = with_statistics(Ir(width=16, se=True))
    path = save(tmp_path / "se.pt", net, "net.")
    model = load_model(path)
    assert model.architecture["se"] is True
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(x), net(x), atol=1e-5) and model(x).abs().max() > 0.1
    from arcface_plus.models import save_model

    again = load_model(save_model(model, tmp_path / "ours.safetensors"))
    assert torch.equal(again(x), model(x))


def test_a_prefix_before_insightfaces_names_is_taken_off(tmp_path) -> None:
    torch.manual_seed(7)
    ours = build_model("iresnet18", width=8, size=32, embedding_dim=6).eval()
    torch.save({f"net.{k}": v for k, v in ours.state_dict().items()}, tmp_path / "a.pt")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_model(tmp_path / "a.pt")(x), ours(x))


def test_it_trains_and_its_own_file_loads(tmp_path, net) -> None:
    from arcface_plus.models import save_model

    model = load_model(save(tmp_path / "a.pt", net, ""))
    model.train()(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert model.conv1.weight.grad.abs().sum() > 0
    again = load_model(save_model(model, tmp_path / "ours.safetensors"))
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), model.eval()(x))


def test_objects_of_lightning_are_not_made(tmp_path, net, monkeypatch) -> None:
    module = types.ModuleType("absent_lightning")  # where the checkpoint is read it is not there
    module.Callback = type("Callback", (), {"__module__": "absent_lightning"})
    monkeypatch.setitem(sys.modules, "absent_lightning", module)
    state = {f"model.{key}": value for key, value in net.state_dict().items()}
    foreign = module.Callback()
    foreign.best = 3
    torch.save({"state_dict": state, "callbacks": {module.Callback: foreign}}, tmp_path / "a.ckpt")
    monkeypatch.delitem(sys.modules, "absent_lightning")
    assert load_model(tmp_path / "a.ckpt").name == "iresnet18"
    (tmp_path / "a.ckpt").rename(tmp_path / "a.pt")
    with pytest.raises(ValueError, match="refused"):
        load_model(tmp_path / "a.pt")


class _Attack:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_code_in_a_checkpoint_does_not_run(tmp_path, net) -> None:
    mark = tmp_path / "mark"
    content = {"state_dict": net.state_dict(), "callbacks": _Attack(str(mark))}
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a\.ckpt"):
        load_model(tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"b\.ckpt"):
        load_model(tmp_path / "b.ckpt")
    assert not mark.exists()


def test_other_kinds_of_ir_nets_are_refused(tmp_path, net) -> None:
    state = net.state_dict()
    gated = state | {"body.0.res_layer.gate.fc1.weight": torch.zeros(1, 4, 1, 1)}
    with pytest.raises(ValueError, match=r"gate.*another kind"):
        as_iresnet(gated, "")
    without = {key: v for key, v in state.items() if ".res_layer.5." not in key}  # face.evoLVe
    with pytest.raises(ValueError, match="another kind"):
        as_iresnet(without, "")
    torch.save(Ir(depths=(2, 2, 3, 2)).state_dict(), tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt.*9 blocks"):
        load_model(tmp_path / "odd.pt")
    missing = {key: v for key, v in state.items() if key != "body.3.res_layer.4.weight"}
    torch.save(missing, tmp_path / "cut.pt")
    with pytest.raises(ValueError, match=r"layer2\.1\.conv2\.weight"):
        load_model(tmp_path / "cut.pt")


def test_only_one_ir_net_is_an_ir_net() -> None:
    assert ir_prefix({"conv1.weight": torch.zeros(1)}) is None
    stem = torch.zeros(4, 3, 3, 3)
    both = {"a.input_layer.0.weight": stem, "b.input_layer.0.weight": stem}
    assert ir_prefix(both) is None
