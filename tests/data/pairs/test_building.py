from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.pairs.building import BuiltPairs, build_pairs, folder_images, listed_images
from arcface_plus.data.pairs.people import people_of, shared_people
from arcface_plus.data.pairs.sets import load_pairs
from arcface_plus.data.pairs.writing import write_pair_bin, write_pair_list


def people_with(counts: list[int]) -> dict[str, list[str]]:
    return {f"p{i}": [f"{k}.jpg" for k in range(1, n + 1)] for i, n in enumerate(counts)}


def fold_parts(built: BuiltPairs):
    """Yield the genuine and the impostor pairs of each fold."""
    size = 2 * built.pairs_per_fold
    for start in range(0, len(built.pairs), size):
        fold = built.pairs[start : start + size]
        yield fold[: built.pairs_per_fold], fold[built.pairs_per_fold :]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 7), min_size=4, max_size=30),
    folds=st.integers(1, 4),
    each=st.integers(1, 12),
    seed=st.integers(0, 3),
)
def test_what_is_built_is_balanced_disjoint_and_once(counts, folds, each, seed) -> None:
    images = people_with(counts)
    try:
        built = build_pairs(images, folds=folds, pairs_per_fold=each, seed=seed)
    except ValueError as error:
        assert "people" in str(error) or "photographs" in str(error)
        return
    assert built.is_same.tolist() == ([True] * each + [False] * each) * folds
    fold_of: dict[str, int] = {}
    for number, (genuine, impostor) in enumerate(fold_parts(built)):
        assert len(genuine) == len(impostor) == each
        assert all(a[0] == b[0] and a[1] != b[1] for a, b in genuine)
        assert all(a[0] != b[0] for a, b in impostor)
        for person in {image[0] for pair in genuine + impostor for image in pair}:
            assert fold_of.setdefault(person, number) == number, "in two folds"
    assert len({frozenset(pair) for pair in built.pairs}) == len(built.pairs), "a pair twice"
    assert all(file in images[person] for pair in built.pairs for person, file in pair)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(12)), seed=st.integers(0, 5))
def test_the_same_images_and_seed_give_the_same_pairs(order, seed) -> None:
    images = people_with([3, 4, 2, 5] * 3)
    shuffled = {f"p{i}": images[f"p{i}"][::-1] for i in order}
    first = build_pairs(images, folds=2, pairs_per_fold=10, seed=seed)
    assert first.pairs == build_pairs(shuffled, folds=2, pairs_per_fold=10, seed=seed).pairs
    assert first.pairs != build_pairs(images, folds=2, pairs_per_fold=10, seed=seed + 1).pairs


def test_all_pairs_there_are_can_be_asked_for() -> None:
    """Two people of four photographs: six genuine pairs each, sixteen impostor ones."""
    built = build_pairs(people_with([4, 4]), folds=1, pairs_per_fold=12)
    (genuine, _), *_ = fold_parts(built)
    assert Counter(a[0] for a, _ in genuine) == {"p0": 6, "p1": 6}


def test_people_count_alike_however_many_photographs_they_have() -> None:
    built = build_pairs(people_with([40] + [4] * 19), folds=1, pairs_per_fold=60)
    ((genuine, impostor),) = fold_parts(built)
    assert set(Counter(a[0] for a, _ in genuine).values()) == {3}
    often = Counter(image[0] for pair in impostor for image in pair)
    assert max(often.values()) - min(often.values()) <= 2


def test_folds_can_make_about_as_many_genuine_pairs_each() -> None:
    counts = [12] * 5 + [2] * 60 + [1] * 35
    built = build_pairs(people_with(counts), folds=5, pairs_per_fold=70, seed=1)
    people = [len({image[0] for pair in g + i for image in pair}) for g, i in fold_parts(built)]
    assert max(people) - min(people) <= 3


