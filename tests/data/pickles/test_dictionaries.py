"""Pickled dictionaries are read as data: what CIFAR's files need, and nothing that runs."""

from __future__ import annotations

import gc
import os
import pickle
import tracemalloc
import weakref

import numpy as np
import pytest

from arcface_plus.data.pickles import dictionaries as unpickle_dict
from arcface_plus.data.pickles.dictionaries import load_plain_dict

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
CONTENT = {
    b"batch_label": b"training batch 1 of 1",
    b"fine_labels": [3, 0, 99],
    b"filenames": [b"a.png", b"b.png"],
    b"data": np.arange(12, dtype=np.uint8).reshape(3, 4),
    b"count": 3,
}


def load(data: bytes):
    return load_plain_dict(data, where="train")


def refuse(data: bytes, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load(data)
    assert str(caught.value).startswith("train: not readable as a dictionary of plain data: ")
    assert str(caught.value).endswith("Nothing in it was run.")


def assert_content(found, keys=tuple(CONTENT)):
    assert list(found) == [key.decode() for key in keys]
    np.testing.assert_array_equal(found["data"], CONTENT[b"data"])
    assert found["data"].dtype == np.uint8
    for key in keys:
        if key != b"data":
            assert found[key.decode()] == CONTENT[key]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_what_the_standard_module_writes(protocol):
    assert_content(load(pickle.dumps(CONTENT, protocol)))
    as_text = {key.decode(): value for key, value in CONTENT.items()}
    assert_content(load(pickle.dumps(as_text, protocol)))
    assert load(pickle.dumps({}, protocol)) == {}
    assert load(pickle.dumps({"a": 1}, protocol)) == {"a": 1}
    names = {"names": ["apple", "été"]}
    assert load(pickle.dumps(names, protocol)) == names


# {'data': array([[1, 2]], uint8), 'labels': [7], 'batch_label': 'x'} as Python 2.7's cPickle
# writes it; the dictionary of protocol 0 has its items one by one.
PYTHON_2 = {
    0: b"(dp1\nS'labels'\np2\n(lp3\nI7\nasS'batch_label'\np4\nS'x'\np5\nsS'data'\np6\n"
    b"cnumpy.core.multiarray\n_reconstruct\np7\n(cnumpy\nndarray\np8\n(I0\ntS'b'\ntRp9\n"
    b"(I1\n(I1\nI2\ntcnumpy\ndtype\np10\n(S'u1'\nI0\nI1\ntRp11\n(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
    b"I00\nS'\\x01\\x02'\ntbs.",
    2: b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03K\x07aU\x0bbatch_labelq\x04U\x01xq\x05U\x04data"
    b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87R"
    b"q\x09(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNN"
    b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x01\x02tbu.",
}


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_python_2_files(protocol):
    found = load(PYTHON_2[protocol])
    standard = pickle.loads(PYTHON_2[protocol], encoding="latin1")
    assert found.keys() == standard.keys() == {"labels", "batch_label", "data"}
    np.testing.assert_array_equal(found["data"], standard["data"])
    np.testing.assert_array_equal(found["data"], [[1, 2]])
    assert found["labels"] == [7] and found["batch_label"] == b"x"


class Calls:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("place", ["key", "value", "item"])
def test_code_is_refused_and_not_run(tmp_path, protocol, place):
    target = tmp_path / "ran"
    code = Calls(os.system, f"touch {target}")
    content = {"key": {code: 1}, "value": {"a": code}, "item": {"a": [1, code]}}[place]
    refuse(pickle.dumps(content, protocol), r"refers to (posix|nt)\.system")
    assert not target.exists()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (pickle.dumps([1]), "holds a list, not a dictionary"),
        (pickle.dumps({1: 2}), "key that is a int"),
        (pickle.dumps({(): 2}), "key that is a tuple"),
        (pickle.dumps({"a": {}}), "'a' holds a dict where data belongs"),
        (pickle.dumps({"a": [[1]]}), "'a' holds lists nested"),
        (pickle.dumps({"a": ((1,),)}), "'a' holds lists nested"),
        (pickle.dumps({"a": None}), "'a' holds a NoneType"),
        (pickle.dumps({"a": {1}}, 4), "EMPTY_SET"),
        (pickle.dumps({"a": np.array([None])}), "dtype 'O8'"),
        (b"\x80\x02}q\x01U\x01ah\x01s.", "'a' holds a dict"),  # itself
        (b"}(U\x01au.", "no pickle of data"),
        (b"(U\x01ad.", "no pickle of data"),
        (b"](U\x01aK\x01u.", "no pickle of data"),
        (b"K\x05U\x01aK\x01s.", "no pickle of data"),
        (b"}U\x01as.", "no pickle of data"),
        (b"}u.", "no pickle of data"),
        (b"s.", "no pickle of data"),
        (b"cnumpy\nndarray\n}K\x01b.", "sets the state"),
        (b"", "ends early"),
        (b"\x1f\x8b\x08\x00 an archive", "byte 0x1f|not readable"),
    ],
)
def test_other_content_is_refused(data, match):
    refuse(data, match)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cut_files_never_load(protocol):
    data = pickle.dumps(CONTENT, protocol)
    for end in range(len(data)):
        refuse(data[:end], "not readable")


@pytest.mark.filterwarnings("ignore:invalid escape")
def test_random_damage_is_a_value_error_or_data():
    rng = np.random.default_rng(1)
    whole = [pickle.dumps(CONTENT, p) for p in (0, 2, 5)] + list(PYTHON_2.values())
    for _ in range(3000):
        data = bytearray(whole[rng.integers(len(whole))])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            load(bytes(data))
        except ValueError as error:
            assert str(error).startswith("train: ")


def test_sizes_are_not_believed():
    claims = [
        b"}(U\x01aB\xff\xff\xff\xffabcu.",
        b"}(U\x01a\x8e" + b"\xff" * 7 + b"\x00abcu.",
        b"}r\xff\xff\xff\xff(U\x01aK\x01T\xff\xff\xff\x7fu.",
    ]
    tracemalloc.start()
    for data in claims:
        refuse(data, "ends early")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_nothing_of_the_reading_stays_behind(monkeypatch):
    """A file of 150 MB should not be held twice until the garbage collector comes by."""
    readers = []

    class Watched(unpickle_dict._DictUnpickler):
        def __init__(self, data):
            super().__init__(data)
            readers.append(weakref.ref(self))

    monkeypatch.setattr(unpickle_dict, "_DictUnpickler", Watched)
    gc.disable()
    try:
        assert_content(load(pickle.dumps(CONTENT, 2)))
        assert [reader() for reader in readers] == [None]
    finally:
        gc.enable()
