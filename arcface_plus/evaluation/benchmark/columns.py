"""Columns of CSV files about people (their groups) and photographs (their quality)."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

MOST_GROUPS = 50  # a cell a pair of groups: more says that the column is no grouping
_LONGEST = 100
_SHOWN = 5
Sides = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True)
class Grouping:
    """Hold a column of groups for N pairs.

    - ``groups``: their G names, sorted.
    - ``of_person``: (P,) int64, the group of each person; -1 where the file leaves it empty.
    - ``person_a``, ``person_b``: (N,) int64, the person on either side of a pair.
    - ``people``: the N names of either side.
    """

    name: str
    groups: tuple[str, ...]
    of_person: np.ndarray
    person_a: np.ndarray
    person_b: np.ndarray
    people: Sides

    @property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The group on either side of a pair, (N,) int64, -1 where it is not known."""
        return self.of_person[self.person_a], self.of_person[self.person_b]


def read_groupings(path: str | Path, people: Sides) -> list[Grouping]:
    """Read ``person,COLUMN[,COLUMN …]``: a group for every person of N pairs, a list a column.

    ``people``: the N names of either side. A cell may be empty: this person counts in no group.
    People of the file who are in no pair are ignored.

    Raises FileNotFoundError, and ValueError naming the file for no header, a person who is missing
    or there twice, a column with fewer than two groups or more than fifty among the pairs' people.
    """
    path = Path(path)
    columns, rows = _read(path, key="person")
    known, codes = np.unique(np.concatenate([people[0], people[1]]), return_inverse=True)
    person_a, person_b = np.split(codes, 2)
    names = known.tolist()
    if missing := [name for name in names if name not in rows]:
        raise ValueError(
            f"{path} lacks {len(missing)} of the {len(names)} people of the pairs: "
            f"{_few(missing)}. Give each a line; leave cells empty where the group is not known."
        )
    found = []
    for number, column in enumerate(columns):
        cells = [rows[name][number] for name in names]
        groups = tuple(sorted({cell for cell in cells if cell}))
        if not 2 <= len(groups) <= MOST_GROUPS:
            raise ValueError(
                f"{path}: the people of the pairs are in {len(groups)} groups of {column!r}, but "
                f"2 to {MOST_GROUPS} can be compared; merge groups or remove the column."
            )
        code = {group: at for at, group in enumerate(groups)}
        of_person = np.array([code.get(cell, -1) for cell in cells], dtype=np.int64)
        found.append(Grouping(column, groups, of_person, person_a, person_b, people))
    return found


def read_qualities(path: str | Path, images: Sides) -> dict[str, np.ndarray]:
    """Read ``image,COLUMN[,COLUMN …]``, quality scores, higher is better; column → (N,) per pair.

    A pair is as good as the worse of its two images. ``images``: the N names of either side, found
    in the file as they are, or else by their name without folders and suffix.

    Raises FileNotFoundError, and ValueError naming the file for no header, a number that is none or
    not finite, and an image of the pairs that is missing or there twice.
    """
    path = Path(path)
    columns, rows = _read(path, key="image")
    needed = sorted({*images[0], *images[1]})
    key_of = {name: name for name in needed}
    if not all(name in rows for name in needed):
        stems: dict[str, list[str]] = {}
        for name in rows:
            stems.setdefault(PurePosixPath(name).stem, []).append(name)
        fitting = {name: stems.get(PurePosixPath(name).stem, []) for name in needed}
        if wrong := [name for name, keys in fitting.items() if len(keys) != 1]:
            raise ValueError(
                f"{path} does not have one line for each image of the pairs: {len(wrong)} of "
                f"{len(needed)} are missing or there twice: {_few(wrong)}."
            )
        key_of = {name: keys[0] for name, keys in fitting.items()}
    found = {}
    for number, column in enumerate(columns):
        score = {name: _number(rows[key_of[name]][number], path, name) for name in needed}
        a, b = (np.array([score[name] for name in side]) for side in images)
        found[column] = np.minimum(a, b)
    return found


def _read(path: Path, *, key: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the columns after the first, and the cells of each key."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    rows: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(lines, [])]
            _check_header(header, key)
            for cells in lines:
                if not cells:
                    continue
                name, *values = (cell.strip() for cell in cells)
                if len(cells) != len(header):
                    raise ValueError(
                        f"line {lines.line_num} has {len(cells)} cells, its header {len(header)}"
                    )
                if not name or name in rows:
                    what = f"names {_cut(name)!r} again" if name else "names nobody"
                    raise ValueError(f"line {lines.line_num} {what}")
                rows[name] = [_cut(value) for value in values]
    except (csv.Error, UnicodeDecodeError, ValueError) as error:
        raise ValueError(
            f"{path}: {error}. It should be a CSV (UTF-8) whose header is {key},COLUMN[,COLUMN …]."
        ) from error
    return header[1:], rows


def _check_header(header: list[str], key: str) -> None:
    if len(header) < 2 or header[0] != key:
        raise ValueError(f"its header is {_cut(','.join(header))!r}")
    if not all(header) or len(set(header)) < len(header):
        raise ValueError("a column has no name, or that of another")


def _number(cell: str, path: Path, image: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}: the quality of {image} is {cell!r}, but must be a number.")
    return value


def _few(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(_cut(name) for name in names[:_SHOWN]) + more


def _cut(words: str) -> str:
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
