"""Some of the fault matrix, and a short form of the kill runs: real processes, real signals.

The whole of both is tools/stress/; docs/failures.md has the last results.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

STRESS = Path(__file__).resolve().parents[2] / "tools" / "stress"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, STRESS / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


faults, kill_runs = load("faults"), load("kill_runs")
lose_node = load("lose_node")
# What only real processes show; the others have cheaper tests where their code is.
RUN_HERE = ("rank killed once", "rank stopped", "SIGTERM in a checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN_HERE)
def test_a_fault_ends_the_run_with_its_message_and_a_whole_checkpoint(name, tmp_path) -> None:
    (case,) = (case for case in faults.CASES if case.name == name)
    try:
        outcome = faults.run_case(case, tmp_path)
    except OSError as error:
        pytest.skip(str(error))
    slow = tuple(p for p in outcome.problems if p.startswith("it took"))  # the machine may be busy
    assert outcome.problems == slow, outcome.output[-5000:]


@pytest.mark.slow
def test_a_run_killed_at_random_ends_with_the_same_bits_and_log(tmp_path) -> None:
    config, draw = tmp_path / "run.yaml", random.Random(1)
    config.write_text(kill_runs.CONFIG)
    steps = 60
    whole = kill_runs.finish(config, "whole", 2, steps)
    first = kill_runs.kill_once(
        config, "killed", 2, steps, after=0, once_it_trains=True, in_checkpoint=True
    )
    assert first is not None and first.writing
    after = draw.uniform(0, 1)
    kill_runs.kill_once(
        config, "killed", 2, steps, after=after, once_it_trains=True, in_checkpoint=False
    )
    assert kill_runs.differences(whole, kill_runs.finish(config, "killed", 2, steps)) == []


@pytest.mark.slow
def test_a_node_that_is_lost_and_replaced_changes_nothing(tmp_path) -> None:
    config, steps = tmp_path / "run.yaml", 60
    config.write_text(kill_runs.CONFIG)
    whole = kill_runs.finish(config, "whole", 2, steps)
    try:
        with lose_node.two_nodes(f"t{os.getpid()}-") as nodes:
            lost = lose_node.train(nodes, config, "lost", steps, ["killed"])
    except OSError as error:
        pytest.skip(str(error))
    assert kill_runs.differences(whole, lost) == []


def test_every_fault_has_its_own_name_and_every_bar_a_case() -> None:
    names = [case.name for case in faults.CASES]
    assert len(set(names)) == len(names) and set(RUN_HERE) <= set(names)


def test_a_damaged_checkpoint_is_noticed_by_the_matrix(tmp_path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": {"a": {"sha256": "0"}}}')
    (tmp_path / "a").write_text("x")
    assert not faults.is_whole(tmp_path)
