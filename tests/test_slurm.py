"""tools/slurm_train.sh with stand-ins for Slurm's commands and torchrun, and a real run in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
STAND_INS = {
    "scontrol": 'echo "$@" >> "$CALLS/scontrol"; if [[ $1 == show ]]; then echo localhost; fi',
    # What Slurm does to the processes of a step.
    "scancel": 'kill -s USR1 "$(cat "$CALLS/pid")"',
    "srun": 'exec "$@"',
    # The words from tools/train.py on, in one process that is a child, as its ranks are.
    "torchrun": """
      echo "$@" > "$CALLS/torchrun"
      while [[ $1 != tools/train.py ]]; do shift; done
      python "$@" & echo $! > "$CALLS/pid"; wait $!""",
}


@pytest.fixture
def job(tiny: Path, tmp_path: Path):
    """Start the script as a job would; its calls of Slurm's commands are in ``tmp_path/calls``."""
    commands, calls = tmp_path / "bin", tmp_path / "calls"
    commands.mkdir()
    calls.mkdir()
    for name, body in STAND_INS.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (commands / name).chmod(0o755)
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "CALLS": str(calls), "SLURM_JOB_ID": "77"}
    environment |= {"SLURM_JOB_NODELIST": "n1", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "tools/slurm_train.sh", str(tiny), *words],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.mark.slow
def test_a_job_that_is_ended_saves_and_is_queued_again(job, tmp_path: Path) -> None:
    run, calls = tmp_path / "runs" / "tiny", tmp_path / "calls"
    script = job("--train.steps", "100000")
    while not (run / "metrics.jsonl").is_file() or not (run / "metrics.jsonl").stat().st_size:
        assert script.poll() is None, script.stdout.read()
        time.sleep(0.1)
    script.send_signal(signal.SIGTERM)
    said, _ = script.communicate(timeout=120)
    assert script.returncode == 0, said
    assert "asked to stop: saved step" in said and (run / "requeue").is_file()
    assert (calls / "scontrol").read_text().splitlines() == ["show hostnames n1", "requeue 77"]
    assert "--max-restarts=3 tools/train.py" in (calls / "torchrun").read_text()


@pytest.mark.slow
def test_a_job_that_fails_is_not_queued_again(job, tmp_path: Path) -> None:
    script = job("--data.images_per_class", "0")
    script.communicate(timeout=120)
    assert script.returncode not in (0, None)
    assert "requeue" not in (tmp_path / "calls" / "scontrol").read_text()
