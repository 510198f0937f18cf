"""Disks that are full or go away while a snapshot is written."""

from __future__ import annotations

import errno
import io
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystem

from arcface_plus.checkpoints import writing
from arcface_plus.checkpoints.parts import ClassRows, Stored
from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.checkpoints.writing import bytes_of, size_words
from arcface_plus.distributed import World, start_world

Usage = namedtuple("Usage", "total used free")
ROWS = 40_000  # of 25 numbers: 4 MB


@pytest.fixture
def world():
    with start_world("cpu") as world:
        yield world


def contents(value: float) -> dict[str, Stored]:
    return {"rows": ClassRows(torch.full((ROWS, 25), value), ROWS), "count": torch.tensor(value)}


@pytest.fixture
def store(tmp_path: Path, world: World) -> Checkpoints:
    """With a whole snapshot of step 1."""
    store = Checkpoints(tmp_path, world, keep=1)
    store.save(1, contents(1.0), {"step": 1})
    store.wait()
    return store


def is_whole(store: Checkpoints, step: int) -> bool:
    loaded = contents(0.0)
    store.load(store.path(step), loaded)
    rows = loaded["rows"]
    assert isinstance(rows, ClassRows)
    return bool((rows.local == step).all())


def files(store: Checkpoints) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def test_a_full_disk_is_found_before_anything_is_written(store, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9e9, 9e9, 1_500_000))
    with pytest.raises(OSError, match=r"step-00000002 needs 5\.\d+ MB, but only 1\.5 MB are free"):
        store.save(2, contents(2.0), {})
    assert files(store) == ["step-00000001"] and is_whole(store, 1)


def test_what_a_snapshot_needs_is_what_it_takes(store) -> None:
    taken = sum(path.stat().st_size for path in store.path(1).iterdir())
    needed = bytes_of({"rows": torch.empty(ROWS, 25), "count": torch.tensor(1.0)})
    assert taken <= needed < 1.5 * taken


class FullDisk(io.FileIO):
    """A file on a disk with room for one more megabyte."""

    left = 1_000_000

    def write(self, data) -> int:
        FullDisk.left -= len(data)
        if FullDisk.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_disk_that_fills_up_on_the_way(store, monkeypatch) -> None:
    real = FileSystem.create_stream

    def create_stream(self, path, mode):
        if "w" not in mode:
            return real(self, path, mode)
        return closing(io.BufferedWriter(FullDisk(path, "w")))

    FullDisk.left = 1_000_000
    monkeypatch.setattr(FileSystem, "create_stream", create_stream)
    store.save(2, contents(2.0), {"step": 2})
    with pytest.raises(OSError, match=r"could not be written: .* needs 5\.\d+ MB; .* are free"):
        store.save(3, contents(3.0), {"step": 3})  # where the error of the one before is told
    monkeypatch.undo()
    assert files(store) == ["step-00000001"] and is_whole(store, 1)
    store.save(4, contents(4.0), {"step": 4})
    store.wait()
    assert files(store) == ["step-00000004"] and is_whole(store, 4)


class closing:
    """A context of a file that does not hide the error of a write behind that of closing."""

    def __init__(self, file) -> None:
        self.file = file

    def __enter__(self):
        return self.file

    def __exit__(self, *error) -> None:
        try:
            self.file.close()
        except OSError:
            self.file.raw.close()


def test_a_folder_that_cannot_be_made(world: World, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(OSError, match=r"could not be written: .*File exists"):
        Checkpoints(tmp_path / "checkpoints", world).save(1, contents(1.0), {})


def test_a_replaced_snapshot_is_there_until_the_new_one_is_whole(store, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(writing, "sync", fail)
    store.save(1, contents(9.0), {"step": 1})
    with pytest.raises(OSError, match="Input/output error"):
        store.wait()
    assert is_whole(store, 1)


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (5_330_000, "5.33 MB"), (4e12, "4e+03")]
)
def test_sizes_in_words(size: float, words: str) -> None:
    assert size_words(size).startswith(words)
