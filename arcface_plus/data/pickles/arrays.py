"""Rebuild NumPy arrays and scalars from the checked parts a pickle states.

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

    def __init__(self, code: Any) -> None:
        self.code = _ascii(code, "dtype")
        self.order = "="
        if not _NUMBER_CODE.fullmatch(self.code):
            raise ValueError(
                f"it holds an array of dtype {self.code[:40]!r}; only plain numbers are data "
                "(an object array can hold anything)"
            )

    def set_state(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags, …)
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise ValueError("it states a dtype with fields or sub-arrays; only plain numbers are")
        self.order = _ascii(state[1], "byte order")
        if self.order not in ("|", "<", ">", "="):
            raise ValueError(f"it states the byte order {self.order[:8]!r}")

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class ArrayShell:
    """An array whose content has not been read yet; ``array`` is None until it has."""

    def __init__(self) -> None:
        self.array: np.ndarray[Any, Any] | None = None

    def set_state(self, state: Any) -> None:
        match state:
            case (_, tuple() as shape, DTypeShell() as dtype, fortran, bytes() as raw):
                self.array = build_array(raw, dtype, shape, "F" if fortran else "C")
            case _:
                raise ValueError("it states an array's content in a form that is not plain numbers")


def build_array(raw: bytes, dtype: DTypeShell, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    """Return a read-only array over ``raw``; its length must be the shape's."""
    order = _ascii(order, "memory order")
    if order not in ("C", "F"):
        raise ValueError(f"it states the memory order {order[:8]!r}")
    if not isinstance(shape, tuple) or len(shape) > 8:
        raise ValueError("it states an array shape that is not a tuple of up to 8 lengths")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("it states an array shape with something else than lengths in it")
    kind = dtype.dtype()
    if math.prod(shape) * kind.itemsize != len(raw):
        raise ValueError(
            f"it states an array of shape {shape} and dtype {kind}, but holds {len(raw)} bytes "
            "for it"
        )
    return np.frombuffer(raw, dtype=kind).reshape(shape, order=order)


def build_scalar(dtype: DTypeShell, raw: bytes) -> Any:
    """Return one NumPy number."""
    return build_array(raw, dtype, (), "C")[()]


def _ascii(text: Any, what: str) -> str:
    # Python 2 wrote these as byte strings.
    if isinstance(text, bytes):
        return text.decode("ascii")
    if not isinstance(text, str):
        raise ValueError(f"it states a {what} that is not text")
    return text
