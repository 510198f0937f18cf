"""Training images in a folder with one sub-folder a person."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from arcface_plus.data.lazy_images import LabelledFiles

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm"})


class ImageFolder(LabelledFiles):
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
        files = list_classes(root, class_names, fix="remove the folder or add images")
        super().__init__(root, *files, class_names)


def list_classes(root: Path, folders: Sequence[str], *, fix: str) -> tuple[list[str], list[int]]:
    """Return the paths below ``root`` of the images in ``folders``, and each one's place there.

    Raises ValueError with ``fix`` for a folder without images.
    """
    paths: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        images = images_in(root / folder) if (root / folder).is_dir() else []
        if not images:
            shown = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(f"{root / folder} holds no image ({shown}); {fix}.")
        paths += [f"{folder}/{image}" for image in images]
        labels += [label] * len(images)
    return paths, labels


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
