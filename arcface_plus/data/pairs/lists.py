"""Text lists of pairs: LFW's ``pairs.txt`` and plain ``path path 0/1`` lists.

Forms, recognised by the first lines:

- LFW View 2: a header ``10 300`` (folds, pairs of each kind in a fold), then for every fold 300
  lines ``NAME i j`` (the same person) and 300 lines ``NAME i NAME j``.
- LFW View 1: a header ``1100`` (pairs of each kind), then the same two kinds of line; no folds.
- No header, LFW lines in any order; no folds.
- No header, lines ``path path 0`` or ``path path 1`` (1: the same person), paths relative to the
  image folder; no folds.

Fields are separated by tabs where a line has any, else by blanks. Empty lines do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arcface_plus.data.folder import images_in

_SHOWN = 5


class ListedImage(NamedTuple):
    """An image as a list names it: a person and a number, or a path (then number is None)."""

    name: str
    number: int | None

    @property
    def stem(self) -> str:
        """``NAME_0001`` for a person and a number; the path as written otherwise."""
        return self.name if self.number is None else f"{self.name}_{self.number:04d}"


class NamedPairs:
    """Pairs as rows ``index_a`` and ``index_b`` (N,) of images, and the person of each image.

    ``names`` is None where people are not known.
    """

    names: Sequence[str] | None
    index_a: np.ndarray
    index_b: np.ndarray

    def people(self) -> tuple[list[str], list[str]] | None:
        """Return the person on either side of every pair, or None where that is not known."""
        if (names := self.names) is None:
            return None
        return [names[i] for i in self.index_a], [names[i] for i in self.index_b]


@dataclass(frozen=True)
class PairList(NamedPairs):
    """Hold a list of pairs: each image once, and its person where the list names people."""

    images: list[ListedImage]
    names: list[str] | None
    index_a: np.ndarray
    index_b: np.ndarray
    is_same: np.ndarray
    folds: int | None
    source: Path


def read_pair_list(path: str | Path) -> PairList:
    """Read a list of pairs in one of the forms above.

    Raises ValueError naming file and line for a line of another form, and for a header that the
    lines contradict.
    """
    path = Path(path)
    lines = [
        (number, line.split("\t") if "\t" in line else line.split())
        for number, line in text_lines(path)
    ]
    header: list[int] = []
    if lines and len(lines[0][1]) <= 2 and all(_is_number(field) for field in lines[0][1]):
        header = [int(field) for field in lines[0][1]]
        lines = lines[1:]
    if not lines:
        raise ValueError(f"{path} holds no pairs.")
    by_path = not header and _is_path_line(lines[0][1])
    index: dict[ListedImage, int] = {}
    rows = []
    for number, fields in lines:
        try:
            first, second, same = _parse([field.strip() for field in fields], by_path)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}.") from error
        rows.append([*(index.setdefault(image, len(index)) for image in (first, second)), same])
    index_a, index_b, same = np.array(rows, dtype=np.int64).T.copy()
    is_same = same.astype(bool)
    folds = _check_header(header, is_same, path)
    names = None if by_path else [image.name for image in index]
    return PairList(list(index), names, index_a, index_b, is_same, folds, source=path)


def locate_images(images: Sequence[ListedImage], root: Path, *, source: Path) -> list[str]:
    """Return the path below ``root`` of each image.

    A person and a number are ``NAME/NAME_0001.jpg`` (or .jpeg, .png, .pgm, .bmp), or a file in
    ``NAME/`` named by digits alone: ``1.pgm``, ``0001.jpg``. A path is taken as written.

    Raises ValueError for images that are not there (the first few and how many), for two files that
    fit one image, and for a path that leads out of ``root``.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} is not a folder; give the folder of the images of {source} as root (--root)."
        )
    index_of = cache(lambda person: _folder_index(root / person))
    found: list[str] = []
    missing: list[str] = []
    for image in images:
        _check_inside(image.name, root, source)
        if image.number is None:
            candidates = [image.name] if (root / image.name).is_file() else []
        else:
            known = index_of(image.name)
            files = known.get(image.stem) or known.get(image.number) or []
            candidates = [f"{image.name}/{file}" for file in files]
        if len(candidates) > 1:
            raise ValueError(
                f"{source} names {image.stem}, which could be {' or '.join(candidates)} in {root}; "
                "keep one of them."
            )
        found += candidates
        if not candidates:
            missing.append(image.stem)
    if missing:
        more = ", …" if len(missing) > _SHOWN else ""
        raise ValueError(
            f"{len(missing)} of the {len(images)} images that {source} names are not in {root}: "
            f"{', '.join(missing[:_SHOWN])}{more}. Give the folder that holds them as root "
            "(--root)."
        )
    return found


def text_lines(path: str | Path) -> list[tuple[int, str]]:
    """Return the lines of a list that are not blank, and their numbers."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text, so it is no list of images.") from error
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _is_number(field: str) -> bool:
    return field.isascii() and field.isdigit()


def _is_path_line(fields: list[str]) -> bool:
    # "NAME 1 0" does not exist: LFW's numbers start at 1 and a path is not a bare number.
    return len(fields) == 3 and fields[2] in ("0", "1") and not _is_number(fields[1])


def _parse(fields: list[str], by_path: bool) -> tuple[ListedImage, ListedImage, bool]:
    match fields:
        case [a, b, same] if by_path and _is_path_line(fields):
            return ListedImage(a, None), ListedImage(b, None), same == "1"
        case [name, i, j] if not by_path and _is_number(i) and _is_number(j):
            return ListedImage(name, int(i)), ListedImage(name, int(j)), True
        case [name, i, other, j] if not by_path and _is_number(i) and _is_number(j):
            return ListedImage(name, int(i)), ListedImage(other, int(j)), name == other
    forms = "'path path 0' or 'path path 1'" if by_path else "'NAME i j' or 'NAME i OTHER j'"
    raise ValueError(f"{' '.join(fields)!r} is not {forms}")


def _check_header(header: list[int], is_same: np.ndarray, path: Path) -> int | None:
    if not header:
        return None
    folds, each = (1, header[0]) if len(header) == 1 else (header[0], header[1])
    wanted = 2 * folds * each
    if folds < 1 or each < 1 or len(is_same) != wanted:
        raise ValueError(
            f"{path}: the header says {folds} x ({each} + {each}) = {wanted} pairs, but there are "
            f"{len(is_same)}; correct the header, or remove it to leave the folds unstated."
        )
    genuine = is_same.reshape(folds, 2 * each).sum(axis=1)
    if (wrong := np.flatnonzero(genuine != each)).size:
        raise ValueError(
            f"{path}: the header says {each} genuine pairs a fold, but fold {wrong[0] + 1} has "
            f"{genuine[wrong[0]]}; put the lines in order, or remove the header."
        )
    return folds if len(header) == 2 else None


def _check_inside(name: str, root: Path, source: Path) -> None:
    path = Path(name)
    if ".." in path.parts or (path.is_absolute() and not path.is_relative_to(root)):
        raise ValueError(
            f"{source} names {name!r}, which leads out of the image folder {root}; use paths "
            "relative to that folder."
        )


def _folder_index(folder: Path) -> dict[str | int, list[str]]:
    index: dict[str | int, list[str]] = {}
    for name in images_in(folder) if folder.is_dir() else []:
        stem = Path(name).stem
        index.setdefault(stem, []).append(name)
        if _is_number(stem):
            index.setdefault(int(stem), []).append(name)
    return index
