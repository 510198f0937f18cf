"""CIFAR ResNet: layout, and values against torchvision's block with a shortcut written here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from arcface_plus.models import build_model
from arcface_plus.models.classification.resnet import Block, ResNet

# Layers of each net's name: 6n + 2 with n blocks a stage.
DEPTHS = {"resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56, "resnet110": 110}


class ZeroPadded(nn.Module):
    """Shortcut A: the pixels at even places, and zero maps after them, written out one by one."""

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        rows = [x[:, :, row] for row in range(0, height, 2)]
        pixels = torch.stack(rows, dim=2)[..., list(range(0, width, 2))]
        return torch.cat([pixels, x.new_zeros(count, channels, height // 2, width // 2)], dim=1)


class Peer(nn.Module):
    """The same net out of torchvision's blocks, with our names for the parameters."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage, outputs in enumerate((width, 2 * width, 4 * width), start=1):
            layers = []
            for index in range(blocks):
                halve = stage > 1 and index == 0
                layers.append(
                    BasicBlock(inputs, outputs, 2 if halve else 1, ZeroPadded() if halve else None)
                )
                inputs = outputs
            setattr(self, f"layer{stage}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = getattr(self, f"layer{stage}")(x)
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)


@pytest.mark.parametrize(("name", "width", "size"), [("resnet20", 16, 32), ("resnet32", 3, 16)])
def test_values_and_gradients_equal_the_peer(name, width, size):
    torch.manual_seed(0)
    model = build_model(name, width=width, size=size).double()
    peer = Peer((DEPTHS[name] - 2) // 6, width).double()
    peer.load_state_dict(model.state_dict(), strict=True)
    x = torch.randn(4, 3, size, size, dtype=torch.float64)
    pull = torch.randn(4, 4 * width, dtype=torch.float64)
    for net in (model, peer):
        (net(x) * pull).sum().backward()
    ours = dict(model.named_parameters())
    for key, parameter in peer.named_parameters():
        torch.testing.assert_close(ours[key].grad, parameter.grad, rtol=1e-9, atol=1e-9)
    for key, buffer in peer.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[key], buffer)
    with torch.no_grad():
        expected = peer.eval()(x)
        found = model.eval()(x)
        last = model.to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last)
        )
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(last, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_is_that_of_the_name(name):
    with torch.device("meta"):
        model = build_model(name)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == DEPTHS[name]  # and the classifier
    assert not [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert {tuple(m.kernel_size) for m in convolutions} == {(3, 3)}  # shortcuts have no parameters
    assert [m.bias for m in convolutions] == [None] * len(convolutions)
    assert sorted({m.out_channels for m in convolutions}) == [16, 32, 64]


def test_stages_halve_the_image():
    model, seen = build_model("resnet20", width=2), {}
    for stage in ("conv1", "layer1", "layer2", "layer3"):
        model.get_submodule(stage).register_forward_hook(
            lambda _, __, out, stage=stage: seen.update({stage: tuple(out.shape[1:])})
        )
    model(torch.randn(2, 3, 32, 32))
    assert seen == {
        "conv1": (2, 32, 32),
        "layer1": (2, 32, 32),
        "layer2": (4, 16, 16),
        "layer3": (8, 8, 8),
    }


def test_shortcut_passes_every_second_pixel_and_zeros():
    block = Block(2, 4, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 4, 4)  # at or above 0, so that the last ReLU lets it pass
    with torch.no_grad():
        out = block(x)
    torch.testing.assert_close(out[:, :2], x[:, :, ::2, ::2])
    assert out.shape == (1, 4, 2, 2) and not out[:, 2:].any()


def test_names_it_does_not_know():
    with pytest.raises(ValueError, match="'resnet50' is not a CIFAR ResNet"):
        ResNet("resnet50")
