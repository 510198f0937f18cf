"""Training images in a folder with one sub-folder a person."""

from __future__ import annotations

import os
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
        paths: list[str] = []
        labels: list[int] = []
        for label, person in enumerate(class_names):
            images = images_in(root / person)
            if not images:
                raise ValueError(
                    f"{root / person} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); "
                    "remove the folder or add images."
                )
            paths += [f"{person}/{name}" for name in images]
            labels += [label] * len(images)
        super().__init__(root, paths, labels, class_names)


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
