"""TinyImageNet as Stanford's CS231n publishes it: 200 classes, 64 × 64 pixels.

    tiny-imagenet-200/wnids.txt                    a class a line
    tiny-imagenet-200/train/CLASS/images/*.JPEG    500 images a class
    tiny-imagenet-200/val/images/*.JPEG            10 000 images
    tiny-imagenet-200/val/val_annotations.txt      IMAGE, CLASS and a box a line, by tabs

The labels of its test images are not published: as in the MMA paper, the validation images are what
is tested on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arcface_plus.data.folder import folders_in, images_in, list_classes
from arcface_plus.data.lazy_images import LabelledFiles

FOLDER = "tiny-imagenet-200"


def open_tiny_imagenet(path: str | Path, *, train: bool) -> LabelledFiles:
    """Open the training images, or the validation images, both with classes in sorted order.

    ``path``: the folder tiny-imagenet-200, or the one that holds it.
    Raises FileNotFoundError saying what was looked for; ValueError naming the file where classes,
    images and annotations do not agree.
    """
    root = _find(Path(path))
    class_names = folders_in(root / "train")
    _check_classes(root, class_names)
    if train:
        folders = [f"train/{name}/images" for name in class_names]
        files = list_classes(root, folders, fix="unpack the archive again")
        return LabelledFiles(root, *files, class_names)
    return _open_validation(root, class_names)


def _find(path: Path) -> Path:
    for root in (path, path / FOLDER):
        if (root / "train").is_dir() and (root / "val").is_dir():
            return root
    raise FileNotFoundError(
        f"TinyImageNet is not in data.path {path}: neither it nor a {FOLDER} in it has the folders "
        "train and val. Get tiny-imagenet-200.zip from http://cs231n.stanford.edu/, unpack it, and "
        f"set data.path to the folder {FOLDER}."
    )


def _check_classes(root: Path, class_names: Sequence[str]) -> None:
    if len(class_names) < 2:
        raise ValueError(
            f"{root / 'train'} holds {len(class_names)} class folders; unpack the archive again."
        )
    listed = root / "wnids.txt"
    if not listed.is_file():
        return
    wanted = set(listed.read_text(encoding="utf-8").split())
    if odd := sorted(wanted ^ set(class_names)):
        raise ValueError(
            f"{listed} and the folders in {root / 'train'} differ in {len(odd)} classes (first: "
            f"{', '.join(odd[:3])}); unpack the archive again."
        )


def _open_validation(root: Path, class_names: Sequence[str]) -> LabelledFiles:
    annotations, folder = root / "val" / "val_annotations.txt", root / "val" / "images"
    if not annotations.is_file() or not folder.is_dir():
        raise FileNotFoundError(
            f"{root / 'val'} lacks images/ or val_annotations.txt, as after sorting the images "
            "into a folder a class; unpack the archive again."
        )
    label_of = _read_annotations(annotations, class_names)
    if odd := sorted(label_of.keys() ^ set(images_in(folder))):
        raise ValueError(
            f"{annotations} and {folder} differ in {len(odd)} images (first: "
            f"{', '.join(odd[:3])}); unpack the archive again."
        )
    if untested := sorted(set(range(len(class_names))) - set(label_of.values())):
        raise ValueError(
            f"{annotations} has no image of {len(untested)} classes (first: "
            f"{class_names[untested[0]]}); unpack the archive again."
        )
    images = sorted(label_of)
    labels = [label_of[image] for image in images]
    return LabelledFiles(root, [f"val/images/{image}" for image in images], labels, class_names)


def _read_annotations(path: Path, class_names: Sequence[str]) -> dict[str, int]:
    """Return the label of each image name in val_annotations.txt."""
    number = {name: label for label, name in enumerate(class_names)}
    label_of: dict[str, int] = {}
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        image, _, rest = text.partition("\t")
        name = rest.partition("\t")[0]
        if name not in number:
            raise ValueError(
                f"{path}:{line}: expected IMAGE, a tab and a class that has a folder in train, "
                f"got {text[:80]!r}; unpack the archive again."
            )
        if image in label_of:
            raise ValueError(f"{path}:{line}: {image} is listed twice; unpack the archive again.")
        label_of[image] = number[name]
    return label_of
