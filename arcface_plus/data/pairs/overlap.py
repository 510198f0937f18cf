"""Who and what is in a training set and in a pair set, too: people by name, images by content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_plus.data.folder import ImageFolder
from arcface_plus.data.image_check import EncodedSource, Progress, digests_of
from arcface_plus.data.pairs.people import people_of, shared_people
from arcface_plus.data.pairs.sets import load_pairs
from arcface_plus.data.problems import DataProblem
from arcface_plus.data.records.images import RecordImages
from arcface_plus.data.records.reader import RecordReader

_SHOWN = 5


@dataclass(frozen=True)
class Overlap:
    """What two data sets share.

    ``people``: names, or None where they are not known; ``images``: (image of the pair set, image
    of the training set) with the same bytes, or None where the images are not there. ``skipped``
    says why. ``tested``, ``compared``: how many people and images of the pair set were compared.
    """

    people: list[str] | None
    images: list[tuple[str, str]] | None
    skipped: list[str]
    tested: int = 0
    compared: int = 0

    def __bool__(self) -> bool:
        return bool(self.people or self.images)


def find_overlap(
    training: str | Path,
    pairs: str | Path,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
) -> Overlap:
    """Return who and what of the pair set ``pairs`` is in ``training``.

    ``training``: a folder PERSON/IMAGE, a ``.rec`` or its ``.lst``; ``pairs``: a list, whose images
    lie below ``root`` or beside it, or a ``.bin``. Names are compared as ``shared_people`` does,
    images by the sha256 of their bytes: an image that was encoded anew is another one.

    Raises ValueError where neither names nor images can be compared, FileNotFoundError for a file
    that is missing.
    """
    for path in map(Path, (training, pairs)):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist.")
    people, images, skipped, tested, compared = None, None, [], 0, 0
    try:
        names = people_of(pairs)
        people, tested = shared_people(people_of(training), names), len(names)
    except ValueError as error:
        skipped.append(f"people are not compared by name: {error}")
    try:
        asked = load_pairs(pairs, root)
        used = asked.used_images()
        images = _shared_images(_open(Path(training)), asked.images, used, progress)  # type: ignore[arg-type]
        compared = len(used)
    except (ValueError, FileNotFoundError) as error:
        skipped.append(f"images are not compared: {error}")
    if people is None and images is None:
        raise ValueError("\n".join(skipped))
    return Overlap(people, images, skipped, tested, compared)


def _open(training: Path) -> EncodedSource:
    if training.suffix == ".lst":
        raise ValueError(f"{training} is a list; give the records or the folder of the images.")
    if training.suffix == ".rec" or (training / "train.rec").is_file():
        return RecordImages(RecordReader(training))
    return ImageFolder(training)


def _shared_images(
    training: EncodedSource, asked: EncodedSource, used: np.ndarray, progress: Progress | None
) -> list[tuple[str, str]]:
    """Return the images ``used`` of ``asked`` that ``training`` has, and the first such there."""
    known = digests_of(training, progress)
    order = np.argsort(known, kind="stable")
    wanted = digests_of(asked)[used]
    at = np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)
    same = np.flatnonzero(known[order[at]] == wanted)
    return [(asked.describe(int(used[i])), training.describe(int(order[at[i]]))) for i in same]


def overlap_problems(
    training: str | Path,
    pairs: str | Path,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
) -> list[DataProblem]:
    """Return what ``find_overlap`` finds as problems; what could not be compared is a warning."""
    found = find_overlap(training, pairs, root, progress=progress)
    fix = "leave them out of the training, or of the pairs (data pairs --exclude)"
    people, images = found.people or [], found.images or []
    named = [
        ("overlap-people", f"{training} has them too: {', '.join(people[:_SHOWN])}", len(people)),
        ("overlap-images", "; ".join(f"{a} is {b}" for a, b in images[:_SHOWN]), len(images)),
    ]
    problems = [
        DataProblem(file=str(pairs), rule=rule, message=message, fix=fix, count=count)
        for rule, message, count in named
        if count
    ]
    return problems + [
        DataProblem(
            file=str(pairs),
            rule="not-compared",
            message=reason,
            fix="give what is missing",
            severity="warning",
        )
        for reason in found.skipped
    ]
