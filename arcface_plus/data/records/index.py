"""Where each record of a ``.rec`` file starts: read from its ``.idx``, or found by a scan."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arcface_plus.data.image_headers import MAX_SIDE
from arcface_plus.data.records.recordio import Buffer, scan_offsets

MOST_CLASSES = 1 << 24
"""Labels are float32, which holds no more whole numbers one after the other."""


class Property(NamedTuple):
    """Hold the ``property`` file: number of people, image height and width in pixels."""

    num_classes: int
    height: int
    width: int


def read_property(path: Path) -> Property | None:
    """Read InsightFace's ``property`` file (``people,height,width``); None where there is none.

    Later lines, which some writers add, are ignored. Raises ValueError for anything else.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        line = file.read(256).split(b"\n")[0].strip()
    fields = line.split(b",")
    if len(fields) != 3 or not all(field.strip().isdigit() for field in fields):
        raise ValueError(
            f"{path}: {line!r}; the first line must be 'people,height,width', three whole numbers"
        )
    found = Property(*(int(field) for field in fields))
    if found.num_classes > MOST_CLASSES or max(found[1:]) > MAX_SIDE:
        raise ValueError(
            f"{path}: {line[:80]!r}; at most {MOST_CLASSES} people of {MAX_SIDE} pixels can be"
        )
    return found


class RecordIndex:
    """Map record keys to byte offsets.

    ``keys`` (n,) is a ``range`` where the keys count up by one (no memory, instant look-up), else
    an int64 array; ``offsets`` (n,) is int64. Both are in the order of the .idx lines.
    """

    def __init__(self, keys: np.ndarray, offsets: np.ndarray, *, where: str) -> None:
        self.where = where
        self._order = np.empty(0, dtype=np.int64)
        counted = len(keys) and keys[-1] - keys[0] == len(keys) - 1 and (np.diff(keys) == 1).all()
        self.offsets = np.ascontiguousarray(offsets)  # not a column, which would keep its table
        if counted:
            self.keys: range | np.ndarray = range(int(keys[0]), int(keys[-1]) + 1)
            return
        self.keys = np.ascontiguousarray(keys)
        self._order = np.argsort(keys, kind="stable")
        ordered = keys[self._order]
        twice = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(twice):
            raise ValueError(
                f"{where}: key {ordered[twice[0]]} is listed more than once; keys must be unique: "
                "write the .idx anew"
            )

    def __len__(self) -> int:
        return len(self.offsets)

    def offsets_of(self, keys: range | np.ndarray) -> np.ndarray:
        """Return the offsets of ``keys``: a view where both they and the index count up by one."""
        if isinstance(self.keys, range) and isinstance(keys, range) and keys:
            start = self.row(keys[0])
            self.row(keys[-1])
            return self.offsets[start : start + len(keys)]
        return self.offsets[self.rows(np.asarray(keys, dtype=np.int64))]

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key; raise ValueError naming the first one not listed."""
        keys = np.asarray(keys, dtype=np.int64)
        if isinstance(self.keys, range):
            rows = keys - self.keys.start
            found = (rows >= 0) & (rows < len(self.keys))
        else:
            at = np.searchsorted(self.keys, keys, sorter=self._order)
            rows = self._order[np.minimum(at, len(self) - 1)]
            found = self.keys[rows] == keys
        if not found.all():
            raise ValueError(
                f"{self.where}: key {keys[~found][0]} is not listed ({int((~found).sum())} such "
                "keys); the .idx must list every record: delete it to have the .rec scanned"
            )
        return rows

    def row(self, key: int) -> int:
        """Return the row of one key; raise ValueError where it is not listed."""
        if isinstance(self.keys, range) and key in self.keys:
            return key - self.keys.start
        return int(self.rows(np.array([key]))[0])


def read_index(path: Path) -> RecordIndex:
    """Read an ``.idx`` file: lines ``key TAB offset`` in any order.

    Raises ValueError naming file, line and rule for anything else.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # no line
            # Where newer NumPy raises, an older one warns and cuts 1.5 to 1.
            warnings.simplefilter("error", DeprecationWarning)
            # By its name: of an open file, NumPy would make a Python object a line.
            table = np.loadtxt(
                str(path), np.int64, delimiter="\t", ndmin=2, comments=None, encoding="latin1"
            )
    except (ValueError, DeprecationWarning) as error:
        raise ValueError(
            f"{path}: {error}; every line must be 'key TAB byte offset', two whole numbers"
        ) from error
    if not table.size:
        raise ValueError(f"{path}: no lines; delete it to have the .rec scanned instead")
    if table.shape[1] != 2:
        raise ValueError(
            f"{path}: lines of {table.shape[1]} columns; every line must be 'key TAB byte offset'"
        )
    return RecordIndex(table[:, 0], table[:, 1], where=str(path))


def scan_index(buffer: Buffer, *, where: str) -> RecordIndex:
    """Index a ``.rec`` that has no ``.idx``: keys are positions 0, 1, 2, … in file order.

    That is the rule of mxnet's rec2idx tool; it is exact for files written in key order, as
    InsightFace's are.
    """
    try:
        offsets = scan_offsets(buffer)
    except ValueError as error:
        raise type(error)(
            f"{where}: {error}; the file has no .idx beside it and cannot be scanned past this "
            "point: copy the file again, or bring back its .idx"
        ) from error
    return RecordIndex(np.arange(len(offsets), dtype=np.int64), offsets, where=where)
