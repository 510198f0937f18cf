"""The snapshots of one run: saved beside training, waited for, found, loaded by any ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from arcface_plus.checkpoints.background import Background
from arcface_plus.checkpoints.copying import HostCopy, on_device
from arcface_plus.checkpoints.metadata import SafeReader, failures, read_metadata
from arcface_plus.checkpoints.parts import ClassRows, Stored, local_tensor
from arcface_plus.checkpoints.reading import (
    MANIFEST,
    TEMPORARY,
    damage,
    read_state,
    snapshot_folders,
)
from arcface_plus.checkpoints.retention import Retention, remove
from arcface_plus.checkpoints.writing import bytes_of, lack_of_space, write_snapshot
from arcface_plus.distributed import Group, World, broadcast_object, new_host_group

FORMAT = 1
GRACE = 10.0  # seconds that a run which fails gives to the snapshot it is still writing


class Choice(NamedTuple):
    """The step to continue from, None for none; words on what was skipped."""

    step: int | None
    skipped: tuple[str, ...] = ()


class Checkpoints:
    """The snapshots of one run, under ``folder``.

    As a context it waits for the last save; where the block fails, for ``GRACE`` seconds at most,
    since the other ranks may be gone.
    """

    def __init__(
        self, folder: str | Path, world: World, *, keep: int = 2, keep_every: int | None = None
    ) -> None:
        self.folder, self.world = Path(folder), world
        self.retention = Retention(keep, keep_every)
        self._meshes: dict[str, DeviceMesh] = {}
        self._group: Group = None  # of the threads that write: two threads must not share one
        self._background = Background("checkpoint")
        self._copy = HostCopy(world.device)
        self._checked: Path | None = None  # found whole by ``newest_whole``

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()
        else:
            self._background.ends_within(GRACE)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    # -- saving ----------------------------------------------------------------------------------

    def save(
        self,
        step: int,
        tensors: Mapping[str, Stored],
        state: Mapping[str, Any],
        *,
        protected: int | None = None,
        updated: Set[str] = frozenset(),
    ) -> Path:
        """Begin to write a snapshot of ``tensors`` and return its path; ``wait`` for it.

        ``state`` must be JSON-able. ``updated``: the names of tensors that nothing changes before
        ``before_update`` is called; they are copied beside what follows, the others at once. Called
        by all ranks together. Older snapshots that need not stay are removed once the new one is
        whole, but not that of step ``protected``.

        Raises OSError, on all ranks, where the save before could not be written or the disk has no
        room for this one.
        """
        self.wait()
        final, text = self.path(step), json.dumps({"format": FORMAT, **state}, indent=1)
        live = {name: local_tensor(stored) for name, stored in tensors.items()}
        problem = self._lack_of_space(final, tensors)
        if problem := broadcast_object(problem, self.world.control):
            raise OSError(problem)
        if self._group is None:
            self._group = new_host_group()
        buffers = self._copy.begin(live, updated)
        whole = self._whole({n: _with_local(tensors[n], b) for n, b in buffers.items()})

        def write() -> None:
            with on_device(self.world.device):
                self._copy.finish()
                write_snapshot(final, whole, text, group=self._group)
                if self.world.is_main:
                    for old in self.retention.removable(self.steps(), protected):
                        remove(self.path(old))

        self._background.start(write)
        return final

    def before_update(self) -> None:
        """Let the optimizer change what the last save still copies: call before it does."""
        self._copy.before_update()

    def wait(self) -> None:
        """Wait until the last save is whole on all ranks; raise OSError where it could not be."""
        self._background.wait()

    def copied_bytes(self) -> int:
        """Return the memory on this host that saving takes between saves."""
        return self._copy.bytes()

    def _lack_of_space(self, final: Path, tensors: Mapping[str, Stored]) -> str | None:
        if not self.world.is_main:
            return None
        shapes = {
            name: torch.empty(_whole_shape(t), dtype=local_tensor(t).dtype, device="meta")
            for name, t in tensors.items()
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return lack_of_space(final, bytes_of(shapes))
        except OSError as error:
            return f"checkpoint {final} could not be written: {error}"

    # -- finding ---------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Return the steps of all finished snapshots, ascending; their content is not checked."""
        found = snapshot_folders(self.folder)
        return [step for step, path in found.items() if (path / MANIFEST).is_file()]

    def newest_whole(self) -> Choice:
        """Return the newest snapshot whose every file is as its manifest says.

        For one rank to call and tell the others: file systems show ranks different folders. Reads
        the files. Raises ValueError where there are snapshots and none is whole.
        """
        unfinished = sorted(path.name for path in self.folder.glob(f"{TEMPORARY}step-*"))
        problems = [f"{self.folder / name} was not finished" for name in unfinished]
        folders = snapshot_folders(self.folder)
        whole = None
        for step, path in reversed(folders.items()):
            if (problem := damage(path)) is None:
                whole, self._checked = step, path
                break
            problems.append(problem.removesuffix("; resume from an older checkpoint."))
        if folders and whole is None:
            raise ValueError(
                f"no checkpoint in {self.folder} is whole: {'; '.join(problems)}. Put a whole one "
                "back, or start over with --overwrite."
            )
        return Choice(whole, tuple(f"skipped: {problem}" for problem in problems))

    # -- loading ---------------------------------------------------------------------------------

    def load(self, path: Path, tensors: Mapping[str, Stored]) -> dict[str, Any]:
        """Fill ``tensors`` in place from the snapshot ``path`` and return its state.

        Works at any world size. Every file is checked against the manifest first. Raises ValueError
        where a file is missing or damaged, or a tensor is absent or of another shape.
        """
        self.wait()
        problem = None
        if self.world.is_main and self._checked != path:
            problem = damage(path)
        self._checked = None
        problem = broadcast_object(problem, self.world.control)
        if problem:
            raise ValueError(problem)
        known = read_metadata(path).state_dict_metadata
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
            dcp.load(whole, storage_reader=SafeReader(path), process_group=self.world.control)
        except CheckpointException as error:
            rank, words = next(iter(failures(error).items()))
            raise ValueError(
                f"checkpoint {path} could not be read: rank {rank}: {words}"
            ) from error
        return read_state(path)

    def stored_shape(self, path: Path, name: str) -> tuple[int, ...]:
        """Return the shape of the whole tensor ``name`` in the snapshot ``path``."""
        size = getattr(read_metadata(path).state_dict_metadata.get(name), "size", None)
        if size is None:
            raise ValueError(f"checkpoint {path}: '{name}' is absent.")
        return tuple(size)

    def stored_names(self, path: Path) -> set[str]:
        self.wait()
        return set(read_metadata(path).state_dict_metadata)

    # -- class rows as whole tensors ---------------------------------------------------------------

    def _mesh(self, device: str) -> DeviceMesh:
        if device not in self._meshes:
            self._meshes[device] = init_device_mesh(device, (self.world.size,))
        return self._meshes[device]

    def _whole(self, tensors: Mapping[str, Stored]) -> dict[str, Tensor]:
        """Return ``tensors`` as DCP takes them; class rows as views of parts of whole tensors."""
        whole: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if isinstance(tensor, ClassRows):
                shape = _whole_shape(tensor)
                stride = torch.empty(shape, device="meta").stride()
                tensor = DTensor.from_local(
                    tensor.local.detach(),
                    self._mesh(tensor.local.device.type),
                    [Shard(0)],
                    run_check=False,
                    shape=shape,
                    stride=stride,
                )
            whole[name] = tensor
        return whole


def _whole_shape(stored: Stored) -> torch.Size:
    if isinstance(stored, ClassRows):
        return torch.Size((stored.total, *stored.local.shape[1:]))
    return stored.shape


def _with_local(stored: Stored, local: Tensor) -> Stored:
    return ClassRows(local, stored.total) if isinstance(stored, ClassRows) else local
