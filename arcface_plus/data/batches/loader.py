"""Deterministic batches: the same images in the same form at every step.

Which images, and how each is changed, depends on (seed, step) alone; ranks take contiguous parts of
the global batch, workers make whole batches.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]
from torch.utils.data import DataLoader, Dataset

from arcface_plus.data.batches.augmentation import augment_into, augmentation_draws
from arcface_plus.data.batches.order import SPARES, BatchPlan, OrderedSteps
from arcface_plus.data.batches.ring import BatchRing, images_at
from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.image_source import ImageSource, fit_square

_PREFETCH = 4  # batches that a worker makes ahead


@dataclass
class Batch:
    """One rank's images of a step: images (b, S, S, 3) uint8 RGB, labels and indices (b,) int64.

    ``quarantined`` lists what could not be read, as ``(index, reason)``. Workers write the images
    of later batches to the same memory: unless pinned, they stay until the second batch after them
    is asked for.
    """

    step: int
    images: Tensor
    labels: Tensor
    indices: Tensor
    quarantined: list[tuple[int, str]]

    def pin_memory(self) -> Batch:
        self.images, self.labels = self.images.pin_memory(), self.labels.pin_memory()
        return self


@dataclass
class _RingBatch(Batch):
    """A batch whose images lie in a ring: to the trainer goes only where."""

    ring: int
    slot: int

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = self.labels.numpy(), self.indices.numpy()
        return _received, (self.step, self.ring, self.slot, *arrays, self.quarantined)


def _received(
    step: int,
    ring: int,
    slot: int,
    labels: np.ndarray,
    indices: np.ndarray,
    quarantined: list[tuple[int, str]],
) -> Batch:
    images = images_at(ring, slot)
    return Batch(step, images, torch.from_numpy(labels), torch.from_numpy(indices), quarantined)


class ImageReader:
    """Reads images of ``source`` as ``config`` wants them; safe to hand to workers and threads."""

    def __init__(self, source: ImageSource, config: DataConfig, seed: int) -> None:
        self.source, self.config, self.seed = source, config, seed

    def read_first(
        self, candidates: Sequence[int], step: int, bad: dict[int, str], first: int = 0
    ) -> tuple[np.ndarray, int, int]:
        """Return the image, label and index of the first of ``candidates`` that can be read.

        Looked at are that at place ``first`` and the next SPARES.
        Under ``on_bad_image: quarantine``, those that cannot are noted in ``bad`` with the reason;
        else the first of them is a ValueError. So it is where none can be read.
        """
        size, tried = self.config.size, range(first, min(first + 1 + SPARES, len(candidates)))
        for place in tried:
            index = candidates[place]
            if index in bad:
                continue
            try:
                image, label = self.source.read(index)
                if image.shape != (size, size, 3):
                    image = fit_square(image, size, where=self.source.describe(index))
                return image, label, index
            except (ValueError, OSError) as error:
                if self.config.on_bad_image != "quarantine":
                    raise ValueError(
                        f"{error} (step {step}); remove the image, or set "
                        "--data.on_bad_image quarantine to go on without it."
                    ) from error
                bad[index] = str(error)
        raise ValueError(
            f"step {step}: none of {len(tried)} images can be read; the last reason was: "
            f"{bad[candidates[tried[-1]]]}"
        )


def to_batch(
    step: int, size: int, found: Iterable[tuple[np.ndarray, int, int]], bad: dict[int, str]
) -> Batch:
    """Return the batch of images (``size``, ``size``, 3), labels and indices; it may be empty."""
    rows = list(found)
    images = np.array([image for image, _, _ in rows], dtype=np.uint8)
    return Batch(
        step,
        torch.from_numpy(images.reshape(-1, size, size, 3)),
        torch.tensor([label for _, label, _ in rows], dtype=torch.int64),
        torch.tensor([index for _, _, index in rows], dtype=torch.int64),
        sorted(bad.items()),
    )


class _PlannedBatches(ImageReader, Dataset["Batch | ValueError"]):
    """Maps a plan and a slot of ``ring`` to the batch, or to why there is none; lives in the
    workers.
    """

    def __init__(
        self, source: ImageSource, config: DataConfig, seed: int, ring: BatchRing | None = None
    ) -> None:
        super().__init__(source, config, seed)
        self.ring = ring

    def __getitem__(self, task: tuple[BatchPlan, int]) -> Batch | ValueError:
        try:
            return self._make(*task)
        except ValueError as error:  # raised in the main process: there the message stays itself
            return ValueError(str(error))

    def _make(self, plan: BatchPlan, slot: int) -> Batch:
        if plan.ahead:  # in a thread: the disk may be slow, and these are not needed now
            threading.Thread(target=self.source.read_ahead, args=(plan.ahead,), daemon=True).start()
        bad: dict[int, str] = {}
        candidates, changes, size = plan.candidates.tolist(), self.config.augment, self.config.size
        key = changes, size, self.seed, plan.epoch
        if self.ring is None:
            images = np.empty((plan.length, size, size, 3), dtype=np.uint8)
        else:
            images = self.ring.place(slot)
        labels, indices = np.empty((2, plan.length), dtype=np.int64)
        for position, draws in enumerate(augmentation_draws(*key, candidates[: plan.length])):
            # As many for the first as for the last: otherwise ranks would change the outcome.
            image, label, index = self.read_first(candidates, plan.step, bad, position)
            if index != candidates[position]:
                (draws,) = augmentation_draws(*key, [index])
            augment_into(images[position], image, changes, draws)
            labels[position], indices[position] = label, index
        parts = torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(indices)
        if self.ring is None:
            return Batch(plan.step, *parts, sorted(bad.items()))
        return _RingBatch(plan.step, *parts, sorted(bad.items()), self.ring.number, slot)


class TrainLoader:
    """Iterates over batches of steps ``start`` to ``stop``, in order, decoding ahead."""

    def __init__(
        self,
        source: ImageSource,
        config: DataConfig,
        steps: OrderedSteps,
        *,
        pin_memory: bool = False,
    ) -> None:
        self.source, self.config, self.steps, self.pin_memory = source, config, steps, pin_memory

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; ValueError names step and image where one cannot be made."""
        ring, slots = None, 1
        if self.config.workers:
            # Batches that are being made or wait, the one in use, and the one before it.
            slots = self.config.workers * _PREFETCH + 2
            ring = BatchRing(slots, self.steps.hi - self.steps.lo, self.config.size)
        loader = DataLoader(
            _PlannedBatches(self.source, self.config, self.steps.seed, ring),
            batch_size=None,  # a plan is already a batch
            sampler=zip(self.steps, itertools.cycle(range(slots)), strict=False),
            num_workers=self.config.workers,
            worker_init_fn=_start_worker,
            prefetch_factor=_PREFETCH if self.config.workers else None,
            timeout=self.config.timeout if self.config.workers else 0,
            pin_memory=self.pin_memory,
            # Nothing here draws from it. But DataLoader would take a number from the global
            # generator, and a resumed run would have other dropout masks than one that ran on.
            generator=torch.Generator(),
        )
        others = multiprocessing.active_children()
        running = iter(loader)
        workers = [p for p in multiprocessing.active_children() if p not in others]
        # They do not heed the SIGTERM with which Python ends those that are left at its own end.
        at_exit = Finalize(None, _kill, (workers,), exitpriority=1)
        try:
            for made in running:
                if isinstance(made, ValueError):
                    raise made
                yield made
        except RuntimeError:
            self._lost = running  # kept: its end would wait 5 s for each worker that hangs
            raise
        finally:
            # Here, by the count of references: left to the garbage collector, its queues would be
            # closed before workers hear of the end, and each would be waited for in vain.
            del running
        at_exit.cancel()

    def describe_step(self, step: int, *, most: int = 8) -> str:
        """Name some of the images of a step (of all ranks), for messages."""
        indices = self.steps.global_indices(step)
        names = [self.source.describe(int(i)) for i in indices[:most]]
        more = f" and {len(indices) - most} more" if len(indices) > most else ""
        return "; ".join(names) + more


