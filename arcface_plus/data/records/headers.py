"""The image-record header (mxnet's IRHeader) inside a payload: one at a time, and by the million.

Layout, little-endian: ``flag u32 | label f32 | id u64 | id2 u64``, then ``flag`` float32 labels
where flag > 0 (the label field is then 0), then the image bytes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from arcface_plus.data.records.recordio import (
    FIRST,
    LENGTH_MASK,
    MAGIC,
    WHOLE,
    Buffer,
    read_head,
    read_record,
    record_error,
)

HEADER = struct.Struct("<IfQQ")
HEADER_BYTES = HEADER.size
# No image format fits in fewer bytes: shorter data belongs to a header-0 or identity record.
MIN_IMAGE_BYTES = 16
_ROWS_PER_GATHER = 1 << 20


class HeaderTable(NamedTuple):
    """Hold the headers of n records as arrays of shape (n,).

    ``fault`` is 0 for a readable header, else one of the FAULT_ codes; the other columns mean
    nothing there. ``kind`` is the part kind, ``length`` the bytes of the first part, ``label``
    the label or the first of an array of labels, ``data_bytes`` the image bytes in that part.
    """

    fault: np.ndarray
    kind: np.ndarray
    length: np.ndarray
    flag: np.ndarray
    label: np.ndarray

    @property
    def data_bytes(self) -> np.ndarray:
        return self.length - HEADER_BYTES - 4 * self.flag

    @property
    def is_range(self) -> np.ndarray:
        """Mark records of two labels and no image: header-0 and identity records."""
        whole = (self.fault == 0) & (self.kind == WHOLE) & (self.flag == 2)
        return whole & (self.data_bytes < MIN_IMAGE_BYTES)


FAULT_OFFSET, FAULT_MAGIC, FAULT_KIND, FAULT_TRUNCATED, FAULT_HEADER = 1, 2, 3, 4, 5
FAULT_RULES = {
    FAULT_OFFSET: ("idx-offset", "the .idx offset lies outside the file or off a multiple of 4"),
    FAULT_MAGIC: ("magic", "no magic word at the record's offset"),
    FAULT_KIND: ("part-kind", "the part there does not start a record"),
    FAULT_TRUNCATED: ("truncated", "the file ends inside the record"),
    FAULT_HEADER: ("header", "the record is shorter than its header and labels"),
}


def pack_header(label: float | np.ndarray, record_id: int, id2: int = 0) -> bytes:
    """Return the header bytes, with array labels appended, as mxnet's ``pack`` writes them."""
    if np.ndim(label) == 0:
        return HEADER.pack(0, float(label), record_id, id2)
    labels = np.asarray(label, dtype="<f4")
    return HEADER.pack(labels.size, 0.0, record_id, id2) + labels.tobytes()


def unpack_payload(payload: bytes) -> tuple[float | np.ndarray, bytes]:
    """Return the label of a payload, or its float32 array of labels, and its image bytes.

    Raises ValueError where the payload is shorter than its header and labels.
    """
    if len(payload) < HEADER_BYTES:
        raise ValueError(f"{len(payload)} bytes are too few for a {HEADER_BYTES}-byte header")
    flag, label, _, _ = HEADER.unpack_from(payload)
    if flag == 0:
        return label, payload[HEADER_BYTES:]
    end = HEADER_BYTES + 4 * flag
    if end > len(payload):
        raise ValueError(f"the header announces {flag} labels, but only {len(payload)} bytes exist")
    return np.frombuffer(payload, "<f4", count=flag, offset=HEADER_BYTES), payload[end:]


def read_labelled(
    buffer: Buffer, offset: int, *, where: object, key: int
) -> tuple[float | np.ndarray, bytes]:
    """Return labels and image bytes of the record at ``offset``; errors name ``where`` and key."""
    try:
        return unpack_payload(read_record(buffer, offset)[0])
    except ValueError as error:
        raise record_error(where, key, offset, str(error)) from error


