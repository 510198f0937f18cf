"""Open what the settings name as a source of images to train or to test on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from arcface_plus.data.folder import ImageFolder
from arcface_plus.data.images import resized
from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.data.records.check import check_records
from arcface_plus.data.records.images import RecordImages
from arcface_plus.data.records.parts import RecordParts, find_parts
from arcface_plus.data.records.reader import RecordReader
from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.cifar import CifarImages
from arcface_plus.data.sources.digits import DigitImages
from arcface_plus.data.sources.holdout import split_by_class
from arcface_plus.data.sources.orl import OrlFaces
from arcface_plus.data.sources.synthetic import SyntheticFaces
from arcface_plus.data.sources.tiny_imagenet import open_tiny_imagenet

__all__ = ["ImageSource", "fit_square", "open_source", "open_test_source"]


def open_source(config: DataConfig, seed: int = 0) -> ImageSource:
    """Open and check what ``config`` names, before anything is trained or overwritten.

    Raises FileNotFoundError or ValueError naming the file, the record and the fix.
    """
    source: ImageSource
    if config.source == "records":
        source = _open_records(config)
    elif config.source == "orl":
        assert config.people is not None
        first, last = config.people
        source = OrlFaces(range(first, last + 1), size=config.size)
    elif config.source == "synthetic":
        assert config.num_classes is not None
        source = SyntheticFaces(
            config.num_classes, config.images_per_class, size=config.size, seed=seed
        )
    else:
        source = _open_part(config, train=True)
    if config.num_classes is not None and source.num_classes > config.num_classes:
        raise ValueError(
            f"data.num_classes is {config.num_classes}, but the data holds {source.num_classes} "
            "classes; set it to that number, or remove it."
        )
    if config.num_classes is not None and source.num_classes < config.num_classes:
        source.warnings += (
            f"data.num_classes is {config.num_classes}, but the data holds {source.num_classes} "
            "classes: the others are never trained on, only pushed away.",
        )
    return source


def open_test_source(config: DataConfig) -> ImageSource:
    """Open the test images of what ``config`` names: other images of the same classes.

    cifar10, cifar100, digits: their test images; tiny_imagenet: its validation images; folder: the
    share ``holdout`` of each class, which ``open_source`` leaves out.
    Raises ValueError for data without test images, and as ``open_source``.
    """
    if config.source in ("records", "orl", "synthetic"):
        raise ValueError(
            f"data.source {config.source} has no test images. Set evaluation.accuracy to false, or "
            "train on a folder with data.holdout above 0."
        )
    if config.source == "folder" and not config.holdout:
        raise ValueError(
            "data.source folder has no test images while data.holdout is 0. Set it to the share of "
            "each class to keep for testing, such as --data.holdout 0.1."
        )
    return _open_part(config, train=False)


def _open_part(config: DataConfig, *, train: bool) -> ImageSource:
    """Open the training or the test images of a source that has both."""
    if config.source == "digits":
        return DigitImages(train=train)
    assert isinstance(config.path, Path)
    if config.source in ("cifar10", "cifar100"):
        return CifarImages(config.path, config.source, train=train)
    if config.source == "tiny_imagenet":
        return open_tiny_imagenet(config.path, train=train)
    assert config.source == "folder"
    folder = ImageFolder(config.path)
    if not config.holdout:
        return folder
    parts = split_by_class(folder.labels, folder.class_names, config.holdout)
    return folder.select(parts[0 if train else 1])


def _open_records(config: DataConfig) -> RecordImages | RecordParts:
    assert config.path is not None
    named = config.path if isinstance(config.path, list) else [config.path]
    files = [file for path in named for file in find_parts(path)]
    parts: list[RecordImages] = []
    for file in files:
        reader = RecordReader(file)
        problems = check_records(reader, num_classes=config.num_classes)
        if len(files) > 1:  # of one part alone, that says nothing
            problems = [problem for problem in problems if problem.rule != "empty-class"]
        parts.append(RecordImages(reader, tuple(str(problem) for problem in problems)))
    return parts[0] if len(parts) == 1 else RecordParts(parts)


def fit_square(image: np.ndarray, size: int, *, where: str) -> np.ndarray:
    """Return ``image`` (S, S, 3) with side ``size``; refuse one that is not square.

    Resizing an unaligned photograph would train on distorted faces, so only aligned (square) crops
    are accepted.
    """
    height, width = image.shape[:2]
    if height != width:
        raise ValueError(
            f"{where}: the image is {width}×{height}, but training needs aligned square faces "
            f"({size}×{size}); align it first (arcface-plus data align)."
        )
    return resized(image, size)
