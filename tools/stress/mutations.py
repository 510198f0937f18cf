"""Damage a file as disks, transfers and attackers do; the same seed, the same damage."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

_NUMBERS = (0, 1, 2, 4, 127, 128, 255, 256, 32767, 65535, 65536, 2**20, 2**24)
_NUMBERS += (2**28, 2**29 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
_WORDS = (b"0", b"-1", b"1.5", b"1e9", b"nan", b"4294967296", b"999999999999", b"9" * 25)
_WORDS += (b"../../x", b"/dev/zero", b"*a", b"", b"\xff\xfe", b"true")
_OPENINGS = (b"[", b"(", b"{", b"&a [*a,", b"- ", b'{"a":', b"-", b"\xff", b"\x00", b"<U")


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Return ``data`` with one to three kinds of damage; ``others`` are files to splice from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_KINDS)(data, others, rng)
    return data


def _place(data: bytes, rng: random.Random) -> int:
    """Return an offset: in the first bytes, in the last ones, or anywhere."""
    size = len(data)
    near = min(size, rng.choice((16, 64, 512)))
    return rng.choice(
        (rng.randrange(near + 1), size - rng.randrange(near + 1), rng.randrange(size + 1))
    )


def _flip_bits(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if data else 0):
        changed[min(_place(data, rng), len(data) - 1)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _edit_number(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Overwrite a binary field of 1 to 8 bytes, as a length that lies."""
    width, place = rng.choice((1, 2, 4, 8)), _place(data, rng)
    if rng.random() < 0.5:
        place -= place % 4
    number = rng.choice((*_NUMBERS, len(data), len(data) - place, len(data) + 1)) + rng.choice(
        (-1, 0, 0, 1)
    )
    field = (number % 256**width).to_bytes(width, rng.choice(("little", "big")))
    return data[:place] + field + data[place + width :]


def _edit_word(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Put another word in the place of a number written as text."""
    found = list(re.finditer(rb"\d+", data[:65536]))
    if not found:
        return data
    place = rng.choice(found)
    return data[: place.start()] + rng.choice(_WORDS) + data[place.end() :]


def _cut(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _remove(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    place = _place(data, rng)
    return data[:place] + data[place + rng.choice((1, 2, 4, 16, 256)) :]


def _insert(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    place, start = _place(data, rng), _place(data, rng)
    own = data[start : start + rng.choice((4, 32, 1024))] * rng.choice((1, 1, 2, 50))
    added = rng.choice((own, rng.randbytes(rng.choice((1, 4, 64))), _nest(rng)))
    return data[:place] + added + data[place:]


def _nest(rng: random.Random) -> bytes:
    return rng.choice(_OPENINGS) * rng.choice((1, 10, 300, 5000))


def _splice(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others)
    return data[: _place(data, rng)] + other[_place(other, rng) :]


_KINDS = (
    _flip_bits,
    _flip_bits,
    _edit_number,
    _edit_number,
    _edit_word,
    _cut,
    _remove,
    _insert,
    _splice,
)
