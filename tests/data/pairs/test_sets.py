from __future__ import annotations

import pickle
import shutil
import tracemalloc

import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.pairs.sets import PairSet, load_pairs, save_pairs_bin


def picture(seed: int, size: int = 16) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((size // 2, size // 2, 1), dtype=np.uint8))


def write_bin(path, content) -> None:
    path.write_bytes(pickle.dumps(content, 2))


@pytest.fixture
def jpegs() -> list[bytes]:
    return [encode_jpeg(picture(i)) for i in range(4)]


def test_saved_pairs_come_back(tmp_path, jpegs):
    path = tmp_path / "set.bin"
    save_pairs_bin(path, jpegs, [True, False])
    pairs = load_pairs(path)
    assert [f.name for f in tmp_path.iterdir()] == ["set.bin"]
    assert (len(pairs), len(pairs.images), pairs.name) == (2, 4, "set")
    assert pairs.is_same.tolist() == [True, False] and pairs.is_same.dtype == bool
    assert (pairs.names, pairs.folds) == (None, None)
    assert pairs.index_a.tolist() == [0, 2] and pairs.index_b.tolist() == [1, 3]
    assert pairs.images[1].shape == (16, 16, 3) and pairs.images[1].dtype == np.uint8
    assert np.abs(pairs.images[1].astype(int) - picture(1)).mean() < 8  # red first, not blue
    # What insightface's reader does with it, on Python 3:
    assert pickle.loads(path.read_bytes(), encoding="bytes") == (jpegs, [True, False])


def test_arrays_are_saved_as_jpeg(tmp_path):
    save_pairs_bin(tmp_path / "a.bin", [picture(0), picture(1)], np.array([True]))
    image = load_pairs(tmp_path / "a.bin").images[0]
    assert np.abs(image.astype(int) - picture(0)).mean() < 8
    save_pairs_bin(tmp_path / "b.bin", load_pairs(tmp_path / "a.bin").images, [True])
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (1, -1)])
def test_images_in_arrays(tmp_path, jpegs, shape):
    arrays = [np.frombuffer(jpeg, dtype=np.uint8).reshape(shape) for jpeg in jpegs]
    write_bin(tmp_path / "set.bin", (arrays, np.array([1, 0], dtype=np.int64)))
    pairs = load_pairs(tmp_path / "set.bin")
    assert pairs.images.blobs == jpegs and pairs.is_same.tolist() == [True, False]


def test_equal_images_are_used_once_but_stay(tmp_path, jpegs):
    save_pairs_bin(tmp_path / "set.bin", [jpegs[0], jpegs[1], jpegs[2], jpegs[0]], [True, False])
    pairs = load_pairs(tmp_path / "set.bin")
    assert len(pairs.images) == 4
    assert pairs.index_a.tolist() == [0, 2] and pairs.index_b.tolist() == [1, 0]
    assert pairs.used_images().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([b"a", b"b"], "images should be a list, but are bytes"),
        ([[b"a"], [True], [False]], "holds list of length 3"),
        (b"bytes", "holds bytes"),
        (([b"a", b"b", b"c"], [True]), "3 images for 1 labels"),
        (([b"a", b"b"], [True, False]), "2 images for 2 labels"),
        (([b"a", b"b"], [2]), "labels must be one list of booleans"),
        (([b"a", b"b"], [b"1"]), "labels must be one list of booleans"),
        (([b"a", b"b"], [[True]]), "labels must be one list of booleans"),
        (([b"a", b"b"], [np.float64(1)]), "labels must be one list of booleans"),
        (([b"a", b"b", b"c", b"d"], [True, (1, 2)]), "labels"),
        (([b"a", b""], [True]), "image 1 should be the bytes"),
        (([b"a", 7], [True]), "image 1 should be the bytes.*int 7"),
        (([b"a", np.zeros((4, 4, 3), np.uint8)], [True]), r"uint8 array of shape \(4, 4, 3\)"),
        (([b"a", np.zeros(4)], [True]), "float64 array"),
        (([], []), "images should be a list"),
    ],
)
def test_bins_that_are_none(tmp_path, content, match):
    write_bin(tmp_path / "set.bin", content)
    with pytest.raises(ValueError, match=match) as caught:
        load_pairs(tmp_path / "set.bin")
    assert "set.bin" in str(caught.value)


def test_corrupt_image_names_file_and_record(tmp_path, jpegs):
    save_pairs_bin(tmp_path / "set.bin", [jpegs[0], jpegs[1][:40]], [True])
    pairs = load_pairs(tmp_path / "set.bin")  # nothing is decoded yet
    with pytest.raises(ValueError, match=r"set\.bin, image 1"):
        _ = pairs.images[1]


def test_other_files(tmp_path, jpegs):
    with pytest.raises(FileNotFoundError, match="no file"):
        load_pairs(tmp_path / "none.bin")
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"not \.zip"):
        load_pairs(tmp_path / "set.zip")
    with pytest.raises(ValueError, match="4 images for 1 labels"):
        save_pairs_bin(tmp_path / "set.bin", jpegs, [True])
    with pytest.raises(ValueError, match="booleans"):
        save_pairs_bin(tmp_path / "set.bin", jpegs, ["yes", "no"])
    with pytest.raises(ValueError, match="uint8"):
        save_pairs_bin(tmp_path / "set.bin", [np.zeros((2, 2))] * 2, [True])
    assert [f.name for f in tmp_path.iterdir()] == ["set.zip"]


