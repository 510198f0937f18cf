"""Networks of timm with ArcFace's head."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_plus.models import build_model, load_model, save_model
from arcface_plus.models.face.timm_net import TimmNet

timm = pytest.importorskip("timm", reason="the extra timm is absent")
# A map of channels first, tokens, and a map of channels last with tables that no state dict holds.
NETS = {
    "timm:mobilenetv3_small_050": 64,
    "timm:vit_tiny_patch16_224": 64,
    "timm:swin_tiny_patch4_window7_224": 32,
}


def small(name: str, **options: object) -> TimmNet:
    torch.manual_seed(0)
    model = build_model(name, **({"size": NETS.get(name, 64), "embedding_dim": 8} | options))
    assert isinstance(model, TimmNet)
    return model


def norm(layer: torch.nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch norm over the second dimension, by hand."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    scale = layer.weight / (layer.running_var + 1e-5).sqrt()
    return (x - layer.running_mean.view(shape)) * scale.view(shape) + layer.bias.view(shape)


@pytest.mark.parametrize("name", NETS)
def test_the_head_reads_all_features_of_timms_net(name: str, tmp_path: Path) -> None:
    model = small(name)
    x = torch.randn(6, 3, NETS[name], NETS[name])
    model(x).square().sum().backward()  # in training: statistics move
    missing = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []  # DDP would wait for them
    model.eval()
    short = name.removeprefix("timm:")
    sized = {} if "mobile" in name else {"img_size": NETS[name]}
    theirs = timm.create_model(short, num_classes=0, global_pool="", **sized).eval()
    theirs.load_state_dict(model.net.state_dict())
    with torch.no_grad():
        features = theirs.forward_features(x)
        if "mobile" in name:
            channels_first = features.flatten(2)
        else:
            channels_first = features.flatten(1, -2).transpose(1, 2)
        hidden = norm(model.bn, channels_first).flatten(1)
        expected = norm(model.features, F.linear(hidden, model.fc.weight, model.fc.bias))
        assert expected.std() > 0.01
        torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)
        loaded = load_model(save_model(model, tmp_path / "net.safetensors"))
        assert torch.equal(loaded(x), model(x))
    assert loaded.name == name and loaded.architecture == model.architecture
    assert loaded.architecture["dropout"] == 0.4


def test_the_last_gain_is_fixed_unless_asked() -> None:
    name = "timm:mobilenetv3_small_050"
    assert not small(name).features.weight.requires_grad
    assert small(name, fix_last_gain=False).features.weight.requires_grad


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm:mobilnetv3_small_050", {}, "timm has no network.*nearest names are mobilenetv3_sm"),
        ("timm:hf-hub:someone/net", {}, "timm has no network 'hf-hub:someone/net'"),
        ("timm:local-dir:/tmp", {}, "timm has no network"),
        ("timm:", {}, "timm has no network ''"),
        ("timm:vit_tiny_patch16_224", {"size": 8}, "cannot take 8 pixels"),
        ("timm:resnet18", {"width": 8}, "timm:resnet18 has no option width"),
        ("timm:resnet18", {"dropout": 1.5}, "dropout must be"),
    ],
)
def test_what_timm_lacks_is_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(name, **options)


def test_a_file_cannot_make_timm_load_from_elsewhere(tmp_path: Path) -> None:
    path = save_model(small("timm:mobilenetv3_small_050"), tmp_path / "net.safetensors")
    with safetensors.safe_open(path, framework="pt") as file:
        text = file.metadata()["arcface_plus"]
    description = json.loads(text)
    description["architecture"]["name"] = f"timm:local-dir:{tmp_path}"
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, {"arcface_plus": json.dumps(description)})
    with pytest.raises(ValueError, match=r"net\.safetensors: timm has no network 'local-dir"):
        load_model(path)


def test_without_timm_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r'needs timm: pip install "arcface_plus\[timm\]"'):
        build_model("timm:resnet18")
