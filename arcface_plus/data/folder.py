"""Training images in a folder with one sub-folder a person."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcface_plus.data.images import read_image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm"})


class ImageFiles:
    """Image files and their labels: ``names[i]``, a path below ``root``, is of ``labels[i]``.

    ``class_names[c]`` is what class c is called.
    """

    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        labels: np.ndarray | Sequence[int],
        class_names: Sequence[str],
    ) -> None:
        self.root, self.class_names = root, list(class_names)
        self._names = list(names)
        self.labels = np.array(labels, dtype=np.int64)
        self.num_classes = len(self.class_names)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return image ``index`` (H, W, 3) uint8 RGB and its label."""
        return read_image(self.root / self._names[index]), int(self.labels[index])

    def key(self, index: int) -> str:
        return self._names[index]

    def describe(self, index: int) -> str:
        return str(self.root / self._names[index])

    def select(self, indices: np.ndarray) -> ImageFiles:
        """Return the images ``indices`` alone, in that order, of the same classes."""
        names = [self._names[i] for i in indices]
        return ImageFiles(self.root, names, self.labels[indices], self.class_names)


class ImageFolder(ImageFiles):
    """``root/PERSON/IMAGE``: people in sorted order are classes 0, 1, …; images sorted within.

    Names that begin with a dot are left out: they are what programs leave behind (``._a.jpg``,
    ``.ipynb_checkpoints``), and one taken for a person would shift every label.

    Raises FileNotFoundError where ``root`` is no folder, ValueError where it holds fewer than two
    people or a person without images.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"image folder {root} does not exist or is not a folder.")
        class_names = folders_in(root)
        if len(class_names) < 2:
            raise ValueError(
                f"{root} holds {len(class_names)} sub-folders, but training needs one "
                "for each of at least two people: ROOT/PERSON/IMAGE.jpg."
            )
        names: list[str] = []
        labels: list[int] = []
        for label, person in enumerate(class_names):
            images = images_in(root / person)
            if not images:
                raise ValueError(
                    f"{root / person} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); "
                    "remove the folder or add images."
                )
            names += [f"{person}/{name}" for name in images]
            labels += [label] * len(images)
        super().__init__(root, names, labels, class_names)


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders directly in ``folder``, sorted."""
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))


def images_in(folder: Path) -> list[str]:
    """Return the names of the image files directly in ``folder``, sorted."""
    return sorted(
        e.name
        for e in os.scandir(folder)
        if e.is_file()
        and not e.name.startswith(".")
        and os.path.splitext(e.name)[1].lower() in IMAGE_SUFFIXES
    )
