"""What a cleaning finds, and ``clean.csv``: a line for every photograph that would be moved."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError

from arcface_plus.files import written_beside

Kind = Literal["duplicates", "labels", "merge", "split"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# The lowest score of each kind; docs/cleaning.md says what they measure, and was measured.
THRESHOLDS: dict[Kind, float] = {"duplicates": 0.96, "labels": 0.4, "merge": 0.75, "split": 0.6}
PROPOSALS: dict[Kind, str] = {
    "duplicates": "move aside: a copy of other_photograph",
    "labels": "move aside: it looks like other_person",
    "merge": "move to other_person: the same person",
    "split": "move to other_person, a new folder: another person",
}


@dataclass(frozen=True)
class Finding:
    """Hold one finding: the ``photographs`` (rows) that would be moved, and whose they are.

    ``other``: the other person's number (labels, merge). ``kept``: the row that they are copies of
    (duplicates).
    """

    kind: Kind
    score: float
    photographs: tuple[int, ...]
    person: int
    other: int | None = None
    kept: int | None = None


@dataclass(frozen=True)
class Line:
    """Hold a line of ``clean.csv``; lines of one ``finding`` belong together."""

    finding: int
    kind: Kind
    score: float
    photograph: str
    person: str
    other_person: str
    other_photograph: str
    proposal: str


_LINE = TypeAdapter(Line)


def lines_of(findings: Sequence[Finding], keys: Sequence[str], people: Sequence[str]) -> list[Line]:
    """Return the lines of ``clean.csv``; ``keys`` name photographs, ``people`` people."""
    lines = []
    for number, found in enumerate(findings, 1):
        other = "" if found.other is None else people[found.other]
        if found.kind == "split":
            other = new_name(people[found.person], people)
        kept = "" if found.kept is None else keys[found.kept]
        lines += [
            Line(
                number,
                found.kind,
                round(found.score, 4),
                keys[row],
                people[found.person],
                other,
                kept,
                PROPOSALS[found.kind],
            )
            for row in found.photographs
        ]
    return lines


def new_name(person: str, people: Sequence[str]) -> str:
    """Return ``person`` with the first number from 2 on that is nobody's name."""
    number = 2
    while f"{person}_{number}" in people:
        number += 1
    return f"{person}_{number}"


def write_lines(path: Path, lines: Sequence[Line]) -> None:
    """Write ``clean.csv``."""
    with (
        written_beside(path) as beside,
        beside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, [field.name for field in fields(Line)])
        writer.writeheader()
        writer.writerows(asdict(line) for line in lines)


def read_lines(path: Path) -> list[Line]:
    """Read a ``clean.csv``, from which lines may have been taken; ValueError naming a bad line."""
    names = [field.name for field in fields(Line)]
    lines = []
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != names:
            raise ValueError(
                f"{path}: the first line must name the columns {', '.join(names)}, but is "
                f"{', '.join(reader.fieldnames or []) or 'empty'}. Keep commas between columns."
            )
        for row in reader:
            try:
                lines.append(_LINE.validate_python(row))
            except ValidationError as error:
                wrong = error.errors()[0]
                raise ValueError(
                    f"{path}, line {reader.line_num}: {wrong['loc'][0]} is {wrong['input']!r}. "
                    f"{wrong['msg']}."
                ) from error
    return lines
