"""CIFAR-10 and CIFAR-100 from the files of their "python version", which are pickles.

Credit: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
A pickle is a program, so the files are read as data alone (``pickles``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.data.pickles.dictionaries import load_plain_dict

SIDE = 32
_VALUES = 3 * SIDE * SIDE
Files = tuple[tuple[str, str], ...]  # file name and md5, as published


@dataclass(frozen=True)
class Layout:
    """What a data set's folder holds."""

    title: str
    folder: str
    archive: str
    classes: int
    train: Files
    test: Files
    meta: tuple[str, str]
    names_key: str
    labels_key: str


LAYOUTS = {
    "cifar10": Layout(
        title="CIFAR-10",
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        classes=10,
        train=(
            ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
            ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            ("data_batch_4", "634d18415352ddfa80567beed471001a"),
            ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ),
        test=(("test_batch", "40351d587109b95175f43aff81a1287e"),),
        meta=("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
        names_key="label_names",
        labels_key="labels",
    ),
    "cifar100": Layout(
        title="CIFAR-100",
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        classes=100,
        train=(("train", "16019d7e3df5f24257cddd939b257f8d"),),
        test=(("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),),
        meta=("meta", "7973b15100ade9c7d40fb424638fde48"),
        names_key="fine_label_names",
        labels_key="fine_labels",
    ),
}


class CifarImages(ImageSource):
    """The training or the test images, (32, 32, 3) uint8 RGB, in the order of the files.

    ``name``: a key of ``LAYOUTS``; CIFAR-100 has its 100 fine labels. ``path``: the folder of the
    unpacked archive, or the one that holds it. Files whose md5 is not the published one are read
    too, and ``warnings`` names them.
    Raises FileNotFoundError saying what was looked for, ValueError naming a file that is damaged.
    """

    def __init__(self, path: str | Path, name: str, *, train: bool) -> None:
        layout = LAYOUTS[name]
        root = _find(Path(path), layout)
        warnings: list[str] = []
        meta = _load(root, layout.meta, warnings)
        self.class_names = _class_names(meta, layout, where=str(root / layout.meta[0]))
        self.num_classes = layout.classes
        entries = layout.train if train else layout.test
        self._files = [root / file for file, _ in entries]
        loaded = [
            _images_and_labels(_load(root, entry, warnings), layout, where=str(root / entry[0]))
            for entry in entries
        ]
        images, labels = zip(*loaded, strict=True)
        self._starts = np.cumsum([0, *map(len, labels)])
        # One file needs no copy: the array lies over the bytes that were read.
        self._images = images[0] if len(images) == 1 else np.concatenate(images)
        self.labels = np.concatenate(labels)
        self.warnings = tuple(warnings)

    def __getitem__(self, index: int, /) -> np.ndarray:
        planes = self._images[index].reshape(3, SIDE, SIDE)  # red, then green, then blue
        return np.ascontiguousarray(planes.transpose(1, 2, 0))

    def describe(self, index: int) -> str:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return f"{self._files[file]}, image {index - self._starts[file]}"


def _find(path: Path, layout: Layout) -> Path:
    roots = (path, path / layout.folder)
    root = next((each for each in roots if (each / layout.meta[0]).is_file()), None)
    if root is None:
        raise FileNotFoundError(
            f"{layout.title} is not in data.path {path}: neither it nor a {layout.folder} in it "
            f"holds the file {layout.meta[0]}. Get {layout.archive} (the python version) from "
            "https://www.cs.toronto.edu/~kriz/cifar.html, unpack it, and set data.path to the "
            f"folder {layout.folder}."
        )
    for file, _ in (*layout.train, *layout.test):
        if not (root / file).is_file():
            raise FileNotFoundError(f"{root / file} does not exist; unpack {layout.archive} again.")
    return root


def _load(root: Path, entry: tuple[str, str], warnings: list[str]) -> dict[str, Any]:
    file, md5 = entry
    data = (root / file).read_bytes()
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != md5:
        warnings.append(
            f"{root / file} is not the published file (md5 {found}, published {md5}): "
            "accuracy may not compare with that of others."
        )
    return load_plain_dict(data, where=str(root / file))


def _entry(content: dict[str, Any], key: str, *, where: str) -> Any:
    if key not in content:
        raise ValueError(
            f"{where}: has no {key}, only {', '.join(sorted(content)) or 'nothing'}; "
            "unpack the archive again."
        )
    return content[key]


def _class_names(meta: dict[str, Any], layout: Layout, *, where: str) -> list[str]:
    names = _entry(meta, layout.names_key, where=where)
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise ValueError(f"{where}: {layout.names_key} is no list of names; unpack it again.")
    if not len(names) == len(set(names)) == layout.classes:
        raise ValueError(
            f"{where}: {layout.title} has {layout.classes} classes, but this names "
            f"{len(set(names))}; unpack the archive again."
        )
    return [name if isinstance(name, str) else name.decode("utf-8", "replace") for name in names]


def _images_and_labels(
    content: dict[str, Any], layout: Layout, *, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, 3072) uint8, a colour plane after the other, and labels (n,) int64."""
    images = _entry(content, "data", where=where)
    labels = _entry(content, layout.labels_key, where=where)
    table = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 2
    if not table or images.shape[1] != _VALUES or not len(images):
        shape = str(images.shape) if table else "no table of bytes"
        raise ValueError(
            f"{where}: data must have {_VALUES} bytes an image, but is {shape}; "
            "unpack the archive again."
        )
    if not isinstance(labels, list) or {type(label) for label in labels} - {int}:
        raise ValueError(f"{where}: {layout.labels_key} is no list of whole numbers.")
    if len(labels) != len(images):
        raise ValueError(f"{where}: {len(images)} images have {len(labels)} labels.")
    wrong = [i for i, label in enumerate(labels) if not 0 <= label < layout.classes]
    if wrong:
        raise ValueError(
            f"{where}, image {wrong[0]}: label {labels[wrong[0]]} is not one of {layout.classes} "
            "classes; unpack the archive again."
        )
    return images, np.array(labels, dtype=np.int64)