class WorkerError(OSError):
    """A worker process was killed or did not answer."""


@contextlib.contextmanager
def explained_workers(config: DataConfig) -> Iterator[None]:
    """Raise WorkerError, which says what to do, where a worker of a ``TrainLoader`` is lost.

    Around all that happens while the loader is in use: torch raises it from the signal of the
    worker's end, in whatever the process is doing.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if said.startswith("DataLoader timed out"):
            raise WorkerError(
                f"no batch came within {config.timeout:g} s (data.timeout): the file system of "
                f"{config.path or 'the data'} hangs or is too slow. Look at it; if it is only "
                "slow, raise --data.timeout or --data.workers."
            ) from error
        if not said.startswith("DataLoader worker (pid"):
            raise
        raise WorkerError(
            f"a worker process ended ({said.strip().rstrip('.')}). If it was killed, the machine "
            "is likely out of memory: lower --data.workers (now "
            f"{config.workers} processes a rank) or --train.global_batch."
        ) from error


def _kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


def _start_worker(worker: int) -> None:
    # Batch systems and terminals send these to all processes of a run. The main process finishes
    # its step and saves, for which it needs its batches; workers end when it does.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # At once: a worker has copies of the rank's connections, which keep the other ranks waiting.
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    # One image at a time a worker: threads inside OpenCV would fight over the same cores.
    cv2.setNumThreads(0)
