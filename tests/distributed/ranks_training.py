"""Whole runs in each process of test_training.py."""

from __future__ import annotations

import os

import torch.distributed as dist

from arcface_plus.losses.head.classifier import ClassifierHead, HeadOutput
from arcface_plus.runs.train import train
from arcface_plus.training.guard import NonFiniteError


def train_jobs(rank: int, jobs: list[dict]) -> list[str]:
    """Run each job as torchrun would: ``config``, ``overrides`` and ``resume``.

    Return what stopped each run: the error of a loss that is not finite, or nothing.
    """
    size = dist.get_world_size()
    # As under torchrun, a store is there before the run; the system gave it the port it listens on.
    stores = [dist.TCPStore("127.0.0.1", 0, is_master=True) for _ in jobs] if rank == 0 else []
    ports = [[store.port for store in stores]]
    dist.broadcast_object_list(ports)
    dist.destroy_process_group()  # every run joins its own group, as it does under a launcher
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    stopped = []
    for job, port in zip(jobs, ports[0], strict=True):
        os.environ["MASTER_PORT"] = str(port)
        try:
            train(job["config"], job["overrides"], resume=job.get("resume", "never"))
            stopped.append("")
        except NonFiniteError as error:
            stopped.append(str(error))
    return stopped


def train_with_a_bad_rank(rank: int, jobs: list[dict], bad_rank: int, bad_step: int) -> list[str]:
    """Run each job; in each, one rank alone has NaN for its loss at one step."""
    forward, begin = ClassifierHead.forward, ClassifierHead.__init__

    def counted(head: ClassifierHead, *args, **options) -> None:
        begin(head, *args, **options)
        head.calls = 0

    def spoiled(head: ClassifierHead, embeddings, *args, **options) -> HeadOutput:
        if (rank, head.calls) == (bad_rank, bad_step):
            embeddings = embeddings * float("nan")
        head.calls += 1
        return forward(head, embeddings, *args, **options)

    ClassifierHead.__init__, ClassifierHead.forward = counted, spoiled
    return train_jobs(rank, jobs)
