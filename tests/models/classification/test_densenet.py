"""DenseNet: layout, and values against a functional re-reading of the paper."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcface_plus.models import build_model
from arcface_plus.models.classification.densenet import DenseNet


def naive(state: dict[str, Tensor], growth: int, x: Tensor, *, training: bool) -> Tensor:
    """Every layer gathers all maps of its block anew: nothing is appended to."""

    def active(at: str, x: Tensor) -> Tensor:
        mean, var = state[f"{at}.running_mean"], state[f"{at}.running_var"]
        if training:
            mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
        scaled = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        gain, shift = state[f"{at}.weight"], state[f"{at}.bias"]
        return torch.clamp(scaled * gain[:, None, None] + shift[:, None, None], min=0)

    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for block in (1, 2, 3):
        maps = [x]
        for layer in range(12):
            at = f"block{block}.{layer}"
            weight = state[f"{at}.conv.weight"]
            assert weight.shape[0] == growth
            maps.append(F.conv2d(active(f"{at}.bn", torch.cat(maps, dim=1)), weight, padding=1))
        x = torch.cat(maps, dim=1)
        if block < 3:
            at = f"transition{block}"
            x = torch.einsum("nchw,oc->nohw", active(f"{at}.bn", x),
                             state[f"{at}.conv.weight"][:, :, 0, 0])  # fmt: skip
            x = sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    return active("bn", x).flatten(2).mean(dim=2)


@pytest.mark.parametrize("size", [32, 16])
def test_values_and_gradients_equal_a_functional_reading(size, make_state):
    growth = 2
    model = build_model("densenet_40_12", width=growth, size=size).double()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    state = make_state(shapes)
    model.load_state_dict(state, strict=True)
    x = torch.randn(3, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        expected = naive(state, growth, x, training=False)
        found = model.eval()(x)
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        last = model.to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last)
        )
        torch.testing.assert_close(last, expected, rtol=1e-9, atol=1e-9)
    weights = {
        key: value.requires_grad_() for key, value in state.items() if value.is_floating_point()
    }
    pull = torch.randn(3, model.embedding_dim, dtype=torch.float64)
    (naive(weights, growth, x, training=True) * pull).sum().backward()
    (model.train()(x) * pull).sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[key].grad, rtol=1e-7, atol=1e-7)


def test_layers_of_the_name():
    with torch.device("meta"):
        model = build_model("densenet_40_12")
    convolutions = {key: m for key, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert len(convolutions) + 1 == 40  # and the classifier
    assert not any(m.bias is not None for m in convolutions.values())
    inputs = [convolutions[f"block2.{layer}.conv"].in_channels for layer in range(12)]
    assert inputs == [160 + 12 * layer for layer in range(12)]
    for key, channels in (("transition1", 160), ("transition2", 304)):
        conv = convolutions[f"{key}.conv"]
        assert (conv.in_channels, conv.out_channels) == (channels, channels)  # no compression
    assert convolutions["conv1"].out_channels == 16


def test_names_it_does_not_know():
    with pytest.raises(ValueError, match="'densenet121' is not a DenseNet"):
        DenseNet("densenet121")