def test_pair_set_checks_its_parts():
    images = [picture(i) for i in range(4)]
    assert PairSet(images, [True, False]).index_b.tolist() == [1, 3]
    with pytest.raises(ValueError, match="3 images for 2 labels"):
        PairSet(images[:3], [True, False])
    with pytest.raises(ValueError, match="must both be 2 integers"):
        PairSet(images, [True, False], index_a=np.array([0, 1]))
    for rows in ([0, 4], [0, -1]):
        with pytest.raises(ValueError, match="outside the 4 images"):
            PairSet(images, [True, False], index_a=np.array(rows), index_b=np.array([0, 1]))
    with pytest.raises(ValueError, match="1 names for 4 images"):
        PairSet(images, [True, False], names=["a"])


def test_fingerprint_follows_content(tmp_path, jpegs):
    prints = set()
    for number, (images, labels) in enumerate(
        [
            (jpegs, [True, False]),
            (jpegs, [False, True]),
            ([jpegs[1], jpegs[0], *jpegs[2:]], [True, False]),
            ([*jpegs[:3], jpegs[3] + b" "], [True, False]),
        ]
    ):
        for name in ("a", "b"):
            save_pairs_bin(tmp_path / f"{name}{number}.bin", images, labels)
        fingerprint = load_pairs(tmp_path / f"a{number}.bin").fingerprint()
        assert fingerprint == load_pairs(tmp_path / f"b{number}.bin").fingerprint()
        prints.add(fingerprint)
    assert len(prints) == 4 and all(len(text) == 64 for text in prints)
    arrays = [picture(i) for i in range(4)]
    changed = [*arrays[:3], picture(9)]
    assert PairSet(arrays, [1, 0]).fingerprint() == PairSet(arrays, [1, 0]).fingerprint()
    assert PairSet(arrays, [1, 0]).fingerprint() != PairSet(changed, [1, 0]).fingerprint()


def test_list_and_folder(tmp_path, jpegs):
    for person, numbers in (("Ann", (1, 2)), ("Bo_B", (1,)), ("Cy", (1,))):
        (tmp_path / "images" / person).mkdir(parents=True)
        for number in numbers:
            image = jpegs[number]
            (tmp_path / "images" / person / f"{person}_{number:04d}.jpg").write_bytes(image)
    lines = "2\t1\nAnn\t1\t2\nAnn\t1\tCy\t1\nAnn\t2\t1\nBo_B\t1\tAnn\t2\n"
    (tmp_path / "pairs.txt").write_text(lines)
    pairs = load_pairs(tmp_path / "pairs.txt", tmp_path / "images")
    assert (len(pairs), len(pairs.images), pairs.folds) == (4, 4, 2)
    assert list(pairs.names) == ["Ann", "Ann", "Cy", "Bo_B"]
    assert pairs.index_a.tolist() == [0, 0, 1, 3] and pairs.index_b.tolist() == [1, 2, 0, 1]
    assert pairs.is_same.tolist() == [True, False, True, False]
    assert pairs.images[3].shape == (16, 16, 3)
    before = pairs.fingerprint()
    shutil.copytree(tmp_path, tmp_path / "moved")
    moved = load_pairs(tmp_path / "moved" / "pairs.txt", tmp_path / "moved" / "images")
    assert moved.fingerprint() == before
    (tmp_path / "images" / "Cy" / "Cy_0001.jpg").write_bytes(jpegs[1] + b"!")
    assert pairs.fingerprint() != before


def test_the_lists_own_folder_is_the_default_root(tmp_path, jpegs):
    (tmp_path / "a.jpg").write_bytes(jpegs[0])
    (tmp_path / "b.png").write_bytes(jpegs[1])
    (tmp_path / "list.txt").write_text("a.jpg b.png 1\na.jpg a.jpg 0\n")
    pairs = load_pairs(tmp_path / "list.txt")
    assert pairs.is_same.tolist() == [True, False] and pairs.names is None and pairs.folds is None


def test_real_pair_set(shared_data):
    pairs = load_pairs(shared_data / "insightface_files" / "small_lfw.bin")
    assert len(pairs) == 10 and len(pairs.images) == 20 and pairs.is_same.all()
    assert all(pairs.images[i].shape == (112, 112, 3) for i in range(20))


def test_real_list(shared_data):
    pairs = load_pairs(shared_data / "lfw" / "pairs.txt", shared_data / "lfw" / "images")
    assert len(pairs) == 6000 and len(pairs.images) == 7701 and pairs.folds == 10
    assert pairs.is_same.reshape(10, 2, 300)[:, 0].all()
    assert not pairs.is_same.reshape(10, 2, 300)[:, 1].any()
    # View 1 is of other photographs.
    with pytest.raises(ValueError, match=r"images that .*pairsDevTrain\.txt names are not in"):
        load_pairs(shared_data / "lfw" / "pairsDevTrain.txt", shared_data / "lfw" / "images")


def test_a_pickle_that_names_one_thing_many_times(tmp_path):
    """Few bytes may name an array, or a list of lists, any number of times."""
    path = tmp_path / "bomb.bin"
    image = np.frombuffer(bytes(2**20), np.uint8)
    path.write_bytes(pickle.dumps(([image] * 20_000, [True] * 10_000), protocol=4))
    tracemalloc.start()
    try:
        assert len(load_pairs(path)) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20 + 4 * path.stat().st_size
    finally:
        tracemalloc.stop()
    labels: list[object] = [True] * 100
    for _ in range(12):
        labels = [labels] * 100
    path.write_bytes(pickle.dumps(([image, image], labels), protocol=4))
    with pytest.raises(ValueError, match=r"bomb\.bin: labels must be one list .* lists in a list"):
        load_pairs(path)
