"""A file to damage, a format, and what samples of several formats share."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """``content`` to damage, the ``file`` that ``pack`` makes of it, and those ``beside`` it.

    ``pack`` puts right what would hide the damage from all but the first check: sums, an archive.
    """

    file: str
    content: bytes
    beside: Mapping[str, bytes] = MappingProxyType({})
    pack: Callable[[bytes], bytes] = bytes


class Format(NamedTuple):
    """``samples(folder, marker)`` makes files; ``read(path)`` reads one, to a number of bytes.

    ``marker``: what code in a hostile sample would create. ``claimed``: the bytes that the content
    of a file states it decodes to, whether it can be read or not; ``largest``: the most of it.
    """

    samples: Callable[[Path, str], list[Sample]]
    read: Callable[[Path], int]
    claimed: Callable[[bytes], int] = lambda content: 0
    largest: int = 2**25


class Payload:
    """What unpickling as code would run: it makes the marker."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.marker,)


def repacked(archive: bytes, member: str, content: bytes) -> bytes:
    """Return a zip with ``content`` in the place of a member."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(packed, "w") as new:
        for info in old.infolist():
            new.writestr(info, content if info.filename == member else old.read(info))
    return packed.getvalue()
