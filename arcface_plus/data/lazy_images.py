"""Sequences of images that are decoded when asked for, with labels and without."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from arcface_plus.data.images import decode_image, read_image, read_image_bytes


class ImageSequence(Protocol):
    """Images by position: a list of arrays is one, and so are the classes below.

    Two optional methods answer without decoding: ``describe(index)`` names an image for messages,
    ``identity(index)`` returns bytes that identify its content.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Return image ``index`` (H, W, 3), uint8 RGB."""
        ...


class ImageSource:
    """A fixed sequence of labelled images to train or test on; safe to hand to worker processes.

    ``labels`` (n,) int64, each in ``range(num_classes)``; ``warnings``: what a user should hear
    before training, though it stops nothing.
    """

    num_classes: int
    labels: np.ndarray
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Return image ``index`` (H, W, 3), uint8 RGB; errors name what is unreadable."""
        raise NotImplementedError

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return image ``index`` and its label."""
        return self[index], int(self.labels[index])

    def describe(self, index: int) -> str:
        """Name the file and record of an image, for messages."""
        raise NotImplementedError

    def read_ahead(self, runs: Sequence[tuple[int, int]]) -> None:
        """Begin to read images first … end − 1 of each run, where they lie one after the other."""

    def names(self) -> list[str] | None:
        """Return what each class is called, in their order; None where the data does not say."""
        names: list[str] | None = getattr(self, "class_names", None)
        return names


class EncodedImages:
    """Images held as the bytes of their files (JPEG, PNG, …)."""

    def __init__(self, blobs: Sequence[bytes], *, source: str) -> None:
        self.blobs = blobs
        self.source = source

    def __len__(self) -> int:
        return len(self.blobs)

    def __getitem__(self, index: int) -> np.ndarray:
        return decode_image(self.blobs[index], where=self.describe(index))

    def encoded(self, index: int) -> bytes:
        """Return image ``index`` as it is stored."""
        return self.blobs[index]

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

    def encoded(self, index: int) -> bytes:
        """Return image ``index`` as it is stored."""
        return read_image_bytes(self.root / self.paths[index])

    def describe(self, index: int) -> str:
        return str(self.root / self.paths[index])

    def identity(self, index: int) -> bytes:
        # Name and size: to read thousands of files for a name would not be cheap.
        size = (self.root / self.paths[index]).stat().st_size
        return f"{self.paths[index]}\0{size}".encode()


class LabelledFiles(ImageFiles, ImageSource):
    """Image files and their labels: ``paths[i]`` is of class ``labels[i]``.

    ``class_names[c]`` is what class c is called.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: np.ndarray | Sequence[int],
        class_names: Sequence[str],
    ) -> None:
        super().__init__(list(paths), root=root)
        self.labels = np.array(labels, dtype=np.int64)
        self.class_names = list(class_names)
        self.num_classes = len(self.class_names)

    def select(self, indices: np.ndarray) -> LabelledFiles:
        """Return the images ``indices`` alone, in that order, of the same classes."""
        paths = [self.paths[i] for i in indices]
        return LabelledFiles(self.root, paths, self.labels[indices], self.class_names)


def describe_image(images: ImageSequence, index: int) -> str:
    """Return what to call image ``index`` in a message."""
    describe = getattr(images, "describe", "image {}".format)
    return str(describe(index))


def identify_image(images: ImageSequence, index: int) -> bytes:
    """Return bytes that identify the content of image ``index``."""
    if identity := getattr(images, "identity", None):
        return bytes(identity(index))
    image = np.ascontiguousarray(images[index])
    return hashlib.sha256(f"{image.shape}{image.dtype}".encode() + image.tobytes()).digest()
