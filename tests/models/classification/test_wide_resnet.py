"""Wide ResNet: layout, and values against a functional re-reading of the paper."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcface_plus.models import build_model
from arcface_plus.models.classification.wide_resnet import WideResNet

Shapes = dict[str, tuple[int, ...]]


def norm_shapes(prefix: str, channels: int) -> Shapes:
    keys = ("weight", "bias", "running_mean", "running_var")
    shapes: Shapes = {f"{prefix}.{key}": (channels,) for key in keys}
    return shapes | {f"{prefix}.num_batches_tracked": ()}


def layout(depth: int, widening: int, width: int = 16) -> Shapes:
    shapes: Shapes = {"conv1.weight": (width, 3, 3, 3)}
    inputs = width
    for stage in (1, 2, 3):
        outputs = width * widening * 2 ** (stage - 1)
        for index in range((depth - 4) // 6):
            at = f"layer{stage}.{index}"
            shapes |= norm_shapes(f"{at}.bn1", inputs)
            shapes[f"{at}.conv1.weight"] = (outputs, inputs, 3, 3)
            shapes |= norm_shapes(f"{at}.bn2", outputs)
            shapes[f"{at}.conv2.weight"] = (outputs, outputs, 3, 3)
            if inputs != outputs:
                shapes[f"{at}.shortcut.weight"] = (outputs, inputs, 1, 1)
            inputs = outputs
    return shapes | norm_shapes("bn", inputs)


def naive(state: dict[str, Tensor], depth: int, x: Tensor, *, training: bool = False) -> Tensor:
    """Read the published order of operations straight from the state dict."""

    def active(at: str, x: Tensor) -> Tensor:
        mean, var = state[f"{at}.running_mean"], state[f"{at}.running_var"]
        if training:
            mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
        scaled = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        gain, shift = state[f"{at}.weight"], state[f"{at}.bias"]
        return torch.clamp(scaled * gain[:, None, None] + shift[:, None, None], min=0)

    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3):
        for index in range((depth - 4) // 6):
            at = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            first = active(f"{at}.bn1", x)
            out = F.conv2d(first, state[f"{at}.conv1.weight"], padding=1, stride=stride)
            out = F.conv2d(active(f"{at}.bn2", out), state[f"{at}.conv2.weight"], padding=1)
            shortcut = state.get(f"{at}.shortcut.weight")
            x = out + (x if shortcut is None else F.conv2d(first, shortcut, stride=stride))
    x = active("bn", x)
    return x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])


@pytest.mark.parametrize(("name", "sizes"), [("wrn_16_8", (16, 8)), ("wrn_28_10", (28, 10))])
def test_keys_and_shapes(name, sizes):
    with torch.device("meta"):
        model = build_model(name)
    found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert found == layout(*sizes)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len([m for m in convolutions if m.kernel_size == (1, 1)]) == 3
    assert len(convolutions) == sizes[0]  # 6n + 4: three shortcuts count, the classifier does not


@pytest.mark.parametrize(("name", "depth", "k", "width", "size"), [
    ("wrn_16_8", 16, 8, 2, 32),
    ("wrn_28_10", 28, 10, 1, 16),
])  # fmt: skip
def test_values_and_gradients_equal_a_functional_reading(name, depth, k, width, size, make_state):
    state = make_state(layout(depth, k, width))
    model = build_model(name, width=width, size=size).double()
    model.load_state_dict(state, strict=True)
    x = torch.randn(3, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        expected = naive(state, depth, x)
        found = model.eval()(x)
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    weights = {
        key: value.requires_grad_() for key, value in state.items() if value.is_floating_point()
    }
    pull = torch.randn(3, 4 * k * width, dtype=torch.float64)
    (naive(weights, depth, x, training=True) * pull).sum().backward()
    (model.train()(x) * pull).sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[key].grad, rtol=1e-7, atol=1e-7)


def test_channels_last_is_the_same_function():
    """Also where narrow strided shortcuts meet oneDNN."""
    torch.manual_seed(0)
    model = build_model("wrn_16_8", width=1, size=16)
    x, pull = torch.randn(4, 3, 16, 16), torch.randn(4, 32)
    results = []
    for layout_ in (torch.contiguous_format, torch.channels_last):
        model = model.to(memory_format=layout_)
        model.zero_grad()
        features = model(x.contiguous(memory_format=layout_))
        (features * pull).sum().backward()
        gradient = model.layer2[0].shortcut.weight.grad.clone().contiguous()
        results.append((features.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)


def test_dropout_is_between_the_convolutions_and_off_unless_asked():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    plain = build_model("wrn_16_8", width=1)
    assert torch.equal(plain(x), plain(x))
    dropping = build_model("wrn_16_8", width=1, dropout=0.3)
    assert not torch.equal(dropping(x), dropping(x))
    assert dropping.architecture["dropout"] == 0.3
    dropping.eval()
    assert torch.equal(dropping(x), dropping(x))
    seen = []
    block = dropping.train().layer2[1]
    block.conv2.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    dropping(x)
    share = (seen[0] == 0).float().mean().item()
    assert 0.5 < share < 0.8  # half by ReLU, 0.3 of the rest by dropout


@pytest.mark.parametrize("dropout", [1.0, -0.1, float("nan"), True, "0.3"])
def test_dropout_out_of_range(dropout):
    with pytest.raises(ValueError, match=r"dropout must be a number in \[0, 1\)"):
        WideResNet("wrn_16_8", dropout=dropout)


def test_names_it_does_not_know():
    with pytest.raises(ValueError, match="'wrn_40_4' is not a Wide ResNet"):
        WideResNet("wrn_40_4")
