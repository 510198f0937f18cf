from __future__ import annotations

import gc
import os
import pickle
import pickletools
import struct
import subprocess
import tracemalloc
import weakref

import numpy as np
import pytest

from arcface_plus.data.pickles import reader as unpickle
from arcface_plus.data.pickles.reader import load_plain_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def load(data: bytes):
    return load_plain_pickle(data, where="set.bin")


def refuse(data: bytes, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load(data)
    assert str(caught.value).startswith("set.bin: ")


def same(mine, theirs) -> bool:
    if isinstance(theirs, (list, tuple)):
        pairs = zip(mine, theirs, strict=True)
        return type(mine) is type(theirs) and all(same(a, b) for a, b in pairs)
    if isinstance(theirs, np.ndarray):
        return mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    return type(mine) is type(theirs) and mine == theirs


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_data_as_the_standard_module_does(protocol):
    shared = np.arange(5, dtype=np.uint8)
    images = [
        b"\xff\xd8\n'\"\\\x00 jpeg",
        bytes(range(256)) * 3,
        shared,
        shared,
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3), dtype=np.float16),
        np.array([True, False]),
    ]
    numbers = [True, False, np.bool_(True), np.int64(-7), np.float32(0.5)]
    numbers += [0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**40, -(2**40)]
    value = (images, numbers, (), [], (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))
    assert same(load(pickle.dumps(value, protocol)), value)


def test_random_nested_data_at_every_protocol():
    rng = np.random.default_rng(0)

    def draw(depth: int):
        kind = rng.integers(0, 8 if depth < 5 else 5)
        if kind == 0:
            return rng.bytes(int(rng.integers(1, 300)))
        if kind == 1:
            return bool(rng.integers(2))
        if kind == 2:
            return int(rng.integers(-(2**62), 2**62)) >> int(rng.integers(0, 62))
        if kind == 3:
            return rng.integers(0, 9, (2, 3)).astype(rng.choice(["u1", "i8", "f4", ">u2", "?"]))
        if kind == 4:
            return rng.choice([np.bool_(0), np.float64(2)])
        items = [draw(depth + 1) for _ in range(int(rng.integers(0, 5)))]
        return items if kind < 7 else tuple(items)

    for _ in range(100):
        value = [draw(0)]
        for protocol in PROTOCOLS:
            assert same(load(pickle.dumps(value, protocol)), value)
            assert same(load(pickletools.optimize(pickle.dumps(value, protocol))), value)


# ('\xff\xd8a\n\'"\\\x00', "it's"), [True, False] as Python 2.7's cPickle writes them.
PYTHON_2 = {
    0: b"((S'\\xff\\xd8a\\n\\'\"\\\\\\x00'\np1\nS\"it's\"\np2\ntp3\n(lp4\nI01\naI00\natp5\n.",
    1: b"((U\x08\xff\xd8a\n'\"\\\x00q\x01U\x04it'sq\x02tq\x03]q\x04(I01\nI00\netq\x05.",
    2: b"\x80\x02U\x08\xff\xd8a\n'\"\\\x00q\x01T\x04\x00\x00\x00it'sq\x02\x86q\x03"
    b"]q\x04(\x88\x89e\x86q\x05.",
}


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_python_2_strings_are_bytes(protocol):
    data = PYTHON_2[protocol]
    expected = ((b"\xff\xd8a\n'\"\\\x00", b"it's"), [True, False])
    assert same(load(data), expected)
    assert pickle.loads(data, encoding="bytes") == expected


def test_python_2_arrays():
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85"
        b"U\x01b\x87R(K\x01K\x03\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\xff\xd8\x07tb."
    )
    assert same(load(data), np.array([255, 216, 7], dtype=np.uint8))


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_old_and_new_numpy_names(core, protocol):
    value = [np.arange(4, dtype=np.uint8), np.bool_(True)]
    data = pickle.dumps(value, protocol)
    for module in (b".multiarray", b".numeric"):
        for written in (b"numpy.core" + module, b"numpy._core" + module):
            # A line of its own up to protocol 3, with its length before it from 4 on.
            data = data.replace(b"c" + written + b"\n", b"c" + core + module + b"\n")
            length = bytes([len(core + module)])
            data = data.replace(bytes([len(written)]) + written, length + core + module)
    assert core + b"." in data
    assert same(load(data), value)


