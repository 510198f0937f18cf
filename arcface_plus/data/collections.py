"""Everything that embeddings can be exported from: a folder, a .rec or a pair set, in one order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from arcface_plus.data.faces.crops import FaceCrops
from arcface_plus.data.faces.face import FaceDetector
from arcface_plus.data.folder import IMAGE_SUFFIXES
from arcface_plus.data.lazy_images import ImageFiles, ImageSequence
from arcface_plus.data.pairs.sets import load_pairs
from arcface_plus.data.records.images import RecordImages
from arcface_plus.data.records.reader import RecordReader

UNKNOWN = -1


@dataclass(frozen=True)
class Collection:
    """Images in a defined order, each with a key.

    ``keys``: path in a folder, key of a record, name or position in a pair set. ``labels`` (N,)
    int64: the record's label, or the rank of the person's name in sorted order; −1 where unknown.
    ``pairs`` holds index_a, index_b and is_same of a pair set. ``alignment`` names the detector
    that aligns the images, where one does.
    """

    images: ImageSequence
    keys: Sequence[str]
    labels: np.ndarray
    pairs: dict[str, np.ndarray] = field(default_factory=dict)
    alignment: str = ""

    def aligned(self, detector: FaceDetector, size: int) -> Collection:
        """Return the collection with the aligned face of each image, ``size`` pixels wide."""
        crops = FaceCrops(self.images, detector, size)
        return replace(self, images=crops, alignment=detector.name)


def open_collection(path: str | Path, root: str | Path | None = None) -> Collection:
    """Open a folder (all images below it, by sorted path), a .rec (by record) or a pair set.

    ``root``: the image folder of a list of pairs. Raises FileNotFoundError, or ValueError where
    there is nothing to embed.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; give a folder, a .rec, a .bin or a pairs.txt."
        )
    if path.suffix == ".rec":
        records = RecordImages(RecordReader(path))
        return Collection(records, [str(key) for key in records.reader.keys], records.labels)
    pairs = load_pairs(path, root)
    numbers = [str(i) for i in range(len(pairs.images))]
    keys = list(pairs.images.paths) if isinstance(pairs.images, ImageFiles) else numbers
    return Collection(
        pairs.images,
        keys,
        _labels_of(pairs.names or [None] * len(keys)),
        {"index_a": pairs.index_a, "index_b": pairs.index_b, "is_same": pairs.is_same},
    )


def _folder(root: Path) -> Collection:
    found = sorted(
        (folder.relative_to(root) / name).as_posix()
        for folder, files in _walk(root)
        for name in files
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    )
    if not found:
        raise ValueError(f"{root} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    people = [str(Path(name).parent) if "/" in name else None for name in found]
    return Collection(ImageFiles(found, root=root), found, _labels_of(people))


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder below ``root`` and its files; links are followed, each folder once.

    Else links that lead back up, or to each other, would make folders without end.
    """
    folders, seen = [root], {os.path.realpath(root)}
    for folder in folders:  # which grows meanwhile
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name))
        yield folder, [entry.name for entry in entries if entry.is_file()]
        for entry in entries:
            if entry.is_dir() and (real := os.path.realpath(entry.path)) not in seen:
                folders.append(folder / entry.name)
                seen.add(real)


def _labels_of(names: Sequence[str | None]) -> np.ndarray:
    """Return the rank of each name among the sorted names; −1 where there is none."""
    known = sorted({name for name in names if name is not None})
    rank: dict[str | None, int] = {name: i for i, name in enumerate(known)}
    return np.array([rank.get(name, UNKNOWN) for name in names], dtype=np.int64)
