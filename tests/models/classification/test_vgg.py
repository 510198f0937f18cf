"""VGG with batch norm: torchvision's layers, weights and values."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from arcface_plus.models import build_model
from arcface_plus.models.classification.vgg import Vgg

THEIRS = {"vgg16_bn": torchvision.models.vgg16_bn, "vgg19_bn": torchvision.models.vgg19_bn}
CONFIGURATIONS = {"vgg16_bn": "D", "vgg19_bn": "E"}


@pytest.mark.parametrize("name", THEIRS)
def test_layers_are_those_of_torchvision(name):
    with torch.device("meta"):
        ours, theirs = build_model(name), THEIRS[name]()
    found = {key: tuple(value.shape) for key, value in ours.state_dict().items()}
    expected = {
        f"features.{key}": tuple(value.shape) for key, value in theirs.features.state_dict().items()
    }
    assert found == expected
    assert [type(layer) for layer in ours.features] == [type(layer) for layer in theirs.features]


@pytest.mark.parametrize("size", [32, 64])
def test_values_equal_torchvisions(size):
    torch.manual_seed(0)
    model = build_model("vgg19_bn", size=size)
    theirs = make_layers(cfgs["E"], batch_norm=True)
    theirs.load_state_dict(model.features.state_dict(), strict=True)
    x = torch.randn(4, 3, size, size)
    with torch.no_grad():
        for training in (True, False):
            maps = theirs.train(training)(x)
            features = model.train(training)(x)
            assert maps.shape == (4, 512, size // 32, size // 32)
            # One position at 32 pixels; at 64 their mean keeps one linear layer for both.
            expected = maps.flatten(1) if size == 32 else maps.flatten(2).mean(dim=2)
            assert expected.std() > 1e-3
            torch.testing.assert_close(features, expected)


def test_gradients_of_a_narrow_net():
    torch.manual_seed(0)
    narrow = [v if v == "M" else v // 16 for v in cfgs[CONFIGURATIONS["vgg16_bn"]]]
    theirs = make_layers(narrow, batch_norm=True).double()
    model = build_model("vgg16_bn", width=4).double()
    model.features.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    pull = torch.randn(4, 32, dtype=torch.float64)
    (model(x) * pull).sum().backward()
    (theirs(x).flatten(1) * pull).sum().backward()
    ours = dict(model.features.named_parameters())
    for key, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours[key].grad, parameter.grad, rtol=1e-9, atol=1e-9)
    channels_last = model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(
            channels_last(x.contiguous(memory_format=torch.channels_last)), theirs(x).flatten(1)
        )


def test_biases_begin_at_zero_and_belong_to_every_convolution():
    model = build_model("vgg16_bn", width=2)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 13 and not any(m.bias.any() for m in convolutions)
    assert model.stem is convolutions[0]


def test_sizes_that_leave_nothing():
    with pytest.raises(ValueError, match="size must be a multiple of 32, got 16; use 32"):
        build_model("vgg16_bn", size=16)
    with pytest.raises(ValueError, match="'vgg11' is not a VGG"):
        Vgg("vgg11")
