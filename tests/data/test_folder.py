"""A folder with one sub-folder a person."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_plus.data.folder import ImageFolder, images_in


def save(path: Path, level: int = 0, size: tuple[int, int] = (20, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # OpenCV writes colour to PNG and BMP, grey alone to PGM.
    shape = size if path.suffix == ".pgm" else (*size, 3)
    assert cv2.imwrite(str(path), np.full(shape, level, dtype=np.uint8))


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Three people, made in another order than that of their names."""
    root = tmp_path / "faces"
    for level, name in enumerate(("c/1.png", "a/2.png", "B/9.bmp", "a/10.PNG", "c/0.pgm")):
        save(root / name, level=10 * level)
    return root


def test_classes_and_images_are_in_order_of_their_names(people):
    folder = ImageFolder(people)
    assert folder.class_names == ["B", "a", "c"] and folder.num_classes == 3
    keys = folder.paths
    assert keys == ["B/9.bmp", "a/10.PNG", "a/2.png", "c/0.pgm", "c/1.png"]
    assert folder.labels.tolist() == [0, 1, 1, 2, 2] and folder.labels.dtype == np.int64
    assert folder.describe(3) == str(people / "c" / "0.pgm")


def test_read_gives_the_image_and_its_label(people):
    folder = ImageFolder(people)
    for index, level in enumerate((20, 30, 10, 40, 0)):
        image, label = folder.read(index)
        assert image.shape == (20, 24, 3) and image.dtype == np.uint8 and (image == level).all()
        assert label == folder.labels[index] and isinstance(label, int)


def test_red_is_the_first_channel(tmp_path):
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[:, :, 2] = 255  # OpenCV writes blue, green, red
    for person in "ab":
        (tmp_path / person).mkdir()
        cv2.imwrite(str(tmp_path / person / "1.png"), red)
    assert ImageFolder(tmp_path).read(0)[0][0, 0].tolist() == [255, 0, 0]


def test_other_files_are_not_images(people):
    (people / "a" / "notes.txt").write_text("no image")
    (people / "a" / "jpg").write_text("no suffix")
    (people / "README.jpg").write_text("beside the people")
    (people / "a" / "deeper").mkdir()
    save(people / "a" / "deeper" / "1.png")
    (people / "a" / "folder.png").mkdir()
    assert len(ImageFolder(people)) == 5


def test_what_programs_leave_behind_is_no_person_and_no_image(people):
    save(people / ".ipynb_checkpoints" / "1.png")
    (people / ".empty").mkdir()
    (people / "a" / "._2.png").write_bytes(b"resource fork")
    folder = ImageFolder(people)
    assert folder.class_names == ["B", "a", "c"] and len(folder) == 5
    assert images_in(people / "a") == ["10.PNG", "2.png"]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs symbolic links")
def test_links_are_followed_and_dead_ones_left_out(people):
    (people / "linked").symlink_to(people / "a", target_is_directory=True)
    (people / "a" / "dead.png").symlink_to(people / "nowhere.png")
    folder = ImageFolder(people)
    assert folder.class_names[-1] == "linked" and len(folder) == 7


def test_no_folder(tmp_path, people):
    with pytest.raises(FileNotFoundError, match="does not exist or is not a folder"):
        ImageFolder(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        ImageFolder(people / "a" / "2.png")


def test_fewer_than_two_people(tmp_path):
    with pytest.raises(ValueError, match="holds 0 sub-folders"):
        ImageFolder(tmp_path)
    save(tmp_path / "a" / "1.png")
    with pytest.raises(ValueError, match="holds 1 sub-folders"):
        ImageFolder(tmp_path)


def test_person_without_images_is_named(people):
    (people / "d").mkdir()
    with pytest.raises(ValueError, match=r"faces.d holds no image"):
        ImageFolder(people)


def test_bad_image_is_named_when_it_is_read(people):
    (people / "a" / "2.png").write_bytes(b"not an image")
    folder = ImageFolder(people)
    with pytest.raises(ValueError, match=r"2\.png"):
        folder.read(2)
    (people / "a" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        folder.read(2)


def test_workers_may_receive_it(people):
    folder = pickle.loads(pickle.dumps(ImageFolder(people)))
    assert folder.read(4)[1] == 2 and len(folder) == 5


def test_real_faces(shared_data):
    folder = ImageFolder(shared_data / "celeba299")
    assert folder.num_classes == 299 and len(folder) == 6284
    image, label = folder.read(100)
    assert image.shape == (112, 112, 3) and folder.paths[100].startswith(folder.class_names[label])
