from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.collections import open_collection
from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.pairs.sets import save_pairs_bin
from arcface_plus.data.records.reader import RecordWriter

FACE = encode_jpeg(np.full((8, 8, 3), 90, dtype=np.uint8))


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(FACE)
    return root


def test_folder_is_every_image_below_in_sorted_order(tmp_path: Path) -> None:
    root = fill(tmp_path / "f", "b/2.jpg", "b/10.jpg", "a/x/1.png", "top.jpeg")
    (root / "b" / "notes.txt").write_text("no image")
    found = open_collection(root)
    assert list(found.keys) == ["a/x/1.png", "b/10.jpg", "b/2.jpg", "top.jpeg"]
    assert found.labels.tolist() == [0, 1, 1, -1] and not found.pairs
    assert found.images[0].shape == (8, 8, 3)


def test_records(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "t.rec", image_size=(8, 8)) as writer:
        for label in (0, 0, 1):
            writer.write(FACE, label)
    found = open_collection(tmp_path / "t.rec")
    assert list(found.keys) == ["1", "2", "3"] and found.labels.tolist() == [0, 0, 1]
    assert found.images[2].shape == (8, 8, 3)


def test_pair_list_by_name_and_person(tmp_path: Path) -> None:
    root = fill(tmp_path / "f", "ann/ann_0001.jpg", "ann/ann_0002.jpg", "bob/bob_0001.jpg")
    (tmp_path / "pairs.txt").write_text("1\t1\nann\t1\t2\nann\t1\tbob\t1\n")
    found = open_collection(tmp_path / "pairs.txt", root)
    assert sorted(found.keys) == ["ann/ann_0001.jpg", "ann/ann_0002.jpg", "bob/bob_0001.jpg"]
    by_key = dict(zip(found.keys, found.labels.tolist(), strict=True))
    assert by_key["ann/ann_0001.jpg"] == by_key["ann/ann_0002.jpg"] != by_key["bob/bob_0001.jpg"]
    assert found.pairs["is_same"].tolist() == [True, False]


def test_packed_pairs_by_position(tmp_path: Path) -> None:
    save_pairs_bin(tmp_path / "p.bin", [FACE] * 4, [True, False])
    found = open_collection(tmp_path / "p.bin")
    assert list(found.keys) == ["0", "1", "2", "3"] and (found.labels == -1).all()


def test_nothing_to_embed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_collection(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        open_collection(tmp_path / "empty")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    for name in ("ann", "bob"):
        (faces / name).mkdir(parents=True)
        (faces / name / "0.jpg").write_bytes(FACE)
        (faces / name / "up").symlink_to(faces)
        (faces / name / "beside").symlink_to(faces / ("bob" if name == "ann" else "ann"))
    (tmp_path / "cy").mkdir()
    (tmp_path / "cy" / "0.jpg").write_bytes(FACE)
    (faces / "cy").symlink_to(tmp_path / "cy")
    assert open_collection(faces).keys == ["ann/0.jpg", "bob/0.jpg", "cy/0.jpg"]
