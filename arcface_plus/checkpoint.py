"""Atomic snapshots that any number of ranks can load (torch.distributed.checkpoint).

A snapshot is a folder ``step-00001000`` with DCP's files, ``state.json`` (everything that is not a
tensor) and ``manifest.json`` (sizes and sha256 of the others). It is written aside, hashed, synced
and renamed, so that a folder with its final name is whole. DCP's ``.metadata`` is a pickle: load
snapshots only from run folders you trust as you trust code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from arcface_plus.distributed import World, barrier, broadcast_object, gather_objects
from arcface_plus.files import file_sha256, sync

_NAME = re.compile(r"^step-(\d{8,})$")
FORMAT = 1


class ClassRows(NamedTuple):
    """This rank's rows of a (``total``, …) tensor that ``shard_bounds`` cuts over all ranks."""

    local: Tensor
    total: int


Stored = Tensor | ClassRows  # plain tensors are equal on all ranks


class Part:
    """What gives its state to a checkpoint and takes it back; overrides what it has.

    Names are unique among the parts of a run. An ``optional`` part that a checkpoint does not hold
    stays as it is.
    """

    optional: ClassVar[bool] = False

    def tensors(self) -> dict[str, Stored]:
        """Return the tensors by name; loading writes into them."""
        return {}

    def numbers(self) -> dict[str, Any]:
        """Return everything else by name, JSON-able."""
        return {}

    def restore(self, tensors: Mapping[str, Stored], numbers: Mapping[str, Any]) -> None:
        """Take up ``tensors``, which hold what was saved, and what is needed of ``numbers``."""


class Checkpoints:
    """The snapshots of one run, under ``folder``."""

    def __init__(self, folder: str | Path, world: World, *, keep: int = 2) -> None:
        self.folder, self.world, self.keep = Path(folder), world, keep
        self._mesh = init_device_mesh(world.device.type, (world.size,))

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Return the steps of all whole snapshots, ascending."""
        found = (_NAME.match(p.parent.name) for p in self.folder.glob("*/manifest.json"))
        return sorted(int(m.group(1)) for m in found if m)

    def save(
        self,
        step: int,
        tensors: Mapping[str, Stored],
        state: Mapping[str, Any],
        *,
        protected: int | None = None,
    ) -> Path:
        """Write a snapshot of ``tensors``.

        ``state`` must be JSON-able. Called by all ranks together; older snapshots beyond ``keep``
        are removed once the new one is whole, but not that of step ``protected``. Raises OSError
        where it cannot be written.
        """
        final, world = self.path(step), self.world
        aside = self.folder / f".tmp-{final.name}"
        if world.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".tmp-step-*"):
                shutil.rmtree(leftover)
            aside.mkdir()
        barrier(world.control)
        try:
            dcp.save(self._whole(tensors), checkpoint_id=str(aside), process_group=world.control)
        except CheckpointException as error:  # derives from BaseException
            raise OSError(f"checkpoint {final} could not be written: {error}") from error
        mine = {p.name: _fingerprint(p) for p in aside.glob(f"__{world.rank}_*")}
        parts = gather_objects(mine, world.control)
        if world.is_main:
            (aside / "state.json").write_text(json.dumps({"format": FORMAT, **state}, indent=1))
            files = {name: print_ for part in parts for name, print_ in part.items()}
            files |= {n: _fingerprint(aside / n) for n in (".metadata", "state.json")}
            (aside / "manifest.json").write_text(
                json.dumps({"step": step, "files": files}, indent=1)
            )
            sync(aside / "manifest.json")
            sync(aside)
            if final.exists():
                shutil.rmtree(final)
            os.replace(aside, final)
            sync(self.folder)
            for old in self.steps()[: -self.keep]:
                if old != protected:
                    shutil.rmtree(self.path(old))
        barrier(world.control)
        return final

    def load(self, path: Path, tensors: Mapping[str, Stored]) -> dict[str, Any]:
        """Fill ``tensors`` in place from the snapshot ``path`` and return its state.

        Works at any world size. Every file is checked against the manifest first. Raises ValueError
        where a file is missing or damaged, or a tensor is absent or of another shape.
        """
        problem = self._damage(path) if self.world.is_main else None
        problem = broadcast_object(problem, self.world.control)
        if problem:
            raise ValueError(problem)
        reader = dcp.FileSystemReader(path)
        known = reader.read_metadata().state_dict_metadata
        whole = self._whole(tensors)
        for name, tensor in whole.items():
            stored = getattr(known.get(name), "size", None)
            if stored is None or tuple(stored) != tuple(tensor.shape):
                raise ValueError(
                    f"checkpoint {path}: '{name}' is "
                    f"{'absent' if stored is None else f'of shape {tuple(stored)}'}, but this run "
                    f"needs {tuple(tensor.shape)}; resume with the run's own configuration."
                )
        try:
            dcp.load(whole, storage_reader=reader, process_group=self.world.control)
        except CheckpointException as error:
            raise ValueError(f"checkpoint {path} could not be read: {error}") from error
        return json.loads((path / "state.json").read_text())

    def _whole(self, tensors: Mapping[str, Stored]) -> dict[str, Tensor]:
        """Return ``tensors`` as DCP takes them; class rows as views of parts of whole tensors."""
        whole: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if isinstance(tensor, ClassRows):
                shape = torch.Size((tensor.total, *tensor.local.shape[1:]))
                stride = torch.empty(shape, device="meta").stride()
                tensor = DTensor.from_local(
                    tensor.local.detach(),
                    self._mesh,
                    [Shard(0)],
                    run_check=False,
                    shape=shape,
                    stride=stride,
                )
            whole[name] = tensor
        return whole

    def stored_names(self, path: Path) -> set[str]:
        return set(dcp.FileSystemReader(path).read_metadata().state_dict_metadata)

    def _damage(self, path: Path) -> str | None:
        """Return what is wrong with the files of a snapshot, or None."""
        manifest = path / "manifest.json"
        if not manifest.is_file():
            return f"{path} is not a whole checkpoint: manifest.json is missing."
        for name, expected in json.loads(manifest.read_text())["files"].items():
            if not (path / name).is_file():
                return f"checkpoint {path}: {name} is missing; resume from an older checkpoint."
            if _fingerprint(path / name) != expected:
                return (
                    f"checkpoint {path}: {name} is damaged (size or sha256 differ from its "
                    "manifest); resume from an older checkpoint."
                )
        return None


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
