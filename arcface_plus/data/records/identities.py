"""InsightFace's header-0 convention: which image keys belong to which person.

Record 0 ("header-0") holds two numbers [first, last) and no image: images are keys 1 … first − 1,
identity records are keys first … last − 1, and each of those holds the range [a, b) of image keys
of one person. All these numbers are float32.
"""

from __future__ import annotations

import numpy as np

from arcface_plus.data.records.headers import (
    MIN_IMAGE_BYTES,
    gather_headers,
    gather_label_pairs,
    read_labelled,
)
from arcface_plus.data.records.index import RecordIndex
from arcface_plus.data.records.recordio import Buffer, record_error

# Whole numbers from here on are rounded when stored as float32.
FLOAT32_EXACT = 1 << 24


def find_identity_keys(buffer: Buffer, index: RecordIndex, *, where: str) -> range | None:
    """Return the keys of the identity records; None where record 0 is no header-0.

    Record 0 is one if it has two labels and no image. (Its having an array label, as other readers
    ask, is not enough: shuffled files have images there.) Raises ValueError for a header-0 that
    the other records contradict.
    """
    if 0 not in index.keys:
        return None
    offset = int(index.offsets[index.row(0)])
    labels, data = read_labelled(buffer, offset, where=where, key=0)
    if np.shape(labels) != (2,) or len(data) >= MIN_IMAGE_BYTES:
        return None
    first, last = np.asarray(labels, dtype=np.float64)
    whole = np.isfinite([first, last]).all() and first.is_integer() and last.is_integer()
    # The bound leaves room for float32 rounding, and keeps hostile numbers from sizing arrays.
    if not (whole and 1 <= first <= last <= 2 * len(index)):
        rule = f"header-0 holds [{first}, {last}), but {len(index)} records are listed"
        raise record_error(where, 0, offset, rule)
    keys = range(int(first), int(last))
    if keys.stop >= FLOAT32_EXACT:
        keys = _undo_rounding(buffer, index, keys)
    # The last image and the first identity record tell whether the border is where it should be.
    border = np.arange(max(1, keys.start - 1), min(keys.start + 1, keys.stop))
    is_range = gather_headers(buffer, index.offsets[index.rows(border)]).is_range
    if (is_range != (border >= keys.start)).any():
        rule = f"header-0 says that identity records start at key {keys.start}, but they do not"
        raise record_error(where, 0, offset, rule)
    return keys


def _undo_rounding(buffer: Buffer, index: RecordIndex, keys: range) -> range:
    """Find the true first and last identity key near numbers that float32 has rounded."""
    slack = 1 + int(np.spacing(np.float32(keys.stop)))
    last = min(keys.stop + slack, int(np.max(index.keys)) + 1)
    near = np.arange(max(1, keys.start - slack), min(keys.start + slack + 1, last))
    is_range = gather_headers(buffer, index.offsets[index.rows(near)]).is_range
    return range(int(near[np.argmax(is_range)]) if is_range.any() else keys.start, last)


def read_identity_ranges(
    buffer: Buffer, index: RecordIndex, keys: range, *, where: str
) -> np.ndarray:
    """Return (people, 2) int64: the image keys [a, b) that each identity record states.

    Raises ValueError for records that are none and for ranges outside the image keys.
    """
    offsets = index.offsets[index.rows(np.arange(keys.start, keys.stop))]

    def require(good: np.ndarray, rule: str) -> None:
        bad = np.flatnonzero(~good)
        if len(bad):
            raise record_error(where, keys[bad[0]], int(offsets[bad[0]]), rule)

    require(gather_headers(buffer, offsets).is_range, "not an identity record (two labels alone)")
    ranges = gather_label_pairs(buffer, offsets)
    first, end = ranges[:, 0], ranges[:, 1]
    good = (ranges == np.floor(ranges)).all(axis=1) & (first >= 1) & (first <= end)
    require(good & (end <= keys.start), f"its range is not within the image keys [1, {keys.start})")
    return ranges.astype(np.int64)


def ranges_of_labels(labels: np.ndarray) -> np.ndarray:
    """Return (runs, 2) int64: keys [a, b) of each run of equal labels, the first key being 1."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1)) + 1
    return np.stack([starts, np.append(starts[1:], len(labels) + 1)], axis=1)


def partition_keys(ranges: np.ndarray, count: int) -> np.ndarray | None:
    """Return the non-empty ranges sorted by key if they cover 1 … count once each, else None."""
    ranges = ranges[ranges[:, 1] > ranges[:, 0]]
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    joints = np.concatenate([[1], ranges[:, 1]]), np.concatenate([ranges[:, 0], [count + 1]])
    return ranges if np.array_equal(*joints) else None
