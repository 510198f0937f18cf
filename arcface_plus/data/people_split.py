"""Divide the people of an image folder into those to train on and those to test on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from arcface_plus.data.folder import ImageFolder


class PeopleSplit(NamedTuple):
    """Names of the people of each part, sorted; nobody is in both."""

    train: list[str]
    test: list[str]


def split_people(
    people: Sequence[str], test_people: int, *, seed: int = 0, leave_out: Sequence[str] = ()
) -> PeopleSplit:
    """Return ``people`` without ``leave_out``, ``test_people`` of them for testing.

    A person's rank in the draw depends on ``seed`` and the name alone. So people who are added
    later change the test set only where they rank among its first ``test_people``.

    Raises ValueError for a name to leave out that is not there, and where fewer than two people
    would be left in a part.
    """
    known = set(people)
    if strangers := sorted(set(leave_out) - known):
        raise ValueError(
            f"{', '.join(strangers)} cannot be left out: nobody of that name is there. Names are "
            f"those of the folders, such as {min(known, default='(none)')}."
        )
    left = sorted(known - set(leave_out))
    if len(left) < 4:
        raise ValueError(
            f"{len(left)} people cannot be divided: training and testing need at least two each."
        )
    if test_people < 2 or len(left) - test_people < 2:
        raise ValueError(
            f"{test_people} people for testing of {len(left)} cannot be: training and testing need "
            f"at least two people each, so choose 2 to {len(left) - 2}."
        )
    drawn = sorted(left, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return PeopleSplit(sorted(drawn[test_people:]), sorted(drawn[:test_people]))


def split_folder(
    source: Path,
    output: Path,
    test_people: int,
    *,
    seed: int = 0,
    leave_out: Sequence[str] = (),
    copy: bool = False,
) -> PeopleSplit:
    """Make ``output/train`` and ``output/test`` of the people of ``source/PERSON/IMAGE``.

    Each person's folder is a symbolic link to the one in ``source``, or with ``copy`` a copy.
    Raises as ``ImageFolder`` for ``source``, as ``split_people``, and ValueError where
    ``output`` lies in ``source``, or ``output/train`` or ``output/test`` is there.
    """
    if output.resolve().is_relative_to(source.resolve()):
        raise ValueError(
            f"{output} must not lie in {source}: its parts would count as people there. Choose "
            "another output folder."
        )
    people = ImageFolder(source).class_names
    split = split_people(people, test_people, seed=seed, leave_out=leave_out)
    parts = {output / "train": split.train, output / "test": split.test}
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; choose another output folder.")
    for part in parts:
        if part.exists():
            raise ValueError(f"{part} exists; remove it, or choose another output folder.")
    for part, people in parts.items():
        part.mkdir(parents=True)
        for person in people:
            origin = (source / person).resolve()
            if copy:
                shutil.copytree(origin, part / person)
            else:
                (part / person).symlink_to(origin, target_is_directory=True)
    return split
