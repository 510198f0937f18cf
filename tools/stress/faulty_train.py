"""Train as tools/train.py does, with one fault at one step of one rank.

    torchrun --nproc_per_node=2 tools/stress/faulty_train.py CONFIG [--a.b value …]

FAULT names it, FAULT_STEP and FAULT_RANK say where (5 and 1). Started by faults.py.
"""

import functools
import os
import signal
import sys
import time
from pathlib import Path

import torch

from arcface_plus.cli.app import run
from arcface_plus.data.sources.digits import DigitImages
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.training.trainer import Trainer

FAULT = os.environ["FAULT"]
STEP, RANK = int(os.environ.get("FAULT_STEP", "5")), int(os.environ.get("FAULT_RANK", "1"))
IS_HERE = int(os.environ["RANK"]) == RANK
MAIN = os.getpid()


def at_step(fault) -> None:
    """Call ``fault(trainer)`` before the step, on the rank."""
    real = Trainer.train_step

    @functools.wraps(real)
    def train_step(self, batch):
        if batch.step == STEP and IS_HERE:
            fault(self)
        return real(self, batch)

    Trainer.train_step = train_step


def in_worker(fault) -> None:
    """Call ``fault()`` in the rank's worker process once it reads the step's images."""
    real, reads = DigitImages.read, iter(range(10**9))

    def read(self, index):
        if IS_HERE and os.getpid() != MAIN and next(reads) == STEP * 6:
            fault()
        return real(self, index)

    DigitImages.read = read


def kill_itself(number: signal.Signals):
    return lambda *_: os.kill(os.getpid(), number)


def raises(error: BaseException):
    def fault(*_):
        raise error

    return fault


def nan_batch() -> None:
    real = ClassifierHead.forward

    def forward(self, embeddings, labels, **options):
        if IS_HERE and self.fault_now:
            embeddings = embeddings * float("nan")
        return real(self, embeddings, labels, **options)

    ClassifierHead.fault_now = False
    ClassifierHead.forward = forward
    at_step(lambda trainer: setattr(trainer.head, "fault_now", True))


def term_in_a_checkpoint() -> None:
    real = torch.distributed.checkpoint.save

    def save(*args, **options):
        if IS_HERE:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **options)

    torch.distributed.checkpoint.save = save


def once(fault):
    """Only the first time that a run gets there: the file is what a restart remembers."""
    done = Path(os.environ["FAULT_ONCE"])

    def first(*args):
        if not done.exists():
            done.touch()
            fault(*args)

    return first


def clock_set_back() -> None:
    real, began = time.time, time.time()
    time.time = lambda: real() - (86_400 if real() - began > 3 else 0)


FAULTS = {
    "none": lambda: None,
    "worker raises": lambda: in_worker(raises(RuntimeError("a fault in the decoder"))),
    "bad image": lambda: in_worker(raises(ValueError("digit 3 is not an image"))),
    "worker killed": lambda: in_worker(kill_itself(signal.SIGKILL)),
    "worker hangs": lambda: in_worker(lambda: time.sleep(10**6)),
    "rank killed": lambda: at_step(kill_itself(signal.SIGKILL)),
    "rank killed once": lambda: at_step(once(kill_itself(signal.SIGKILL))),
    "rank stopped": lambda: at_step(kill_itself(signal.SIGSTOP)),
    "rank hangs": lambda: at_step(lambda *_: time.sleep(10**6)),
    "GPU memory": lambda: at_step(raises(torch.OutOfMemoryError("Tried to allocate 2.00 GiB."))),
    "host memory": lambda: at_step(raises(MemoryError())),
    "rank 0 cannot write": lambda: at_step(raises(OSError(5, "Input/output error: 'x'"))),
    "NaN batch": nan_batch,
    "SIGTERM": lambda: at_step(kill_itself(signal.SIGTERM)),
    "SIGTERM in a checkpoint": term_in_a_checkpoint,
    "clock set back": clock_set_back,
}

if __name__ == "__main__":
    FAULTS[FAULT]()
    run(["train", *sys.argv[1:]])
