"""Read the pickles that verification pair sets come in, as data and nothing else.

insightface packs a pair set as ``pickle.dump((images, is_same))``, so the files that people
download are pickles, and a pickle is a program. This module is a machine for the few instructions
that data needs: no name in the file is ever looked up, imported or called; the handful of NumPy
constructors that real files mention are recognised by name and redone here from checked parts.
Memory stays in proportion to the file, whatever sizes the file claims.

The standard Unpickler with a guarded ``find_class`` would not do: it allocates what a length field
or a memo index asks for before it reads on, and it applies BUILD to live objects.
"""

from __future__ import annotations

import codecs
import pickletools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from arcface_plus.data.pickles.arrays import (
    ArrayShell,
    DTypeShell,
    build_array,
    build_scalar,
)

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
_GLOBALS: dict[tuple[str, str], str] = {
    **{(module, "_reconstruct"): "reconstruct" for module in _ARRAY_MODULES},
    **{(module, "scalar"): "scalar" for module in _ARRAY_MODULES},
    **{(module, "_frombuffer"): "frombuffer" for module in _BUFFER_MODULES},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    # How protocols below 3 write empty bytes.
    ("__builtin__", "bytes"): "bytes",
    ("builtins", "bytes"): "bytes",
}
_OPCODE_NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
_MAX_DEPTH = 16


class _Name:
    """A name the file mentions and this module knows; it stands for itself and can do nothing."""

    __slots__ = ("role",)

    def __init__(self, role: str) -> None:
        self.role = role


