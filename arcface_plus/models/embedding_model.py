"""What every face-embedding network here has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from arcface_plus.models.preprocessing import Preprocessing

Layout = TypeVar("Layout")
MAX_BLOCKS = 1024  # of a stage
MAX_WIDTH = 65_536  # keeps numbers read from a file's metadata within what a net can be


class EmbeddingModel(nn.Module):
    """Map normalised images (N, 3, size, size) to embeddings (N, embedding_dim), float32.

    ``name``: the architecture's name in ``MODELS``. ``size``: pixels of the input.
    ``preprocessing``: what the input must be; (x - 127.5) / 128, RGB, where None. ``options``: the
    further arguments that rebuild the network, or None where it cannot be rebuilt: they become
    ``architecture``. Raises ValueError where the two sizes differ.
    ``origin``: which file it started from, in words.
    """

    origin = ""

    def __init__(
        self,
        name: str,
        *,
        embedding_dim: int,
        size: int,
        preprocessing: Preprocessing | None,
        options: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        self.name = name
        self.embedding_dim = embedding_dim
        self.preprocessing = preprocessing or Preprocessing(size=size)
        if self.preprocessing.size != size:
            raise ValueError(
                f"preprocessing.size is {self.preprocessing.size} but the model's input size is "
                f"{size}; give both the same value"
            )
        own = {"name": name, "embedding_dim": embedding_dim, "size": size}
        self.architecture = None if options is None else {**own, **options}

    @property
    def stem(self) -> nn.Conv2d:
        """The convolution that reads the image, where an input scale can be folded in."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                return module
        raise ValueError(f"{self.name} has no stem convolution that can be changed")


def stage(
    block: Callable[..., nn.Module], inputs: int, outputs: int, *, blocks: int, stride: int
) -> nn.Sequential:
    """Return ``blocks`` blocks in a row: the first has the ``stride`` and widens to ``outputs``."""
    first = block(inputs, outputs, stride=stride)
    return nn.Sequential(first, *(block(outputs, outputs, stride=1) for _ in range(blocks - 1)))


def last_norm(embedding_dim: int, *, eps: float, fix_gain: bool) -> nn.BatchNorm1d:
    """Return the batch norm that gives the embedding, its gain held at 1 where ``fix_gain``."""
    norm = nn.BatchNorm1d(embedding_dim, eps=eps)
    norm.weight.requires_grad_(not fix_gain)
    return norm


def layout_of(name: str, layouts: Mapping[str, Layout], kind: str) -> Layout:
    """Return the entry of ``name`` in an architecture's table; ``kind`` is "an IResNet" or such."""
    if name not in layouts:
        raise ValueError(f"{name!r} is not {kind}; choose one of {', '.join(layouts)}")
    return layouts[name]


def check_count(option: str, value: Any, *, multiple_of: int = 1, most: int = MAX_WIDTH) -> int:
    """Return ``value`` if it is a whole number in (0, most] and a multiple of ``multiple_of``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise ValueError(f"{option} must be a whole number from 1 to {most}, got {value!r}")
    if value % multiple_of:
        raise ValueError(
            f"{option} must be a multiple of {multiple_of}, got {value}; "
            f"use {max(1, round(value / multiple_of)) * multiple_of}"
        )
    return value


def check_blocks(blocks: Any) -> list[int]:
    """Return ``blocks`` as a list if they are four whole numbers, one a stage."""
    if not isinstance(blocks, (list, tuple)) or len(blocks) != 4:
        raise ValueError(f"blocks must be four whole numbers, got {blocks!r}")
    return [check_count("blocks", count, most=MAX_BLOCKS) for count in blocks]


def check_flag(option: str, value: Any) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{option} must be true or false, got {value!r}")
    return value


def check_share(option: str, value: Any) -> float:
    """Return ``value`` as a float if it is a number in [0, 1)."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError(f"{option} must be a number in [0, 1), got {value!r}")
    return float(value)


def check_dropout(dropout: Any) -> float:
    """Return ``dropout`` as a float if it is a number in [0, 1)."""
    return check_share("dropout", dropout)
