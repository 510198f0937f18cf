"""Torch's ``.metadata`` read as data, and shards read as tensors alone.

DCP (torch.distributed.checkpoint) says where each tensor is in a pickle, and a pickle is a program.
It is read here with the instructions and names that torch 2.9 to 2.14 write and no others; no name
in it is looked up or called. What it says is checked before anything is allocated: names of files
cannot leave the folder, and tensors cannot be larger than the files that hold them.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from arcface_plus.checkpoints.reading import METADATA, SHARD, read_bounded
from arcface_plus.data.pickles.reader import PlainUnpickler, instructions

_DTYPES = {str(d): d for d in vars(torch).values() if isinstance(d, torch.dtype)}


@dataclass(frozen=True)
class _Place:
    """Where a piece of a tensor is; what DCP's reader asks of its own ``_StorageInfo``."""

    relative_path: str
    offset: int
    length: int
    transform_descriptors: None = None


class _Object:
    """An object of torch's as the pickle states it: its kind and its state."""

    state: Any = None

    def set_state(self, state: Any) -> None:
        self.state = state


def _kind(name: str) -> type[_Object]:
    return type(name, (_Object,), {})


_METADATA, _TENSOR, _PROPERTIES = map(_kind, ("Metadata", "TensorStorageMetadata", "Properties"))
_CHUNK, _INDEX, _INFO, _META = map(_kind, ("Chunk", "MetadataIndex", "_StorageInfo", "StorageMeta"))


def _size(values: Any = ()) -> torch.Size:
    if not isinstance(values, tuple) or not all(type(n) is int and n >= 0 for n in values):
        raise ValueError("it states a shape that is none")
    return torch.Size(values)


def _ignored(*_: Any) -> None:
    """Stand for what nothing here depends on: the layout, the memory format, the old path."""


_HOME = "torch.distributed.checkpoint"


class _MetadataUnpickler(PlainUnpickler):
    NAMES: ClassVar[Mapping[tuple[str, str], Callable[..., Any]]] = {
        (f"{_HOME}.metadata", "Metadata"): _METADATA,
        (f"{_HOME}.metadata", "TensorStorageMetadata"): _TENSOR,
        (f"{_HOME}.metadata", "TensorProperties"): _PROPERTIES,
        (f"{_HOME}.metadata", "ChunkStorageMetadata"): _CHUNK,
        (f"{_HOME}.metadata", "MetadataIndex"): _INDEX,
        (f"{_HOME}.metadata", "StorageMeta"): _META,
        (f"{_HOME}.filesystem", "_StorageInfo"): _INFO,
        (f"{_HOME}.metadata", "_MEM_FORMAT_ENCODING"): _ignored,
        ("torch.serialization", "_get_layout"): _ignored,
        ("torch", "Size"): _size,
        ("pathlib", "PosixPath"): _ignored,
        ("pathlib._local", "PosixPath"): _ignored,  # Python 3.13
    }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and f"torch.{name}" in _DTYPES:
            return _DTYPES[f"torch.{name}"]
        if (module, name) not in self.NAMES:
            raise ValueError(
                f"it refers to {module[:80]}.{name[:80]}, which no checkpoint needs; nothing in it "
                "was run"
            )
        return self.NAMES[module, name]

    def _new(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not (isinstance(kind, type) and issubclass(kind, _Object)) or arguments != ():
            raise ValueError("it makes an object that no checkpoint has")
        self.stack.append(kind())

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **PlainUnpickler.dispatch,
        **instructions("EMPTY_DICT SETITEM SETITEMS"),
        ord(pickle.NEWOBJ): _new,
    }


def read_metadata(snapshot: Path) -> Metadata:
    """Return what ``.metadata`` says of the tensors of ``snapshot`` and where they are.

    Raises ValueError where it is not what DCP writes: a name that is not known, a file outside the
    folder, tensors larger than the files.
    """
    try:
        stated = _MetadataUnpickler(read_bounded(snapshot / METADATA)).load()
        tensors = {_text(n): _tensor(t) for n, t in _of(stated, _METADATA, "state_dict_metadata")}
        places = dict(_place(*item) for item in _of(stated, _METADATA, "storage_data"))
        _check_places(snapshot, tensors, places)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"checkpoint {snapshot}: {METADATA} is not what a checkpoint has: {error}."
        ) from error
    return Metadata({**tensors}, storage_data=places, storage_meta=StorageMeta())


