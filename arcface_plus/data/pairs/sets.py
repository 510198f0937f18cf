"""Pair sets: images, and which two of them are the same person.

``load_pairs("lfw.bin")`` reads insightface's packed form, and
``load_pairs("pairs.txt", root="images")`` a list of pairs and a folder.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.lazy_images import EncodedImages, ImageFiles, ImageSequence, identify_image
from arcface_plus.data.pairs.labels import boolean_labels
from arcface_plus.data.pairs.lists import NamedPairs, locate_images, read_pair_list
from arcface_plus.data.pickles.reader import load_plain_pickle
from arcface_plus.files import written_beside

_BIN_SUFFIXES = (".bin", ".pkl")
_LIST_SUFFIXES = (".txt", ".lst", ".list", ".tsv")


class PairSet(NamedPairs):
    """Hold N pairs over a sequence of images.

    - ``images``: ``len`` and ``[i] -> (H, W, 3) uint8 RGB``, decoded when asked for.
    - ``is_same``: (N,) bool.
    - ``index_a``, ``index_b``: (N,) int64 rows of ``images``. Without them, images 0 and 1 are the
      first pair, 2 and 3 the second, as in a ``.bin``.
    - ``names``: person of each image, or None where that is not known.
    - ``folds``: how many folds the source states, or None.
    """

    def __init__(
        self,
        images: ImageSequence,
        is_same: Sequence[bool] | np.ndarray,
        *,
        index_a: np.ndarray | None = None,
        index_b: np.ndarray | None = None,
        names: Sequence[str] | None = None,
        folds: int | None = None,
        name: str = "pairs",
    ) -> None:
        self.images = images
        self.is_same = boolean_labels(is_same, where=name)
        count = len(self.is_same)
        if index_a is None and index_b is None:
            _require_two_a_label(images, count, name)
            index_a, index_b = np.arange(0, 2 * count, 2), np.arange(1, 2 * count, 2)
        self.index_a = _checked_rows(index_a, count, len(images), name)
        self.index_b = _checked_rows(index_b, count, len(images), name)
        if names is not None and len(names) != len(images):
            raise ValueError(f"{name}: {len(names)} names for {len(images)} images.")
        self.names = names
        self.folds = folds
        self.name = name

    def __len__(self) -> int:
        return len(self.is_same)

    def __repr__(self) -> str:
        return (
            f"PairSet({self.name!r}, pairs={len(self)}, genuine={int(self.is_same.sum())}, "
            f"images={len(self.images)}, folds={self.folds})"
        )

    def used_images(self) -> np.ndarray:
        """Return the rows of ``images`` that some pair needs, ascending, each once."""
        return np.unique(np.concatenate([self.index_a, self.index_b]))

    def fingerprint(self) -> str:
        """Return a sha256 over pairs, labels and the identity of the images.

        Packed images count by content, image files by relative name and size.
        """
        digest = hashlib.sha256()
        for array in (self.index_a, self.index_b, self.is_same):
            digest.update(np.ascontiguousarray(array).tobytes())
        for i in self.used_images().tolist():
            digest.update(identify_image(self.images, i))
        return digest.hexdigest()


def load_pairs(path: str | Path, root: str | Path | None = None) -> PairSet:
    """Load a pair set; nothing is decoded yet.

    ``path``: insightface's ``.bin`` (a pickle, read as data only: see ``pickles``), or a list of
    pairs (``.txt``: see ``lists`` for its forms). ``root``: the image folder of a list; the
    list's own folder where it is not given.

    In a ``.bin``, images stay 2N as stored, but pairs point at the first of identical ones, so that
    each is embedded once.

    Raises ValueError naming the file for anything that is not a pair set, lengths or labels that do
    not fit, and missing images; FileNotFoundError for a missing file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if suffix in _BIN_SUFFIXES:
        return _load_bin(path)
    if suffix not in _LIST_SUFFIXES:
        raise ValueError(
            f"{path}: pair sets are .bin files or lists ({', '.join(_LIST_SUFFIXES)}), not "
            f"{suffix or 'files without a suffix'}."
        )
    pairs = read_pair_list(path)
    folder = path.parent if root is None else Path(root)
    return PairSet(
        ImageFiles(locate_images(pairs.images, folder, source=path), root=folder),
        pairs.is_same,
        index_a=pairs.index_a,
        index_b=pairs.index_b,
        names=pairs.names,
        folds=pairs.folds,
        name=path.stem,
    )


