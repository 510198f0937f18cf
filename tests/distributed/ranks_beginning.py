"""First class weights in each process of test_beginning.py."""

from __future__ import annotations

import os

import numpy as np
from launch import join_as_under_torchrun

from arcface_plus.data.sources.image_source import open_source
from arcface_plus.distributed import start_world
from arcface_plus.runs import beginning
from arcface_plus.runs.build import build_state
from arcface_plus.runs.configuration import load_config


class Quiet:
    """A monitor that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def first_class_weights(
    rank: int, config_path: str, overrides: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Return this rank's rows of the head as a new run begins, and what was said of them."""
    beginning._BATCH, beginning._BLOCK = 4, 16  # several rounds, the last one uneven
    (environment,) = join_as_under_torchrun(rank, 1)
    os.environ |= environment
    config = load_config(config_path, overrides)
    source = open_source(config.data, seed=config.seed)
    with start_world("cpu") as world:
        state = build_state(config, source, world)
        start, monitor = beginning.Beginning(config, source, state), Quiet()
        config.folder.mkdir(parents=True, exist_ok=True)
        start.apply(monitor)
        return state.head.weight.detach().clone().numpy(), monitor.lines
