"""The class weights of another head: of a run of ours, or in arcface_torch's files, one a rank."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from arcface_plus.checkpoints.parts import ClassRows
from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.distributed import World, broadcast, shard_bounds
from arcface_plus.models.weight_files import read_head

_WEIGHT = "head.weight"
_THEIRS = re.compile(r"(softmax_fc_gpu_|checkpoint_gpu_)(\d+)\.pt")


class OtherHead:
    """Class weights (``count``, ``dim``), read a part at a time.

    ``path``: a run folder (its newest checkpoint), or a folder of arcface_torch's
    ``softmax_fc_gpu_N.pt`` or ``checkpoint_gpu_N.pt``, or one of these. Called by all ranks
    together. Raises ValueError or FileNotFoundError naming what is not as it should be.
    """

    def __init__(self, path: Path, world: World) -> None:
        if not path.exists():
            raise FileNotFoundError(f"head.from_head {path} does not exist")
        self.path, self.world = path, world
        self.folder = path if path.is_dir() else path.parent
        snapshots = self.folder / "checkpoints"
        self._files = [] if snapshots.is_dir() else _rank_files(path)
        if self._files:
            shapes = [tuple(read_head(file).shape) for file in self._files]
            if len({dim for _, dim in shapes}) != 1:
                raise ValueError(f"{self.folder}: its head files differ in width: {shapes}")
            self.count, self.dim = sum(rows for rows, _ in shapes), shapes[0][1]
            return
        if snapshots.is_dir():
            self._checkpoints = Checkpoints(snapshots, world)
            steps = self._checkpoints.steps()
        if not snapshots.is_dir() or not steps:
            raise ValueError(
                f"head.from_head {path} is neither a run with a checkpoint nor a folder of "
                "arcface_torch's softmax_fc_gpu_N.pt"
            )
        self._step = self._checkpoints.path(steps[-1])
        self.count, self.dim = self._checkpoints.stored_shape(self._step, _WEIGHT)

    def parts(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the first class of each part and its weights (n, dim) on the CPU, on every rank."""
        if self._files:
            first = 0
            for file in self._files:
                rows = read_head(file).float()
                yield first, rows
                first += len(rows)
            return
        world, bounds = self.world, shard_bounds(self.count, self.world.size)
        lo, hi = bounds[world.rank]
        mine = torch.empty(hi - lo, self.dim, device=world.device)
        self._checkpoints.load(self._step, {_WEIGHT: ClassRows(mine, self.count)})
        for source, (lo, hi) in enumerate(bounds):
            own = source == world.rank
            rows = mine.cpu() if own else torch.empty(hi - lo, self.dim)
            if hi > lo:
                yield lo, broadcast(rows, source, world.control)


def _rank_files(path: Path) -> list[Path]:
    """Return the head files beside ``path`` in the order of their ranks."""
    folder = path if path.is_dir() else path.parent
    found: dict[str, dict[int, Path]] = {}
    for file in folder.iterdir():
        if match := _THEIRS.fullmatch(file.name):
            found.setdefault(match[1], {})[int(match[2])] = file
    chosen = _THEIRS.fullmatch(path.name)
    kind = chosen[1] if chosen else next(iter(sorted(found, reverse=True)), "")
    ranks = found.get(kind, {})
    if missing := sorted(set(range(max(ranks, default=-1) + 1)) - set(ranks)):
        raise ValueError(
            f"{folder} lacks {kind}{missing[0]}.pt: the files of all ranks together are one head"
        )
    return [ranks[rank] for rank in sorted(ranks)]
