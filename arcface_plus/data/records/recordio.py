"""dmlc RecordIO framing: how one payload lies in a ``.rec`` file.

A record is one or more parts, each ``magic u32 | kind:3 length:29 u32 | bytes | padding to 4``.
Where the magic word occurs in the payload at a multiple of four, the writer cuts there and drops
the word; the reader puts it back between parts. So every word equal to ``MAGIC`` at a multiple of
four in a valid file starts a part.
"""

from __future__ import annotations

import mmap
import re
import struct
from array import array
from collections.abc import Iterator

import numpy as np

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
MAX_PAYLOAD = (1 << 29) - 1
LENGTH_MASK = (1 << 29) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)

_PART_HEAD = struct.Struct("<II")
_MAGIC_WORDS = re.compile(re.escape(MAGIC_BYTES))

Buffer = bytes | mmap.mmap
WHOLE_RECORDS = "records are whole"  # how the message of a cut ends


def frame_record(payload: bytes) -> bytes:
    """Return ``payload`` framed as dmlc's RecordIOWriter frames it, padding included.

    Raises ValueError from 2^29 bytes on, which the length field cannot hold.
    """
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(
            f"a record of {len(payload)} bytes does not fit the 29-bit length of RecordIO; "
            f"keep records at or below {MAX_PAYLOAD} bytes"
        )
    chunks: list[bytes] = []
    start = 0
    for cut in aligned_magic_positions(payload):
        kind = FIRST if start == 0 else MIDDLE
        chunks += (_PART_HEAD.pack(MAGIC, kind << 29 | cut - start), payload[start:cut])
        start = cut + 4
    kind = LAST if start else WHOLE
    rest = len(payload) - start
    chunks += (_PART_HEAD.pack(MAGIC, kind << 29 | rest), payload[start:], bytes(-rest % 4))
    return b"".join(chunks)


def aligned_magic_positions(payload: bytes) -> list[int]:
    """Return the multiples of four at which the magic word lies in ``payload``."""
    # The word does not overlap itself, so a search that goes on behind it misses none.
    found = (match.start() for match in _MAGIC_WORDS.finditer(payload))
    return [position for position in found if position % 4 == 0]


def read_record(buffer: Buffer, offset: int) -> tuple[bytes, int]:
    """Return the payload of the record at byte ``offset`` and the offset behind it.

    Raises ValueError, naming the offset and the rule, where no whole record starts there.
    """
    if 0 <= offset <= len(buffer) - 8:
        # One part is the usual case, and reading it at once takes half the time.
        magic, word = _PART_HEAD.unpack_from(buffer, offset)
        end = offset + 8 + (word & LENGTH_MASK)
        if magic == MAGIC and word >> 29 == WHOLE and end <= len(buffer):
            return buffer[offset + 8 : end], end + (offset - end) % 4
    payload = bytearray()
    for first, last, after in _parts(buffer, offset):
        payload += buffer[first:last] if first == offset + 8 else MAGIC_BYTES + buffer[first:last]
        end = after
    return bytes(payload), end


def read_head(buffer: Buffer, offset: int, count: int) -> bytes:
    """Return ``count`` bytes or more of the payload at ``offset``, or all that it has."""
    payload = bytearray()
    for first, last, _ in _parts(buffer, offset):
        payload += buffer[first:last] if first == offset + 8 else MAGIC_BYTES + buffer[first:last]
        if len(payload) >= count:
            break
    return bytes(payload)


def _parts(buffer: Buffer, offset: int) -> Iterator[tuple[int, int, int]]:
    """Yield first and last byte of each part of a record, and the offset behind its padding.

    Raises ValueError as ``read_record``; CutRecordError where the buffer ends inside the record.
    """
    size = len(buffer)
    if offset < 0 or offset + 8 > size:
        raise ValueError(f"no record can start at byte {offset} of {size}")
    position = offset
    while position + 8 <= size:
        magic, word = _PART_HEAD.unpack_from(buffer, position)
        if magic != MAGIC:
            raise ValueError(
                f"bytes {position}..{position + 3} hold {magic:#010x}, not the magic word "
                f"{MAGIC:#010x}"
            )
        kind, first = word >> 29, position + 8
        last = first + (word & LENGTH_MASK)
        if kind not in ((WHOLE, FIRST) if position == offset else (MIDDLE, LAST)):
            raise ValueError(
                f"part kind {kind} at byte {position} cannot "
                f"{'start' if position == offset else 'continue'} a record"
            )
        if last > size:
            raise CutRecordError(
                f"the record at byte {offset} needs bytes up to {last}, but the file ends at {size}"
            )
        position = last + (first - last) % 4
        yield first, last, position
        if kind in (WHOLE, LAST):
            return
    raise CutRecordError(f"the file ends inside the record at byte {offset} (size {size})")


def scan_offsets(buffer: Buffer) -> np.ndarray:
    """Return the byte offset of every record, in file order, by walking the part heads.

    Raises ValueError at the first damaged part: what lies behind it cannot be trusted. It is a
    CutRecordError, which counts the whole records, where the file ends inside the last one.
    """
    offsets = array("q")
    start, size = 0, len(buffer)
    while start < size:
        try:
            if start + 8 > size:
                raise CutRecordError
            end = _end_of(buffer, start)
        except CutRecordError:
            raise CutRecordError(cut_message(size, start, len(offsets))) from None
        offsets.append(start)
        start = end
    return np.array(offsets, dtype=np.int64)


def _end_of(buffer: Buffer, offset: int) -> int:
    end = offset
    for part in _parts(buffer, offset):
        end = part[2]
    return end


class CutRecordError(ValueError):
    """The file ends inside a record, as a copy that was broken off does."""


def cut_message(size: int, start: int, whole: int, listed: int | None = None) -> str:
    """Return what to say of a ``.rec`` of ``size`` bytes that ends inside the record at ``start``.

    ``whole``: records that are there whole; ``listed``: how many the ``.idx`` lists.
    """
    of = "" if listed is None else f" of {listed} listed"
    return (
        f"the file is cut: it ends at byte {size}, inside or before the record that starts at byte "
        f"{start}; {whole}{of} {WHOLE_RECORDS}"
    )


def record_error(where: object, key: int, offset: int, rule: str) -> ValueError:
    """Return the error for a bad record: file, key, byte offset, broken rule and the way out."""
    return ValueError(
        f"{where}: record {key} at byte {offset}: {rule}; .rec and .idx are damaged or do not "
        "belong together: run `arcface-plus data check`, then copy or pack them again"
    )
