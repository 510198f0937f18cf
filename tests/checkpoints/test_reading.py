"""Manifests and states that somebody else wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arcface_plus.checkpoints import reading
from arcface_plus.checkpoints.reading import damage, fingerprint, read_state, snapshot_folders


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A whole snapshot, as far as its manifest goes."""
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    for name in (".metadata", "state.json", "__0_0.distcp"):
        (folder / name).write_text("{}")
    write_manifest(folder, {p.name: fingerprint(p) for p in folder.iterdir()})
    return folder


def write_manifest(folder: Path, files: object) -> None:
    (folder / "manifest.json").write_text(json.dumps({"step": 1, "files": files}))


def test_a_whole_one(snapshot: Path) -> None:
    assert damage(snapshot) is None and read_state(snapshot) == {}


def test_a_copy_under_another_step_is_named(snapshot: Path) -> None:
    renamed = snapshot.rename(snapshot.parent / "step-00000009")
    problem = damage(renamed)
    assert problem is not None and "is of step 1, not of its name's" in problem
    elsewhere = renamed.rename(snapshot.parent / "kept")  # no step in its name: nothing to compare
    assert damage(elsewhere) is None


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/__0_0.distcp", "", "a.txt"])
def test_a_manifest_names_files_of_the_snapshot_only(snapshot: Path, name: str) -> None:
    (snapshot.parent / "secret").write_text("{}")
    files = {p.name: fingerprint(p) for p in snapshot.iterdir() if p.name != "manifest.json"}
    write_manifest(snapshot, files | {name: fingerprint(snapshot / "state.json")})
    problem = damage(snapshot)
    assert problem is not None and repr(name) in problem and "no checkpoint has" in problem


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"files": []}', '{"files": {}}', "[" * 100_000, "\x00", '{"files": null}'],
)
def test_what_is_no_manifest_is_damage(snapshot: Path, content: str) -> None:
    (snapshot / "manifest.json").write_text(content)
    problem = damage(snapshot)
    assert problem is not None and "manifest.json" in problem


def test_fingerprints_that_are_none(snapshot: Path) -> None:
    for wrong in (None, 3, {}, {"bytes": "2", "sha256": 1}):
        write_manifest(snapshot, {".metadata": wrong, "state.json": wrong})
        assert damage(snapshot) is not None


def test_a_huge_file_is_not_read(snapshot: Path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "MAX_TEXT", 1 << 20)
    (snapshot / "state.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(ValueError, match=r"state\.json has more than 1 MiB"):
        read_state(snapshot)


@pytest.mark.parametrize("content", [b"3", b"[1]", b'{"a": ', b"\xff\xfe", b"[" * 100_000])
def test_a_state_is_a_json_object(snapshot: Path, content: bytes) -> None:
    (snapshot / "state.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.json"):
        read_state(snapshot)


def test_names_of_snapshots(tmp_path: Path) -> None:
    for name in ("step-00000010", "step-00000002", "step-5", ".tmp-step-00000020", "step-0000000x"):
        (tmp_path / name).mkdir()
    assert list(snapshot_folders(tmp_path)) == [2, 10]
    assert snapshot_folders(tmp_path / "absent") == {}
