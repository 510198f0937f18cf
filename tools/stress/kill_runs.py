"""Kill a run again and again, resume it each time, and compare it with one that was left alone.

    python tools/stress/kill_runs.py [--ranks 2] [--kills 20] [--in-checkpoint 5] [--seed 0]

Kills (SIGKILL, all processes of the run at once) at random moments, the first --in-checkpoint of
them while a checkpoint is being written. Bars: the final weights are equal bit for bit, and so is
metrics.jsonl but for the fields of time. Exit code 1 where they are not.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file

REPOSITORY = Path(__file__).resolve().parents[2]
# Log steps and checkpoints do not coincide: a resumed run begins inside a log line's window.
CONFIG = """
seed: 1
data: {source: digits, size: 32, workers: 1, augment: {affine: 0.5, rotate: 10}}
model: {name: iresnet18, embedding_dim: 16, width: 8, dropout: 0.2}
head: {margin: {s: 16}}
optim: {lr: 0.05}
schedule: {kind: cosine, warmup_steps: 2}
train: {global_batch: 13, log_every: 7, checkpoint_every: 10, precision: fp32, device: cpu}
evaluation: {accuracy: true, every: 25}
"""
_LINE = b"  loss "  # in what a run shows of a log step
TIMES = {"images_per_second", "data_wait", "seconds_left"}


@dataclass(frozen=True)
class Kill:
    """``step``: of the newest checkpoint when the run was killed; ``writing``: a newer one was."""

    step: int
    writing: bool


def start(config: Path, name: str, ranks: int, steps: int) -> list[subprocess.Popen[bytes]]:
    """Start a run's processes, each the leader of a process group, without a launcher."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "tools/train.py", str(config), "--name", name, "--resume", "auto"]
    words += ["--train.steps", str(steps), "--output", str(config.parent)]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(ranks)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    log = (config.parent / f"{name}.log").open("ab")
    return [
        subprocess.Popen(
            words,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=REPOSITORY,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        for rank in range(ranks)
    ]


def kill(processes: list[subprocess.Popen[bytes]]) -> None:
    """Kill them and all that they started, as far as they still run."""
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.wait()


def finish(config: Path, name: str, ranks: int, steps: int) -> Path:
    """Let the run go to its end; return its folder."""
    codes = [process.wait(timeout=600) for process in start(config, name, ranks, steps)]
    if any(codes):
        said = (config.parent / f"{name}.log").read_text()[-3000:]
        raise RuntimeError(f"the run ended with {codes}:\n{said}")
    return config.parent / name


def kill_once(
    config: Path,
    name: str,
    ranks: int,
    steps: int,
    *,
    after: float,
    once_it_trains: bool,
    in_checkpoint: bool,
) -> Kill | None:
    """Kill the run ``after`` seconds from its start, or from its first line of this start.

    ``in_checkpoint``: the next time from then on that it writes a checkpoint. Returns None where
    the run came to its end before.
    """
    checkpoints = config.parent / name / "checkpoints"
    left = _being_written(checkpoints)  # by a run that was killed
    log = config.parent / f"{name}.log"
    before = log.read_bytes().count(_LINE) if log.exists() else 0
    processes = start(config, name, ranks, steps)

    def writing() -> bool:
        return not _being_written(checkpoints) <= left

    def ended() -> bool:
        return all(process.poll() is not None for process in processes)

    try:
        while once_it_trains and log.read_bytes().count(_LINE) == before and not ended():
            time.sleep(0.02)
        began = time.monotonic()
        while time.monotonic() - began < after or (in_checkpoint and not writing()):
            if ended():
                return None
            time.sleep(0.0005 if in_checkpoint else 0.01)
    finally:
        alive = [process for process in processes if process.poll() is None]
        kill(alive)
    whole = [int(path.parent.name[5:]) for path in checkpoints.glob("step-*/manifest.json")]
    return Kill(max(whole, default=0), writing())


def _being_written(checkpoints: Path) -> set[int]:
    """Return the folders that are no whole checkpoints yet, by inode: names come again."""
    found = set()
    for path in checkpoints.glob(".tmp-step-*"):
        with contextlib.suppress(FileNotFoundError):  # it has just got its final name
            found.add(path.stat().st_ino)
    return found


def seconds_to_start(config: Path, ranks: int, steps: int) -> float:
    """Return how long a run takes to its first line of metrics.jsonl."""
    began, processes = time.monotonic(), start(config, "first", ranks, steps)
    try:
        while not (config.parent / "first" / "metrics.jsonl").is_file():
            if any(process.poll() is not None for process in processes):
                raise RuntimeError((config.parent / "first.log").read_text()[-3000:])
            time.sleep(0.05)
        return time.monotonic() - began
    finally:
        kill([process for process in processes if process.poll() is None])


def log_without_times(folder: Path) -> list[dict]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        {k: line[k] for k in line if k not in TIMES and not k.endswith("_share")} for line in lines
    ]


def differences(one: Path, other: Path) -> list[str]:
    """Return in what two finished runs differ; nothing where their results are the same."""
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    found = [key for key in a if key not in b or a[key].tobytes() != b[key].tobytes()]
    if log_without_times(one) != log_without_times(other):
        found.append("metrics.jsonl")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--in-checkpoint", type=int, default=5)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        config = Path(temporary) / "run.yaml"
        config.write_text(CONFIG)
        start_takes = seconds_to_start(config, options.ranks, options.steps)
        whole = finish(config, "whole", options.ranks, options.steps)
        kills: list[Kill] = []
        print("| kill | checkpoint it resumes from | while writing one |\n|---:|---:|---|")
        while len(kills) < options.kills:
            in_checkpoint = len(kills) < options.in_checkpoint
            trains = in_checkpoint or draw.random() < 0.7
            after = draw.uniform(0, 3 if trains else start_takes)
            killed = kill_once(
                config, "killed", options.ranks, options.steps, after=after,
                once_it_trains=trains, in_checkpoint=in_checkpoint,
            )  # fmt: skip
            if killed is None:
                print(f"the run came to its end after {len(kills)} kills: raise --steps")
                return 1
            kills.append(killed)
            said = "yes" if killed.writing else ""
            print(f"| {len(kills)} | {killed.step} | {said} |", flush=True)
        differing = differences(whole, finish(config, "killed", options.ranks, options.steps))
    writing = sum(each.writing for each in kills)
    print(f"{len(kills)} kills of {options.ranks} processes, {writing} while writing a checkpoint")
    print("differs in: " + ", ".join(differing) if differing else "same weights, same log")
    return int(bool(differing) or writing < options.in_checkpoint)


if __name__ == "__main__":
    raise SystemExit(main())
