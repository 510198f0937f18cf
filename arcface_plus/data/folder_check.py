"""Find what is wrong with a folder of people, ``ROOT/PERSON/IMAGE``, before training does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from arcface_plus.data.folder import folders_in, images_in
from arcface_plus.data.image_check import Progress, find_copies, look_at
from arcface_plus.data.lazy_images import LabelledFiles
from arcface_plus.data.problems import DROP_IMAGE, DataProblem


class Checked(NamedTuple):
    """What was found wrong, among how many images and people."""

    problems: list[DataProblem]
    images: int
    people: int


def check_folder(root: Path, progress: Progress | None = None) -> Checked:
    """Return every broken rule of the folder: people, images that decode, squares, exact copies.

    Copies with two people are errors, those of one person warnings. Raises FileNotFoundError where
    ``root`` does not exist, ValueError where it is a file.
    """
    if root.is_file():
        raise ValueError(
            f"{root}: no record file (.rec) and no folder PERSON/IMAGE; a pair set is checked "
            "beside the data that it must share nobody with: --pairs."
        )
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder or record file")
    people = folders_in(root)
    files = {person: images_in(root / person) for person in people}
    problems = _layout_problems(root, files)
    labels = np.repeat(np.arange(len(people)), [len(files[person]) for person in people])
    paths = [f"{person}/{file}" for person in people for file in files[person]]
    source = LabelledFiles(root, paths, labels, people)
    looks = look_at(source, range(len(source)), progress)

    def add(row: int, rule: str, message: str, fix: str = DROP_IMAGE, warn: bool = False) -> None:
        severity = "warning" if warn else "error"
        file = source.describe(row)
        message = message.removeprefix(f"{file}: ")
        problems.append(
            DataProblem(file=file, rule=rule, message=message, fix=fix, severity=severity)  # type: ignore[arg-type]
        )

    for row, error in looks.errors.items():
        add(row, "image", error)
    for row in np.flatnonzero(looks.sizes[:, 0] != looks.sizes[:, 1]).tolist():
        height, width = looks.sizes[row]
        add(row, "image-size", f"{width}×{height} pixels are no square", "align it (data align)")
    for row, origin in find_copies(looks.digests).tolist():
        same = bool(labels[row] == labels[origin])
        message = f"the same file as {source.describe(origin)}"
        add(row, "copy" if same else "copy-label", message, "keep one of them", warn=same)
    return Checked(problems, len(source), len(people))


def _layout_problems(root: Path, files: dict[str, list[str]]) -> list[DataProblem]:
    """Return what training refuses before it reads an image, and images in no person's folder."""
    problems = [
        DataProblem(
            file=str(root / person),
            rule="empty-class",
            message="this person has no image",
            fix="remove the folder or add images",
        )
        for person, names in files.items()
        if not names
    ]
    if len(files) < 2:
        message = f"{len(files)} folders of people, but training needs two at least"
        fix = "give a folder ROOT/PERSON/IMAGE"
        problems.append(DataProblem(file=str(root), rule="count", message=message, fix=fix))
    if stray := images_in(root):
        message, fix = "the image is in no person's folder and is left out", "move it into one"
        problems.append(
            DataProblem(
                file=str(root / stray[0]),
                rule="stray",
                message=message,
                fix=fix,
                count=len(stray),
                severity="warning",
            )
        )
    return problems
