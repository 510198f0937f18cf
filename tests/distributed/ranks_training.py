"""Whole runs in each process of test_training.py."""

from __future__ import annotations

import os

import torch.distributed as dist

from arcface_plus.runs.train import train


def train_jobs(rank: int, jobs: list[dict]) -> None:
    """Run each job as torchrun would: ``config``, ``overrides``, ``resume`` and a free ``port``."""
    size = dist.get_world_size()
    dist.destroy_process_group()  # every run joins its own group, as it does under a launcher
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    for job in jobs:
        os.environ["MASTER_PORT"] = str(job["port"])
        train(job["config"], job["overrides"], resume=job.get("resume", "never"))
