"""Fixtures that every test may use."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from launch import run_script, start_ranks

from arcface_plus.cli import app

# No test may depend on how busy the machine is.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree, where configs/, tools/ and eval/ are."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photographs and models outside the repository; skips where they are absent."""
    folder = Path(os.environ.get("ARCFACE_PLUS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"needs the real data that is not part of the project, looked in {folder.name}/"
        )
    return folder


@dataclass
class Answer:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


@pytest.fixture
def cli() -> Callable[..., Answer]:
    """``cli("verify", "--model", path)`` -> its exit code and everything it wrote."""

    def call(*words: object) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                app.run([str(word) for word in words])
                code = 0
            except SystemExit as stopped:
                code = stopped.code if isinstance(stopped.code, int) else int(bool(stopped.code))
        return Answer(code, out.getvalue(), err.getvalue())

    return call


# A run small enough for a test: synthetic faces, a narrow net, a few steps.
TINY = """
name: tiny
seed: 1
data: {source: synthetic, num_classes: 13, images_per_class: 6, size: 32, workers: 0,
       augment: {affine: 0.5, rotate: 10, brightness: 0.1}}
model: {name: iresnet18, embedding_dim: 16, width: 8, dropout: 0.0}
head: {margin: {s: 16}}
optim: {lr: 0.05}
schedule: {kind: cosine, warmup_steps: 2}
train: {steps: 6, global_batch: 12, log_every: 1, checkpoint_every: 3, precision: fp32, device: cpu}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The path of a tiny configuration whose runs go to ``tmp_path/runs``."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY + f"output: {tmp_path / 'runs'}\n")
    return path


@pytest.fixture(scope="session")
def run_ranks() -> Callable[..., list[Any]]:
    """``run_ranks(fn, 3, *args)`` -> what ``fn(rank, *args)`` returned in each of 3 processes."""
    return start_ranks


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., Answer]:
    """``torchrun("tools/train.py", *words)`` -> what a script wrote, in two processes together."""

    def call(script: str, *words: object) -> Answer:
        ranks = start_ranks(run_script, 2, str(REPOSITORY / script), list(map(str, words)))
        outs, errs, codes = zip(*ranks, strict=True)
        return Answer(max(codes), "".join(outs), "".join(errs))

    return call
