"""Sequences of images that are decoded when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from arcface_plus.data.images import decode_image, read_image


class ImageSequence(Protocol):
    """What takes images asks this of them, so a list of arrays will do."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Return image ``index`` (H, W, 3), uint8 RGB."""
        ...


@runtime_checkable
class NamedImages(Protocol):
    """Images that can be named without decoding them."""

    def describe(self, index: int) -> str:
        """Name image ``index`` for messages."""
        ...

    def identity(self, index: int) -> bytes:
        """Return bytes that stand for the content of image ``index``."""
        ...


class EncodedImages:
    """Images held as the bytes of their files (JPEG, PNG, …)."""

    def __init__(self, blobs: Sequence[bytes], *, source: str) -> None:
        self.blobs = blobs
        self.source = source

    def __len__(self) -> int:
        return len(self.blobs)

    def __getitem__(self, index: int) -> np.ndarray:
        return decode_image(self.blobs[index], where=self.describe(index))

    def describe(self, index: int) -> str:
        return f"{self.source}, image {index}"

    def identity(self, index: int) -> bytes:
        return hashlib.sha256(self.blobs[index]).digest()


class ImageFiles:
    """Images in files below ``root``; ``paths`` are relative to it."""

    def __init__(self, paths: Sequence[str], *, root: Path) -> None:
        self.paths = paths
        self.root = root

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_image(self.root / self.paths[index])

    def describe(self, index: int) -> str:
        return str(self.root / self.paths[index])

    def identity(self, index: int) -> bytes:
        # Name and size: to read thousands of files for a name would not be cheap.
        size = (self.root / self.paths[index]).stat().st_size
        return f"{self.paths[index]}\0{size}".encode()


def describe_image(images: ImageSequence, index: int) -> str:
    """Return what to call image ``index`` in a message."""
    return images.describe(index) if isinstance(images, NamedImages) else f"image {index}"


def identify_image(images: ImageSequence, index: int) -> bytes:
    """Return bytes that stand for the content of image ``index``."""
    if isinstance(images, NamedImages):
        return images.identity(index)
    image = np.ascontiguousarray(images[index])
    return hashlib.sha256(f"{image.shape}{image.dtype}".encode() + image.tobytes()).digest()
