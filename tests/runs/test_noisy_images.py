"""The drop rule of sub-centre ArcFace, by hand and on a run."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.records.reader import RecordReader, RecordWriter
from arcface_plus.runs.noisy_images import angles_from_dominant
from arcface_plus.runs.train import train

CONFIG = """
name: noisy
data: {{source: records, path: {path}, size: 32, workers: 0}}
model: {{name: iresnet18, embedding_dim: 8, width: 4}}
head: {{centres: 2, mma_weight: 0.03}}
optim: {{lr: 0.02}}
train: {{steps: 6, global_batch: 8, log_every: 6, precision: fp32, device: cpu}}
"""


def test_angles_are_from_the_centre_that_most_images_are_nearest_to() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 2, 4))
    labels = np.array([0, 2, 0, 0, 2, 2, 2, 0])
    embeddings = rng.normal(size=(8, 4)).astype(np.float32)
    embeddings[5] = np.nan
    angles = angles_from_dominant(embeddings, labels, torch.from_numpy(centres).float())
    for label in (0, 2):
        votes = []
        for i in np.flatnonzero(labels == label):
            if i != 5:
                cos = [
                    np.dot(embeddings[i], c) / np.linalg.norm(embeddings[i]) / np.linalg.norm(c)
                    for c in centres[label]
                ]
                votes.append((i, cos))
        best = max((0, 1), key=lambda k: sum(np.argmax(cos) == k for _, cos in votes))
        for i, cos in votes:
            assert angles[i] == pytest.approx(math.degrees(math.acos(cos[best])), abs=1e-3)
    assert np.isnan(angles[5])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noisy")
    rng = np.random.default_rng(1)
    with RecordWriter(folder / "all" / "train.rec", num_classes=4) as writer:
        for label in range(4):
            face = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            for _ in range(6):
                noise = rng.integers(-20, 20, (32, 32, 3))
                image = np.clip(cv2.resize(face, (32, 32)).astype(int) + noise, 0, 255)
                writer.write(encode_jpeg(image.astype(np.uint8)), label)
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(path=folder / "all" / "train.rec") + f"output: {folder}\n")
    return train(path)


@pytest.mark.slow
def test_a_run_drops_what_is_far_and_keeps_the_rest(run: Path, cli, tmp_path: Path) -> None:
    everything = cli("data", "drop", run, tmp_path / "far", "--angle", "179")
    assert everything.exit_code == 0, everything.output
    with (tmp_path / "far" / "dropped.csv").open() as file:
        assert list(csv.DictReader(file)) == []
    output = tmp_path / "cut"
    answer = cli("data", "drop", run, output, "--angle", "60")
    assert answer.exit_code == 0, answer.output
    with (output / "dropped.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) < 24 and all(float(row["degrees"]) > 60 for row in rows)
    source = RecordReader(run.parent / "all" / "train.rec")
    kept = RecordReader(output / "train.rec")
    assert len(kept) == 24 - len(rows)
    gone = {int(row["position"]) for row in rows}
    assert {int(row["label"]) for row in rows} == {int(source.labels[i]) for i in gone}
    left = [source[i].data for i in range(24) if i not in gone]
    assert [kept[i].data for i in range(len(kept))] == left
    assert f"{len(rows)} of 24 images" in answer.stdout
    again = cli("data", "drop", run, output)
    assert again.exit_code == 2 and "dropped.csv exists" in again.stderr


def test_refusals_say_what_to_do(cli, tmp_path: Path) -> None:
    answer = cli("data", "drop", tmp_path, tmp_path / "out", "--angle", "0")
    assert answer.exit_code == 2 and "between 0 and 180" in answer.stderr
    (tmp_path / "config.yaml").write_text("name: x\ndata: {source: digits}\n")
    answer = cli("data", "drop", tmp_path, tmp_path / "out")
    assert answer.exit_code == 2 and "train with --head.centres 3" in answer.stderr
