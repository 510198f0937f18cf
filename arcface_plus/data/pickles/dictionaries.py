"""Read a pickled dictionary of plain data, as CIFAR's files are, without running it."""

from __future__ import annotations

from typing import Any

import numpy as np

from arcface_plus.data.pickles.reader import PlainUnpickler, instructions, plain

_DATA = (bytes, str, int, np.generic, np.ndarray)  # bool is an int


class _DictUnpickler(PlainUnpickler):
    dispatch = PlainUnpickler.dispatch | instructions("EMPTY_DICT DICT SETITEM SETITEMS")


def load_plain_dict(data: bytes, *, where: str) -> dict[str, Any]:
    """Return a pickled dictionary of text to plain data; keys that are bytes come out as text.

    ``data``: the file's content, any pickle protocol of Python 2 or 3. A value is bytes, text, an
    int, a NumPy array or number, or a list or tuple of those; text of Python 2 is bytes.

    Raises ValueError naming ``where`` (the file) and what is wrong, as ``load_plain_pickle`` does.
    """
    try:
        value = _DictUnpickler(data).load()
        if type(value) is not dict:
            raise ValueError(f"it holds a {type(value).__name__}, not a dictionary")
        result = {}
        for key, entry in value.items():
            if not isinstance(key, bytes | str):
                raise ValueError(f"it has a key that is a {type(key).__name__}, not text")
            name = key.decode("latin1") if isinstance(key, bytes) else key
            result[name] = plain(entry, _DATA, what=repr(name[:40]), depth=1)
        return result
    except ValueError as error:
        raise ValueError(
            f"{where}: not readable as a dictionary of plain data: {error}. Nothing in it was run."
        ) from error
