"""What each process of test_checkpoints.py does."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.distributed.checkpoint.filesystem import FileSystem

from arcface_plus.checkpoints import writing
from arcface_plus.checkpoints.parts import ClassRows, Stored
from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.distributed import World, all_reduce_sum, rank, shard_bounds, world_size

CLASSES = 7  # over 2 and 3 ranks; a shard is empty at 4, where 5 classes would be cut


def _world() -> World:
    return World(rank(), world_size(), torch.device("cpu"))


def contents(world: World, value: float) -> dict[str, Stored]:
    lo, hi = shard_bounds(CLASSES, world.size)[world.rank]
    rows = torch.arange(lo * 3, hi * 3).view(-1, 3) + value
    return {
        "rows": ClassRows(rows, CLASSES),
        "plain": torch.full((5,), value),
        f"own.{world.rank}": torch.tensor(world.rank + value),
    }


def save_beside_collectives(rank_: int, folder: Path) -> list[bool]:
    """Save three times while this thread talks on the groups it has; return what is as saved."""
    world = _world()
    store = Checkpoints(folder, world, keep=9)
    for step in (1, 2, 3):
        saved = contents(world, float(step))
        store.save(step, saved, {"step": step}, updated=saved.keys())
        for _ in range(50):
            total = all_reduce_sum(torch.ones(1000), world.control)
            assert total[0] == world.size
        store.before_update()
        for stored in saved.values():
            (stored.local if isinstance(stored, ClassRows) else stored).fill_(-1)
    store.wait()
    same = []
    for step in (1, 2, 3):
        loaded, want = contents(world, 0.0), contents(world, float(step))
        assert store.load(store.path(step), loaded)["step"] == step
        same += [
            torch.equal(
                loaded["rows"].local if name == "rows" else loaded[name],
                want["rows"].local if name == "rows" else want[name],
            )
            for name in want
        ]
    return same


def fail_on_one_rank(rank_: int, folder: Path, stage: str) -> tuple[str, list[str]]:
    """Save twice; rank 1 alone fails in the second. Return its error here and what is left."""
    world = _world()
    store = Checkpoints(folder, world)
    store.save(1, contents(world, 1.0), {"step": 1})
    store.wait()

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    if rank_ == 1:
        home, name = (writing, "fingerprint") if stage == "hash" else (FileSystem, "create_stream")
        setattr(home, name, fail)
    store.save(2, contents(world, 2.0), {"step": 2})
    said = ""
    try:
        store.wait()
    except OSError as error:
        said = str(error)
    return said, sorted(path.name for path in folder.iterdir())
