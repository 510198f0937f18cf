"""A small model with a calibration, its photographs and an index of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from arcface_plus.models import Preprocessing, build_model, save_model

PEOPLE, EACH, SIZE = 6, 4, 32


@dataclass
class InUse:
    """``model``: weights; ``photos/pN/M.png``: 4 of each of 6 people; ``pairs``: a list of them."""

    model: Path
    photos: Path
    pairs: Path

    def photo(self, person: int, number: int = 0) -> Path:
        return self.photos / f"p{person}" / f"{number}.png"


def write_photo(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


@pytest.fixture
def in_use(tmp_path: Path) -> InUse:
    torch.manual_seed(0)
    net = build_model(
        "iresnet18", embedding_dim=8, width=8, size=SIZE, preprocessing=Preprocessing(size=SIZE)
    )
    save_model(net.eval(), tmp_path / "model.safetensors")
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (PEOPLE, SIZE, SIZE, 3))
    lines = []
    for person in range(PEOPLE):
        for number in range(EACH):
            noisy = people[person] + rng.normal(0, 40, people[person].shape)
            pixels = np.clip(noisy, 0, 255).astype(np.uint8)
            write_photo(tmp_path / "photos" / f"p{person}" / f"{number}.png", pixels)
        for number in range(EACH - 1):
            other = (person + 1 + number) % PEOPLE
            lines.append(f"p{person}/{number}.png p{person}/{number + 1}.png 1")
            lines.append(f"p{person}/{number}.png p{other}/{number + 1}.png 0")
    (tmp_path / "pairs.txt").write_text("".join(f"{line}\n" for line in lines))
    return InUse(tmp_path / "model.safetensors", tmp_path / "photos", tmp_path / "pairs.txt")


@pytest.fixture
def calibrated(in_use: InUse, cli) -> InUse:
    words = ["--model", in_use.model, "--pairs", in_use.pairs, "--root", in_use.photos]
    done = cli("verify", *words, "--folds", 6, "--far", "0.5,0.1,0.01", "--calibrate")
    assert done.exit_code == 0, done.output
    return in_use


@pytest.fixture(params=[".npz", ".npy", ".parquet"])
def index(request, cli, in_use, tmp_path):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the extra parquet")
    path = tmp_path / f"index{request.param}"
    done = cli("embed", "--model", in_use.model, "--input", in_use.photos, "--output", path)
    assert done.exit_code == 0, done.output
    return path
