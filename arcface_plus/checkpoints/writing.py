"""The files of one snapshot: written aside, hashed, synced, renamed; by all ranks together.

A failure on one rank is a failure on all, with the words of the first that failed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from arcface_plus.checkpoints.metadata import failures, words_of
from arcface_plus.checkpoints.reading import MANIFEST, METADATA, STATE, TEMPORARY, fingerprint
from arcface_plus.checkpoints.retention import remove
from arcface_plus.distributed import Group, broadcast_object, gather_objects, rank
from arcface_plus.files import sync

T = TypeVar("T")
_SLACK, _EACH = 1 << 20, 4096  # the state and the manifest; a tensor's headers and metadata


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """Return what the files of a snapshot of ``tensors``, whole ones, take at most."""
    return sum(t.numel() * t.element_size() + _EACH for t in tensors.values()) + _SLACK


def lack_of_space(snapshot: Path, needed: int) -> str | None:
    """Return what to say where the disk has less than ``needed`` bytes for ``snapshot``."""
    free = shutil.disk_usage(snapshot.parent).free
    if free >= needed:
        return None
    return (
        f"checkpoint {snapshot} needs {size_words(needed)}, but only {size_words(free)} are free "
        f"in {snapshot.parent}. Free some space, or keep fewer checkpoints "
        "(train.keep_checkpoints), and continue with --resume auto; those there are untouched."
    )


def write_snapshot(
    snapshot: Path, tensors: Mapping[str, Tensor], state: str, *, group: Group
) -> None:
    """Write ``tensors``, as DCP takes them, and ``state``, JSON, as the snapshot ``snapshot``.

    Raises OSError where it cannot be written: nothing is left beside it then, and what had its name
    before is still there.
    """
    aside = snapshot.with_name(f"{TEMPORARY}{snapshot.name}")
    main = rank(group) == 0
    try:
        _together(lambda: _fresh(aside) if main else None, group)
        _save(tensors, aside, group)
        mine = f"__{rank(group)}_*"
        parts = _together(lambda: {p.name: fingerprint(p) for p in aside.glob(mine)}, group)
        files = {name: print_ for part in parts for name, print_ in part.items()}
        _together(lambda: _commit(aside, snapshot, files, state) if main else None, group)
    except _Failed as failure:
        words = ""
        if main:
            shutil.rmtree(aside, ignore_errors=True)
            words = _could_not(snapshot, bytes_of(tensors), failure)
        raise OSError(broadcast_object(words, group)) from failure


def _could_not(snapshot: Path, needed: int, failure: Exception) -> str:
    free = shutil.disk_usage(snapshot.parent).free if snapshot.parent.is_dir() else 0
    return (
        f"checkpoint {snapshot} could not be written: {failure}. It needs {size_words(needed)}; "
        f"{size_words(free)} are free in {snapshot.parent}. The checkpoints before it are "
        "untouched: continue with --resume auto when the cause is gone."
    )


class _Failed(Exception):
    """A rank failed, and all ranks know it."""


def _together(work: Callable[[], T], group: Group) -> list[T]:
    """Do ``work`` on every rank; return what each rank's gave, or raise _Failed on all."""
    value: Any = None
    problem = None
    try:
        value = work()
    except Exception as error:
        problem = words_of(error)
    answers = gather_objects((value, problem), group)
    _raise_first({r: words for r, (_, words) in enumerate(answers) if words})
    return [value for value, _ in answers]


def _raise_first(problems: Mapping[int, str]) -> None:
    for number, words in sorted(problems.items()):
        raise _Failed(f"rank {number}: {words}")


def _fresh(aside: Path) -> None:
    for leftover in aside.parent.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover)
    aside.mkdir(parents=True)


def _save(tensors: Mapping[str, Tensor], aside: Path, group: Group) -> None:
    # Nothing is to be copied ahead from a device: the tensors are on the host.
    writer = dcp.FileSystemWriter(aside, per_thread_copy_ahead=0)
    try:
        dcp.save(dict(tensors), storage_writer=writer, process_group=group)
    except CheckpointException as error:  # derives from BaseException; raised on every rank
        _raise_first(failures(error))


def _commit(aside: Path, snapshot: Path, files: dict[str, Any], state: str) -> None:
    """Write what is not a tensor and the manifest, and give the folder its name."""
    (aside / STATE).write_text(state, encoding="utf-8")
    files |= {name: fingerprint(aside / name) for name in (METADATA, STATE)}
    step = int(snapshot.name.removeprefix("step-"))
    manifest = json.dumps({"step": step, "files": files}, indent=1)
    (aside / MANIFEST).write_text(manifest, encoding="utf-8")
    for path in (aside / STATE, aside / MANIFEST, aside):  # DCP has synced its own
        sync(path)
    remove(snapshot)  # one of the same step, which this one replaces
    os.replace(aside, snapshot)
    sync(snapshot.parent)


def size_words(size: float) -> str:
    """Return a number of bytes as people write it: "393 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{int(size)} bytes"
        size /= 1000
    return f"{size:.3g} GB"
