"""A profile of a run, on the CPU."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from arcface_plus.runs.train import train

STEPS = ["--train.steps", "12", "--train.log_every", "4", "--train.checkpoint_every", "12"]


def test_a_profile_has_the_steps_that_were_asked_for(tiny: Path, cli) -> None:
    done = cli("train", tiny, *STEPS, "--profile", 3)
    assert done.exit_code == 0, done.stderr
    folder = tiny.parent / "runs" / "tiny" / "profile"
    assert "profile of 3 steps" in done.stdout
    events = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["traceEvents"]
    steps = {e["name"] for e in events if e.get("name", "").startswith("ProfilerStep#")}
    assert steps == {"ProfilerStep#7", "ProfilerStep#8", "ProfilerStep#9"}
    table = (folder / "operators.txt").read_text()
    assert table.startswith("3 steps") and "convolution_backward" in table
    (line,) = [line for line in table.splitlines() if " ProfilerStep* " in line]
    assert line.split()[-1] == "3"


def test_without_it_nothing_is_written_and_the_bits_are_the_same(tiny: Path) -> None:
    plain = train(tiny, [*STEPS, "--name", "plain"])
    traced = train(tiny, [*STEPS, "--name", "traced"], profile=1)
    assert not (plain / "profile").exists() and (traced / "profile").is_dir()
    one, two = ((f / "model.safetensors").read_bytes() for f in (plain, traced))
    assert one[-1000:] == two[-1000:] and len(set(one[-1000:])) > 100


@pytest.mark.parametrize("steps", [6, 10**9])
def test_a_run_too_short_for_it_is_refused_before_it_begins(tiny: Path, cli, steps: int) -> None:
    done = cli("train", tiny, *STEPS, "--profile", steps)
    assert done.exit_code == 2 and "12 are left" in done.stderr
    assert not (tiny.parent / "runs" / "tiny").exists()
    assert cli("train", tiny, "--profile", 0).exit_code == 2
