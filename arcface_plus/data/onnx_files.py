"""What an ONNX file may refer to: weights in files of its own folder, and nothing outside.

Newer releases of onnxruntime refuse such paths themselves; this reads just enough of the file
(protobuf: a tag, a length, bytes) to do so under every release that is supported. What protobuf
reads is read here too, so that no damage hides a path.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

# Message → number of a field → the message in it; after onnx.proto of ONNX 1.17.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {1: "key", 2: "value"},
}
_OWN_MEMORY = "_ORT_MEM_ADDR_"
_MOST_NESTED = 100  # as protobuf itself allows
Span = tuple[int, int]


def check_external_data(path: str | os.PathLike[str]) -> None:
    """Raise ValueError where an ONNX file takes weights from outside its own folder.

    Outside is also where a link in the folder leads to, and the process's own memory, which
    onnxruntime takes a reserved name for. So is a file that is no protobuf.
    """
    path = Path(path)
    folder = path.resolve().parent
    for location in external_files(path):
        inside = "\0" not in location and (folder / location).resolve().is_relative_to(folder)
        if not inside or _OWN_MEMORY in location:
            raise ValueError(
                f"{path}: it takes weights from {location[:200]!r}, outside its own folder; save "
                "it as one file, or put the file of its weights beside it"
            )


def external_files(path: Path) -> list[str]:
    """Return the locations of external data that an ONNX file states, as written there."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return list(_locations(data, "model", (0, len(data)), 0))
    except (IndexError, ValueError) as error:
        raise ValueError(
            f"{path} is no ONNX file, or is damaged ({error}); export or copy it again"
        ) from error


def _locations(data: mmap.mmap, message: str, span: Span, depth: int) -> Iterator[str]:
    if message == "entry":
        fields = {_FIELDS["entry"].get(number): data[a:b] for number, (a, b) in _fields(data, span)}
        if fields.get("key") == b"location":
            yield fields.get("value", b"").decode("utf-8", "surrogateescape")
        return
    if depth > _MOST_NESTED:
        raise ValueError("graphs are nested too deep")
    for number, inner in _fields(data, span):
        if (kind := _FIELDS[message].get(number)) is not None:
            yield from _locations(data, kind, inner, depth + 1)


def _fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, Span]]:
    """Yield the number and place of each field of a message that holds bytes."""
    position, end = span
    while position < end:
        tag, position = _varint(data, position)
        kind, length = tag & 7, 0
        if kind == 0:
            _, position = _varint(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        elif kind == 2:
            length, position = _varint(data, position)
        elif kind not in (3, 4):  # marks around fields, which are taken as if there were none
            raise ValueError(f"byte {position} is of no field")
        if position + length > end:
            raise ValueError(f"a field ends at byte {position + length}, behind its message")
        if kind == 2:
            yield tag >> 3, (position, position + length)
        position += length


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError(f"byte {position} is of no number")
