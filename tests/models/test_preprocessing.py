"""Preprocessing: arithmetic, channel order, memory layout, JSON, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from arcface_plus.models.preprocessing import INSIGHTFACE, Preprocessing


def random_images(count: int = 2, size: int = 112) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_apply_equals_numpy(channels: str) -> None:
    images = random_images()
    result = Preprocessing(mean=120.5, std=64.0, channels=channels).apply(images)
    pixels = images.numpy().astype(np.float32)
    if channels == "bgr":
        pixels = pixels[..., ::-1]
    expected = ((pixels - np.float32(120.5)) / np.float32(64.0)).transpose(0, 3, 1, 2)
    assert result.dtype == torch.float32
    np.testing.assert_array_equal(result.numpy(), expected)


def test_defaults_are_the_papers_and_insightface_differs_in_std_alone() -> None:
    assert Preprocessing() == Preprocessing(
        mean=127.5, std=128.0, channels="rgb", size=112, flip_sum=True
    )
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).repeat(3, 1).T.reshape(2, 1, 1, 3)
    ours = Preprocessing(size=1).apply(black_and_white)[:, 0, 0, 0]
    theirs = Preprocessing(std=INSIGHTFACE.std, size=1).apply(black_and_white)[:, 0, 0, 0]
    assert ours.tolist() == [-127.5 / 128, 127.5 / 128]
    assert theirs.tolist() == [-1.0, 1.0]


def test_apply_keeps_images_and_uses_channels_last_memory() -> None:
    images = random_images()
    before = images.clone()
    result = Preprocessing().apply(images)
    assert torch.equal(images, before)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert Preprocessing().apply(images[:0]).shape == (0, 3, 112, 112)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 112, 112, 3), "uint8"),
        (torch.zeros(2, 3, 112, 112, dtype=torch.uint8), "shape"),
        (torch.zeros(112, 112, 3, dtype=torch.uint8), "shape"),
        (torch.zeros(1, 96, 112, 3, dtype=torch.uint8), "112 pixels"),
        (torch.zeros(1, 112, 112, 4, dtype=torch.uint8), "shape"),
    ],
)
def test_apply_refuses_other_images(images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing().apply(images)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mean", float("nan")),
        ("mean", "127.5"),
        ("std", 0.0),
        ("std", -1),
        ("std", float("inf")),
        ("std", True),
        ("channels", "RGB"),
        ("channels", "gray"),
        ("size", 0),
        ("size", 112.0),
        ("size", True),
        ("flip_sum", 1),
    ],
)
def test_values_out_of_range_name_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"preprocessing\.{field}"):
        Preprocessing(**{field: value})
    stored = json.loads(Preprocessing().to_json()) | {field: value}
    with pytest.raises(ValueError, match=rf"preprocessing\.{field}"):
        Preprocessing.from_json(json.dumps(stored))


def test_json_round_trip() -> None:
    original = Preprocessing(mean=1 / 3, std=0.1, channels="bgr", size=96, flip_sum=False)
    assert Preprocessing.from_json(original.to_json()) == original


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON.*; fix: write it as .*127.5"),
        ("[1]", "JSON object"),
        ('{"mean": 1}', "lacks channels, flip_sum, size, std: .*fix: write it as"),
        (Preprocessing().to_json().replace("{", '{"gamma": 2, ', 1), "unknown fields gamma"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_is_not_a_preprocessing(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_json(text)
