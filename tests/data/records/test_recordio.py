"""Framing: parts, escapes, padding, and files that break the rules."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcface_plus.data.records.recordio import (
    FIRST,
    LAST,
    MAGIC,
    MAGIC_BYTES,
    MAX_PAYLOAD,
    MIDDLE,
    WHOLE,
    aligned_magic_positions,
    frame_record,
    read_record,
    scan_offsets,
)

# Pieces that make magic words at every alignment, overlapping prefixes of it, and plain bytes.
pieces = st.one_of(
    st.just(MAGIC_BYTES),
    st.sampled_from([MAGIC_BYTES[:1], MAGIC_BYTES[:2], MAGIC_BYTES[:3], MAGIC_BYTES[1:]]),
    st.binary(max_size=9),
)
payloads = st.lists(pieces, max_size=12).map(b"".join)


def part(kind: int, body: bytes, magic: int = MAGIC) -> bytes:
    return struct.pack("<II", magic, kind << 29 | len(body)) + body + bytes(-len(body) % 4)


def naive_frame(payload: bytes) -> bytes:
    """Cut word by word, as the format is defined."""
    pieces, current = [], b""
    for start in range(0, len(payload), 4):
        word = payload[start : start + 4]
        if word == MAGIC_BYTES:
            pieces.append(current)
            current = b""
        else:
            current += word
    pieces.append(current)
    if len(pieces) == 1:
        return part(WHOLE, payload)
    kinds = [FIRST, *[MIDDLE] * (len(pieces) - 2), LAST]
    return b"".join(part(kind, piece) for kind, piece in zip(kinds, pieces, strict=True))


@given(payloads)
def test_framing_equals_the_definition_and_reads_back(payload):
    frame = frame_record(payload)
    assert frame == naive_frame(payload)
    assert len(frame) % 4 == 0
    assert read_record(frame, 0) == (payload, len(frame))


@given(payloads)
def test_every_aligned_magic_word_of_a_frame_starts_a_part(payload):
    frame = frame_record(payload)
    assert len(aligned_magic_positions(frame)) == len(aligned_magic_positions(payload)) + 1


@pytest.mark.parametrize("lead", range(9))
@pytest.mark.parametrize("tail", range(5))
@pytest.mark.parametrize("times", [1, 2, 3])
def test_magic_words_at_every_alignment(lead, tail, times):
    payload = b"\0" * lead + MAGIC_BYTES * times + b"\1" * tail
    frame = frame_record(payload)
    assert frame == naive_frame(payload)
    assert read_record(frame, 0)[0] == payload
    assert (frame[7] >> 5 == FIRST) == (lead % 4 == 0)


@given(st.lists(payloads, min_size=1, max_size=8))
def test_scan_finds_every_record(many):
    frames = [frame_record(payload) for payload in many]
    buffer = b"".join(frames)
    offsets = scan_offsets(buffer)
    np.testing.assert_array_equal(offsets, np.cumsum([0, *map(len, frames[:-1])]))
    assert [read_record(buffer, int(offset))[0] for offset in offsets] == many


@given(st.lists(payloads, min_size=1, max_size=4), st.data())
def test_a_cut_file_never_reads_as_whole(many, data):
    frames = [frame_record(payload) for payload in many]
    buffer = b"".join(frames)
    padding = -len(many[-1]) % 4
    cut = buffer[: data.draw(st.integers(1, len(buffer) - 1 - padding))]
    try:
        found = len(scan_offsets(cut))
    except ValueError as error:
        assert "byte" in str(error)
    else:
        assert found < len(many)  # Cut exactly between two records.


@given(st.binary(max_size=64), st.integers(-70, 70))
def test_random_bytes_raise_only_value_errors(buffer, offset):
    try:
        payload, _ = read_record(buffer, offset)
    except ValueError:
        return
    assert buffer[offset : offset + 4] == MAGIC_BYTES
    assert len(payload) <= len(buffer)


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (part(WHOLE, b"abcd", magic=MAGIC + 1), "magic word"),
        (part(MIDDLE, b"abcd"), "part kind 2 at byte 0 cannot start"),
        (part(LAST, b"abcd"), "part kind 3 at byte 0 cannot start"),
        (part(5, b"abcd"), "part kind 5"),
        (part(FIRST, b"abcd") + part(WHOLE, b"x"), "part kind 0 at byte 12 cannot continue"),
        (part(FIRST, b"abcd") + part(FIRST, b"x"), "part kind 1 at byte 12 cannot continue"),
        (part(FIRST, b"abcd"), "the file ends inside the record at byte 0"),
        (part(WHOLE, b"abcd")[:-1], "needs bytes up to 12, but the file ends at 11"),
        (MAGIC_BYTES, "no record can start at byte 0 of 4"),
    ],
)
def test_broken_framing_names_offset_and_rule(buffer, message):
    with pytest.raises(ValueError, match=message):
        read_record(buffer, 0)
    cut = "file ends" in message or buffer == MAGIC_BYTES
    found = "is cut.* byte 0; 0 records are whole" if cut else message
    with pytest.raises(ValueError, match=found):
        scan_offsets(buffer)
    whole = frame_record(b"abcd")
    with pytest.raises(ValueError, match="1 records are whole" if cut else "kind|magic"):
        scan_offsets(whole + buffer)


def test_negative_offsets_do_not_wrap_around():
    frame = frame_record(b"abcd")
    with pytest.raises(ValueError, match="byte -12"):
        read_record(frame, -len(frame))


def test_payload_beyond_the_length_field_is_refused():
    class Long(bytes):
        def __len__(self):
            return MAX_PAYLOAD + 1

    with pytest.raises(ValueError, match="29-bit"):
        frame_record(Long())
