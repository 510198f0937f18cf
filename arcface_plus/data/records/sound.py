"""Recognise in one pass a record file that keeps all the rules of its headers, as nearly all do."""

from __future__ import annotations

import numpy as np

from arcface_plus.data.records.headers import (
    MIN_IMAGE_BYTES,
    HeaderTable,
    gather_headers,
    valid_labels,
)
from arcface_plus.data.records.reader import RecordReader
from arcface_plus.data.records.recordio import WHOLE

_BLOCK = 1 << 17  # headers at a time: those of all would take ten times the memory of the labels


def sound_labels(reader: RecordReader) -> np.ndarray | None:
    """Return the label of every image, float32 (len,); None unless all records are plainly sound.

    That is: keys count up by one, records of one part lie end to end in their order and fill the
    file, and every image has bytes and a valid label. Other files may be sound as well.
    """
    keys, offsets = reader.index.keys, reader.index.offsets
    if not (isinstance(keys, range) and isinstance(reader.keys, range) and len(reader)):
        return None
    first = reader.index.row(reader.keys[0])
    labels, end = np.empty(len(offsets), dtype=np.float32), 0
    for start in range(0, len(offsets), _BLOCK):
        block = offsets[start : start + _BLOCK]
        table = gather_headers(reader.buffer, block)
        ends = block + 8 + table.length + -table.length % 4
        if (table.fault != 0).any() or (table.kind != WHOLE).any():
            return None
        if block[0] != end or (ends[:-1] != block[1:]).any():
            return None
        labels[start : start + _BLOCK], end = table.label, int(ends[-1])
        rows = slice(max(first - start, 0), max(first + len(reader) - start, 0))
        good = valid_labels(table) & (table.data_bytes >= MIN_IMAGE_BYTES)
        if not good[rows].all():
            return None
    return labels[first : first + len(reader)] if end == len(reader.buffer) else None


def sound_table(labels: np.ndarray) -> HeaderTable:
    """Return a table of readable headers with ``labels`` (n,) and no more."""
    nothing = np.broadcast_to(np.int64(0), len(labels))  # of no memory
    return HeaderTable(nothing, nothing, nothing, nothing, labels)
