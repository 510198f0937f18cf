"""What a model expects of an image: part of the model, stored with its weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

CHANNEL_ORDERS = ("rgb", "bgr")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """State how uint8 RGB images become a model's input, and how it is tested.

    The input is ``(pixel - mean) / std``, channels in the order ``channels``, ``size`` × ``size``
    pixels. ``flip_sum`` says that a face is described by f(x) + f(mirrored x). The defaults are
    those of insightface's MXNet trainer; arcface_torch's weights want ``std=127.5``.
    Raises ValueError for a value outside its range.
    """

    mean: float = 127.5
    std: float = 128.0
    channels: str = "rgb"
    size: int = 112
    flip_sum: bool = True

    def __post_init__(self) -> None:
        rules = {
            "mean": ("a finite number", _is_number(self.mean)),
            "std": ("a finite number > 0", _is_number(self.std) and self.std > 0),
            "channels": (f"one of {CHANNEL_ORDERS}", self.channels in CHANNEL_ORDERS),
            "size": ("a whole number >= 1", type(self.size) is int and self.size >= 1),
            "flip_sum": ("true or false", isinstance(self.flip_sum, bool)),
        }
        for field, (rule, is_kept) in rules.items():
            if not is_kept:
                value = getattr(self, field)
                raise ValueError(f"preprocessing.{field} must be {rule}, got {value!r}")

    def apply(self, images: Tensor) -> Tensor:
        """Return the model's input for a batch of RGB images, on the images' device.

        ``images``: (N, size, size, 3) uint8. Returns (N, 3, size, size) float32 in channels-last
        memory (the images' own order, so nothing is transposed). Raises ValueError for another
        dtype or shape.
        """
        expected = (self.size, self.size, 3)
        if images.dtype != torch.uint8:
            raise ValueError(
                f"images must be uint8 with values 0 to 255, got {images.dtype}; "
                "pass them as decoded, before any normalisation"
            )
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"images must have shape (N, {self.size}, {self.size}, 3), "
                f"got {tuple(images.shape)}; align or resize them to {self.size} pixels first"
            )
        if self.channels == "bgr":
            images = images.flip(-1)
        return images.permute(0, 3, 1, 2).to(torch.float32).sub_(self.mean).div_(self.std)

    def to_json(self) -> str:
        """Write every field as one JSON object with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read what ``to_json`` writes; every field must be there, and no other.

        Raises ValueError naming the field.
        """
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, TypeError, RecursionError) as error:
            raise ValueError(
                f"preprocessing is not JSON ({error}): {text!r:.200}; {_example()}"
            ) from error
        if not isinstance(values, dict):
            raise ValueError(
                f"preprocessing must be a JSON object, got {text!r:.200}; {_example()}"
            )
        names = {field.name for field in fields(cls)}
        if missing := sorted(names - values.keys()):
            raise ValueError(
                f"preprocessing lacks {', '.join(missing)}: {text!r:.200}; {_example()}"
            )
        if unknown := sorted(values.keys() - names):
            raise ValueError(
                f"preprocessing has unknown fields {', '.join(unknown)}; "
                f"known are {', '.join(sorted(names))}"
            )
        return cls(**values)


def _example() -> str:
    return f"fix: write it as {INSIGHTFACE.to_json()}"


def stated(text: str) -> Preprocessing:
    """Return what a user states of a file that does not: ``insightface``, or JSON."""
    return INSIGHTFACE if text == "insightface" else Preprocessing.from_json(text)


# Weights and ONNX files of insightface's arcface_torch: ((x / 255) - 0.5) / 0.5, RGB.
INSIGHTFACE = Preprocessing(std=127.5)