class _Machine:
    """Run one pickle of protocol 0 to 5. Python-2 strings come out as bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        # Every character to encode was read once: a file that encodes one long string many times
        # over is a bomb.
        self.encode_budget = len(data)
        self.instructions = _instructions(self)

    def run(self) -> Any:
        while True:
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                return self.pop()
            instruction = self.instructions.get(code)
            if instruction is None:
                name = _OPCODE_NAMES.get(code)
                what = f"the instruction {name}" if name else f"the byte {code:#04x}"
                raise ValueError(
                    f"offset {self.position - 1} holds {what}, which no list of images and labels "
                    "needs"
                )
            instruction()

    # Reading.

    def take(self, length: int) -> bytes:
        end = self.position + length
        if length < 0 or end > len(self.data):
            raise ValueError(
                f"it ends early: {length} bytes wanted at offset {self.position} of "
                f"{len(self.data)}"
            )
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def take_sized(self, layout: str) -> bytes:
        return self.take(self.number(layout))

    def take_text(self, layout: str) -> str:
        return self.take_sized(layout).decode("utf-8", "surrogatepass")

    def number(self, layout: str) -> int:
        return int(struct.unpack(layout, self.take(struct.calcsize(layout)))[0])

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise ValueError(f"it ends early: the line at offset {self.position} has no end")
        piece = self.data[self.position : end]
        self.position = end + 1
        return piece

    # The stack.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError(f"the stack is empty at offset {self.position}")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError(f"no mark is set at offset {self.position}")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def tuple_of(self, length: int) -> None:
        items = [self.pop() for _ in range(length)]
        self.push(tuple(reversed(items)))

    def append(self, items: list[Any]) -> None:
        target = self.pop()
        if type(target) is not list:
            raise ValueError(f"it appends to a {type(target).__name__}, not a list")
        target.extend(items)
        self.push(target)

    def put(self, index: int) -> None:
        self.push(value := self.pop())
        self.memo[index] = value

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"it refers to memo entry {index}, which was never made")
        self.push(_settled(self.memo[index]))

    # Text forms of protocol 0.

    def text_int(self) -> bool | int:
        word = self.line()
        if word in (b"00", b"01"):
            return word == b"01"
        return int(word)

    def text_string(self) -> bytes:
        word = self.line().strip()
        if len(word) < 2 or word[:1] != word[-1:] or word[:1] not in (b"'", b'"'):
            raise ValueError(f"the string before offset {self.position} has no quotes")
        return codecs.escape_decode(word[1:-1])[0]  # type: ignore[attr-defined,no-any-return]

    # Names and what is done with them.

    def name(self, module: Any, attribute: Any) -> None:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise ValueError("it looks up a name that is not text")
        role = _GLOBALS.get((module, attribute))
        if role is None:
            raise ValueError(
                f"it refers to {module[:80]}.{attribute[:80]}, and plain data needs nothing but "
                "bytes, bools, ints, lists, tuples and NumPy arrays of plain numbers"
            )
        self.push(_Name(role))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise ValueError("it calls something that is not one of the known constructors")
        match function.role, arguments:
            case "reconstruct", (_Name(role="ndarray"), (0,), b"b" | "b"):
                self.push(ArrayShell())
            case "dtype", (code, 0, 1):
                self.push(DTypeShell(code))
            case "bytes", ():
                self.push(b"")
            case "scalar", (DTypeShell() as dtype, bytes() as raw):
                self.push(build_scalar(dtype, raw))
            case "frombuffer", (bytes() as raw, DTypeShell() as dtype, shape, order):
                self.push(build_array(raw, dtype, shape, order))
            case "encode", (str() as text, "latin1" | b"latin1"):
                self.encode_budget -= len(text)
                if self.encode_budget < 0:
                    raise ValueError("it encodes more text than it holds, as a memory bomb does")
                self.push(text.encode("latin1"))
            case role, _:
                raise ValueError(f"it calls {role} with arguments that no pair set has")

    def build(self) -> None:
        state, target = self.pop(), self.pop()
        if not isinstance(target, DTypeShell | ArrayShell):
            raise ValueError(f"it sets the state of a {type(target).__name__}")
        target.set_state(state)
        self.push(_settled(target))


def _settled(value: Any) -> Any:
    # The memo took the array before its content came.
    return value.array if isinstance(value, ArrayShell) and value.array is not None else value


def _instructions(m: _Machine) -> dict[int, Callable[[], None]]:
    table: dict[bytes, Callable[[], Any]] = {
        b"\x80": lambda: m.take(1),  # PROTO
        b"\x95": lambda: m.take(8),  # FRAME
        b"(": lambda: m.marks.append(len(m.stack)),
        b"0": m.pop,
        b"1": m.pop_to_mark,
        b"N": lambda: m.push(None),
        b"\x88": lambda: m.push(True),
        b"\x89": lambda: m.push(False),
        b"I": lambda: m.push(m.text_int()),
        b"L": lambda: m.push(int(m.line().rstrip(b"L"))),
        b"J": lambda: m.push(m.number("<i")),
        b"K": lambda: m.push(m.number("<B")),
        b"M": lambda: m.push(m.number("<H")),
        b"\x8a": lambda: m.push(int.from_bytes(m.take_sized("<B"), "little", signed=True)),
        b"S": lambda: m.push(m.text_string()),
        b"T": lambda: m.push(m.take_sized("<i")),
        b"U": lambda: m.push(m.take_sized("<B")),
        b"B": lambda: m.push(m.take_sized("<I")),
        b"C": lambda: m.push(m.take_sized("<B")),
        b"\x8e": lambda: m.push(m.take_sized("<Q")),
        b"\x96": lambda: m.push(m.take_sized("<Q")),  # BYTEARRAY8, kept as bytes
        b"V": lambda: m.push(m.line().decode("raw-unicode-escape")),
        b"X": lambda: m.push(m.take_text("<I")),
        b"\x8c": lambda: m.push(m.take_text("<B")),
        b"\x8d": lambda: m.push(m.take_text("<Q")),
        b"]": lambda: m.push([]),
        b"l": lambda: m.push(m.pop_to_mark()),
        b"a": lambda: m.append([m.pop()]),
        b"e": lambda: m.append(m.pop_to_mark()),
        b")": lambda: m.push(()),
        b"t": lambda: m.push(tuple(m.pop_to_mark())),
        b"\x85": lambda: m.tuple_of(1),
        b"\x86": lambda: m.tuple_of(2),
        b"\x87": lambda: m.tuple_of(3),
        b"p": lambda: m.put(int(m.line())),
        b"q": lambda: m.put(m.number("<B")),
        b"r": lambda: m.put(m.number("<I")),
        b"\x94": lambda: m.put(len(m.memo)),
        b"g": lambda: m.get(int(m.line())),
        b"h": lambda: m.get(m.number("<B")),
        b"j": lambda: m.get(m.number("<I")),
        b"c": lambda: m.name(m.line().decode("utf-8"), m.line().decode("utf-8")),
        b"\x93": lambda: m.name(*reversed((m.pop(), m.pop()))),
        b"R": m.reduce,
        b"b": m.build,
    }
    return {code[0]: instruction for code, instruction in table.items()}


def _check_is_data(value: Any) -> None:
    """Walk ``value`` level by level and refuse what is not data.

    The bound on depth also ends lists that hold themselves; a pair set is two levels deep.
    """
    level = [value]
    for _ in range(_MAX_DEPTH):
        containers: dict[int, Any] = {}
        for item in level:
            if isinstance(item, list | tuple):
                containers[id(item)] = item
            elif not isinstance(item, bytes | int | np.generic | np.ndarray):  # bool is an int
                raise ValueError(f"it holds a {type(item).__name__} where data belongs")
        if not containers:
            return
        level = [item for container in containers.values() for item in container]
    raise ValueError(f"its lists are nested more than {_MAX_DEPTH} deep")


def load_plain_pickle(data: bytes, *, where: str) -> Any:
    """Return what a pickle holds, if that is plain data.

    ``data``: the file's content, any pickle protocol of Python 2 or 3. Text of Python 2 comes out
    as bytes. The result is made of bytes, bools (Python's and NumPy's), ints, lists, tuples and
    NumPy arrays of plain numbers.

    Raises ValueError naming ``where`` (the file) and what is wrong: a name that is not known, an
    instruction data has no need of, an object array, a shape without the bytes for it, a cut file.
    """
    try:
        machine = _Machine(data)
        value = machine.run()
        # Instructions refer to their machine: without this, the file's content and all that was
        # read on the way would stay until the garbage collector comes by.
        machine.instructions.clear()
        _check_is_data(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{where}: not readable as a pair set: {error}. Nothing in it was run. If the file is "
            "what you meant, repack its images and labels with save_pairs_bin."
        ) from error
    return value
