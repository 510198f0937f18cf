"""Train as tools/train.py does, with one fault at one step of one rank; faults.py starts it.

FAULT names it, FAULT_STEP and FAULT_RANK say where. FAULT_NOTE: a file that gets the time at which
it happened (seconds of the monotonic clock), and that a fault "once" looks for.
"""

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from arcface_plus.cli.app import run
from arcface_plus.data.sources.digits import DigitImages
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.training.trainer import Trainer

FAULT, NOTE = os.environ["FAULT"], Path(os.environ["FAULT_NOTE"])
STEP, RANK = int(os.environ["FAULT_STEP"]), int(os.environ["FAULT_RANK"])
IS_HERE = int(os.environ["RANK"]) == RANK
MAIN = os.getpid()
Fault = Callable[[], None]


def at_step(fault: Fault) -> None:
    """Do it before the rank's step."""
    real = Trainer.train_step

    @functools.wraps(real)
    def train_step(self: Trainer, batch) -> None:
        if batch.step == STEP and IS_HERE:
            note(fault)
        real(self, batch)

    Trainer.train_step = train_step


def in_worker(fault: Fault) -> None:
    """Do it in the rank's worker process, about when it reads the step's images."""
    real, reads = DigitImages.read, iter(range(10**9))

    def read(self: DigitImages, index: int):
        if IS_HERE and os.getpid() != MAIN and next(reads) == STEP * 6:
            note(fault)
        return real(self, index)

    DigitImages.read = read


def note(fault: Fault) -> None:
    NOTE.write_text(str(time.monotonic()))
    fault()


def once(fault: Fault) -> Fault:
    """Only in the first of a run's starts."""
    return (lambda: None) if NOTE.exists() else fault


def dies(number: signal.Signals) -> Fault:
    return lambda: os.kill(os.getpid(), number)


def raises(error: Exception) -> Fault:
    def fault() -> None:
        raise error

    return fault


def hangs() -> None:
    time.sleep(10**6)


def fill_disk() -> None:
    """Leave no room on the disk of the run folder."""
    filler = Path(os.environ["FAULT_DISK"]) / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def fill_disk_after_one_checkpoint() -> None:
    if any(Path(os.environ["FAULT_DISK"]).glob("run/checkpoints/step-*")):
        fill_disk()


def spoil_batch() -> None:
    real = ClassifierHead.forward

    def forward(self, embeddings, labels, **options):
        return real(self, embeddings * float("nan"), labels, **options)

    ClassifierHead.forward = forward


def in_checkpoint(fault: Fault) -> None:
    real = torch.distributed.checkpoint.save

    def save(*args, **options):
        if IS_HERE:
            note(fault)
        return real(*args, **options)

    torch.distributed.checkpoint.save = save


def set_clock_back() -> None:
    real = time.time
    time.time = lambda: real() - 86_400


FAULTS = {
    "worker raises": (in_worker, raises(RuntimeError("a fault in the decoder"))),
    "bad image": (in_worker, raises(ValueError("digit 3 is not an image"))),
    "worker killed": (in_worker, dies(signal.SIGKILL)),
    "worker hangs": (in_worker, hangs),
    "rank killed": (at_step, dies(signal.SIGKILL)),
    "rank killed once": (at_step, once(dies(signal.SIGKILL))),
    "rank stopped": (at_step, dies(signal.SIGSTOP)),
    "rank hangs": (at_step, hangs),
    "GPU memory": (at_step, raises(torch.OutOfMemoryError("Tried to allocate 2.00 GiB."))),
    "host memory": (at_step, raises(MemoryError())),
    "input/output error": (at_step, raises(OSError(5, "Input/output error", "faces.rec"))),
    "NaN batch": (at_step, spoil_batch),
    "disk full": (at_step, fill_disk),
    "disk full: in a checkpoint": (in_checkpoint, fill_disk_after_one_checkpoint),
    "SIGTERM": (at_step, dies(signal.SIGTERM)),
    "SIGTERM in a checkpoint": (in_checkpoint, dies(signal.SIGTERM)),
    "clock set back": (at_step, set_clock_back),
}

if __name__ == "__main__":
    if FAULT in FAULTS:
        where, fault = FAULTS[FAULT]
        where(fault)
    run(["train", *sys.argv[1:]])
