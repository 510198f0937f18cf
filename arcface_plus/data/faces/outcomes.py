"""What became of each photograph, and the table of it: ``alignment.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from arcface_plus.data.faces.face import Face
from arcface_plus.files import written_beside

_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
_NUMBERS = ("score", "size", "x1", "y1", "x2", "y2", *(f"{p}_{c}" for p in _POINTS for c in "xy"))
COLUMNS = ("photograph", "status", "crop", "bytes", "faces", *_NUMBERS, "note")


class Status(StrEnum):
    """How an attempt ended; the first two gave a crop."""

    ALIGNED = "aligned"
    SEVERAL = "several faces"
    TINY = "tiny face"
    NONE = "no face"
    UNREADABLE = "not readable"
    NO_IMAGE = "not an image"


@dataclass(frozen=True)
class Outcome:
    """A row of the table.

    ``photograph`` and ``crop`` are paths below the folders in and out, with "/"; ``crop`` is empty
    where none was made. ``bytes``: size of the photograph's file. ``faces``: how many were found.
    ``numbers``: score, size, box and landmarks of the chosen face as text, in the photograph's
    pixels (after its EXIF rotation); empty where there is none. ``note``: why there is no crop.
    """

    photograph: str
    status: Status
    crop: str = ""
    bytes: int = 0
    faces: int = 0
    numbers: tuple[str, ...] = ("",) * len(_NUMBERS)
    note: str = ""

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """The chosen face's box x1 y1 x2 y2."""
        x1, y1, x2, y2 = self.numbers[2:6]
        return (float(x1), float(y1), float(x2), float(y2)) if x1 else None

    def row(self) -> list[str]:
        """Return the values of ``COLUMNS``."""
        counts = [str(self.bytes), str(self.faces)]
        return [self.photograph, self.status, self.crop, *counts, *self.numbers, self.note]


def numbers_of(face: Face) -> tuple[str, ...]:
    """Return what ``Outcome.numbers`` holds of ``face``."""
    pixels = [face.size, *face.box, *face.landmarks.ravel()]
    return f"{face.score:.4f}", *(f"{number:.2f}" for number in pixels)


def as_line(row: Iterable[str]) -> str:
    """Return ``row`` as a line of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()


def write_outcomes(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the table anew, by photograph."""
    rows = sorted(outcomes, key=lambda outcome: outcome.photograph)
    with written_beside(path) as beside:
        text = "".join(map(as_line, [COLUMNS, *(outcome.row() for outcome in rows)]))
        # File names that are no Unicode stay the bytes they are.
        beside.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def read_outcomes(path: Path) -> list[Outcome]:
    """Return the rows of a table, without a last one that was cut while it was written.

    Raises ValueError naming the file where it is another table.
    """
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        text = file.read()
    # What follows the last line end was being written when the process died.
    rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise ValueError(f"{path} is no table of alignment; choose another folder for the crops")
    try:
        return [_outcome(row) for row in rows[1:] if len(row) == len(COLUMNS)]
    except ValueError as error:
        raise ValueError(f"{path}: {error}; remove it to align anew") from error


def _outcome(row: list[str]) -> Outcome:
    photograph, status, crop, size, faces, *numbers, note = row
    for number in filter(None, numbers):
        float(number)
    return Outcome(photograph, Status(status), crop, int(size), int(faces), tuple(numbers), note)
