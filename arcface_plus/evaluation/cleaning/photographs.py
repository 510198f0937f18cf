"""The photographs to clean: a folder with a sub-folder a person, or a record file to read only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_plus.data.folder import ImageFolder
from arcface_plus.data.images import decode_image
from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.data.records.images import RecordImages
from arcface_plus.data.records.reader import RecordReader
from arcface_plus.evaluation.cleaning.duplicates import thumbnail

_READERS = 4
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Photographs:
    """Hold N images, the ``keys`` (N) of them and the ``people`` (P) that labels number.

    A key is PERSON/IMAGE below ``root``, or a record's key where ``root`` is None.
    """

    images: ImageSource
    keys: list[str]
    people: list[str]
    root: Path | None

    def data(self, row: int) -> bytes:
        """Return the encoded image ``row``."""
        if isinstance(self.images, RecordImages):
            return self.images.reader[row].data
        assert self.root is not None
        return (self.root / self.keys[row]).read_bytes()


@dataclass(frozen=True)
class Looks:
    """Hold what is seen of N photographs without a model: ``thumbnails`` (N, d) as of
    ``duplicates.thumbnail``, ``pixels`` (N,) and ``size`` (N,) in bytes.

    ``fingerprint``: a sha256 over keys and contents.
    """

    thumbnails: np.ndarray
    pixels: np.ndarray
    size: np.ndarray
    fingerprint: str


def open_photographs(path: Path) -> Photographs:
    """Open a folder PERSON/IMAGE, a .rec, or the folder of a train.rec.

    Raises as ``ImageFolder`` and ``RecordReader`` do.
    """
    if path.suffix == ".rec" or (path / "train.rec").is_file():
        reader = RecordReader(path)
        if not len(reader):
            raise ValueError(f"{path} holds no images.")
        people = [str(label) for label in range(int(reader.labels.max()) + 1)]
        return Photographs(RecordImages(reader), [str(key) for key in reader.keys], people, None)
    folder = ImageFolder(path)
    return Photographs(folder, list(folder.paths), folder.class_names, path)


def look(photographs: Photographs, progress: Progress | None = None) -> Looks:
    """Decode every photograph once; ValueError naming one that cannot be read."""

    def read(row: int) -> tuple[np.ndarray, int, int, str]:
        data = photographs.data(row)
        image = decode_image(data, where=photographs.images.describe(row))
        return thumbnail(image), image[..., 0].size, len(data), hashlib.sha256(data).hexdigest()

    seen, total, digest = [], len(photographs.keys), hashlib.sha256()
    with ThreadPoolExecutor(_READERS) as pool:
        for key, one in zip(photographs.keys, pool.map(read, range(total)), strict=True):
            digest.update(f"{key}\0{one[3]}\n".encode("utf-8", "surrogateescape"))
            seen.append(one[:3])
            if progress is not None:
                progress(len(seen), total)
    thumbnails, pixels, size = zip(*seen, strict=True)
    return Looks(np.stack(thumbnails), np.array(pixels), np.array(size), digest.hexdigest())


def fingerprint(root: Path) -> str:
    """Return the ``Looks.fingerprint`` that the folder ``root`` has now, without decoding."""
    digest = hashlib.sha256()
    for key in ImageFolder(root).paths:
        content = hashlib.sha256((root / key).read_bytes()).hexdigest()
        digest.update(f"{key}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
