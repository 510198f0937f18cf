"""Look at every image once: does it decode, how large is it, is it there twice?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from arcface_plus.data.images import decode_image

Progress = Callable[[int, int], None]
_IMAGES_AT_ONCE = 256
Result = TypeVar("Result")
_THREADS = 4


class EncodedSource(Protocol):
    """Images whose encoded bytes can be had: of a folder, a record file, a ``.bin``."""

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> bytes:
        """Return the bytes of the file that image ``index`` was stored as."""
        ...

    def describe(self, index: int) -> str:
        """Name image ``index`` for messages."""
        ...


class Looks(NamedTuple):
    """What was seen of n images: ``sizes`` (n, 2) int32, height and width, 0 where not decoded.

    ``digests`` (n,): 16 bytes of the sha256 of the encoded bytes. ``errors``: why an image, by its
    place among the n, cannot be read.
    """

    sizes: np.ndarray
    digests: np.ndarray
    errors: dict[int, str]


def look_at(
    images: EncodedSource, rows: Sequence[int] | np.ndarray, progress: Progress | None = None
) -> Looks:
    """Decode and hash the images ``rows``, in threads; memory: some hundred images."""

    def look(row: int) -> tuple[tuple[int, int], bytes, str]:
        digest = bytes(16)
        try:
            data = images.encoded(row)
            digest = _digest(data)
            height, width = decode_image(data, where=images.describe(row)).shape[:2]
            return (height, width), digest, ""
        except (ValueError, OSError) as error:
            return (0, 0), digest, str(error)

    sizes = np.zeros((len(rows), 2), dtype=np.int32)
    digests = np.zeros(len(rows), dtype="V16")
    errors: dict[int, str] = {}
    for i, (size, digest, error) in enumerate(_in_threads(look, rows)):
        sizes[i], digests[i] = size, np.void(digest)
        if error:
            errors[i] = error
        if progress is not None:
            progress(i + 1, len(rows))
    return Looks(sizes, digests, errors)


def digests_of(images: EncodedSource, progress: Progress | None = None) -> np.ndarray:
    """Return (n,) 16 bytes of the sha256 of each image's encoded bytes, without decoding it."""
    found = np.zeros(len(images), dtype="V16")
    digests = _in_threads(lambda row: _digest(images.encoded(row)), range(len(images)))
    for i, digest in enumerate(digests):
        found[i] = np.void(digest)
        if progress is not None:
            progress(i + 1, len(images))
    return found


def find_copies(digests: np.ndarray) -> np.ndarray:
    """Return (copies, 2): the place of each image that was there before, and of the first such."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    origin = first[inverse.reshape(-1)]
    rows = np.flatnonzero(origin != np.arange(len(digests)))
    return np.stack([rows, origin[rows]], axis=1)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:16]


def _in_threads(
    work: Callable[[int], Result], rows: Sequence[int] | np.ndarray
) -> Iterator[Result]:
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(rows), _IMAGES_AT_ONCE):
            yield from pool.map(work, map(int, rows[start : start + _IMAGES_AT_ONCE]))