class Calls:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {marker}",), r"(posix|nt)\.system"),
        (subprocess.Popen, (["touch", "{marker}"],), r"\w+\.Popen"),
        (eval, ("open('{marker}', 'w')",), r"(builtins|__builtin__)\.eval"),
        (getattr, ([], "append"), r"(builtins|__builtin__)\.getattr"),
        (bytearray, (10**12,), r"(builtins|__builtin__)\.bytearray"),
        (np.load, ("{marker}",), r"numpy\.load"),
        (np.zeros, (10**12,), r"numpy\.?\S*\.zeros"),
    ],
)
def test_other_names_are_refused_and_nothing_runs(tmp_path, protocol, function, arguments, name):
    marker = tmp_path / "ran"
    filled = tuple(a.format(marker=marker) if isinstance(a, str) else a for a in arguments)
    data = pickle.dumps(([b"image", Calls(function, *filled)], [True]), protocol)
    refuse(data, f"refers to {name}, and plain data needs")
    assert not marker.exists()


def test_getattr_chain_through_a_known_name_is_refused():
    # numpy.dtype.__reduce__-like walks need getattr or dotted names; neither exists here.
    refuse(b"cnumpy\nndarray.__class__\n.", r"refers to numpy\.ndarray\.__class__")
    refuse(
        b"\x80\x04\x8c\x05numpy\x8c\x13core.os.system.call\x93.", r"numpy\.core\.os\.system\.call"
    )


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "ends early"),
        (b"\xff\xd8\xff\xe0 a photograph", "byte 0xff"),
        (b"version https://git-lfs.github.com/spec/v1", "not readable"),
        (pickle.dumps({}), "EMPTY_DICT"),
        (pickle.dumps({1, 2}, 4), "EMPTY_SET"),
        (pickle.dumps(1.5), "BINFLOAT"),
        (pickle.dumps("text"), "a str where data belongs"),
        (pickle.dumps([None]), "a NoneType where data belongs"),
        (pickle.dumps(10**900), "LONG4"),
        (pickle.dumps(np.ndarray), "a type where data belongs"),
        (pickle.dumps(np.dtype("u1"), 2), "a DTypeShell where data belongs"),
        (b"cnumpy\nndarray\n(K\x00tR.", "no pickle of data"),
        (b"cnumpy\nndarray\n(tb.", "sets the state of a type"),
        (b"cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"]K\x01b.", "sets the state of a list"),
        (b"c_codecs\nencode\n(NK\x01tb.", "sets the state of a Latin1Encoder"),
        (b"cnumpy.core.numeric\n_frombuffer\n(NK\x01tb.", "sets the state of a function"),
        (b"K\x01K\x02a.", "no pickle of data"),
        (b"c__builtin__\nbytes\n(K\x05tR.", "no pickle of data"),
        (b"K\x01)R.", "no pickle of data"),
        (b"(i__builtin__\neval\n.", "INST"),
        (b"Pid\n.", "PERSID"),
        (b"\x82\x01.", "EXT1"),
        (b"0.", "no pickle of data"),
        (b"(.", "no pickle of data"),
        (b"e.", "no pickle of data"),
        (b"h\x07.", "Memo value not found at index 7"),
        (b"I1_000x\n.", "invalid literal"),
        (b"S'no end\n.", "must be quoted"),
        (b"I" + b"9" * 5000 + b"\n.", "not readable"),
        (b"U\x05abc.", "ends early"),
        (b"K\x01", "ends early"),
        (b"\x80\x04\x8c\x02\xff\xfe.", "not readable"),
        (b"NK\x01\x93.", "STACK_GLOBAL requires str"),
    ],
)
def test_malformed_and_foreign_content_is_refused(data, match):
    refuse(data, match)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_object_arrays_are_refused(protocol):
    refuse(pickle.dumps(np.array([b"a", None], dtype=object), protocol), "dtype 'O8'")