def gather_headers(buffer: Buffer, offsets: np.ndarray) -> HeaderTable:
    """Read the headers at ``offsets`` (n,) without a Python loop over whole records.

    Damaged records are marked in ``fault``, never raised. Records cut inside their header (the
    magic word is among its fields) are read one by one.
    """
    tables = [
        _gather_block(buffer, offsets[start : start + _ROWS_PER_GATHER])
        for start in range(0, max(len(offsets), 1), _ROWS_PER_GATHER)
    ]
    return HeaderTable(*(np.concatenate(column) for column in zip(*tables, strict=True)))


def gather_label_pairs(buffer: Buffer, offsets: np.ndarray) -> np.ndarray:
    """Return (n, 2) float64: the two labels of records that `is_range` marks."""
    words = np.frombuffer(buffer, dtype="<u4", count=len(buffer) // 4)
    first = (offsets >> 2) + (8 + HEADER_BYTES) // 4
    pairs = np.stack([words[first], words[first + 1]], axis=1)
    return pairs.view("<f4").astype(np.float64)


def _gather_block(buffer: Buffer, offsets: np.ndarray) -> HeaderTable:
    size = len(buffer)
    # A file of no word at all gets one: like every other, it is no header.
    words = np.frombuffer(buffer, "<u4", count=size // 4) if size >= 4 else np.zeros(1, "<u4")
    fault = np.zeros(len(offsets), dtype=np.uint8)
    # A small file may be shorter than one header: then every word is clipped and marked.
    base = np.clip(offsets >> 2, 0, len(words) - 1)

    inside = base.max(initial=0) + 8 < len(words)

    def column(word: int) -> np.ndarray:
        return words[base + word if inside else np.minimum(base + word, len(words) - 1)]

    part = column(1)
    kind, length = (part >> 29).astype(np.uint8), (part & LENGTH_MASK).astype(np.int64)
    flag, label = column(2).astype(np.int64), column(3).view("<f4").copy()
    if flag.any():
        np.copyto(label, column(8).view("<f4"), where=flag > 0)
    outside = (offsets < 0) | (offsets % 4 != 0) | (offsets > size - 8)
    too_short = (length < HEADER_BYTES) | (length < HEADER_BYTES + 4 * flag)
    # Later assignments win, so the most basic fault is written last.
    fault[(kind == WHOLE) & too_short] = FAULT_HEADER
    fault[offsets + 8 + length > size] = FAULT_TRUNCATED
    fault[(kind != WHOLE) & (kind != FIRST)] = FAULT_KIND
    fault[column(0) != MAGIC] = FAULT_MAGIC
    fault[outside] = FAULT_OFFSET
    table = HeaderTable(fault, kind, length, flag, label)
    for row in np.flatnonzero((fault == 0) & (kind == FIRST) & (length < HEADER_BYTES + 4)):
        _read_cut_header(buffer, int(offsets[row]), int(row), table)
    return table


def _read_cut_header(buffer: Buffer, offset: int, row: int, table: HeaderTable) -> None:
    """Fill one row of ``table`` from a record whose first part ends inside the header."""
    try:
        head = read_head(buffer, offset, HEADER_BYTES + 4)
    except ValueError:
        table.fault[row] = FAULT_TRUNCATED
        return
    flag = HEADER.unpack_from(head)[0] if len(head) >= HEADER_BYTES else 0
    if len(head) < HEADER_BYTES + 4 * min(flag, 1):
        table.fault[row] = FAULT_HEADER
        return
    _, label, _, _ = HEADER.unpack_from(head)
    table.flag[row] = flag
    table.label[row] = np.frombuffer(head, "<f4", 1, HEADER_BYTES)[0] if flag else label


def valid_labels(table: HeaderTable) -> np.ndarray:
    """Return (n,) bool: readable headers whose label is a whole number in [0, 2^24).

    float32 cannot hold every larger whole number.
    """
    label = table.label
    return (table.fault == 0) & (label >= 0) & (label < 1 << 24) & (label == np.floor(label))
