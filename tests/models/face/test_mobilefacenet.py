"""MobileFaceNet: layout, values against a functional re-reading, precision, options."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_plus.models import build_model
from arcface_plus.models.face.mobilefacenet import MobileFaceNet

Shapes = dict[str, tuple[int, ...]]
MBF = ((1, 4, 6, 2), 2)
MBF_LARGE = ((2, 8, 12, 4), 4)


def conv_shapes(
    at: str, inputs: int, outputs: int, *, kernel: int = 1, groups: int = 1, prelu: bool = True
) -> Shapes:
    shapes: Shapes = {f"{at}.layers.0.weight": (outputs, inputs // groups, kernel, kernel)}
    for key in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{at}.layers.1.{key}"] = (outputs,)
    shapes[f"{at}.layers.1.num_batches_tracked"] = ()
    if prelu:
        shapes[f"{at}.layers.2.weight"] = (outputs,)
    return shapes


def depthwise_shapes(at: str, inputs: int, outputs: int, expanded: int) -> Shapes:
    return {
        **conv_shapes(f"{at}.layers.0", inputs, expanded),
        **conv_shapes(f"{at}.layers.1", expanded, expanded, kernel=3, groups=expanded),
        **conv_shapes(f"{at}.layers.2", expanded, outputs, prelu=False),
    }


def published_layout(
    blocks: tuple[int, ...], scale: int, *, positions: int = 7, embedding_dim: int = 512
) -> Shapes:
    """The layout of arcface_torch's MobileFaceNet, written out stage by stage."""
    wide, twice = 64 * scale, 128 * scale
    shapes = conv_shapes("layers.0", 3, wide, kernel=3)
    if blocks[0] == 1:
        shapes |= conv_shapes("layers.1", wide, wide, kernel=3, groups=64)
    else:
        for index in range(blocks[0]):
            shapes |= depthwise_shapes(f"layers.1.layers.{index}", wide, wide, 128)
    shapes |= depthwise_shapes("layers.2", wide, wide, 128)
    for index in range(blocks[1]):
        shapes |= depthwise_shapes(f"layers.3.layers.{index}", wide, wide, 128)
    shapes |= depthwise_shapes("layers.4", wide, twice, 256)
    for index in range(blocks[2]):
        shapes |= depthwise_shapes(f"layers.5.layers.{index}", twice, twice, 256)
    shapes |= depthwise_shapes("layers.6", twice, twice, 512)
    for index in range(blocks[3]):
        shapes |= depthwise_shapes(f"layers.7.layers.{index}", twice, twice, 256)
    shapes |= conv_shapes("conv_sep", twice, 512)
    head = "features.layers"
    shapes |= conv_shapes(f"{head}.0", 512, 512, kernel=positions, groups=512, prelu=False)
    shapes[f"{head}.2.weight"] = (embedding_dim, 512)
    for key in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{head}.3.{key}"] = (embedding_dim,)
    return shapes | {f"{head}.3.num_batches_tracked": ()}


def norm(state: dict[str, Tensor], at: str, x: Tensor) -> Tensor:
    keys = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{at}.{key}"] for key in keys), eps=1e-5)


def conv(
    state: dict[str, Tensor], at: str, x: Tensor, *, stride: int = 1, padding: int = 0
) -> Tensor:
    weight = state[f"{at}.layers.0.weight"]
    groups = x.shape[1] // weight.shape[1]
    x = norm(
        state, f"{at}.layers.1", F.conv2d(x, weight, stride=stride, padding=padding, groups=groups)
    )
    slope = state.get(f"{at}.layers.2.weight")
    return x if slope is None else F.prelu(x, slope)


def depthwise(state: dict[str, Tensor], at: str, x: Tensor, *, stride: int) -> Tensor:
    x = conv(state, f"{at}.layers.0", x)
    x = conv(state, f"{at}.layers.1", x, stride=stride, padding=1)
    return conv(state, f"{at}.layers.2", x)


def naive_mobilefacenet(state: dict[str, Tensor], blocks: tuple[int, ...], x: Tensor) -> Tensor:
    x = conv(state, "layers.0", x, stride=2, padding=1)
    if blocks[0] == 1:
        x = conv(state, "layers.1", x, padding=1)
    else:
        for index in range(blocks[0]):
            x = x + depthwise(state, f"layers.1.layers.{index}", x, stride=1)
    for stage, count in zip((2, 4, 6), blocks[1:], strict=True):
        x = depthwise(state, f"layers.{stage}", x, stride=2)
        for index in range(count):
            x = x + depthwise(state, f"layers.{stage + 1}.layers.{index}", x, stride=1)
    x = conv(state, "features.layers.0", conv(state, "conv_sep", x))
    assert x.shape[2:] == (1, 1)
    return norm(
        state, "features.layers.3", F.linear(x[:, :, 0, 0], state["features.layers.2.weight"])
    )