@pytest.mark.parametrize(
    ("counts", "folds", "each", "match"),
    [
        ([5] * 3, 2, 1, "3 people cannot fill 2 folds.*4 in all"),
        ([5, 1, 1, 1], 2, 1, "1 people have two photographs or more, but each of 2 folds"),
        ([2] * 4, 2, 3, "make 4 genuine pairs, but 2 folds of 3 need 6"),
        ([4, 4, 4, 2], 2, 9, "Fold 2 has 6 photographs of 2 people, who make 7 genuine pairs"),
        ([6, 2, 2, 2], 2, 8, "Fold 1 has 6 photographs of 1 people, who make 0 impostor pairs"),
        ([5, 1], 1, 6, "make 5 impostor pairs, but 6 are wanted"),
        ([2] * 4, 0, 3, "folds=0"),
        ([2, 2, 2, 0], 2, 1, "'p3' has no photograph"),
    ],
)
def test_what_is_short_is_named(counts, folds, each, match) -> None:
    with pytest.raises(ValueError, match=match):
        build_pairs(people_with(counts), folds=folds, pairs_per_fold=each)


def make_folder(root: Path, names: dict[str, list[str]], *, size: int = 16) -> Path:
    rng = np.random.default_rng(0)
    for person, files in names.items():
        (root / person).mkdir(parents=True)
        for file in files:
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            (root / person / file).write_bytes(encode_jpeg(pixels))
    return root


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("{person}_{number:04d}.jpg", "lfw"),
        ("{number}.jpg", "path"),  # others would look for NAME_0001
        ("img-{number}.jpg", "path"),
        ("{person}_{number}.jpg", "path"),
    ],
)
def test_lists_lead_back_to_the_images(tmp_path: Path, template: str, form: str) -> None:
    names = {
        person: [template.format(person=person, number=k) for k in range(1, 4)]
        for person in ("Anna B", "Ben", "7", "Dora_E")
    }
    root = make_folder(tmp_path / "images", names)
    built = build_pairs(folder_images(root), folds=2, pairs_per_fold=4)
    assert write_pair_list(tmp_path / "pairs.txt", built, root) == form
    read = load_pairs(tmp_path / "pairs.txt", root)
    assert read.folds == (2 if form == "lfw" else None)
    assert (read.is_same == built.is_same).all()
    paths = [
        (read.images.paths[a], read.images.paths[b])
        for a, b in zip(read.index_a, read.index_b, strict=True)
    ]
    assert paths == [("/".join(a), "/".join(b)) for a, b in built.pairs]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["images", "pairs.txt"]


def test_a_number_that_two_files_share_makes_paths(tmp_path: Path) -> None:
    """1.jpg and 01.jpg are both number 1 of their person."""
    names = {"a": ["1.jpg", "01.jpg", "2.jpg"], "b": ["1.jpg", "2.jpg", "3.jpg"]}
    root = make_folder(tmp_path / "images", names)
    built = build_pairs(folder_images(root), folds=1, pairs_per_fold=6)
    assert write_pair_list(tmp_path / "pairs.txt", built, root) == "path"


def test_names_that_no_list_can_hold_are_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images", {"a\tb": ["1.jpg", "2.jpg"], "c": ["1.jpg", "2.jpg"]})
    built = build_pairs(folder_images(root), folds=1, pairs_per_fold=2)
    with pytest.raises(ValueError, match="a list of pairs cannot hold"):
        write_pair_list(tmp_path / "pairs.txt", built, root)
    assert not (tmp_path / "pairs.txt").exists()


