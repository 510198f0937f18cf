from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.embedding.set_files import Contents, Origin, write_contents
from arcface_plus.evaluation.embedding.sets import read_embedding_set
from arcface_plus.export import index
from arcface_plus.export.index import remove_person

ROWS = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
KEYS = np.array([f"{who}/{i}.jpg" for i, who in enumerate(["ann", "bob", "carl"] * 3)])
LABELS = np.array([0, 1, 2] * 3)
ORIGIN = Origin("f00d", "{}", True)


@pytest.fixture(params=[".npz", ".npy", ".parquet"])
def path(request, tmp_path):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
    path = tmp_path / f"i{request.param}"
    write_contents(path, Contents(KEYS, LABELS, [ROWS], 4, ORIGIN, {}))
    return path


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(index, "_ROWS_AT_ONCE", 4)


def test_the_rows_of_a_person_go_and_all_others_stay(path):
    assert remove_person(path, "bob") == (3, 6)
    held = read_embedding_set(path)
    keep = [0, 2, 3, 5, 6, 8]
    assert held.keys.tolist() == KEYS[keep].tolist()
    assert held.labels.tolist() == LABELS[keep].tolist()
    assert np.array_equal(held.embeddings, ROWS[keep]) and held.origin == ORIGIN
    again = path.with_name("again" + path.suffix)
    write_contents(again, Contents(KEYS[keep], LABELS[keep], [ROWS[keep]], 4, ORIGIN, {}))
    if path.suffix != ".parquet":  # there, blocks are row groups
        assert again.read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="no row of 'bob'"):
        remove_person(path, "bob")


def test_who_is_not_there_is_told_who_is(path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no row of 'an': did you mean ann"):
        remove_person(path, "an")
    with pytest.raises(ValueError, match="no row of 'zebra': it holds 3 people"):
        remove_person(path, "zebra")
    assert path.read_bytes() == before


def test_the_last_person_and_pairs_cannot_go(path):
    remove_person(path, "ann")
    remove_person(path, "bob")
    with pytest.raises(ValueError, match="remove the file"):
        remove_person(path, "carl")
    if path.suffix != ".parquet":
        pairs = {"index_a": np.array([0]), "index_b": np.array([2]), "is_same": np.array([False])}
        write_contents(path, Contents(KEYS, LABELS, [ROWS], 4, ORIGIN, pairs))
        with pytest.raises(ValueError, match="pairs of a pair set"):
            remove_person(path, "ann")


def test_records_are_people_by_label(path):
    numbers = np.array([str(i) for i in range(9)])
    write_contents(path, Contents(numbers, LABELS, [ROWS], 4, ORIGIN, {}))
    assert remove_person(path, "2") == (3, 6)
    assert read_embedding_set(path).labels.tolist() == [0, 1] * 3


def test_files_of_others_are_written_as_ours(tmp_path):
    np.savez(tmp_path / "o.npz", files=KEYS, emb=ROWS.astype(np.float64))
    assert remove_person(tmp_path / "o.npz", "carl") == (3, 6)
    held = read_embedding_set(tmp_path / "o.npz")
    assert held.origin is None and (held.labels == -1).all() and len(held) == 6