@pytest.mark.parametrize(
    ("name", "layout"), [("mobilefacenet", MBF), ("mobilefacenet_large", MBF_LARGE)]
)
def test_keys_and_shapes_are_the_published_ones(name: str, layout: tuple) -> None:
    with torch.device("meta"):
        model = build_model(name)
    found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert found == published_layout(*layout)


@pytest.mark.parametrize(
    ("blocks", "scale", "size", "embedding_dim"),
    [(*MBF, 112, 512), ((2, 1, 2, 1), 1, 64, 32)],
)
def test_values_equal_a_functional_reading(
    blocks: tuple[int, ...], scale: int, size: int, embedding_dim: int, make_state
) -> None:
    shapes = published_layout(blocks, scale, positions=size // 16, embedding_dim=embedding_dim)
    state = make_state(shapes)
    model = MobileFaceNet(blocks=blocks, width=64 * scale, size=size, embedding_dim=embedding_dim)
    model = model.double().eval()
    model.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        expected = naive_mobilefacenet(state, blocks, x)
        embeddings = model(x)
        channels_last = model.to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last)
        )
    tolerance = 1e-10 * expected.norm()
    assert expected.std() > 0.1
    assert (embeddings - expected).norm() < tolerance
    assert (channels_last - expected).norm() < tolerance


def test_parameter_count() -> None:
    with torch.device("meta"):
        fixed, free = (
            build_model("mobilefacenet"),
            build_model("mobilefacenet", fix_last_gain=False),
        )
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    by_hand = sum(
        math.prod(shape)
        for key, shape in published_layout(*MBF).items()
        if not key.endswith(statistics)
    )
    assert by_hand == 2_059_520
    assert sum(p.numel() for p in fixed.parameters()) == by_hand
    assert sum(p.numel() for p in fixed.parameters() if p.requires_grad) == by_hand - 512
    assert all(p.requires_grad for p in free.parameters())


def test_checkpointed_gradients_equal_plain_ones() -> None:
    x = torch.randn(3, 3, 32, 32)
    models = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = MobileFaceNet(
            blocks=(1, 1, 1, 1), width=64, size=32, checkpoint_gradients=checkpointed
        )
        model(x).square().sum().backward()
        models.append(model)
    plain, recomputed = models
    for (key, left), (_, right) in zip(
        plain.named_buffers(), recomputed.named_buffers(), strict=True
    ):
        assert torch.equal(left, right), key
    for (key, left), (_, right) in zip(
        plain.named_parameters(), recomputed.named_parameters(), strict=True
    ):
        if left.requires_grad:
            assert torch.equal(left.grad, right.grad), key


def test_autocast_body_is_bf16_and_head_is_fp32() -> None:
    model = MobileFaceNet(blocks=(1, 1, 1, 1), width=64, size=32)
    dtypes = {}
    for key in ("conv_sep.layers.0", "features.layers.2", "features.layers.3"):
        model.get_submodule(key).register_forward_hook(
            lambda _, inputs, output, key=key: dtypes.update({key: output.dtype})
        )
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = model(torch.randn(3, 3, 32, 32))
    assert embeddings.dtype == torch.float32
    assert dtypes == {
        "conv_sep.layers.0": torch.bfloat16,
        "features.layers.2": torch.float32,
        "features.layers.3": torch.float32,
    }


def test_stem_reads_the_image() -> None:
    model = build_model("mobilefacenet", width=64, size=32)
    assert model.stem.in_channels == 3
    assert model.architecture["width"] == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 0.4}, "mobilefacenet has no option dropout; leave it unset"),
        ({"width": 32}, "width must be a multiple of 64, got 32; use 64"),
        ({"size": 100}, "multiple of 16"),
        ({"init": "zeros"}, "init must be one of"),
    ],
)
def test_options_it_lacks_or_cannot_have(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("mobilefacenet", **options)


@pytest.mark.parametrize("blocks", [(1, 2, 3), (0, 1, 1, 1), "1462", (1, 1, 1, 5000)])
def test_blocks_are_four_counts(blocks: object) -> None:
    with pytest.raises(ValueError, match="blocks must be"):
        MobileFaceNet(blocks=blocks)
