"""Training images in a folder with one sub-folder a person."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from arcface_plus.data.images import read_image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm"})


class ImageFolder:
    """``root/PERSON/IMAGE``: people in sorted order are classes 0, 1, …; images sorted within.

    Names that begin with a dot are left out: they are what programs leave behind (``._a.jpg``,
    ``.ipynb_checkpoints``), and one taken for a person would shift every label.

    Raises FileNotFoundError where ``root`` is no folder, ValueError where it holds fewer than two
    people or a person without images.
    """

    warnings: tuple[str, ...] = ()

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"image folder {self.root} does not exist or is not a folder.")
        self.class_names = sorted(
            e.name for e in os.scandir(self.root) if e.is_dir() and not e.name.startswith(".")
        )
        if len(self.class_names) < 2:
            raise ValueError(
                f"{self.root} holds {len(self.class_names)} sub-folders, but training needs one "
                "for each of at least two people: ROOT/PERSON/IMAGE.jpg."
            )
        self._names: list[str] = []
        labels: list[int] = []
        for label, person in enumerate(self.class_names):
            images = images_in(self.root / person)
            if not images:
                raise ValueError(
                    f"{self.root / person} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); "
                    "remove the folder or add images."
                )
            self._names += [f"{person}/{name}" for name in images]
            labels += [label] * len(images)
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


def images_in(folder: Path) -> list[str]:
    """Return the names of the image files directly in ``folder``, sorted."""
    return sorted(
        e.name
        for e in os.scandir(folder)
        if e.is_file()
        and not e.name.startswith(".")
        and os.path.splitext(e.name)[1].lower() in IMAGE_SUFFIXES
    )
