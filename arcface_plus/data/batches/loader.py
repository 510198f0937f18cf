"""Deterministic batches: the same images in the same form at every step.

Which images, and how each is changed, depends on (seed, step) alone; ranks take contiguous parts of
the global batch, workers make whole batches.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]
from torch.utils.data import DataLoader, Dataset

from arcface_plus.data.batches.augmentation import augment, augmentation_draws
from arcface_plus.data.batches.order import SPARES, BatchPlan, OrderedSteps
from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.image_source import ImageSource, fit_square


@dataclass
class Batch:
    """One rank's images of a step: images (b, S, S, 3) uint8 RGB, labels and indices (b,) int64.

    ``quarantined`` lists what could not be read, as ``(index, reason)``.
    """

    step: int
    images: Tensor
    labels: Tensor
    indices: Tensor
    quarantined: list[tuple[int, str]]

    def pin_memory(self) -> Batch:
        self.images, self.labels = self.images.pin_memory(), self.labels.pin_memory()
        return self


class ImageReader:
    """Reads images of ``source`` as ``config`` wants them; safe to hand to workers and threads."""

    def __init__(self, source: ImageSource, config: DataConfig, seed: int) -> None:
        self.source, self.config, self.seed = source, config, seed

    def read_first(
        self, candidates: Sequence[int], step: int, bad: dict[int, str]
    ) -> tuple[np.ndarray, int, int]:
        """Return the image, label and index of the first of ``candidates`` that can be read.

        Under ``on_bad_image: quarantine``, those that cannot are noted in ``bad`` with the reason;
        else the first of them is a ValueError. So it is where none can be read.
        """
        for index in candidates:
            if index in bad:
                continue
            try:
                image, label = self.source.read(index)
                where = self.source.describe(index)
                return fit_square(image, self.config.size, where=where), label, index
            except (ValueError, OSError) as error:
                if self.config.on_bad_image != "quarantine":
                    raise ValueError(
                        f"{error} (step {step}); remove the image, or set "
                        "--data.on_bad_image quarantine to go on without it."
                    ) from error
                bad[index] = str(error)
        raise ValueError(
            f"step {step}: none of {len(candidates)} images can be read; the last reason was: "
            f"{bad[candidates[-1]]}"
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
    """Maps a plan to its batch, or to why there is none; lives in the workers."""

    def __getitem__(self, plan: BatchPlan) -> Batch | ValueError:
        try:
            return self._make(plan)
        except ValueError as error:  # raised in the main process: there the message stays itself
            return ValueError(str(error))

    def _make(self, plan: BatchPlan) -> Batch:
        bad: dict[int, str] = {}
        candidates = plan.candidates.tolist()
        # As many for the first position as for the last: otherwise ranks would change the outcome.
        found = [
            self.read_first(candidates[position : position + 1 + SPARES], plan.step, bad)
            for position in range(plan.length)
        ]
        changes, size = self.config.augment, self.config.size
        indices = [index for _, _, index in found]
        draws = augmentation_draws(changes, size, self.seed, plan.epoch, indices)
        changed = (
            (augment(image, changes, drawn), label, index)
            for (image, label, index), drawn in zip(found, draws, strict=True)
        )
        return to_batch(plan.step, size, changed, bad)


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
        self._batches = _PlannedBatches(source, config, steps.seed)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; ValueError names step and image where one cannot be made."""
        loader = DataLoader(
            self._batches,
            batch_size=None,  # a plan is already a batch
            sampler=self.steps,
            num_workers=self.config.workers,
            worker_init_fn=_start_worker,
            prefetch_factor=4 if self.config.workers else None,
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
            f"{said.strip()} If it was killed, the machine is likely out of memory: lower "
            f"--data.workers (now {config.workers} processes a rank) or --train.global_batch."
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
