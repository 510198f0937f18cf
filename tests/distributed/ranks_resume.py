"""Whole runs in each process of test_resume.py, which note the images of their steps."""

from __future__ import annotations

import os

from launch import join_as_under_torchrun

from arcface_plus.runs.train import train
from arcface_plus.training.health.quarantine import Quarantine


def train_noting_images(rank: int, config: str, overrides: list[str], resume: str) -> list:
    """Train as under torchrun; return ``(step, indices)`` of every batch of this rank."""
    (environment,) = join_as_under_torchrun(rank, 1)
    os.environ |= environment
    record, seen = Quarantine.record, []

    def noting(self: Quarantine, batch) -> None:
        seen.append((batch.step, batch.indices.tolist()))
        record(self, batch)

    Quarantine.record = noting
    try:
        train(config, overrides, resume=resume)
    finally:
        Quarantine.record = record
    return seen
