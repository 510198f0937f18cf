"""People to train on and other people to test on."""

from __future__ import annotations

from pathlib import Path

import pytest

from arcface_plus.data.folder import ImageFolder
from arcface_plus.data.people_split import split_folder, split_people

PEOPLE = [f"p{i:02d}" for i in range(40)]


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    for person in PEOPLE[:6]:
        (tmp_path / "faces" / person).mkdir(parents=True)
        (tmp_path / "faces" / person / "1.jpg").write_bytes(person.encode())
    return tmp_path / "faces"


def test_everybody_is_in_one_part() -> None:
    split = split_people(PEOPLE, 10, leave_out=["p03"])
    assert len(split.test) == 10 and len(split.train) == 29
    assert sorted(split.train + split.test) == [p for p in PEOPLE if p != "p03"]
    assert split.train == sorted(split.train) and split.test == sorted(split.test)


def test_the_draw_depends_on_the_seed_alone() -> None:
    split = split_people(PEOPLE, 10)
    assert split == split_people(PEOPLE[::-1], 10)
    assert split != split_people(PEOPLE, 10, seed=1)
    # A larger test part keeps the people of a smaller one; a newcomer displaces one at most.
    assert set(split.test) < set(split_people(PEOPLE, 11).test)
    assert len(set(split.test) - set(split_people([*PEOPLE, "new"], 10).test)) <= 1


def test_known_draw() -> None:
    """Written down, so that no later version parts data another way."""
    assert split_people(PEOPLE, 3).test == ["p05", "p12", "p29"]


@pytest.mark.parametrize("copy", [False, True])
def test_folders_hold_the_people(faces: Path, tmp_path: Path, copy: bool) -> None:
    split = split_folder(faces, tmp_path / "out", 2, copy=copy)
    for part, people in (("train", split.train), ("test", split.test)):
        folder = ImageFolder(tmp_path / "out" / part)
        assert folder.class_names == people
        for person in people:
            place = tmp_path / "out" / part / person
            assert place.is_symlink() != copy
            assert (place / "1.jpg").read_bytes() == person.encode()


def test_links_hold_from_anywhere(faces: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    split = split_folder(Path("faces"), Path("out"), 2)
    monkeypatch.chdir("/")
    assert (tmp_path / "out" / "test" / split.test[0] / "1.jpg").is_file()


@pytest.mark.parametrize("wanted", [-1, 0, 1, 5, 6])
def test_too_few_in_a_part(faces: Path, tmp_path: Path, wanted: int) -> None:
    with pytest.raises(ValueError, match=r"choose 2 to 4"):
        split_folder(faces, tmp_path / "out", wanted)
    assert not (tmp_path / "out").exists()


def test_a_stranger_cannot_be_left_out(cli, faces: Path, tmp_path: Path) -> None:
    words = ["data", "split", faces, tmp_path / "out", "--test-people", 2]
    answer = cli(*words, "--leave-out", "p01", "--leave-out", "p77")
    assert answer.exit_code == 2 and "p77" in answer.stderr and "p01" not in answer.stderr
    answer = cli(*words, "--leave-out", "p01", "--leave-out", "p02")
    assert answer.exit_code == 0 and "test: 2 people" in answer.stdout
    assert not (tmp_path / "out" / "train" / "p01").exists()
    answer = cli(*words)
    assert answer.exit_code == 2 and "exists" in answer.stderr


@pytest.mark.parametrize("place", ["", "out", "p01", "p01/out"])
def test_never_into_the_source(faces: Path, place: str) -> None:
    before = sorted(faces.rglob("*"))
    with pytest.raises(ValueError, match="must not lie in"):
        split_folder(faces, faces / place, 2)
    assert sorted(faces.rglob("*")) == before


def test_a_person_without_images_is_named(faces: Path, tmp_path: Path) -> None:
    (faces / "nobody").mkdir()
    with pytest.raises(ValueError, match="nobody holds no image"):
        split_folder(faces, tmp_path / "out", 2)
    (faces / "nobody").rmdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        split_folder(faces, tmp_path / "file", 2)
    with pytest.raises(ValueError, match="3 people cannot be divided"):
        split_folder(faces, tmp_path / "out", 2, leave_out=["p00", "p01", "p02"])


def test_no_folder(cli, tmp_path: Path) -> None:
    answer = cli("data", "split", tmp_path / "no", tmp_path / "out", "--test-people", 2)
    assert answer.exit_code == 2 and "does not exist" in answer.stderr
