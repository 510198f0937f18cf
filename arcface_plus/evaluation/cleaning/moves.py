"""Move photographs as ``clean.csv`` proposes, and back: nothing is ever deleted or written over.

``moves.csv`` is written whole and made durable before the first photograph moves. So however far
the moves came, ``undo`` knows all of them: each photograph is at one of its two places.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from arcface_plus.data.folder import ImageFolder
from arcface_plus.evaluation.cleaning.findings import KINDS, Kind, Line
from arcface_plus.files import file_sha256, sync, written_beside

ASIDE = "moved"  # in the output folder: where photographs go that belong to nobody's folder
_COLUMNS = ("from", "to", "sha256")


class Move(NamedTuple):
    """Hold where a photograph was, where it goes, and the sha256 of its content."""

    origin: Path
    target: Path
    sha256: str


def plan_moves(
    lines: Sequence[Line], kinds: Collection[Kind], root: Path, output: Path
) -> list[Move]:
    """Return the moves that ``lines`` of ``kinds`` propose in the folder ``root``.

    Copies and wrong labels go to ``output/moved/PERSON/IMAGE``; one of two people's folders goes
    to ``root/OTHER/PERSON_IMAGE``. A photograph with several proposals follows the first, in the
    order of ``KINDS``. Raises ValueError for a photograph that is not there, and a place that is
    taken, lies outside, or is on another file system.
    """
    root, output = root.resolve(), output.resolve()
    photographs, planned = set(ImageFolder(root).paths), dict[str, Path]()
    for line in sorted(lines, key=lambda line: KINDS.index(line.kind)):
        if line.kind in kinds and line.photograph not in planned:
            person, _, image = line.photograph.partition("/")
            aside = line.kind in ("duplicates", "labels")
            target = (
                output / ASIDE / person / image
                if aside
                else root / line.other_person / f"{person}_{image}"
            )
            if line.photograph not in photographs:
                raise ValueError(f"{root} has no photograph {line.photograph}; correct the list.")
            _check_place(root / line.photograph, target, output / ASIDE if aside else root)
            planned[line.photograph] = target
    if len(set(planned.values())) < len(planned):
        raise ValueError("two photographs would go to one place; rename one of them.")
    return [Move(root / key, target, file_sha256(root / key)) for key, target in planned.items()]


def _check_place(origin: Path, target: Path, within: Path) -> None:
    # PERSON/IMAGE below the folder, and nothing else: the list may have been edited.
    parts = Path(os.path.relpath(target, within)).parts
    if len(parts) != 2 or ".." in parts or os.path.normpath(target) != str(target):
        raise ValueError(f"{target} is not PERSON/IMAGE in {within}; correct the list.")
    if os.path.lexists(target):
        raise ValueError(f"{target} is there already; rename it before photographs are moved.")
    there = next(parent for parent in target.parents if parent.exists())
    if there.stat().st_dev != origin.parent.stat().st_dev:
        raise ValueError(
            f"{there} and {origin.parent} are on different file systems, so a move between them "
            "could be cut in half; choose an --output beside the photographs."
        )


def apply_moves(moves: Sequence[Move], path: Path) -> None:
    """Write the list ``path``, then move; folders that are empty thereafter are removed."""
    with (
        written_beside(path) as beside,
        beside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for move in moves:
            places = (os.path.relpath(place, path.parent.resolve()) for place in move[:2])
            writer.writerow((*places, move.sha256))
    sync(path.parent)
    for move in moves:
        _move(move.origin, move.target)
    _remove_empty(move.origin.parent for move in moves)


def undo_moves(path: Path) -> int:
    """Move back what the list ``path`` moved, remove the list, return how many moved back.

    Photographs that had not been moved yet are left where they are, so a list whose moves were cut
    short is undone too, and so is one whose undoing was. Raises ValueError before anything is moved
    where a photograph is at neither place, at both, or has other content than it had.
    """
    moves = _read(path)
    back = [move for move in moves if _is_moved(move)]
    for move in reversed(back):
        _move(move.target, move.origin)
    _remove_empty(move.target.parent for move in moves)
    _remove_empty({path.parent / ASIDE})
    for move in back:
        sync(move.origin.parent)
    path.unlink()
    return len(back)


def _read(path: Path) -> list[Move]:
    folder, moves = path.parent.resolve(), []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.reader(file)
        if next(reader, None) != list(_COLUMNS):
            raise ValueError(
                f"{path} is no list of moves: its columns are not {', '.join(_COLUMNS)}. Give the "
                "moves.csv that --apply wrote into the folder of the findings."
            )
        for row in reader:
            if len(row) != len(_COLUMNS):
                raise ValueError(
                    f"{path}, line {reader.line_num}: three columns are needed; mend the line, or "
                    "take it out and move that photograph back by hand."
                )
            origin, target = (Path(os.path.normpath(folder / place)) for place in row[:2])
            moves.append(Move(origin, target, row[2]))
    return moves


def _is_moved(move: Move) -> bool:
    before, after = os.path.lexists(move.origin), os.path.lexists(move.target)
    if before and after:
        raise ValueError(
            f"{move.target} cannot go back: there is a file at {move.origin}. Move that away first."
        )
    if not before and not after:
        raise ValueError(
            f"{move.origin} is gone, and is not at {move.target} either. Put it back at one of the "
            "two, or take its line out of the list."
        )
    if after and file_sha256(move.target) != move.sha256:
        raise ValueError(
            f"{move.target} is not the file that was moved: its content differs. Restore it first."
        )
    return after


def _move(origin: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(origin, target)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that are empty: one without images would stop a training."""
    for folder in set(folders):
        with contextlib.suppress(OSError):  # not empty, a link, or gone
            folder.rmdir()
