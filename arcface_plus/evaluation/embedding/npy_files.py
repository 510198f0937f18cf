"""Arrays out of ``.npz`` and ``.npy`` files that may say anything.

NumPy allocates what a header claims before it reads on, and unpacks whatever a member states. Here
the bytes must be there for the shape, and an archive must not unpack to much more than it has. Only
plain arrays: an object array is a pickle, and a pickle is a program.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np

MOST_UNPACKED = 2**26
"""Bytes that any archive may unpack to; a larger one, to ``RATIO`` times its own size."""
RATIO = 16

# What damaged archives raise: cut members, wrong checksums, odd compression, absurd shapes.
UNREADABLE = (
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
_LONGEST_HEADER = 2**14  # NumPy itself takes no more than 10 000 bytes
_Header = tuple[tuple[int, ...], bool, np.dtype, int]


class ArrayArchive:
    """The arrays of an open ``.npz`` by ``names``; ``read`` raises one of ``UNREADABLE``."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        self.names = list(self._members)

    def read(self, name: str) -> np.ndarray:
        """Return the array ``name``, whose header is checked against the bytes that it has."""
        if (info := self._members.get(name)) is None:
            raise ValueError(f"it lacks {name}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"its array {name} is packed in a way that NumPy does not write")
        with self._archive.open(info) as member:
            _read_header(member, info.file_size, f"its array {name}")
        with self._archive.open(info) as member:
            return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


@contextmanager
def opened_npz(path: Path) -> Iterator[ArrayArchive]:
    """Open an ``.npz``; raise ValueError where it is none or unpacks to far more than it has."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no .npz archive, or was cut")
    with zipfile.ZipFile(path) as archive:
        check_unpacked(path, sum(info.file_size for info in archive.infolist()))
        yield ArrayArchive(archive)


def check_unpacked(path: Path, unpacked: int) -> None:
    """Raise ValueError where the file ``path`` makes more bytes than a file of its size may."""
    most = max(MOST_UNPACKED, RATIO * path.stat().st_size)
    if unpacked > most:
        raise ValueError(
            f"it unpacks to {unpacked} bytes, but a file of its size may make at most {most}; "
            "save it without compression"
        )


def mapped_npy(path: Path) -> np.ndarray:
    """Return the array of an ``.npy``, mapped into memory; raises one of ``UNREADABLE``."""
    with path.open("rb") as file:
        shape, fortran, dtype, offset = _read_header(file, path.stat().st_size, "it")
    order: Literal["F", "C"] = "F" if fortran else "C"
    return np.memmap(path, dtype=dtype, mode="r", shape=shape, order=order, offset=offset)


def _read_header(file: IO[bytes], size: int, what: str) -> _Header:
    """Return shape, memory order, type and offset of the array in a file of ``size`` bytes."""
    head = io.BytesIO(file.read(_LONGEST_HEADER))  # a length in it could ask for gigabytes
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(head)](head)
    except UNREADABLE:
        raise
    except Exception as error:  # it is parsed as Python's own text, which can fail in any way
        raise ValueError(f"the header of {what} is damaged ({error!r})") from error
    if dtype.kind not in "biufUS":
        raise ValueError(
            f"{what} holds {str(dtype)[:40]}, but only numbers, booleans and text are read "
            "(an object array is a pickle, which can hold code)"
        )
    needed, there = math.prod(shape) * dtype.itemsize, size - head.tell()
    if min(shape, default=0) < 0 or needed > there:
        raise ValueError(
            f"{what} states the shape {str(shape)[:80]} of {str(dtype)[:40]}, which takes {needed} "
            f"bytes, but has {there}"
        )
    return shape, fortran, dtype, head.tell()