def save_pairs_bin(
    path: str | Path,
    images: Sequence[bytes | np.ndarray] | ImageSequence,
    is_same: Sequence[bool] | np.ndarray,
) -> None:
    """Write an insightface ``.bin``: 2N images, one pair after the other, and N labels.

    ``images``: file contents (stored as they are) or (H, W, 3) uint8 RGB arrays (stored as JPEG of
    quality 95). The pickle has protocol 2, which every consumer reads. Written beside and renamed.

    Raises ValueError for lengths that do not fit or labels that are not booleans.
    """
    path = Path(path)
    labels = boolean_labels(is_same, where=str(path))
    _require_two_a_label(images, len(labels), str(path))
    stored = images.blobs if isinstance(images, EncodedImages) else images
    found = (stored[i] for i in range(len(stored)))
    blobs = [image if isinstance(image, bytes) else encode_jpeg(image) for image in found]
    with written_beside(path) as beside, beside.open("wb") as file:
        pickle.dump((blobs, labels.tolist()), file, protocol=2)


def _load_bin(path: Path) -> PairSet:
    content = load_plain_pickle(path.read_bytes(), where=str(path))
    if not isinstance(content, list | tuple) or len(content) != 2:
        raise ValueError(
            f"{path} is not a pair set: it should hold (images, is_same), but holds "
            f"{_describe(content)}."
        )
    images, is_same = content
    if not isinstance(images, list | tuple) or not images:
        raise ValueError(f"{path}: its images should be a list, but are {_describe(images)}.")
    labels = boolean_labels(is_same, where=str(path))
    _require_two_a_label(images, len(labels), str(path))
    # A file may name one array any number of times: its bytes are taken once.
    taken: dict[int, bytes] = {}
    blobs = [
        taken.get(id(image)) or taken.setdefault(id(image), _blob(image, i, path))
        for i, image in enumerate(images)
    ]
    first: dict[bytes, int] = {}
    rows = np.array([first.setdefault(blob, i) for i, blob in enumerate(blobs)], dtype=np.int64)
    return PairSet(
        EncodedImages(blobs, source=str(path)),
        labels,
        index_a=rows[0::2],
        index_b=rows[1::2],
        name=path.stem,
    )


def _require_two_a_label(images: Sized, labels: int, where: str) -> None:
    if len(images) != 2 * labels:
        raise ValueError(
            f"{where}: {len(images)} images for {labels} labels; a pair set has two images, one "
            "after the other, for every label. A file that is cut must be packed again."
        )


def _blob(image: Any, index: int, path: Path) -> bytes:
    if isinstance(image, bytes) and image:
        return image
    flat = isinstance(image, np.ndarray) and image.ndim and image.size == max(image.shape)
    if flat and image.dtype == np.uint8:
        return bytes(image.tobytes())
    raise ValueError(
        f"{path}: image {index} should be the bytes of an image file (or a flat uint8 array of "
        f"them), but is {_describe(image)}; pack encoded images."
    )


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {value.shape}"
    if isinstance(value, bytes | list | tuple):
        return f"{type(value).__name__} of length {len(value)}"
    return f"{type(value).__name__} {value!r}"


def _checked_rows(rows: np.ndarray | None, count: int, images: int, name: str) -> np.ndarray:
    array = np.asarray([] if rows is None else rows)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: index_a and index_b must both be {count} integers, one a label, but one is "
            f"{array.dtype} of shape {array.shape}."
        )
    if count and (array.min() < 0 or array.max() >= images):
        raise ValueError(f"{name}: pairs refer to rows outside the {images} images.")
    return array.astype(np.int64)
