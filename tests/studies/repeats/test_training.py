"""Studies that are killed, that break down, that share a folder: nothing is trained twice."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from arcface_plus.studies.repeats import training
from arcface_plus.studies.repeats.cluster import slurm_script
from arcface_plus.studies.repeats.training import share_of_machine

CONFIG = """
name: digits
data: {source: digits, size: 16, workers: 0}
model: {name: resnet20, width: 2}
head: {logits: linear, bias: true, margin: {}, mma_weight: 0.0}
optim: {lr: 0.1}
schedule: {kind: cosine, warmup_steps: 2}
train: {steps: 40, global_batch: 16, log_every: 5, checkpoint_every: 10, precision: fp32,
        device: cpu}
evaluation: {accuracy: true}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "digits.yaml").write_text(CONFIG)
    return tmp_path / "digits.yaml"


def start(*words: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "arcface_plus", "repeat", *map(str, words)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, start_new_session=True, **silent)


def wait_for(what: Callable[[], bool], study: subprocess.Popen[bytes]) -> None:
    while not what():
        assert study.poll() is None, "the study ended before it could be killed"
        time.sleep(0.005)


def steps_logged(run: Path) -> list[int]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["kind"] == "train"]


@pytest.mark.slow
def test_a_killed_study_goes_on_and_trains_nothing_twice(cli, config: Path, tmp_path) -> None:
    words = [config, "--seeds", 3, "--train.device", "cpu", "--output"]
    runs = tmp_path / "killed" / "runs"
    first, second, third = (runs / f"digits-seed{seed}" for seed in (1, 2, 3))
    study = start(*words, tmp_path / "killed")
    wait_for(lambda: any((second / "checkpoints").glob("step-*")), study)
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    assert (first / "accuracy.json").is_file() and not (second / "accuracy.json").exists()
    assert not third.exists()
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    done = cli("repeat", *words, tmp_path / "killed")
    assert done.exit_code == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert [path.name for path in second.glob("environment-resumed-*")], "continued, not begun anew"
    assert not [*third.glob("environment-resumed-*")]
    whole = [1, *range(5, 41, 5)]
    assert steps_logged(first) == steps_logged(third) == whole
    resumed = steps_logged(second)  # it logs the first step after the checkpoint too
    assert resumed == sorted({*whole, *resumed}), "no step twice, none left out"
    # The study that nobody killed has the same nets and the same numbers.
    assert cli("repeat", *words, tmp_path / "whole").exit_code == 0
    for run in (second, third):
        other = load_file(tmp_path / "whole" / "runs" / run.name / "model.safetensors")
        for name, tensor in load_file(run / "model.safetensors").items():
            assert torch.equal(tensor, other[name]), name
    tables = [(tmp_path / name / "repeat.md").read_bytes() for name in ("killed", "whole")]
    assert tables[0] == tables[1] and b"| 3 |" in tables[0]


@pytest.mark.slow
def test_what_a_killed_study_left_running_is_waited_for(cli, config: Path, tmp_path) -> None:
    """Its runs are processes of their own, which kill -9 of the study does not reach."""
    words = [config, "--seeds", "2,", "--jobs", 2, "--train.steps", 60, "--output", tmp_path / "x"]
    run = tmp_path / "x" / "runs" / "digits-seed2"
    study = start(*words)
    wait_for((run / "config.yaml").is_file, study)
    study.kill()
    study.wait()
    assert not (run / "accuracy.json").exists()
    done = cli("repeat", *words)
    assert done.exit_code == 0, done.stderr
    assert "digits-seed2: another process trains it" in done.stderr
    assert "digits-seed2: finished by another process" in done.stderr
    assert not [*run.glob("environment-resumed-*")]
    assert steps_logged(run) == [1, *range(5, 61, 5)]


def test_a_run_that_breaks_down_does_not_stop_the_others(cli, config: Path, tmp_path) -> None:
    words = ["repeat", config, "--seeds", "1,", "--vary", "optim.lr=1e30,0.1", "--train.steps", 6]
    words += ["--output", tmp_path / "x", "--optim.clip_norm", "null"]
    done = cli(*words)
    assert done.exit_code == 1, done.output
    assert "1 run(s) broke down" in done.stderr and "digits-optim.lr-1e30-seed1: " in done.stderr
    table = (tmp_path / "x" / "repeat.md").read_text()
    assert "| optim.lr=1e30 | not run |" in table and "| optim.lr=0.1 | 1 |" in table
    # The table of one row needs no differences: they are from the other, which has no run.
    assert json.loads((tmp_path / "x" / "repeat.json").read_text())["runs"][0]["seed"] == 1


