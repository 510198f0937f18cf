"""What every face-embedding network here has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from arcface_plus.models.preprocessing import Preprocessing

Layout = TypeVar("Layout")
MAX_WIDTH = 65_536  # keeps numbers read from a file's metadata within what a net can be


class EmbeddingModel(nn.Module):
    """Map normalised images (N, 3, size, size) to embeddings (N, embedding_dim), float32.

    ``name``: the architecture's name in ``MODELS``. ``preprocessing``: what the input must be.
    ``architecture``: the arguments that rebuild the network, or None where it cannot be rebuilt.
    ``origin``: which file it started from, in words.
    """

    origin = ""

    def __init__(
        self,
        name: str,
        *,
        embedding_dim: int,
        preprocessing: Preprocessing,
        architecture: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        self.name = name
        self.embedding_dim = embedding_dim
        self.preprocessing = preprocessing
        self.architecture = architecture

    @property
    def stem(self) -> nn.Conv2d:
        """The convolution that reads the image, where an input scale can be folded in."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                return module
        raise ValueError(f"{self.name} has no stem convolution that can be changed")


def layout_of(name: str, layouts: Mapping[str, Layout], kind: str) -> Layout:
    """Return the entry of ``name`` in an architecture's table; ``kind`` is "an IResNet" or such."""
    if name not in layouts:
        raise ValueError(f"{name!r} is not {kind}; choose one of {', '.join(layouts)}")
    return layouts[name]


def check_count(option: str, value: Any, *, multiple_of: int = 1) -> int:
    """Return ``value`` if it is a whole number in (0, 65536] and a multiple of ``multiple_of``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_WIDTH:
        raise ValueError(f"{option} must be a whole number from 1 to {MAX_WIDTH}, got {value!r}")
    if value % multiple_of:
        raise ValueError(
            f"{option} must be a multiple of {multiple_of}, got {value}; "
            f"use {max(1, round(value / multiple_of)) * multiple_of}"
        )
    return value


def check_flag(option: str, value: Any) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{option} must be true or false, got {value!r}")
    return value


def check_dropout(dropout: Any) -> float:
    """Return ``dropout`` as a float if it is a number in [0, 1)."""
    if not isinstance(dropout, (int, float)) or isinstance(dropout, bool) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a number in [0, 1), got {dropout!r}")
    return float(dropout)


def check_preprocessing(preprocessing: Preprocessing | None, size: int) -> Preprocessing:
    """Return the preprocessing to use for a net of input ``size``, the default where None."""
    if preprocessing is None:
        return Preprocessing(size=size)
    if preprocessing.size != size:
        raise ValueError(
            f"preprocessing.size is {preprocessing.size} but the model's input size is {size}; "
            "give both the same value"
        )
    return preprocessing
