"""Who is in a data set, by name, and who is in two: a model knows people it was trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from arcface_plus.data.folder import folders_in
from arcface_plus.data.lazy_images import ImageFiles
from arcface_plus.data.pairs.lists import PairList, read_pair_list, text_lines
from arcface_plus.data.pairs.sets import PairSet

Sides = tuple[list[str], list[str]]


class PairNames(NamedTuple):
    """The images and the people on either side of N pairs, by name; None where not known."""

    images: Sides | None
    people: Sides | None


NAMELESS = PairNames(None, None)


def people_of(path: str | Path) -> list[str]:
    """Return the names of the people in a data set, sorted.

    ``path``: a folder with a sub-folder a person; a ``.rec`` (or the folder of a ``train.rec``)
    with the ``.lst`` it was packed from beside it, for records hold numbers; that ``.lst``; or a
    list of pairs. In lists, the person of a path is the folder the image is in.

    Raises ValueError where names are not known, FileNotFoundError for a missing file.
    """
    path = Path(path)
    if path.is_dir() and not (path / "train.rec").is_file():
        names = set(folders_in(path))
    elif path.is_dir() or path.suffix == ".rec":
        records = path / "train.rec" if path.is_dir() else path
        listing = records.with_suffix(".lst")
        if not listing.is_file():
            raise ValueError(
                f"{records} holds numbers, not names of people, and {listing.name}, the list it "
                "was packed from, is not beside it. Give the folder of images or that list."
            )
        names = _listed_people(listing)
    elif path.suffix == ".lst":
        names = _listed_people(path)
    elif path.suffix == ".bin":
        raise ValueError(f"{path}: a .bin does not say who is in it; give the list of pairs.")
    else:
        images = read_pair_list(path).images
        names = {
            _folder_of(image.name, path) if image.number is None else image.name for image in images
        }
    if not names:
        raise ValueError(f"{path} names nobody.")
    return sorted(names)


def pair_names(pairs: PairSet | PairList) -> PairNames:
    """Return what images and people are called, as the list of pairs calls them.

    The person of a path is the folder the image is in, unless some image is in none. Images of a
    ``.bin`` have no names.
    """
    images = people = None
    if isinstance(pairs, PairList):
        images = [image.stem for image in pairs.images]
    elif isinstance(pairs.images, ImageFiles):
        images = [str(path) for path in pairs.images.paths]
    if pairs.names is not None:
        people = list(pairs.names)
    elif images is not None:
        folders = [PurePosixPath(image).parent.name for image in images]
        people = folders if all(folders) else None

    def sides(of: list[str] | None) -> Sides | None:
        if of is None:
            return None
        return [of[i] for i in pairs.index_a], [of[i] for i in pairs.index_b]

    return PairNames(sides(images), sides(people))


def shared_people(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Return the names of ``second`` that ``first`` has too, sorted.

    Case does not count, nor whether blanks, hyphens, dots or underscores separate the words.
    """
    known = {_plain_name(name) for name in first}
    return sorted({name for name in second if _plain_name(name) in known})


def _listed_people(path: Path) -> set[str]:
    names = set()
    for _, line in text_lines(path):
        if files := [field for field in line.split("\t") if "/" in field]:
            names.add(_folder_of(files[0], path))
    if not names:
        raise ValueError(f"{path} has no line with the path PERSON/IMAGE of an image.")
    return names


def _folder_of(file: str, source: Path) -> str:
    folder = PurePosixPath(file).parent.name
    if not folder:
        raise ValueError(f"{source} names {file!r} without a folder, so not whose image it is.")
    return folder


def _plain_name(name: str) -> str:
    return " ".join(re.split(r"[-._\s]+", name.casefold())).strip()
