"""Archives and headers that claim more than they have, or hold what is no plain array."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest

from arcface_plus.evaluation.embedding.npy_files import UNREADABLE, mapped_npy, opened_npz


class Trap:
    def __reduce__(self):
        return os.mkdir, ("run",)


def npy(header: str, body: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    width = 2 if version == b"\1\0" else 4
    return b"\x93NUMPY" + version + len(text).to_bytes(width, "little") + text + body


def stated(descr="'<f4'", shape="(2, 3)", order="False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (npy(stated(shape="(2, 4)"), bytes(24)), "takes 32 bytes, but has 24"),
        (npy(stated(shape=f"({2**32}, {2**32})"), bytes(24)), "but has 24"),
        (npy(stated(shape=f"({2**70},)"), bytes(24)), "but has 24"),
        (npy(stated(shape="(-2, -3)"), bytes(24)), r"\(-2, -3\)"),
        (npy(stated(descr="'<U400000000'", shape="(1,)"), bytes(24)), "but has 24"),
        (npy(stated(descr="'|O'"), bytes(48)), "object array is a pickle"),
        (npy(stated(descr="[('a', '<f4')]"), bytes(24)), "only numbers, booleans and text"),
        (npy(stated() + "\n(" * 300, bytes(24)), "header of it is damaged|parse"),
        (npy("-" * 5000, bytes(24)), "header"),
        (npy("{'descr': '''", bytes(24)), "header"),
        (npy("", bytes(24)), "header"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(24), "EOF|header"),
        (b"\x93NUMPY\3\0\x10\0\0\0" + bytes(24), "header"),
        (b"\x93NUM", "EOF"),
        (b"", "EOF"),
    ],
)
def test_headers_that_lie(tmp_path, content, match):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(UNREADABLE, match=match):
        mapped_npy(path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(UNREADABLE), opened_npz(tmp_path / "a.npz") as archive:
        archive.read("a")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1", "?", "U3", "S3"])
def test_plain_arrays_are_what_numpy_reads(tmp_path, order, dtype):
    array = np.asarray(np.arange(24).reshape(4, 6), order=order).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", a=array, b=array[0, 0])
    found = mapped_npy(tmp_path / "a.npy")
    assert isinstance(found, np.memmap) and found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    with opened_npz(tmp_path / "a.npz") as archive:
        assert archive.names == ["a", "b"]
        np.testing.assert_array_equal(archive.read("a"), array)
        assert archive.read("b") == array[0, 0]
        with pytest.raises(ValueError, match="lacks c"):
            archive.read("c")


def test_archives_that_unpack_to_too_much(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(2**24 + 1, np.float32))
    assert (tmp_path / "bomb.npz").stat().st_size < 2**17
    with (
        pytest.raises(ValueError, match=r"unpacks to 67108996 bytes, .* make at most 67108864"),
        opened_npz(tmp_path / "bomb.npz"),
    ):
        pass
    np.savez(tmp_path / "large.npz", a=np.zeros(2**24 + 1, np.float32))
    with opened_npz(tmp_path / "large.npz") as archive:
        assert archive.read("a").shape == (2**24 + 1,)


def test_pickles_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", a=np.array([Trap()], dtype=object))
    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object))
    with pytest.raises(ValueError, match="pickle"), opened_npz(tmp_path / "a.npz") as archive:
        archive.read("a")
    with pytest.raises(ValueError, match="pickle"):
        mapped_npy(tmp_path / "a.npy")
    assert not (tmp_path / "run").exists()


def test_other_compressions_and_no_archives(tmp_path):
    np.save(buffer := io.BytesIO(), np.zeros(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", buffer.getvalue())
    with (
        pytest.raises(ValueError, match="NumPy does not write"),
        opened_npz(tmp_path / "a.npz") as found,
    ):
        found.read("a")
    (tmp_path / "b.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"no \.npz archive"), opened_npz(tmp_path / "b.npz"):
        pass
