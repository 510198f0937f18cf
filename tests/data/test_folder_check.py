"""What `data check` finds in a folder of people."""

from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.folder_check import check_folder
from arcface_plus.data.image_check import digests_of, find_copies, look_at
from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.lazy_images import EncodedImages


def jpeg(seed: int, shape=(32, 32, 3)) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("ann/0", "ann/1", "bo/0", "bo/1", "cy/0")):
        path = tmp_path / "faces" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i))
    return tmp_path / "faces"


def test_a_good_folder(folder):
    seen = []
    checked = check_folder(folder, lambda done, total: seen.append((done, total)))
    assert (checked.problems, checked.images, checked.people) == ([], 5, 3)
    assert seen == [(i, 5) for i in range(1, 6)]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "pairs.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pairs\.bin: no record file .* --pairs"):
        check_folder(tmp_path / "pairs.bin")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        check_folder(tmp_path / "absent")


def test_every_rule(folder):
    (folder / "ann" / "2.jpg").write_bytes(jpeg(0))
    (folder / "bo" / "2.jpg").write_bytes(jpeg(0))
    (folder / "cy" / "1.jpg").write_bytes(jpeg(9)[:-100])
    (folder / "cy" / "2.jpg").write_bytes(jpeg(7, (32, 30, 3)))
    (folder / "dee").mkdir()
    (folder / "stray.jpg").write_bytes(jpeg(8))
    problems = {problem.rule: problem for problem in check_folder(folder).problems}
    assert {rule: each.severity for rule, each in problems.items()} == {
        "empty-class": "error",
        "stray": "warning",
        "image": "error",
        "image-size": "error",
        "copy": "warning",
        "copy-label": "error",
    }
    assert problems["copy"].file.endswith("ann/2.jpg") and "ann/0.jpg" in problems["copy"].message
    assert problems["copy-label"].file.endswith("bo/2.jpg")
    text = str(problems["image"])
    assert text.count("1.jpg") == 1 and "cut off" in text
    assert "30×32 pixels" in problems["image-size"].message


def test_no_people_and_no_folder(tmp_path):
    (problem,) = check_folder(tmp_path).problems
    assert (problem.rule, problem.severity) == ("count", "error")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        check_folder(tmp_path / "gone")


def test_copies_are_those_of_equal_bytes():
    rng = np.random.default_rng(0)
    for count in (0, 1, 600):
        blobs = [bytes([value]) for value in rng.integers(0, 50, count).tolist()]
        images = EncodedImages(blobs, source="x")
        naive = [(i, blobs.index(b)) for i, b in enumerate(blobs) if blobs.index(b) != i]
        digests = digests_of(images)
        assert [tuple(row) for row in find_copies(digests).tolist()] == naive
        looks = look_at(images, range(count))
        assert (looks.digests == digests).all() and len(looks.errors) == count
        assert not looks.sizes.any()
