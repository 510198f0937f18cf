"""Files appear whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from arcface_plus.files import file_sha256, keep_steps, written_beside


def test_the_old_content_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with written_beside(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_changes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), written_beside(path) as beside:
        beside.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_is_cut_to_the_steps_that_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = ['{"step": 1, "x": 0.10}', '{"step":  1, "x": 0.10}', '{"step": 3}', "[]", '{"st']
    path.write_text("\n".join(lines))
    assert keep_steps(path, lambda step: step < 3) == [{"step": 1, "x": 0.1}] * 2
    assert path.read_text().splitlines() == lines[:2], "as they were, to the letter"
    assert keep_steps(tmp_path / "absent.jsonl", lambda step: True) == []
    assert list(tmp_path.iterdir()) == [path]


def test_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()
