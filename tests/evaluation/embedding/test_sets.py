from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.embedding.sets import read_embedding_set


def write(path, **arrays):
    plain = {
        "key": np.array(["a/1.jpg", "a/2.jpg", "b/3_4.jpg"]),
        "embedding": np.eye(3, 4, dtype=np.float32),
        "label": np.array([0, 0, 1]),
        "norm": np.ones(3, dtype=np.float32),
    }
    held = {name: value for name, value in (plain | arrays).items() if value is not None}
    np.savez(path, **held)
    return path


def test_exports_and_the_other_layout(tmp_path):
    held = read_embedding_set(write(tmp_path / "e.npz"))
    assert len(held) == 3 and held.labels.tolist() == [0, 0, 1]
    assert held.people("folder").tolist() == ["a", "a", "b"]
    assert held.people("label").tolist() == [0, 0, 1]
    assert held.describe(1) == f"The embedding of a/2.jpg in {tmp_path / 'e.npz'}"
    np.savez(tmp_path / "f.npz", files=np.array(["7_1.png", "8_1.png"]), emb=np.ones((2, 3)))
    other = read_embedding_set(tmp_path / "f.npz")
    assert other.labels is None and other.people("prefix").tolist() == ["7", "8"]


def test_rows_by_name(tmp_path):
    held = read_embedding_set(write(tmp_path / "e.npz"))
    assert held.rows_of(["b/3_4.jpg", "a/1.jpg"], "list").tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"lacks 4 of the 5 images of list: c, d, e, …"):
        held.rows_of(["c", "d", "e", "f", "a/1.jpg"], "list")
    twice = read_embedding_set(write(tmp_path / "t.npz", key=np.array(["a", "b", "a"])))
    with pytest.raises(ValueError, match="holds a more than once"):
        twice.rows_of(["b"], "list")


@pytest.mark.parametrize(
    ("identity", "arrays", "match"),
    [
        ("name", {}, "must be one of folder, label, prefix"),
        ("label", {"label": np.array([0, -1, 2])}, "does not state a label for every row"),
        ("label", {"label": None}, "does not state a label"),
        ("folder", {"key": np.array(["a/1", "2.jpg", "c/d"])}, r"2\.jpg lies in no folder"),
        ("prefix", {}, r"a/1\.jpg has no underscore"),
    ],
)
def test_rows_that_do_not_say_who_they_show(tmp_path, identity, arrays, match):
    held = read_embedding_set(write(tmp_path / "e.npz", **arrays))
    with pytest.raises(ValueError, match=match):
        held.people(identity)


@pytest.mark.parametrize(
    "arrays",
    [
        {"key": np.array(["a", "b"])},
        {"key": np.arange(3)},
        {"key": np.array(["a", None, "c"], dtype=object)},
        {"embedding": np.ones(3, dtype=np.float32)},
        {"embedding": np.ones((3, 2), dtype=np.int64)},
        {"label": np.ones(3)},
        {"label": np.ones(2, dtype=np.int64)},
        {"key": np.array([], dtype="U1"), "embedding": np.ones((0, 2)), "label": None},
        {"embedding": None},
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays):
    with pytest.raises(ValueError, match=r"e\.npz"):
        read_embedding_set(write(tmp_path / "e.npz", **arrays))


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_embedding_set(tmp_path / "none.npz")
    whole = write(tmp_path / "e.npz").read_bytes()
    for damaged in (b"", b"no zip", whole[:-40], whole[:200] + b"\0" * 50 + whole[250:]):
        (tmp_path / "d.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"d\.npz: not readable as embeddings"):
            read_embedding_set(tmp_path / "d.npz")
