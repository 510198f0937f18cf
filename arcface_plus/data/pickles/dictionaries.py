"""Read a pickled dictionary of plain data, as CIFAR's files are, without running it.

The machine of ``unpickle`` with the four instructions that build a dictionary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from arcface_plus.data.pickles.reader import _Machine

_DATA = (bytes, str, int, float, np.generic, np.ndarray)  # bool is an int


class _DictMachine(_Machine):
    """Also knows dictionaries whose keys are text."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.instructions |= {
            ord("}"): lambda: self.push({}),
            ord("d"): lambda: self.new_dict(self.pop_to_mark()),
            ord("s"): lambda: self.set_items([self.pop(), self.pop()][::-1]),
            ord("u"): lambda: self.set_items(self.pop_to_mark()),
        }

    def new_dict(self, items: list[Any]) -> None:
        self.push({})
        self.set_items(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.pop()
        if type(target) is not dict:
            raise ValueError(f"it sets items of a {type(target).__name__}, not a dictionary")
        if len(items) % 2:
            raise ValueError("it sets a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, bytes | str):
                raise ValueError(f"it has a key that is a {type(key).__name__}, not text")
            target[key.decode("latin1") if isinstance(key, bytes) else key] = value
        self.push(target)


def load_plain_dict(data: bytes, *, where: str) -> dict[str, Any]:
    """Return a pickled dictionary of text to plain data; keys that are bytes come out as text.

    ``data``: the file's content, any pickle protocol of Python 2 or 3. A value is bytes, text, a
    number, a NumPy array of plain numbers, or a list of those; text of Python 2 is bytes.

    Raises ValueError naming ``where`` (the file) and what is wrong, as ``load_plain_pickle`` does.
    """
    try:
        machine = _DictMachine(data)
        value = machine.run()
        # Instructions refer to their machine: without this, the file's content and all that was
        # read on the way would stay until the garbage collector comes by.
        machine.instructions.clear()
        if type(value) is not dict:
            raise ValueError(f"it holds a {type(value).__name__}, not a dictionary")
        for key, entry in value.items():
            for item in entry if isinstance(entry, list) else [entry]:
                if not isinstance(item, _DATA):
                    raise ValueError(f"{key[:40]!r} holds a {type(item).__name__}, not plain data")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{where}: not readable as a dictionary of plain data: {error}. Nothing in it was run."
        ) from error
    return value
