"""``.metadata`` and shards as an attacker would write them, and as torch does."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from arcface_plus.checkpoints.metadata import SafeReader, read_metadata

SAVED = {
    "weight": torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "bytes": torch.arange(9, dtype=torch.uint8),
    "nothing": torch.empty(0, 4),
    **{str(d): torch.zeros(2, dtype=d) for d in (torch.bool, torch.float16, torch.float64)},
}


class Program:
    """Something that a pickle runs when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    path = tmp_path / "step-00000001"
    dcp.save(SAVED, checkpoint_id=path, no_dist=True)
    return path


def real(snapshot: Path) -> Metadata:
    return pickle.loads((snapshot / ".metadata").read_bytes())


def rewrite(snapshot: Path, change: Callable[[Metadata], Any]) -> None:
    metadata = real(snapshot)
    changed = change(metadata)
    content = metadata if changed is None else changed
    (snapshot / ".metadata").write_bytes(pickle.dumps(content))


def load(snapshot: Path) -> dict[str, torch.Tensor]:
    wanted = {name: torch.empty_like(value) for name, value in SAVED.items()}
    dcp.load(wanted, storage_reader=SafeReader(snapshot), no_dist=True)
    return wanted


def test_reads_what_torchs_own_reader_reads(snapshot: Path) -> None:
    mine, theirs = read_metadata(snapshot), real(snapshot)
    assert mine.state_dict_metadata.keys() == theirs.state_dict_metadata.keys() == SAVED.keys()
    for name, stated in theirs.state_dict_metadata.items():
        found = mine.state_dict_metadata[name]
        assert (found.size, found.chunks) == (stated.size, stated.chunks)
        assert found.properties.dtype == stated.properties.dtype
    assert mine.storage_data.keys() == theirs.storage_data.keys()
    for index, stated in theirs.storage_data.items():
        found = mine.storage_data[index]
        assert found.relative_path == stated.relative_path
        assert (found.offset, found.length) == (stated.offset, stated.length)
    loaded = load(snapshot)
    assert all(torch.equal(loaded[name], value) for name, value in SAVED.items())


@pytest.mark.parametrize("protocol", range(6))
def test_a_program_is_refused_and_not_run(snapshot: Path, protocol: int) -> None:
    marker = snapshot.parent / "run"
    (snapshot / ".metadata").write_bytes(pickle.dumps(Program(marker), protocol=protocol))
    with pytest.raises(ValueError, match=r"\.metadata is not .* (posix|nt)\.system, .* was run"):
        read_metadata(snapshot)
    assert not marker.exists()


def test_a_program_inside_what_is_otherwise_metadata(snapshot: Path) -> None:
    marker = snapshot.parent / "run"

    def hide(metadata: Metadata) -> None:
        metadata.planner_data = Program(marker)

    rewrite(snapshot, hide)
    with pytest.raises(dcp.api.CheckpointException, match=r"posix\.system"):
        load(snapshot)  # torch's own reader must not be asked anywhere on the way
    assert not marker.exists()


def escape(path: str) -> Callable[[Metadata], None]:
    def change(metadata: Metadata) -> None:
        next(iter(metadata.storage_data.values())).relative_path = path

    return change


def grown(name: str, size: tuple[int, ...]) -> Callable[[Metadata], None]:
    def change(metadata: Metadata) -> None:
        metadata.state_dict_metadata[name].size = torch.Size(size)

    return change


def moved(offset: int, length: int) -> Callable[[Metadata], None]:
    def change(metadata: Metadata) -> None:
        info = next(iter(metadata.storage_data.values()))
        info.offset, info.length = offset, length

    return change


def as_bytes(metadata: Metadata) -> None:
    """A value that DCP would load with ``weights_only=False``."""
    metadata.state_dict_metadata["count"] = BytesStorageMetadata()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (escape("../../secret"), "secret"),
        (escape("/etc/passwd"), "/etc/passwd"),
        (escape("__9_9.distcp"), "does not have"),
        (grown("half", (1 << 50,)), "its files have fewer"),
        (grown("half", (1 << 40, 1 << 40, 1 << 40)), "shape"),
        (moved(0, 1 << 40), "bytes that"),
        (moved(1 << 62, 1), "bytes that"),
        (moved(-5, 3), "no number"),
        (as_bytes, "BytesStorageMetadata"),
        (lambda m: m.state_dict_metadata, "dict"),
        (lambda m: [m], "list"),
        (lambda m: 3, "int"),
        (lambda m: setattr(m, "storage_data", None), "not what a checkpoint has"),
        (lambda m: setattr(m, "state_dict_metadata", {3: 4}), "not what a checkpoint has"),
    ],
)
def test_what_torch_would_not_write(snapshot: Path, change, words: str) -> None:
    rewrite(snapshot, change)
    with pytest.raises(ValueError, match=words):
        read_metadata(snapshot)


def test_every_cut_and_every_flipped_byte_is_an_error_or_harmless(snapshot: Path) -> None:
    content = (snapshot / ".metadata").read_bytes()
    refused = 0
    for at in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        for damaged in (content[:at], bytes(flipped)):
            (snapshot / ".metadata").write_bytes(damaged)
            try:
                read_metadata(snapshot)
            except ValueError:
                refused += 1
    assert refused > len(content) // 7, "every cut at least"


# -- shards ----------------------------------------------------------------------------------------


def replace_shard(snapshot: Path, content: bytes) -> None:
    """Make ``content`` the bytes of one tensor of the snapshot, at the end of its file."""
    (shard,) = snapshot.glob("__*")
    start = shard.stat().st_size
    with shard.open("ab") as file:
        file.write(content)

    def change(metadata: Metadata) -> None:
        info = next(v for k, v in metadata.storage_data.items() if k.fqn == "count")
        info.offset, info.length = start, len(content)

    rewrite(snapshot, change)


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_shard_with_a_program_is_not_run(snapshot: Path) -> None:
    marker = snapshot.parent / "run"
    replace_shard(snapshot, saved(Program(marker)))
    with pytest.raises(dcp.api.CheckpointException, match=r"posix\.system"):
        load(snapshot)
    assert not marker.exists()


def packed(content: bytes) -> bytes:
    """Return the zip file ``content`` with its entries compressed: a bomb, if they are zeros."""
    target = io.BytesIO()
    old = zipfile.ZipFile(io.BytesIO(content))
    with old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (packed(saved(torch.zeros(1_000_000))), "larger than its bytes"),
        (pickle.dumps(3), "holds no tensor"),
        (b"", "holds no tensor"),
        (saved(torch.tensor(7))[:-30], "holds no tensor"),
        (saved(torch.zeros(2, 2)), "mismatch|size|narrow|dimension"),
        (saved([1, 2]), "list|AttributeError|TypeError"),
    ],
)
def test_a_shard_that_is_no_tensor_of_its_size(snapshot: Path, content, words: str) -> None:
    replace_shard(snapshot, content)
    with pytest.raises(dcp.api.CheckpointException, match=words):
        load(snapshot)
