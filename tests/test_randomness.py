"""What every stream draws. Who changes a number here raises the version of that stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from arcface_plus import randomness
from arcface_plus.losses.head.sampling import class_draws
from arcface_plus.runs.train import train

CPU = torch.device("cpu")


def of_numpy(generator: np.random.Generator) -> list[int]:
    return generator.integers(1000, size=3).tolist()


def of_uniform(draws: np.ndarray) -> list[int]:
    return (1000 * draws).astype(int).ravel().tolist()


def of_torch(generator: torch.Generator) -> list[int]:
    return torch.randint(1000, (3,), generator=generator).tolist()


DRAWN: dict[str, tuple[Callable[[], list[int]], list[int]]] = {
    "order": (lambda: of_numpy(randomness.epoch_generator(1, 2)), [354, 342, 559]),
    "window_order": (lambda: of_numpy(randomness.window_generator(1, 2, 3)), [620, 363, 52]),
    "augmentation": (
        lambda: of_uniform(randomness.augmentation_draws(1, 2, np.array([3]), 3)),
        [160, 907, 307],
    ),
    "class_weights": (lambda: of_numpy(randomness.class_weight_generator(1, 2)), [708, 309, 131]),
    "class_sample": (
        lambda: class_draws(1, 2, 0, 3, CPU).mul(1000).int().tolist(),
        [698, 900, 280],
    ),
    "margins": (lambda: of_numpy(randomness.margin_generator(1, 2)), [862, 826, 231]),
    "mma_rows": (lambda: of_torch(randomness.mma_row_generator(1, 2)), [224, 336, 411]),
    "layer_rows": (lambda: of_torch(randomness.layer_row_generator(1, 2, 3)), [269, 903, 644]),
    "output_rows": (lambda: of_torch(randomness.output_row_generator(1, 2)), [32, 717, 761]),
    "branch": (lambda: of_numpy(randomness.branch_generator(1, 2)), [883, 518, 919]),
    "branch_augmentation": (
        lambda: of_uniform(
            randomness.branch_augmentation_draws(1, 2, np.array([3]), np.array([4]), 3)
        ),
        [640, 500, 705],
    ),
    "projection": (lambda: of_numpy(randomness.projection_generator(1)), [314, 254, 359]),
}

VERSIONS = {"augmentation": 2, "branch_augmentation": 2}  # where it is not the first


@pytest.mark.parametrize("stream", randomness.STREAMS)
def test_what_a_stream_draws(stream: str) -> None:
    draw, expected = DRAWN[stream]
    assert randomness.STREAMS[stream] == VERSIONS.get(stream, 1) and draw() == expected


def test_no_two_streams_draw_the_same() -> None:
    assert len({tuple(draw()) for draw, _ in DRAWN.values()}) == len(randomness.STREAMS)


def test_a_checkpoint_records_versions_and_another_version_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(tiny, ["--train.steps", "3"])
    path = folder / "checkpoints" / "step-00000003" / "state.json"
    assert json.loads(path.read_text())["random_streams"] == randomness.STREAMS
    before = path.read_bytes()
    monkeypatch.setitem(randomness.STREAMS, "order", 2)
    with pytest.raises(ValueError, match=r"'order' was version 1 and is 2.* environment\.json"):
        train(tiny, ["--train.steps", "3"], resume="auto")
    saved = json.loads(before)
    del saved["random_streams"]  # of a release that recorded none: version 1 of each
    path.write_text(json.dumps(saved))
    state = path.read_bytes()
    manifest = json.loads((path.parent / "manifest.json").read_text())
    of_state = {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    manifest["files"]["state.json"] = of_state
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"'order' was version 1 and is 2"):
        train(tiny, ["--train.steps", "3"], resume="auto")
