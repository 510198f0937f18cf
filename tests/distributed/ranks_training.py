"""Whole runs in each process of test_training.py."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout

import torch.distributed as dist
from launch import join_as_under_torchrun

from arcface_plus.evaluation.hooks import PairEvaluation
from arcface_plus.losses.head.classifier import ClassifierHead, HeadOutput
from arcface_plus.runs.train import train
from arcface_plus.training.health import uniform_monitor
from arcface_plus.training.health.guard import NonFiniteError


def train_jobs(rank: int, jobs: list[dict]) -> list[str]:
    """Run each job as torchrun would: ``config``, ``overrides`` and ``resume``.

    Return what stopped each run: the error of a loss that is not finite, or nothing.
    """
    stopped = []
    for job, environment in zip(jobs, join_as_under_torchrun(rank, len(jobs)), strict=True):
        os.environ |= environment
        try:
            train(job["config"], job["overrides"], resume=job.get("resume", "never"))
            stopped.append("")
        except NonFiniteError as error:
            stopped.append(str(error))
            dist.destroy_process_group()  # a failed run leaves it to the end of the process
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


def train_scored(rank: int, jobs: list[dict], scores: dict[int, float]) -> list[str]:
    """Run each job with evaluations that find ``scores``, by step, and 0 at every other step."""
    real = PairEvaluation.__call__

    def scored(self: PairEvaluation, model, step: int) -> dict[str, float]:
        return real(self, model, step) | {"pairs/accuracy": scores.get(step, 0.0)}

    PairEvaluation.__call__ = scored
    try:
        return train_jobs(rank, jobs)
    finally:
        PairEvaluation.__call__ = real


def train_collapsing(rank: int, jobs: list[dict]) -> str:
    """Run each job, in which every run counts as collapsing; return what this rank printed."""
    uniform_monitor.OWN_ANGLE, uniform_monitor.DRAWN_TOGETHER = 0.0, 2.0
    with redirect_stdout(io.StringIO()) as said:
        train_jobs(rank, jobs)
    return said.getvalue()
