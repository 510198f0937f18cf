from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.records.writer import RecordWriter
from arcface_plus.evaluation.cleaning.duplicates import thumbnail
from arcface_plus.evaluation.cleaning.photographs import fingerprint, look, open_photographs


@pytest.fixture
def faces(tmp_path):
    rng = np.random.default_rng(0)
    for person, count in (("ann", 2), ("bob", 3)):
        (tmp_path / "faces" / person).mkdir(parents=True)
        for image in range(count):
            pixels = rng.integers(0, 256, (20 + image, 30, 3), dtype=np.uint8)
            (tmp_path / "faces" / person / f"{image}.jpg").write_bytes(encode_jpeg(pixels))
    return tmp_path / "faces"


def test_a_folder_and_what_is_seen_of_it(faces) -> None:
    photographs = open_photographs(faces)
    assert photographs.keys == ["ann/0.jpg", "ann/1.jpg", "bob/0.jpg", "bob/1.jpg", "bob/2.jpg"]
    assert photographs.people == ["ann", "bob"] and photographs.root == faces
    seen: list[tuple[int, int]] = []
    looks = look(photographs, lambda *at: seen.append(at))
    assert looks.pixels.tolist() == [600, 630, 600, 630, 660]
    assert looks.size.tolist() == [(faces / key).stat().st_size for key in photographs.keys]
    expected = [thumbnail(photographs.images[row]) for row in range(5)]
    np.testing.assert_array_equal(looks.thumbnails, expected)
    assert seen[-1] == (5, 5)


def test_the_fingerprint_knows_names_and_contents(faces) -> None:
    before = look(open_photographs(faces)).fingerprint
    assert fingerprint(faces) == before
    kept = (faces / "ann" / "1.jpg").read_bytes()
    (faces / "ann" / "1.jpg").rename(faces / "ann" / "3.jpg")
    assert fingerprint(faces) != before
    (faces / "ann" / "3.jpg").rename(faces / "ann" / "1.jpg")
    assert fingerprint(faces) == before
    (faces / "ann" / "1.jpg").write_bytes(kept[:-3] + b"\x00" + kept[-2:])
    assert fingerprint(faces) != before


def test_a_record_file_is_read_under_its_numbers(faces, tmp_path) -> None:
    photographs = open_photographs(faces)
    with RecordWriter(tmp_path / "train.rec", image_size=(20, 30)) as writer:
        for row, label in ((0, 0), (1, 0), (2, 2)):
            writer.write(photographs.data(row), label)
    for path in (tmp_path, tmp_path / "train.rec"):
        records = open_photographs(path)
        assert records.root is None and records.people == ["0", "1", "2"]
        assert records.images.labels.tolist() == [0, 0, 2]
        assert [records.data(row) for row in range(3)] == [photographs.data(r) for r in range(3)]
    looks = look(records)
    np.testing.assert_array_equal(looks.thumbnails, look(photographs).thumbnails[:3])


def test_what_is_no_image_is_named(faces) -> None:
    (faces / "bob" / "note.jpg").write_text("not a photograph")
    with pytest.raises(ValueError, match=r"bob/note\.jpg"):
        look(open_photographs(faces))