def test_bin_holds_the_files_bytes_in_pairs(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images", people_with([3, 3, 3, 3]), size=112)
    built = build_pairs(folder_images(root), folds=2, pairs_per_fold=4)
    seen: list[tuple[int, int]] = []
    write_pair_bin(
        tmp_path / "mine.bin", built, root, progress=lambda done, all: seen.append((done, all))
    )
    assert seen[-1] == (32, 32)
    read = load_pairs(tmp_path / "mine.bin")
    assert (read.is_same == built.is_same).all() and len(read.images) == 32
    for row, image in enumerate(image for pair in built.pairs for image in pair):
        assert read.images.blobs[row] == (root / image[0] / image[1]).read_bytes()


def test_bin_of_another_size_needs_to_be_asked_for(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images", people_with([2, 2]), size=20)
    built = build_pairs(folder_images(root), folds=1, pairs_per_fold=2)
    with pytest.raises(ValueError, match=r"p\d/\d.jpg: 20×20"):
        write_pair_bin(tmp_path / "mine.bin", built, root)
    write_pair_bin(tmp_path / "mine.bin", built, root, resize=True)
    assert load_pairs(tmp_path / "mine.bin").images[0].shape == (112, 112, 3)


def test_lists_of_images(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images", people_with([2, 2]))
    listing = tmp_path / "images.txt"
    listing.write_text("p0/2.jpg\n\np1/1.jpg\np0/1.jpg\n")
    assert listed_images(listing, root) == {"p0": ["2.jpg", "1.jpg"], "p1": ["1.jpg"]}
    for line, match in (
        ("p0/2.jpg\np0/2.jpg", "line 2: 'p0/2.jpg' is there twice"),
        ("p0", "line 1: 'p0' is not PERSON/IMAGE"),
        ("../p0/1.jpg", "is not PERSON/IMAGE"),
        ("p0/9.jpg", "is not a file in"),
        ("", "lists no images"),
    ):
        listing.write_text(line)
        with pytest.raises(ValueError, match=match):
            listed_images(listing, root)
    listing.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        listed_images(listing, root)


def test_people_of_folders_records_and_lists(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images", {"Ann": ["1.jpg"], "Bob": ["1.jpg"]})
    assert people_of(root) == ["Ann", "Bob"]
    (tmp_path / "train.rec").write_bytes(b"")
    with pytest.raises(ValueError, match=r"numbers, not names of people, and train.lst"):
        people_of(tmp_path / "train.rec")
    (tmp_path / "train.lst").write_text("1\t0\tCarl/1.jpg\n2\t1\t/data/faces/Dora/3.jpg\n")
    assert people_of(tmp_path / "train.rec") == people_of(tmp_path) == ["Carl", "Dora"]
    (tmp_path / "pairs.txt").write_text("Ann 1 2\nAnn 1 Eve 1\n")
    assert people_of(tmp_path / "pairs.txt") == ["Ann", "Eve"]
    (tmp_path / "paths.txt").write_text("x/Ann/1.jpg y/Flo/2.jpg 0\n")
    assert people_of(tmp_path / "paths.txt") == ["Ann", "Flo"]
    (tmp_path / "flat.txt").write_text("1a.jpg 2a.jpg 0\n")
    with pytest.raises(ValueError, match="without a folder"):
        people_of(tmp_path / "flat.txt")
    (tmp_path / "set.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="does not say who"):
        people_of(tmp_path / "set.bin")
    with pytest.raises(FileNotFoundError):
        people_of(tmp_path / "none.txt")


def test_people_are_the_same_however_their_names_are_parted() -> None:
    trained = ["George_W_Bush", "al-Attiyah", "Ann"]
    tested = ["george w. bush", "Al Attiyah", "Annie", "Ann"]
    assert shared_people(trained, tested) == ["Al Attiyah", "Ann", "george w. bush"]


def test_few_photographs_make_as_many_pairs_as_every_fold_can() -> None:
    """Two folds of two people: 3 + 3 and 3 + 1 genuine pairs."""
    built = build_pairs(people_with([3, 3, 3, 2]), folds=2)
    assert built.pairs_per_fold == 4 and len(built.pairs) == 2 * 2 * 4
    plenty = build_pairs(people_with([40] * 4), folds=2)
    assert plenty.pairs_per_fold == 300
    assert plenty.pairs == build_pairs(people_with([40] * 4), folds=2, pairs_per_fold=300).pairs
    with pytest.raises(ValueError, match="need 600"):
        build_pairs(people_with([3, 3, 3, 2]), folds=2, pairs_per_fold=300)
