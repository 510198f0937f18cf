"""Long text files of whole numbers, a record a line, read in blocks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

_BLOCK_BYTES = 1 << 24
_LONGEST_LINE = 1 << 16
_NEWLINE = 10
_LIMIT = 1 << 62


def read_integer_table(path: str | Path, columns: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number of its first line, rows (n, ``columns``) int64) of one block after another.

    Columns stand apart by blanks. Memory is that of a block, whatever the length of the file.

    Raises FileNotFoundError, and ValueError naming file and line where a line does not hold
    ``columns`` whole numbers below 2**62 in magnitude.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    line = 1
    with path.open("rb") as file:
        rest = b""
        while True:
            data = file.read(_BLOCK_BYTES)
            if not data:
                break
            whole, newline, tail = data.rpartition(b"\n")
            if not newline:
                rest += data
                if len(rest) > _LONGEST_LINE:
                    raise ValueError(f"{path}, line {line} is longer than {_LONGEST_LINE} bytes.")
                continue
            block, rest = rest + whole + b"\n", tail
            rows = _parse(block, columns, path, line)
            yield line, rows
            line += block.count(b"\n")
        if rest.strip():
            yield line, _parse(rest + b"\n", columns, path, line)


def _parse(block: bytes, columns: int, path: Path, line: int) -> np.ndarray:
    if _is_regular(block, columns):
        try:
            with warnings.catch_warnings():
                # Where newer NumPy raises, an older one warns and stops in the middle.
                warnings.simplefilter("error", DeprecationWarning)
                rows = np.fromstring(block.decode("ascii"), dtype=np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            return _parse_slowly(block, columns, path, line)
        # Numbers too large for int64 arrive as its limits.
        if rows.size == columns * block.count(b"\n") and (np.abs(rows) < _LIMIT).all():
            return rows.reshape(-1, columns)
    return _parse_slowly(block, columns, path, line)


def _is_regular(block: bytes, columns: int) -> bool:
    """Return whether each line is ``columns`` words with one blank between two."""
    raw = np.frombuffer(block, dtype=np.uint8)
    at = np.flatnonzero(raw <= 32)
    if at.size % columns or raw[-1] != _NEWLINE or at[0] == 0 or (np.diff(at) == 1).any():
        return False
    ends = raw[at].reshape(-1, columns) == _NEWLINE
    return bool(ends[:, -1].all() and not ends[:, :-1].any())


def _parse_slowly(block: bytes, columns: int, path: Path, first: int) -> np.ndarray:
    rows = []
    for number, text in enumerate(block.split(b"\n")[:-1], start=first):
        words = text.split()
        if len(words) != columns or not all(_is_whole(word) for word in words):
            shown = text[:80].decode("utf-8", "replace")
            raise ValueError(
                f"{path}, line {number}: {columns} whole numbers are expected, but it is {shown!r}."
            )
        rows.append([int(word) for word in words])
    return np.fromiter(chain.from_iterable(rows), np.int64, columns * len(rows)).reshape(
        -1, columns
    )


def _is_whole(word: bytes) -> bool:
    # isdigit() of bytes knows ASCII alone; int() would take 1_000 too.
    return word.removeprefix(b"-").isdigit() and len(word) < 20 and abs(int(word)) < _LIMIT
