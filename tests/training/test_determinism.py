from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from arcface_plus import load_model
from arcface_plus.runs.train import train
from arcface_plus.training.determinism import deterministic

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, "")  # restored afterwards, whatever the test leaves
    monkeypatch.delenv(CUBLAS)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


def flags() -> tuple[bool, bool, str | None]:
    enabled = torch.are_deterministic_algorithms_enabled()
    return enabled, torch.backends.cudnn.benchmark, os.environ.get(CUBLAS)


def test_on_a_gpu_torch_is_told_and_told_otherwise_afterwards() -> None:
    with deterministic(True, torch.device("cuda")):
        assert flags() == (True, False, ":4096:8")
    assert flags()[:2] == (False, False)
    with (
        pytest.raises(RuntimeError, match="no deterministic form"),
        deterministic(True, torch.device("cuda")),
    ):
        raise RuntimeError("no deterministic form")
    assert flags()[:2] == (False, False)


def test_a_workspace_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, ":16:8")
    with deterministic(True, torch.device("cuda")):
        assert flags() == (True, False, ":16:8")


def test_otherwise_convolutions_are_chosen_by_trying() -> None:
    with deterministic(False, torch.device("cuda")):
        assert flags() == (False, True, None)
    assert flags() == (False, False, None)


def test_on_the_cpu_nothing_changes() -> None:
    with deterministic(True, torch.device("cpu")):
        assert flags() == (False, False, None)


def test_a_run_on_the_cpu_is_the_same_with_it_and_may_resume_with_it(tiny: Path) -> None:
    words = ["--train.deterministic", "true"]
    without = load_model(train(tiny, ["--name", "without"])).state_dict()
    train(tiny, ["--name", "with", "--train.steps", "3", "--schedule.kind", "milestones"])
    folder = train(tiny, [*words, "--name", "alone"])
    found = load_model(folder).state_dict()
    assert all(torch.equal(found[name], value) for name, value in without.items())
    resumed = ["--name", "with", "--train.steps", "4", "--schedule.kind", "milestones"]
    assert train(tiny, [*resumed, *words], resume="auto").name == "with"