@pytest.mark.slow
def test_processes_side_by_side_say_how_they_broke_down(cli, config: Path, tmp_path) -> None:
    words = ["repeat", config, "--seeds", "1,", "--vary", "optim.lr=1e30,0.1", "--train.steps", 6]
    done = cli(*words, "--jobs", 2, "--output", tmp_path / "x", "--optim.clip_norm", "null")
    assert done.exit_code == 1, done.output
    log = tmp_path / "x" / "runs" / "digits-optim.lr-1e30-seed1.log"
    assert f"(see {log})" in done.stderr and "exit code 1" in done.stderr and log.is_file()
    assert "digits-optim.lr-0.1-seed1: finished" in done.stderr
    assert "| optim.lr=0.1 | 1 |" in (tmp_path / "x" / "repeat.md").read_text()


def test_listed_commands_train_the_runs_that_the_study_takes_up(cli, config, tmp_path) -> None:
    words = ["repeat", config, "--seeds", "1,2", "--output", tmp_path / "x", "--train.steps", 3]
    listed = cli(*words, "--list")
    lines = listed.stdout.splitlines()
    assert listed.exit_code == 0 and len(lines) == 2 and not (tmp_path / "x").exists()
    launcher, *command = shlex.split(lines[1])
    assert launcher == "arcface-plus" and cli(*command).exit_code == 0
    again = cli(*words, "--list")
    assert again.stdout.splitlines() == lines[:1], "what is finished is not listed"
    net = tmp_path / "x" / "runs" / "digits-seed2" / "model.safetensors"
    before = net.stat().st_mtime_ns
    assert cli(*words).exit_code == 0 and net.stat().st_mtime_ns == before
    refused = cli(*words, "--slurm", tmp_path / "array.sh")
    assert refused.exit_code == 2 and "Every run is finished" in refused.stderr
    other = cli(*words, "--optim.lr", "0.2")
    assert other.exit_code == 2 and "other settings: optim.lr: 0.1 → 0.2" in other.stderr


def test_task_of_an_array_trains_its_own_run(tmp_path: Path) -> None:
    """With a stand-in for the command line, which shows what it is called with."""
    lines = [shlex.join(["arcface-plus", "train", f"{i} c.yaml", "--a=$HOME"]) for i in range(3)]
    (tmp_path / "array.sh").write_text(slurm_script(lines))
    assert "#SBATCH --array=0-2\n" in slurm_script(lines)
    (tmp_path / "arcface-plus").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (tmp_path / "arcface-plus").chmod(0o755)

    def task(number: str) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path}:{os.environ['PATH']}"
        environment = {"PATH": path} | ({"SLURM_ARRAY_TASK_ID": number} if number else {})
        command = ["bash", str(tmp_path / "array.sh")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert task("1").stdout == "train|1 c.yaml|--a=$HOME|"
    assert task("3").returncode == 2 and "the last is 2" in task("3").stderr
    assert task("").returncode != 0 and "start it with sbatch" in task("").stderr


@pytest.mark.parametrize(
    ("visible", "gpus", "expected"),
    [(None, 0, [None] * 3), (None, 2, ["0", "1", "0"]), ("5,7", 2, ["5", "7", "5"])],
)
def test_processes_share_cores_and_gpus(monkeypatch, visible, gpus, expected) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    shares = [share_of_machine(place, 3) for place in range(3)]
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in shares] == expected
    assert {share["OMP_NUM_THREADS"] for share in shares} == {"2"}
    assert share_of_machine(0, 20)["OMP_NUM_THREADS"] == "1"


def test_mistakes_are_refused_before_anything_is_trained(
    cli, config, tmp_path, monkeypatch
) -> None:
    words = ["repeat", config, "--output", tmp_path / "x"]
    for more, message in (
        (["--vary", "optim.lrr=1,2"], "did you mean 'optim.lr'"),
        (["--vary", "optim.lr=0.1,0.10"], "have the same settings"),
        (
            ["--vary", "optim.lr=0.1,0.2", "--optim.lr", "1"],
            "the same settings (with --optim.lr 1)",
        ),
        (["--seed", "4"], "leave them out"),
        (["--name", "y"], "leave them out"),
        (["--evaluation.accuracy", "false"], "measures nothing to tabulate"),
        (["--measures", "top3"], "top3 is no measure"),
        (["--reference", "optim.lr=3"], "no row 'optim.lr=3' to compare with; choose of digits"),
        (["--list", "--slurm", "y"], "give one"),
    ):
        answer = cli(*words, *more)
        assert answer.exit_code == 2 and message in answer.stderr, answer.stderr
    monkeypatch.setenv("RANK", "0")
    assert "not under torchrun" in cli(*words).stderr
    assert not (tmp_path / "x").exists()


def test_without_matplotlib_it_ends_before_training(cli, config, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(training, "run_training", lambda *words, **more: pytest.fail("trained"))
    answer = cli("repeat", config, "--output", tmp_path / "x")
    assert answer.exit_code == 2 and 'pip install "arcface_plus[report]"' in answer.stderr
