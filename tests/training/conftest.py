"""A run small enough for a test: synthetic faces, a narrow net, a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

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
