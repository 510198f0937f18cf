from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from arcface_plus.checkpoints import writing
from arcface_plus.checkpoints.parts import ClassRows, Stored
from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.distributed import World, start_world


@pytest.fixture
def world():
    with start_world("cpu") as world:
        yield world


def contents(store: Checkpoints, factor: float = 1.0) -> dict[str, Stored]:
    return {
        "plain": torch.arange(6.0) * factor,
        "half": torch.ones(3, dtype=torch.bfloat16) * factor,
        "bytes": torch.arange(5, dtype=torch.uint8),
        "rows": ClassRows(torch.arange(14.0).view(7, 2) * factor, 7),
    }


def save(store: Checkpoints, step: int, factor: float = 1.0, state: dict | None = None) -> Path:
    """Save and wait."""
    path = store.save(step, contents(store, factor), state or {})
    store.wait()
    return path


def test_round_trip(tmp_path: Path, world: World) -> None:
    store = Checkpoints(tmp_path, world)
    saved = contents(store, 3.0)
    store.save(12, saved, {"step": 12, "lr": 0.1})
    loaded = contents(store, 0.0)
    state = store.load(store.path(12), loaded)
    assert (state["step"], state["lr"]) == (12, 0.1)
    for name in ("plain", "half", "bytes"):
        assert torch.equal(loaded[name], saved[name])
    assert torch.equal(loaded["rows"].local, saved["rows"].local)


def test_keeps_the_newest_and_replaces_a_step(tmp_path: Path, world: World) -> None:
    store = Checkpoints(tmp_path, world, keep=2)
    for step in (1, 2, 3, 3):
        save(store, step, step)
    assert store.steps() == [2, 3]


def test_unfinished_folder_is_no_checkpoint(tmp_path: Path, world: World) -> None:
    store = Checkpoints(tmp_path, world)
    (tmp_path / ".tmp-step-00000005").mkdir(parents=True)
    (tmp_path / "step-00000004").mkdir()  # renamed by hand: no manifest
    assert store.steps() == []
    save(store, 6)
    assert store.steps() == [6] and not (tmp_path / ".tmp-step-00000005").exists()
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        store.load(tmp_path / "step-00000004", contents(store))


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "state"])
def test_damage_is_named(tmp_path: Path, world: World, harm: str) -> None:
    store = Checkpoints(tmp_path, world)
    path = save(store, 1, state={"step": 1})
    part = path / "state.json" if harm == "state" else next(path.glob("__*"))
    data = bytearray(part.read_bytes())
    if harm == "remove":
        part.unlink()
    else:
        data[len(data) // 2] ^= 1
        part.write_bytes(data[:-3] if harm == "cut" else data)
    with pytest.raises(ValueError, match=f"{part.name} is (damaged|missing)"):
        store.load(path, contents(store))


def test_missing_name_and_other_shape(tmp_path: Path, world: World) -> None:
    store = Checkpoints(tmp_path, world)
    path = save(store, 1)
    with pytest.raises(ValueError, match="'more' is absent"):
        store.load(path, {"more": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'plain' is of shape \(6,\)"):
        store.load(path, {"plain": torch.zeros(7)})


def test_failed_write_leaves_the_last_one(tmp_path: Path, world: World, monkeypatch) -> None:
    store = Checkpoints(tmp_path, world)
    save(store, 1)

    def full_disk(path: Path) -> dict:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "fingerprint", full_disk)
    store.save(2, contents(store), {})
    with pytest.raises(OSError, match=r"rank 0: .*No space.* It needs 1\.\d+ MB; .* are free"):
        store.wait()
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    store.load(store.path(1), contents(store))


def test_manifest_lists_every_file(tmp_path: Path, world: World) -> None:
    store = Checkpoints(tmp_path, world)
    path = save(store, 1)
    listed = set(json.loads((path / "manifest.json").read_text())["files"])
    assert listed == {p.name for p in path.iterdir()} - {"manifest.json"}
