"""Who and what a training set shares with a pair set."""

from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.pairs.overlap import find_overlap, overlap_problems
from arcface_plus.data.pairs.sets import save_pairs_bin
from arcface_plus.data.records.packing import pack_folder


def jpeg(seed: int) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8))


@pytest.fixture
def sets(tmp_path):
    """Training: Ann, Bo, Cy with two images each. Tests: Ann's second image, and strangers."""
    for person, name in enumerate(("Ann", "Bo", "Cy")):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "train" / name / f"{i}.jpg").write_bytes(jpeg(10 * person + i))
    for name, seed in (("ann", 1), ("Dee", 77), ("Eve", 78)):
        (tmp_path / "test" / name).mkdir(parents=True)
        (tmp_path / "test" / name / "0.jpg").write_bytes(jpeg(seed))
    (tmp_path / "test" / "pairs.txt").write_text("ann/0.jpg Dee/0.jpg 0\nDee/0.jpg Eve/0.jpg 0\n")
    save_pairs_bin(tmp_path / "test.bin", [jpeg(1), jpeg(77), jpeg(78), jpeg(21)], [False, False])
    pack_folder(tmp_path / "train", tmp_path / "packed", size=24)
    return tmp_path


@pytest.mark.parametrize("training", ["train", "packed", "packed/train.rec"])
def test_names_and_images(sets, training):
    found = find_overlap(sets / training, sets / "test" / "pairs.txt")
    assert found and found.people == ["ann"] and found.skipped == []
    ((theirs, ours),) = found.images
    assert theirs.endswith("ann/0.jpg")
    assert ours.endswith("Ann/1.jpg" if training == "train" else "record 2")
    assert (found.tested, found.compared) == (3, 3)


def test_a_bin_is_compared_by_images_alone(sets):
    found = find_overlap(sets / "train", sets / "test.bin")
    assert found.people is None and "by name" in found.skipped[0]
    assert [ours.rpartition("train/")[2] for _, ours in found.images] == ["Ann/1.jpg", "Cy/1.jpg"]
    people, images = overlap_problems(sets / "train", sets / "test.bin")[::-1]
    assert (images.rule, images.count, images.severity) == ("overlap-images", 2, "error")
    assert (people.rule, people.severity) == ("not-compared", "warning")


def test_images_that_are_not_there_leave_the_names(sets):
    (sets / "list.txt").write_text("ann/9.jpg Dee/9.jpg 0\n")
    found = find_overlap(sets / "packed", sets / "list.txt", sets / "test")
    assert found.people == ["ann"] and found.images is None
    assert "images are not compared" in found.skipped[0]
    found = find_overlap(sets / "packed" / "train.lst", sets / "test" / "pairs.txt")
    assert found.people == ["ann"] and "give the records" in found.skipped[0]


def test_nothing_shared_and_nothing_to_compare(sets):
    (sets / "test" / "pairs.txt").write_text("Dee/0.jpg Eve/0.jpg 0\n")
    found = find_overlap(sets / "train", sets / "test" / "pairs.txt")
    assert not found and (found.people, found.images, found.compared) == ([], [], 2)
    assert overlap_problems(sets / "train", sets / "test" / "pairs.txt") == []
    (sets / "packed" / "train.lst").unlink()
    (sets / "list.txt").write_text("Dee/9.jpg Eve/9.jpg 0\n")
    with pytest.raises(ValueError, match=r"by name.*\n.*images are not compared"):
        find_overlap(sets / "packed", sets / "list.txt")
    with pytest.raises(FileNotFoundError, match="gone"):
        find_overlap(sets / "train", sets / "gone.txt")
