"""Moves and their undoing; also where they were cut short anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arcface_plus.evaluation.cleaning import moves as module
from arcface_plus.evaluation.cleaning.findings import KINDS, Line
from arcface_plus.evaluation.cleaning.moves import apply_moves, plan_moves, undo_moves

OPENS = (
    ("duplicates", "a/1.jpg", "a", "", "a/2.jpg"),
    ("labels", "b/1.jpg", "b", "a", ""),
    ("merge", "c/1.jpg", "c", "a", ""),
    ("merge", "c/2.jpg", "c", "a", ""),
    ("split", "d/3.jpg", "d", "d_2", ""),
)
LINES = [Line(n, kind, 1.0, *rest, "") for n, (kind, *rest) in enumerate(OPENS)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for person in "abcd":
        (tmp_path / "faces" / person).mkdir(parents=True)
        for image in range(1, 4 if person in "ad" else 3):
            path = tmp_path / "faces" / person / f"{image}.jpg"
            path.write_bytes(f"{person}{image}".encode() * 9)
    (tmp_path / "out").mkdir()
    return tmp_path / "faces"


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below ``folder`` and what is in it; empty folders too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def planned(root: Path, kinds=KINDS, lines=LINES):
    return plan_moves(lines, kinds, root, root.parent / "out")


def test_photographs_go_where_the_list_says_and_come_back(root) -> None:
    before = contents(root)
    listing = root.parent / "out" / "moves.csv"
    apply_moves(planned(root), listing)
    after = contents(root)
    assert sorted(path for path in after if after[path]) == [
        "a/2.jpg",
        "a/3.jpg",
        "a/c_1.jpg",
        "a/c_2.jpg",
        "b/2.jpg",
        "d/1.jpg",
        "d/2.jpg",
        "d_2/d_3.jpg",
    ]
    assert after["a/c_1.jpg"] == before["c/1.jpg"] and "c" not in after  # an empty folder goes
    assert contents(root.parent / "out" / "moved") == {
        "a": b"",
        "a/1.jpg": before["a/1.jpg"],
        "b": b"",
        "b/1.jpg": before["b/1.jpg"],
    }
    assert undo_moves(listing) == 5
    assert contents(root) == before and contents(root.parent / "out") == {}


def test_only_the_kinds_asked_for_and_the_first_proposal(root) -> None:
    twice = [*LINES, Line(9, "labels", 1.0, "a/1.jpg", "a", "b", "", "")]
    moves = planned(root, ("labels", "duplicates"), twice[::-1])
    assert [move.target.relative_to(root.parent).as_posix() for move in moves] == [
        "out/moved/a/1.jpg",
        "out/moved/b/1.jpg",
    ]
    assert planned(root, ()) == []


@pytest.mark.parametrize("done", range(6))
def test_moves_cut_short_anywhere_are_undone(root, monkeypatch, done) -> None:
    """As if the process had been killed before move ``done``, whatever it would have done next."""
    before, listing = contents(root), root.parent / "out" / "moves.csv"
    renamed = 0

    def rename(origin, target) -> None:
        nonlocal renamed
        assert listing.is_file(), "the list must be there before anything moves"
        if renamed == done:
            raise KeyboardInterrupt
        renamed += 1
        os.replace(origin, target)

    monkeypatch.setattr(module.os, "rename", rename)
    if done < 5:
        with pytest.raises(KeyboardInterrupt):
            apply_moves(planned(root), listing)
    else:
        apply_moves(planned(root), listing)
    renamed = -100  # the undoing is not cut short
    assert undo_moves(listing) == done
    assert contents(root) == before
    assert contents(root.parent / "out") == {}


@pytest.mark.parametrize("done", range(5))
def test_an_undoing_cut_short_goes_on(root, monkeypatch, done) -> None:
    before, listing = contents(root), root.parent / "out" / "moves.csv"
    apply_moves(planned(root), listing)
    left = done

    def rename(origin, target) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        os.replace(origin, target)

    monkeypatch.setattr(module.os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        undo_moves(listing)
    left = -1
    assert undo_moves(listing) == 5 - done
    assert contents(root) == before


def test_the_list_works_where_both_folders_were_moved_together(root) -> None:
    before, listing = contents(root), root.parent / "out" / "moves.csv"
    apply_moves(planned(root), listing)
    elsewhere = root.parent.with_name("elsewhere")
    root.parent.rename(elsewhere)
    assert undo_moves(elsewhere / "out" / "moves.csv") == 5
    assert contents(elsewhere / "faces") == before


def test_a_place_that_is_taken_is_refused_before_anything_moves(root) -> None:
    (root / "a" / "c_2.jpg").write_bytes(b"here first")
    before = contents(root)
    with pytest.raises(ValueError, match=r"c_2.jpg is there already"):
        planned(root)
    (root / "a" / "c_2.jpg").unlink()
    (root.parent / "out" / "moved" / "a").mkdir(parents=True)
    (root.parent / "out" / "moved" / "a" / "1.jpg").write_bytes(b"from before")
    with pytest.raises(ValueError, match="rename it"):
        planned(root)
    (root / "a" / "c_2.jpg").write_bytes(b"here first")
    assert contents(root) == before


@pytest.mark.parametrize(
    ("photograph", "other", "words"),
    [
        ("../out/1.jpg", "a", "no photograph"),
        ("/etc/hostname", "a", "no photograph"),
        ("a/9.jpg", "b", "no photograph"),
        ("c/1.jpg", "../..", "correct the list"),
        ("c/1.jpg", "", "correct the list"),
        ("c/1.jpg", "a/b", "correct the list"),
        ("c/1.jpg", "/tmp", "correct the list"),
    ],
)
def test_lists_that_lead_outside_are_refused(root, photograph, other, words) -> None:
    with pytest.raises(ValueError, match=words):
        planned(root, lines=[Line(1, "merge", 1.0, photograph, "c", other, "", "")])


def test_two_photographs_for_one_place_are_refused(root) -> None:
    (root / "a_a").mkdir()
    (root / "a_a" / "1.jpg").write_bytes(b"x")
    (root / "a" / "a_1.jpg").write_bytes(b"y")
    lines = [
        Line(1, "merge", 1.0, "a/a_1.jpg", "a", "b", "", ""),
        Line(2, "merge", 1.0, "a_a/1.jpg", "a_a", "b", "", ""),
    ]
    with pytest.raises(ValueError, match="one place"):
        planned(root, lines=lines)


def test_another_file_system_is_refused(root, monkeypatch) -> None:
    real = Path.stat

    def stat(path, **options):
        answer = real(path, **options)
        if path.name == "out":
            fields = list(answer)
            fields[2] += 1  # st_dev
            return os.stat_result(fields)
        return answer

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(ValueError, match="different file systems"):
        planned(root, ("labels",))


def test_undoing_refuses_what_it_cannot_restore_and_moves_nothing(root) -> None:
    listing = root.parent / "out" / "moves.csv"
    apply_moves(planned(root, ("duplicates", "labels")), listing)
    state = contents(root)
    moved = root.parent / "out" / "moved" / "b" / "1.jpg"
    kept = moved.read_bytes()

    moved.write_bytes(b"changed")
    with pytest.raises(ValueError, match="content differs"):
        undo_moves(listing)
    moved.write_bytes(kept)
    (root / "b" / "1.jpg").write_bytes(b"another")
    with pytest.raises(ValueError, match="cannot go back"):
        undo_moves(listing)
    (root / "b" / "1.jpg").unlink()
    moved.unlink()
    with pytest.raises(ValueError, match=r"is gone.* take its line out"):
        undo_moves(listing)
    assert contents(root) == state
    moved.write_bytes(kept)
    assert undo_moves(listing) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no list of moves.* that --apply wrote"),
        ("a,b\n", "no list of moves"),
        ("from,to,sha256\nx,y\n", "line 2"),
        ("from,to,sha256\nx,y,z\n", "gone"),
    ],
)
def test_what_is_no_list_of_moves_is_refused(tmp_path, text, words) -> None:
    path = tmp_path / "moves.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        undo_moves(path)
    with pytest.raises(FileNotFoundError):
        undo_moves(tmp_path / "absent.csv")
