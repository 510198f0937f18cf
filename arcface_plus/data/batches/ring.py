"""Memory that workers write batches to and the trainer reads, used again and again.

A tensor that a worker sends gets shared memory of its own otherwise, whose pages cost nearly as
much time as decoding does.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

_SHARED = Path("/dev/shm")  # where Linux keeps it; elsewhere nothing limits it
_numbers = itertools.count()
_rings: WeakValueDictionary[int, BatchRing] = WeakValueDictionary()


class BatchRing:
    """``slots`` places for ``length`` images (size, size, 3) uint8 each, shared with workers.

    Raises ValueError where the machine has less shared memory than that.
    """

    def __init__(self, slots: int, length: int, size: int) -> None:
        _check_room(slots * length * size * size * 3)
        shape = (slots, length, size, size, 3)
        self.slots = slots
        self.images = torch.empty(shape, dtype=torch.uint8).share_memory_()
        # Known by its number in the process that made it: batches come back with that.
        self.number = next(_numbers)
        _rings[self.number] = self

    def place(self, slot: int) -> np.ndarray:
        """Return the images (length, size, size, 3) at ``slot``, to be written to."""
        return self.images[slot].numpy()


def images_at(ring: int, slot: int) -> Tensor:
    """Return the images at ``slot`` of the ring of that number, which this process made."""
    return _rings[ring].images[slot]


def _check_room(wanted: int) -> None:
    if _SHARED.is_dir() and (free := shutil.disk_usage(_SHARED).free) < wanted:
        raise ValueError(
            f"batches on their way from workers need {wanted / 2**20:.0f} MiB of shared memory, "
            f"but {_SHARED} has {free / 2**20:.0f} MiB left. Lower --data.workers or "
            "--train.global_batch, or give the container more (docker run --shm-size)."
        )
