"""Rebuild NumPy arrays and scalars from the checked parts that a pickle states.

Only plain numbers: booleans, integers and floats of up to 16 bytes. The bytes must be there for the
shape that is claimed; nothing is allocated on the strength of a claim.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

_NUMBER_CODE = re.compile(r"b1|[iu][1248]|f[248]|f16")


class DTypeShell:
    """A number type as the pickle states it: a code such as ``u1``, then a byte order."""

    def __init__(self, code: Any, align: Any, copy: Any) -> None:
        self.code = _ascii(code, "dtype")
        self.order = "="
        if not _NUMBER_CODE.fullmatch(self.code):
            raise ValueError(
                f"it holds an array of dtype {self.code[:40]!r}; only plain numbers are data "
                "(an object array can hold anything)"
            )

    def set_state(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags, …)
        self.order = _ascii(state[1], "byte order")
        if state[2:5] != (None, None, None) or self.order not in ("|", "<", ">", "="):
            raise ValueError("it states a dtype with fields or sub-arrays; only plain numbers are")


class ArrayShell:
    """An array whose content has not been read yet; ``array`` is None until it has."""

    array: np.ndarray[Any, Any] | None = None

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = build_array(raw, dtype, shape, "F" if fortran else "C")


def reconstruct(kind: Any, shape: Any, code: Any) -> ArrayShell:
    """Return an array without content; its own state says all, so these arguments must not."""
    if kind is not ArrayShell or shape != (0,) or code not in (b"b", "b"):
        raise ValueError("it calls _reconstruct with arguments that no array has")
    return ArrayShell()


def build_array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    """Return a read-only array over ``raw``; its length must be the shape's."""
    order = _ascii(order, "memory order")
    is_shape = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    is_content = isinstance(raw, bytes) and isinstance(dtype, DTypeShell) and order in ("C", "F")
    if not is_shape or len(shape) > 8 or not is_content:
        raise ValueError("it states an array that is not plain numbers in up to 8 dimensions")
    kind = np.dtype(dtype.order + dtype.code)
    if math.prod(shape) * kind.itemsize != len(raw):
        raise ValueError(
            f"it states an array of shape {shape} and dtype {kind}, but holds {len(raw)} bytes "
            "for it"
        )
    return np.frombuffer(raw, dtype=kind).reshape(shape, order=order)


def build_scalar(dtype: Any, raw: Any) -> Any:
    """Return one NumPy number."""
    return build_array(raw, dtype, (), "C")[()]


def empty_bytes() -> bytes:
    """Return no bytes; with arguments, ``bytes`` would make as many as a number says."""
    return b""


class Latin1Encoder:
    """``_codecs.encode``, for as many characters as the file has.

    Every character to encode was read once: a file that encodes one long string many times over is
    a memory bomb.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise ValueError("it calls encode with arguments that no bytes have")
        self.budget -= len(text)
        if self.budget < 0:
            raise ValueError("it encodes more text than it holds, as a memory bomb does")
        return text.encode("latin1")


def _ascii(text: Any, what: str) -> str:
    # Python 2 wrote these as byte strings.
    if isinstance(text, bytes):
        return text.decode("ascii")
    if not isinstance(text, str):
        raise ValueError(f"it states a {what} that is not text")
    return text
