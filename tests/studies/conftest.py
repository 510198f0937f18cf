"""Folders as finished runs leave them, without training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

CONFIG = "name: {name}\nseed: {seed}\ndata: {{source: digits}}\noptim: {{lr: {lr}}}\n"


def write_finished_run(
    folder: Path,
    seed: int = 0,
    *,
    lr: float = 0.1,
    pairs: Mapping[str, Any] | None = None,
    accuracy: Mapping[str, Any] | None = None,
    log: Mapping[str, Any] | None = None,
) -> Path:
    """``pairs``: verification.json's results; ``accuracy``: accuracy.json; ``log``: a line."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(name=folder.name, seed=seed, lr=lr))
    if pairs is not None:
        (folder / "verification.json").write_text(json.dumps({"results": pairs}))
    if accuracy is not None:
        (folder / "accuracy.json").write_text(json.dumps(accuracy))
    if log is not None:
        lines = [{"kind": "train", "step": 1, "target_angle": 89.0}, {"kind": "train", **log}]
        lines.append({"kind": "verification", "step": 7})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return folder


@pytest.fixture
def finished_run() -> Callable[..., Path]:
    return write_finished_run
