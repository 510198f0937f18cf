"""Read pickles that other programs wrote, as data and nothing else.

insightface packs a pair set as ``pickle.dump((images, is_same))``, so the files that people
download are pickles, and a pickle is a program. Python's own reader runs here with only the
instructions that data needs. No name in the file is looked up, imported or called: a name in
``NAMES`` gives a function of ours that redoes the constructor from checked parts, and any other
name is refused. Only our own shells can be given a state. Memory stays in proportion to the file,
whatever sizes the file claims.

This is Python's reader written in Python: the one in C allocates what a length field or a memo
index asks for before it reads on, and applies BUILD to live objects.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from arcface_plus.data.pickles.arrays import (
    ArrayShell,
    DTypeShell,
    Latin1Encoder,
    build_array,
    build_scalar,
    empty_bytes,
    reconstruct,
)

_OPCODES = {op.name: ord(op.code) for op in pickletools.opcodes}
_OPCODE_NAMES = {code: name for name, code in _OPCODES.items()}
_MAX_DEPTH = 16


class _WholeReads(io.BytesIO):
    """A file in memory that never returns less than was asked for."""

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if size is not None and len(piece) < size:
            raise ValueError(f"it ends early: {size} bytes wanted {len(piece)} before its end")
        return piece

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise ValueError(f"it ends early: its last line, of {len(line)} bytes, has no end")
        return line


def instructions(names: str) -> dict[int, Callable[[Any], None]]:
    """Return Python's own implementation of the pickle instructions ``names``."""
    dispatch = pickle._Unpickler.dispatch
    return {_OPCODES[name]: dispatch[_OPCODES[name]] for name in names.split()}


class PlainUnpickler(pickle._Unpickler):
    """Read one pickle of protocol 0 to 5. Python-2 strings come out as bytes.

    A subclass reads other content by a longer ``dispatch`` and other ``NAMES``, whose values are
    functions of ours: never the real ones.
    """

    stack: list[Any]

    NAMES: ClassVar[Mapping[tuple[str, str], Callable[..., Any]]] = {
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.multiarray", "scalar"): build_scalar,
        ("numpy._core.multiarray", "scalar"): build_scalar,
        ("numpy.core.numeric", "_frombuffer"): build_array,
        ("numpy._core.numeric", "_frombuffer"): build_array,
        ("numpy", "ndarray"): ArrayShell,
        ("numpy", "dtype"): DTypeShell,
        # How protocols below 3 write empty bytes.
        ("__builtin__", "bytes"): empty_bytes,
        ("builtins", "bytes"): empty_bytes,
    }

    def __init__(self, data: bytes) -> None:
        self._file = _WholeReads(data)
        self._encode = Latin1Encoder(budget=len(data))
        super().__init__(self._file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if (module, name) not in self.NAMES:
            raise ValueError(
                f"it refers to {module[:80]}.{name[:80]}, and plain data needs nothing but bytes, "
                "bools, ints, lists, tuples and NumPy arrays of plain numbers"
            )
        return self.NAMES[module, name]

    def _refuse(self) -> None:
        offset = self._file.seek(-1, io.SEEK_CUR)
        code = self._file.read(1)[0]
        name = _OPCODE_NAMES.get(code)
        what = f"the instruction {name}" if name else f"the byte {code:#04x}"
        raise ValueError(f"offset {offset} holds {what}, which plain data does not need")

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        set_state = getattr(type(target), "set_state", None)
        if set_state is None:
            raise ValueError(f"it sets the state of a {type(target).__name__}")
        set_state(target, state)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **dict.fromkeys(range(256), _refuse),
        **instructions(
            "PROTO STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT LONG BININT BININT1 BININT2 "
            "LONG1 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE "
            "BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE "
            "TUPLE TUPLE1 TUPLE2 TUPLE3 PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET "
            "GLOBAL STACK_GLOBAL REDUCE"
        ),
        _OPCODES["FRAME"]: lambda self: self.read(8),  # a frame changes nothing about the content
        _OPCODES["BYTEARRAY8"]: pickle._Unpickler.load_binbytes8,  # type: ignore[attr-defined]
        _OPCODES["BUILD"]: _build,
    }

    def load(self) -> Any:
        """Return the content; raise ValueError for everything that is no whole, plain pickle."""
        try:
            return super().load()
        except (ValueError, MemoryError):
            raise
        except Exception as error:  # a malformed program can make any instruction fail
            raise ValueError(f"it is no pickle of data ({error!r})") from error


def plain(value: Any, kinds: tuple[type, ...], *, what: str = "it", depth: int = _MAX_DEPTH) -> Any:
    """Return ``value``, made of ``kinds`` in lists and tuples, with arrays instead of shells.

    Raises ValueError, beginning with ``what``, for anything else, and for more than ``depth``
    levels: a list that holds itself is refused too.
    """
    done: dict[int, Any] = {}

    def settle(item: Any, left: int) -> Any:
        if isinstance(item, ArrayShell):
            item = item.array
        if not isinstance(item, list | tuple):
            if not isinstance(item, kinds):
                raise ValueError(f"{what} holds a {type(item).__name__} where data belongs")
            return item
        if left == 0:
            raise ValueError(f"{what} holds lists nested more than {depth} deep")
        if id(item) not in done:
            done[id(item)] = type(item)(settle(each, left - 1) for each in item)
        return done[id(item)]

    return settle(value, depth)


def load_plain_pickle(data: bytes, *, where: str) -> Any:
    """Return what a pickle holds, if that is plain data.

    ``data``: the file's content, any pickle protocol of Python 2 or 3. Text of Python 2 comes out
    as bytes. The result is made of bytes, bools (Python's and NumPy's), ints, lists, tuples and
    NumPy arrays of plain numbers.

    Raises ValueError naming ``where`` (the file) and what is wrong: a name that is not known, an
    instruction that data does not need, an object array, a shape without its bytes, a cut file.
    """
    try:
        return plain(PlainUnpickler(data).load(), (bytes, int, np.generic, np.ndarray))
    except ValueError as error:
        raise ValueError(
            f"{where}: not readable as a pair set: {error}. Nothing in it was run. If the file is "
            "what you meant, repack its images and labels with save_pairs_bin."
        ) from error