def _of(stated: Any, kind: type[_Object], field: str) -> Any:
    """Return a field of a stated object of ``kind``; the items of a dictionary."""
    if type(stated) is not kind or not isinstance(stated.state, dict):
        raise ValueError(f"it has a {type(stated).__name__} where a {kind.__name__} belongs")
    value = stated.state[field]
    return value.items() if isinstance(value, dict) else value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"it has a {type(value).__name__} where a name belongs")
    return value


def _shape(value: Any, like: torch.Size | None = None) -> torch.Size:
    if not isinstance(value, torch.Size) or (like is not None and len(value) != len(like)):
        raise ValueError("it has something else where a shape belongs")
    return value


def _tensor(stated: Any) -> TensorStorageMetadata:
    size = _shape(_of(stated, _TENSOR, "size"))
    properties = _of(stated, _TENSOR, "properties")
    if type(properties) is not _PROPERTIES or not isinstance(properties.state[0], torch.dtype):
        raise ValueError("it has a tensor without a number type")
    chunks = []
    for chunk in _of(stated, _TENSOR, "chunks"):
        offsets, sizes = (_shape(_of(chunk, _CHUNK, key), size) for key in ("offsets", "sizes"))
        if any(a + n > whole for a, n, whole in zip(offsets, sizes, size, strict=True)):
            raise ValueError("it has a piece of a tensor outside the tensor")
        chunks.append(ChunkStorageMetadata(offsets, sizes))
    return TensorStorageMetadata(TensorProperties(dtype=properties.state[0]), size, chunks)


def _place(index: Any, info: Any) -> tuple[MetadataIndex, _Place]:
    offset, number = (_of(index, _INDEX, key) for key in ("offset", "index"))
    if not (number is None or type(number) is int):
        raise ValueError("it has an index that is no number")
    path, start, length = (_of(info, _INFO, key) for key in ("relative_path", "offset", "length"))
    if not SHARD.fullmatch(_text(path)):
        raise ValueError(f"it refers to the file {path[:80]!r}, which no checkpoint has")
    if not all(type(n) is int and n >= 0 for n in (start, length)):
        raise ValueError(f"it has a place in {path} that is no number")
    key = MetadataIndex(
        _text(_of(index, _INDEX, "fqn")), None if offset is None else _shape(offset), number
    )
    return key, _Place(path, start, length)


def _check_places(
    snapshot: Path,
    tensors: Mapping[str, TensorStorageMetadata],
    places: Mapping[MetadataIndex, _Place],
) -> None:
    """Raise ValueError where pieces lie outside their files, or tensors are larger than them."""
    sizes = {name: (snapshot / name).stat().st_size for name in _files(snapshot)}
    for place in places.values():
        if place.offset + place.length > sizes.get(place.relative_path, 0):
            raise ValueError(f"it refers to bytes that {place.relative_path} does not have")
    claimed = sum(math.prod(t.size) * t.properties.dtype.itemsize for t in tensors.values())
    if claimed > sum(sizes.values()):
        raise ValueError(f"it states {claimed} bytes of tensors, but its files have fewer")


def _files(snapshot: Path) -> list[str]:
    return [path.name for path in snapshot.iterdir() if SHARD.fullmatch(path.name)]


def failures(error: CheckpointException) -> dict[int, str]:
    """Return what each failed rank says; with the kind of error, unless the system said it."""
    return {rank: words_of(failed) for rank, (failed, _) in sorted(error.failures.items())}


def words_of(error: BaseException) -> str:
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


class SafeReader(dcp.FileSystemReader):
    """DCP's reader of a snapshot that need not be trusted."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        return read_metadata(Path(self.path))

    def _slice_file(self, file: IO[bytes], sinfo: Any) -> IO[bytes]:
        """Return the piece of a shard; what torch.load makes of it is not larger than it."""
        piece = _Piece(file, sinfo.offset, sinfo.length)
        try:
            with zipfile.ZipFile(piece) as archive:
                entries = archive.infolist()
        except zipfile.BadZipFile as error:
            raise ValueError(f"{sinfo.relative_path} holds no tensor at {sinfo.offset}") from error
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > sinfo.length:
            raise ValueError(f"{sinfo.relative_path} holds a tensor larger than its bytes")
        piece.seek(0)
        return cast("IO[bytes]", piece)


class _Piece(io.RawIOBase):
    """Part of a file; torch's own view of one does not seek as zip files need it."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, (0, self._at, self._length)[whence] + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._start + self._at)
        piece = view[: max(0, self._length - self._at)]
        count = self._file.readinto(piece)  # type: ignore[attr-defined]
        self._at += count
        return int(count)
