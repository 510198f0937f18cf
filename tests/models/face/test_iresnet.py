"""IResNet: layout, values against a functional re-reading, precision, checkpointing, options."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcface_plus.models import MODELS, build_model
from arcface_plus.models.face.iresnet import DEPTHS, Block, IResNet, Shortcut
from arcface_plus.models.preprocessing import Preprocessing

# Blocks of the four stages as published for arcface_torch's r18, r34, r50, r100, r200.
PUBLISHED = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
}
Shapes = dict[str, tuple[int, ...]]


def norm_shapes(prefix: str, channels: int) -> Shapes:
    keys = ("weight", "bias", "running_mean", "running_var")
    return {
        **{f"{prefix}.{key}": (channels,) for key in keys},
        f"{prefix}.num_batches_tracked": (),
    }


def published_layout(
    blocks: tuple[int, ...], *, width: int = 64, positions: int = 7, embedding_dim: int = 512
) -> Shapes:
    shapes: Shapes = {"conv1.weight": (width, 3, 3, 3)}
    shapes |= norm_shapes("bn1", width) | {"prelu.weight": (width,)}
    inputs = width
    for stage, count in enumerate(blocks, start=1):
        outputs = width * 2 ** (stage - 1)
        for index in range(count):
            at = f"layer{stage}.{index}"
            shapes |= norm_shapes(f"{at}.bn1", inputs)
            shapes[f"{at}.conv1.weight"] = (outputs, inputs, 3, 3)
            shapes |= norm_shapes(f"{at}.bn2", outputs) | {f"{at}.prelu.weight": (outputs,)}
            shapes[f"{at}.conv2.weight"] = (outputs, outputs, 3, 3)
            shapes |= norm_shapes(f"{at}.bn3", outputs)
            if index == 0:
                shapes[f"{at}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                shapes |= norm_shapes(f"{at}.downsample.1", outputs)
            inputs = outputs
    shapes |= norm_shapes("bn2", inputs)
    shapes["fc.weight"] = (embedding_dim, inputs * positions**2)
    shapes["fc.bias"] = (embedding_dim,)
    return shapes | norm_shapes("features", embedding_dim)


def batch_norm(state: dict[str, Tensor], at: str, x: Tensor) -> Tensor:
    return F.batch_norm(
        x,
        state[f"{at}.running_mean"],
        state[f"{at}.running_var"],
        state[f"{at}.weight"],
        state[f"{at}.bias"],
        eps=1e-5,
    )


def naive_iresnet(state: dict[str, Tensor], blocks: tuple[int, ...], x: Tensor) -> Tensor:
    """Read the published order of operations straight from the state dict, in eval mode."""
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    x = F.prelu(batch_norm(state, "bn1", x), state["prelu.weight"])
    for stage, count in enumerate(blocks, start=1):
        for index in range(count):
            at = f"layer{stage}.{index}"
            stride = 2 if index == 0 else 1
            out = batch_norm(state, f"{at}.bn1", x)
            out = F.conv2d(out, state[f"{at}.conv1.weight"], padding=1)
            out = F.prelu(batch_norm(state, f"{at}.bn2", out), state[f"{at}.prelu.weight"])
            out = F.conv2d(out, state[f"{at}.conv2.weight"], padding=1, stride=stride)
            out = batch_norm(state, f"{at}.bn3", out)
            if index == 0:
                x = F.conv2d(x, state[f"{at}.downsample.0.weight"], stride=stride)
                x = batch_norm(state, f"{at}.downsample.1", x)
            x = x + out
    x = batch_norm(state, "bn2", x).reshape(len(x), -1)
    x = F.linear(x, state["fc.weight"], state["fc.bias"])
    return batch_norm(state, "features", x)


def narrow(**options: object) -> IResNet:
    torch.manual_seed(0)
    return IResNet("iresnet18", **({"width": 8, "size": 32, "embedding_dim": 16} | options))


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_and_shapes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name)
    found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert found == published_layout(PUBLISHED[name])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("iresnet18", {}),
        ("iresnet50", {"width": 16, "size": 48, "embedding_dim": 24}),
    ],
)
def test_values_equal_a_functional_reading(name: str, options: dict[str, int], make_state) -> None:
    blocks = PUBLISHED[name]
    size = options.get("size", 112)
    state = make_state(
        published_layout(
            blocks,
            width=options.get("width", 64),
            positions=size // 16,
            embedding_dim=options.get("embedding_dim", 512),
        )
    )
    model = build_model(name, **options).double().eval()
    model.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        expected = naive_iresnet(state, blocks, x)
        embeddings = model(x)
        channels_last = model.to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last)
        )
    tolerance = 1e-10 * expected.norm()
    assert expected.std() > 0.1  # the comparison is about something
    assert (embeddings - expected).norm() < tolerance
    assert (channels_last - expected).norm() < tolerance


@pytest.mark.parametrize(
    ("name", "millions"),
    [("iresnet18", 24.03), ("iresnet34", 34.14), ("iresnet50", 43.59), ("iresnet100", 65.16)],
)
def test_parameter_counts(name: str, millions: float) -> None:
    with torch.device("meta"):
        fixed, free = build_model(name), build_model(name, fix_last_gain=False)

    def count(model: nn.Module, *, trained: bool) -> int:
        return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)

    shapes = published_layout(PUBLISHED[name])
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    by_hand = sum(math.prod(s) for key, s in shapes.items() if not key.endswith(statistics))
    assert round(by_hand / 1e6, 2) == millions
    assert count(fixed, trained=False) == count(free, trained=False) == by_hand
    assert count(free, trained=True) == by_hand
    assert count(fixed, trained=True) == by_hand - 512


def test_the_deepest_has_the_published_blocks() -> None:
    assert DEPTHS == PUBLISHED | {"iresnet2060": (3, 128, 896, 3)}


def test_depths_without_a_name_are_given_by_their_blocks() -> None:
    torch.manual_seed(0)
    model = build_model("iresnet18", blocks=(1, 2, 1, 3), width=8, size=32, embedding_dim=16)
    assert [len(model.get_submodule(f"layer{k}")) for k in (1, 2, 3, 4)] == [1, 2, 1, 3]
    assert model.architecture["blocks"] == [1, 2, 1, 3]
    state = {k: v.double() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = naive_iresnet(state, (1, 2, 1, 3), x)
    assert torch.allclose(model.eval().double()(x), expected) and expected.std() > 0.1
    assert "blocks" not in build_model("iresnet18", blocks=(2, 2, 2, 2), width=4).architecture


def test_squeeze_and_excitation_weighs_what_a_block_adds() -> None:
    torch.manual_seed(0)
    block = Block(32, 32, stride=1, se=True).eval()
    plain = Block(32, 32, stride=1).eval()
    assert not plain.load_state_dict(block.state_dict(), strict=False).missing_keys
    assert block.se.fc1.weight.shape == (2, 32, 1, 1)
    x = torch.randn(2, 32, 5, 5)
    added = plain(x) - x
    hidden = torch.relu(added.mean(dim=(2, 3)) @ block.se.fc1.weight.flatten(1).T)
    gates = torch.sigmoid(hidden @ block.se.fc2.weight.flatten(1).T)
    assert gates.std() > 0
    torch.testing.assert_close(block(x), x + added * gates[:, :, None, None], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="se must be true or false"):
        build_model("iresnet18", se="yes")


def test_last_gain_is_fixed_at_one_unless_asked() -> None:
    assert not narrow().features.weight.requires_grad
    assert torch.equal(narrow().features.weight, torch.ones(16))
    assert narrow(fix_last_gain=False).features.weight.requires_grad


@pytest.mark.parametrize("autocast", [False, True])
def test_checkpointed_gradients_equal_plain_ones(autocast: bool) -> None:
    x = torch.randn(4, 3, 32, 32)
    direction = torch.randn(4, 16)
    results = []
    for checkpointed in (False, True):
        model = narrow(checkpoint_gradients=checkpointed, dropout=0.3)
        for step in range(2):
            torch.manual_seed(step)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                embeddings = model(x)
            (embeddings * direction).sum().backward()
        results.append((embeddings, model))
    (plain, plain_model), (recomputed, recomputed_model) = results
    assert torch.equal(plain, recomputed)
    buffers = dict(recomputed_model.named_buffers())
    for key, buffer in plain_model.named_buffers():
        assert torch.equal(buffer, buffers[key]), key
    assert plain_model.layer1[0].bn1.num_batches_tracked == 2
    gradients = {key: p.grad for key, p in recomputed_model.named_parameters()}
    for key, parameter in plain_model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gradients[key], parameter.grad, rtol=0, atol=0)


def test_checkpointing_runs_blocks_twice_in_training_only() -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    model = narrow(checkpoint_gradients=True)
    model.layer2[1].conv1.register_forward_hook(count)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert calls == 2
    model.eval()(torch.randn(2, 3, 32, 32)).sum().backward()
    assert calls == 3


@pytest.mark.parametrize("training", [True, False])
def test_autocast_body_is_bf16_and_head_is_fp32(training: bool) -> None:
    model = narrow(dropout=0.0).train(training)
    dtypes: dict[str, tuple[torch.dtype, torch.dtype]] = {}
    for key in ("layer3.1.conv1", "fc", "features"):
        model.get_submodule(key).register_forward_hook(
            lambda _, inputs, output, key=key: dtypes.update({key: (inputs[0].dtype, output.dtype)})
        )
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = model(torch.randn(4, 3, 32, 32))
    assert embeddings.dtype == torch.float32
    assert dtypes["layer3.1.conv1"][1] == torch.bfloat16
    assert dtypes["fc"] == dtypes["features"] == (torch.float32, torch.float32)


def test_initial_weights_follow_the_named_scheme() -> None:
    torch.manual_seed(0)
    normal = IResNet("iresnet18", embedding_dim=64, size=16, init="normal")
    xavier = IResNet("iresnet18", embedding_dim=64, size=16, init="xavier")
    for key in ("layer4.1.conv1", "layer3.0.downsample.0"):
        conv = normal.get_submodule(key)
        assert conv.weight.std().item() == pytest.approx(0.1, rel=0.02)
        conv = xavier.get_submodule(key)
        fan_out = conv.out_channels * math.prod(conv.kernel_size)
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.02)
        assert conv.weight.mean().abs() < 0.01 * conv.weight.std()
    assert xavier.fc.weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.02)
    assert torch.equal(xavier.fc.bias, torch.zeros(64))
    for model in (normal, xavier):
        assert torch.equal(model.layer1[0].prelu.weight, torch.full((64,), 0.25))


def test_build_model_passes_every_option() -> None:
    preprocessing = Preprocessing(std=127.5, size=48)
    model = build_model(
        "iresnet34",
        embedding_dim=24,
        dropout=0.25,
        size=48,
        width=4,
        preprocessing=preprocessing,
        init="xavier",
        fix_last_gain=False,
        checkpoint_gradients=True,
    )
    assert (model.name, model.embedding_dim) == ("iresnet34", 24)
    assert model.preprocessing == preprocessing
    assert model.dropout.p == 0.25
    assert model.checkpoint_gradients
    assert model.stem is model.conv1
    assert model.architecture == {
        "name": "iresnet34",
        "embedding_dim": 24,
        "dropout": 0.25,
        "size": 48,
        "width": 4,
        "fix_last_gain": False,
    }
    default = build_model("iresnet18", width=4)
    assert default.dropout.p == 0.4
    assert default.preprocessing == Preprocessing()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim must be a whole number"),
        ({"embedding_dim": True}, "embedding_dim"),
        ({"size": 100}, "size must be a multiple of 16, got 100; use 96"),
        ({"width": 2.5}, "width"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\)"),
        ({"dropout": float("nan")}, "dropout"),
        ({"init": "kaiming"}, "init must be one of"),
        ({"fix_last_gain": "yes"}, "fix_last_gain"),
        ({"blocks": (1, 2, 3)}, "blocks must be four whole numbers"),
        ({"blocks": (1, 2, 3, 0)}, "blocks must be a whole number"),
        ({"preprocessing": Preprocessing(size=96)}, "preprocessing.size is 96"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("iresnet18", **options)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest name is 'iresnet50', known are iresnet18"):
        build_model("resnet50")
    with pytest.raises(ValueError, match="not an IResNet"):
        IResNet("mobilefacenet")
    assert set(PUBLISHED) < set(MODELS)


@pytest.mark.parametrize("channels", [4, 8, 16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shortcut_is_the_strided_convolution(channels: int, layout: torch.memory_format) -> None:
    """Also for the narrow channels-last inputs on which oneDNN's own gradient is wrong."""
    torch.manual_seed(0)
    shortcut = Shortcut(channels, 12, stride=2).to(memory_format=layout)
    x = torch.randn(3, channels, 14, 14).to(memory_format=layout).requires_grad_()
    pull = torch.randn(3, 12, 7, 7)
    (shortcut(x) * pull).sum().backward()
    weight = shortcut.weight.detach().double().requires_grad_()
    y = x.detach().double().requires_grad_()
    want = torch.einsum("nchw,oc->nohw", y[:, :, ::2, ::2], weight[:, :, 0, 0])
    torch.testing.assert_close(shortcut(x).double(), want, atol=1e-5, rtol=1e-5)
    (want * pull.double()).sum().backward()
    torch.testing.assert_close(shortcut.weight.grad.double(), weight.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(x.grad.double(), y.grad, atol=1e-5, rtol=1e-5)
