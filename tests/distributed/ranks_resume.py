"""Whole runs in each process of test_resume.py, which note their images and compute in float64."""

from __future__ import annotations

import os
from hashlib import sha256

from double_precision import in_double
from launch import join_as_under_torchrun

from arcface_plus.runs import build
from arcface_plus.runs.train import train
from arcface_plus.training.health.quarantine import Quarantine


def train_noting_images(rank: int, config: str, overrides: list[str], resume: str) -> list:
    """Train as under torchrun; return ``(step, images)`` of every batch of this rank.

    An image is its index, its label and a hash of its pixels.
    """
    (environment,) = join_as_under_torchrun(rank, 1)
    os.environ |= environment
    record, plain, seen = Quarantine.record, build.build, []

    def noting(self: Quarantine, batch) -> None:
        pixels = [sha256(image.numpy().tobytes()).hexdigest() for image in batch.images]
        images = zip(batch.indices.tolist(), batch.labels.tolist(), pixels, strict=True)
        seen.append((batch.step, list(images)))
        record(self, batch)

    Quarantine.record, build.build = noting, in_double(plain)
    try:
        train(config, overrides, resume=resume)
    finally:
        Quarantine.record, build.build = record, plain
    return seen
