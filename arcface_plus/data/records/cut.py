"""Tell a record file that was cut from one that is damaged otherwise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from arcface_plus.data.records.headers import FAULT_OFFSET, FAULT_TRUNCATED, HeaderTable
from arcface_plus.data.records.recordio import (
    FIRST,
    Buffer,
    CutRecordError,
    cut_message,
    read_record,
)


class Cut(NamedTuple):
    """Say where a file ends and what is left; ``missing`` (n,) bool: listed records not whole."""

    message: str
    missing: np.ndarray


def find_cut(buffer: Buffer, offsets: np.ndarray, table: HeaderTable) -> Cut | None:
    """Return the cut of a file whose records begin at ``offsets`` (n,), or None where it has none.

    ``table``: their headers. A file is cut where the records up to some byte are there, and the
    file ends in the next one. Where whole records follow, or the next one would begin behind the
    end, something else is wrong.
    """
    size = len(buffer)
    behind = (table.fault == FAULT_OFFSET) & (offsets > size - 8) & (offsets % 4 == 0)
    missing = behind | (table.fault == FAULT_TRUNCATED)
    there = np.flatnonzero(~missing)
    if len(there):
        last = there[np.argmax(offsets[there])]
        if table.fault[last] == 0 and table.kind[last] == FIRST:
            try:
                read_record(buffer, int(offsets[last]))
            except CutRecordError:
                missing[last] = True
            except ValueError:
                return None
    if not missing.any():
        return None
    start = int(offsets[missing].min())
    if start > size or (offsets[~missing] > start).any():
        return None
    whole = int(((table.fault == 0) & ~missing).sum())
    return Cut(cut_message(size, start, whole, len(offsets)), missing)
