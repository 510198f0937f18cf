from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.pairs.sets import load_pairs


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight people with three photographs each."""
    rng = np.random.default_rng(0)
    for person in range(8):
        folder = tmp_path / "faces" / f"Person_{person}"
        folder.mkdir(parents=True)
        for number in range(1, 4):
            pixels = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
            (folder / f"{folder.name}_{number:04d}.jpg").write_bytes(encode_jpeg(pixels))
    return tmp_path / "faces"


def test_a_folder_becomes_both_forms_of_the_same_pairs(cli, images, tmp_path):
    words = ["data", "pairs", images, tmp_path / "out", "--folds", 2, "--pairs-per-fold", 5]
    result = cli(*words, "--name", "mine")
    assert result.exit_code == 0, result.output
    assert "20 pairs of 8 people in 2 folds (LFW form)" in result.output
    listed = load_pairs(tmp_path / "out" / "mine.txt", images)
    packed = load_pairs(tmp_path / "out" / "mine.bin")
    assert listed.folds == 2 and len(listed) == len(packed) == 20
    for k in (0, 7, 19):
        a, b = (s.images[s.index_a[k]] for s in (listed, packed))
        assert (a == b).all() and listed.is_same[k] == packed.is_same[k]
    first, second = (set(listed.people()[0][half]) for half in (slice(10), slice(10, 20)))
    assert not first & second


def test_seed_list_and_overwriting(cli, images, tmp_path):
    words = ["data", "pairs", images, tmp_path / "out", "--folds", 2, "--pairs-per-fold", 5]
    text = []
    for more in ([], ["--overwrite"], ["--overwrite", "--seed", 1]):
        assert cli(*words, "--list-only", *more).exit_code == 0
        text.append((tmp_path / "out" / "pairs.txt").read_text())
    assert text[0] == text[1] != text[2]
    assert not (tmp_path / "out" / "pairs.bin").exists()
    result = cli(*words)
    assert result.exit_code == 2 and "pairs.txt exists" in result.output


def test_people_of_a_training_set_are_left_out(cli, images, tmp_path):
    for person in ("person 1", "person 6", "somebody"):
        (tmp_path / "train" / person).mkdir(parents=True)
    words = ["data", "pairs", images, tmp_path / "out", "--list-only", "--folds", 2]
    result = cli(*words, "--pairs-per-fold", 4, "--exclude", tmp_path / "train")
    assert result.exit_code == 0, result.output
    assert "left out 2 people" in result.output
    people = load_pairs(tmp_path / "out" / "pairs.txt", images).people()
    assert {*people[0], *people[1]} == {f"Person_{p}" for p in (0, 2, 3, 4, 5, 7)}
    overlap = cli("data", "overlap", tmp_path / "train", tmp_path / "out" / "pairs.txt")
    assert overlap.exit_code == 0 and "0 of the 6 people" in overlap.output
    overlap = cli("data", "overlap", images, tmp_path / "out" / "pairs.txt")
    assert overlap.exit_code == 1
    assert "Person_0" in overlap.output and "6 of the 6 people" in overlap.output
    assert "images are not compared" in overlap.stderr
    words = ["data", "overlap", images, tmp_path / "out" / "pairs.txt", "--root", images]
    assert "byte for byte" in cli(*words).output


def test_a_list_of_images(cli, images, tmp_path):
    listing = tmp_path / "some.txt"
    files = sorted(file.relative_to(images).as_posix() for file in images.glob("*/*"))
    listing.write_text("\n".join(file for file in files if "Person_7" not in file))
    words = ["data", "pairs", listing, tmp_path / "out", "--list-only", "--pairs-per-fold", 4]
    result = cli(*words, "--root", images, "--folds", 2)
    assert result.exit_code == 0, result.output
    assert "Person_7" not in (tmp_path / "out" / "pairs.txt").read_text()


def test_too_little_is_bad_input(cli, images, tmp_path):
    result = cli("data", "pairs", images, tmp_path / "out")
    assert result.exit_code == 2 and "8 people cannot fill 10 folds" in result.output
    assert not (tmp_path / "out").exists()
    result = cli("data", "pairs", tmp_path / "none.txt", tmp_path / "out")
    assert result.exit_code == 2 and "none.txt" in result.output


def test_help_states_what_is_written(cli):
    result = cli("data", "pairs", "--help")
    assert result.exit_code == 0 and "nobody is in two" in result.output