@pytest.mark.parametrize("dtype", ["U3", "S3", "M8[s]", "c8", [("a", "u1")]])
def test_other_dtypes_are_refused(dtype):
    refuse(pickle.dumps(np.zeros(2, dtype=dtype), 2), "only plain numbers|not readable")


def array_pickle(shape: bytes, content: bytes) -> bytes:
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + content + b"tb."
    )


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (array_pickle(b"\x8a\x06" + b"\xff" * 5 + b"\x00\x85", b"U\x01a"), "but holds 1 bytes"),
        (array_pickle(b"(" + b"\x8a\x05" + b"\xff" * 4 + b"\x00" + b"K\x00t", b"U\x01a"), "1 byte"),
        (array_pickle(b"J\xff\xff\xff\xff\x85", b"U\x01a"), "not plain numbers"),
        (array_pickle(b"(" + b"K\x01" * 60 + b"t", b"U\x01a"), "up to 8 dimensions"),
        (array_pickle(b"K\x01\x85", b"]"), "not plain numbers"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7ftU\x01btR.",
            "arg",
        ),
        (b"B\xff\xff\xff\xffabc.", "ends early"),
        (b"\x8e" + struct.pack("<Q", 2**62) + b"abc.", "ends early"),
        (b"\x96" + struct.pack("<Q", 2**40) + b"abc.", "ends early"),
        (b"T\xff\xff\xff\xff.", "negative byte count"),
    ],
)
def test_sizes_are_not_believed(data, match):
    tracemalloc.start()
    refuse(data, match)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_memory_stays_in_proportion():
    memo = b"K\x01r\xff\xff\xff\xff0]."  # a memo index of 2^32 - 1
    text = b"\x80\x02X\x00\x00\x10\x00" + b"a" * 2**20 + b"q\x000]("
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    tracemalloc.start()
    assert load(memo) == []
    refuse(text + again * 500 + b"e.", "memory bomb")
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_lists_in_themselves_and_deep_lists_are_refused():
    refuse(b"]q\x00h\x00a.", "nested")
    refuse(b"]q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b".", "nested")  # 2^60 leaves
    refuse(b"]" * 200_000 + b"a" * 199_999 + b".", "nested")
    refuse(b"(" * 200_000 + b".", "no pickle of data")


def test_cut_files_never_load(tmp_path):
    data = pickle.dumps(([b"\xff\xd8abc", np.arange(9, dtype=np.uint8)], [True]), 2)
    for end in range(len(data)):
        with pytest.raises(ValueError, match=r"set\.bin"):
            load(data[:end])


def test_random_damage_is_a_value_error_or_data():
    rng = np.random.default_rng(1)
    whole = [
        pickle.dumps(([b"ab", np.arange(4, dtype="u1")], [True, np.bool_(0)]), p) for p in (0, 2, 5)
    ]
    for _ in range(4000):
        data = bytearray(whole[rng.integers(3)])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            load(bytes(data))
        except ValueError as error:
            assert str(error).startswith("set.bin: ")


def test_nothing_of_the_reading_stays_behind(monkeypatch):
    """A pair set of 80 MB should not hold three times as much until the collector comes by."""
    readers = []

    class Watched(unpickle.PlainUnpickler):
        def __init__(self, data):
            super().__init__(data)
            readers.append(weakref.ref(self))

    monkeypatch.setattr(unpickle, "PlainUnpickler", Watched)
    gc.disable()
    try:
        content = unpickle.load_plain_pickle(pickle.dumps(([b"a", b"b"], [True]), 2), where="x")
        assert content == ([b"a", b"b"], [True])
        assert [reader() for reader in readers] == [None]
    finally:
        gc.enable()
