"""Read InsightFace / mxnet ``.rec`` files without mxnet."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arcface_plus.data.records.cut import find_cut
from arcface_plus.data.records.headers import (
    FAULT_RULES,
    HeaderTable,
    gather_headers,
    read_labelled,
    valid_labels,
)
from arcface_plus.data.records.identities import (
    FLOAT32_EXACT,
    find_identity_keys,
    partition_keys,
    ranges_of_labels,
    read_identity_ranges,
)
from arcface_plus.data.records.index import Property, read_index, read_property, scan_index
from arcface_plus.data.records.recordio import (
    LENGTH_MASK,
    MAGIC,
    CutRecordError,
    read_record,
    record_error,
)
from arcface_plus.data.records.writer import RecordWriter

__all__ = ["Property", "Record", "RecordReader", "RecordWriter"]

_BLOCK = 1 << 18
_FRAME_AND_HEADER = struct.Struct("<IIIfQQ")


class Record(NamedTuple):
    """Hold one image record: label (float, or float32 array), encoded image bytes, key."""

    label: float | np.ndarray
    data: bytes
    key: int


class RecordReader(AbstractContextManager["RecordReader"]):
    """Read image records by position: ``len(reader)`` images, ``reader[i] -> Record``.

    ``path`` is the ``.rec`` file or its folder (then ``train.rec``); ``.idx`` and ``property`` are
    taken from beside it. Without an ``.idx`` the file is scanned and keys are positions 0, 1, 2, …
    Images come in key order under header-0 (see ``identities``), else in the order of the
    ``.idx`` lines, as mxnet has them.

    The file is memory-mapped and never seeked, so threads and forked workers may share a reader;
    pickling sends the index and maps the file again. Raises ValueError or FileNotFoundError,
    naming file, key, offset and rule.
    """

    keys: range | np.ndarray
    """Keys of the images, (len,), in reading order."""
    property: Property | None
    """What the ``property`` file says; None without one."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.path = path / "train.rec" if path.is_dir() else path
        self._map_file()
        index_path = self.path.with_suffix(".idx")
        where = str(self.path)
        self.index = (
            read_index(index_path) if index_path.exists() else scan_index(self.buffer, where=where)
        )
        self.property = read_property(self.path.with_name("property"))
        self._identity_keys = self._find_identity_keys(where)
        identities = self._identity_keys
        self.keys = self.index.keys if identities is None else range(1, identities.start)
        self._offsets = self.index.offsets_of(self.keys)

    def _find_identity_keys(self, where: str) -> range | None:
        try:
            return find_identity_keys(self.buffer, self.index, where=where)
        except ValueError as error:
            offsets = self.index.offsets
            cut = find_cut(self.buffer, offsets, gather_headers(self.buffer, offsets))
            if cut is None:
                raise
            raise CutRecordError(
                f"{where}: {cut.message}; copy the file again from its source, or pack it anew"
            ) from error

    def _map_file(self) -> None:
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such .rec file")
        with self.path.open("rb") as file:
            if file.seek(0, 2) == 0:
                raise ValueError(f"{self.path}: the file is empty; copy or pack it again")
            self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._size = len(self.buffer)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, position: int) -> Record:
        if position < 0:
            position += len(self._offsets)
        if not 0 <= position < len(self._offsets):
            raise IndexError(f"image {position} of {len(self)} in {self.path}")
        offset: int = self._offsets.item(position)
        key = int(self.keys[position])
        # One unpack serves the common record: a single part with a scalar label.
        if 0 <= offset <= self._size - _FRAME_AND_HEADER.size:
            magic, part, flag, label, _, _ = _FRAME_AND_HEADER.unpack_from(self.buffer, offset)
            end = offset + 8 + part
            if magic == MAGIC and 24 <= part <= LENGTH_MASK and flag == 0 and end <= self._size:
                return Record(label, self.buffer[offset + 32 : end], key)
        return Record(*read_labelled(self.buffer, offset, where=self.path, key=key), key)

    def __iter__(self) -> Iterator[Record]:
        return (self[position] for position in range(len(self)))

    def read_ahead(self, first: int, end: int) -> None:
        """Have the system read the images at positions ``first`` … ``end`` − 1, as one piece.

        Returns when they are on their way. Nothing happens where they do not lie one after the
        other, and on systems that take no such wish.
        """
        offsets = self._offsets[first : end + 1]
        if len(offsets) < 2 or (np.diff(offsets) < 0).any() or not hasattr(os, "posix_fadvise"):
            return
        start, stop = int(offsets[0]), int(offsets[-1]) if end < len(self) else self._size
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            os.posix_fadvise(file.fileno(), start, stop - start, os.POSIX_FADV_WILLNEED)

    def read(self, key: int) -> bytes:
        """Return the whole payload (header and data) of record ``key``, identity records too."""
        offset: int = self.index.offsets.item(self.index.row(key))
        try:
            return read_record(self.buffer, offset)[0]
        except ValueError as error:
            raise record_error(self.path, key, offset, str(error)) from error

    @cached_property
    def labels(self) -> np.ndarray:
        """Return the class of every image, int64 of shape (len,); the first label of arrays.

        With identity ranges only the first and last image of each person are read; where these
        disagree, and without ranges, every header is. `check_records` compares them all.
        """
        ranges = self.identity_ranges
        disjoint = None if ranges is None else partition_keys(ranges, len(self))
        if disjoint is not None:
            first, last = self._labels_at(disjoint[:, 0] - 1), self._labels_at(disjoint[:, 1] - 2)
            if (first == last).all():
                return np.repeat(first, disjoint[:, 1] - disjoint[:, 0])
        return self._labels_at(range(len(self)))

    def _labels_at(self, positions: np.ndarray | range) -> np.ndarray:
        labels = np.empty(len(positions), dtype=np.int64)
        # In blocks: headers of all images at once would take five times the memory of the labels.
        for start in range(0, len(positions), _BLOCK):
            block = np.asarray(positions[start : start + _BLOCK])
            labels[start : start + _BLOCK] = self._labels_of_block(block)
        return labels

    def _labels_of_block(self, positions: np.ndarray) -> np.ndarray:
        table = self.headers(positions)
        bad = np.flatnonzero(~valid_labels(table))
        if len(bad) == 0:
            return table.label.astype(np.int64)
        position, fault = int(positions[bad[0]]), int(table.fault[bad[0]])
        rule = f"label {table.label[bad[0]]} is not a whole number in [0, 2^24)"
        rule = FAULT_RULES[fault][1] if fault else rule
        raise record_error(self.path, int(self.keys[position]), int(self._offsets[position]), rule)

    def headers(self, positions: np.ndarray | None = None) -> HeaderTable:
        """Return the raw headers of the images at ``positions`` (default: all), faults marked."""
        offsets = self._offsets if positions is None else self._offsets[positions]
        return gather_headers(self.buffer, offsets)

    def keep_labels(self, labels: np.ndarray) -> None:
        """Take ``labels`` (len,), read from every header, for those of the images."""
        self.labels = labels.astype(np.int64)

    def forget_labels(self) -> None:
        """Drop the labels that are kept; asked for again, they are read again."""
        self.__dict__.pop("labels", None)

    @cached_property
    def num_classes(self) -> int:
        """Return the number of people: as ``property`` says, else the largest label + 1."""
        if self.property is not None:
            return self.property.num_classes
        return int(self.labels.max()) + 1 if len(self) else 0

    @cached_property
    def identity_ranges(self) -> np.ndarray | None:
        """Return (people, 2) int64: image keys [a, b) of each person, in identity-record order.

        None without header-0. From 2^24 keys on, where the stored float32 ranges are rounded,
        they are rebuilt from the labels.
        """
        keys = self._identity_keys
        if keys is None:
            return None
        if keys.stop >= FLOAT32_EXACT:
            return ranges_of_labels(self._labels_at(range(len(self))))
        return read_identity_ranges(self.buffer, self.index, keys, where=str(self.path))

    def close(self) -> None:
        """Unmap the file; reading afterwards raises ValueError. Closing twice is harmless."""
        self.buffer.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["buffer"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map_file()
        if self._size != state["_size"]:
            raise ValueError(
                f"{self.path}: {self._size} bytes, but {state['_size']} when the reader was "
                "pickled; open the file anew"
            )
