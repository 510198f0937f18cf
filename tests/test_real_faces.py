"""The main job on real photographs, where they are to hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arcface_plus import RecordReader, load_pairs
from arcface_plus.runs.train import train

CONFIG = """
name: celeba299
data: {source: folder, path: FACES, size: 48, workers: 1, augment: {flip: 0.5}}
model: {name: iresnet18, embedding_dim: 128, width: 16, dropout: 0.2}
head: {margin: {s: 32}, mma_weight: 0.03}
optim: {lr: 0.1, clip_norm: 5}
schedule: {kind: cosine, warmup_steps: 10}
train: {steps: 120, global_batch: 64, log_every: 20, device: cpu}
evaluation:
  sets: {lfw: {path: LFW/pairs.txt, root: LFW/images}}
"""
IN_LFW_TOO = {"7261", "7398"}


@pytest.mark.slow
def test_celeba299_trains_and_verifies_on_lfw(shared_data: Path, tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    for person in (shared_data / "celeba299").iterdir():
        if person.name not in IN_LFW_TOO:
            (faces / person.name).symlink_to(person)
    text = CONFIG.replace("FACES", str(faces)).replace("LFW", str(shared_data / "lfw"))
    (tmp_path / "c.yaml").write_text(text + f"output: {tmp_path / 'runs'}\n")
    folder = train(tmp_path / "c.yaml")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["classification"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0] - 2, "it learns"
    result = json.loads((folder / "verification.json").read_text())["results"]["lfw"]
    assert result["genuine_pairs"] == result["impostor_pairs"] == 3000
    # A minute of training on 297 people: far from a face recogniser, but well above chance.
    assert result["accuracy"] > 0.6


def test_trains_on_records_that_mxnet_wrote(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "mxnet_rec" / "train.rec"
    assert (len(RecordReader(path)), RecordReader(path).num_classes) == (593, 120)
    text = CONFIG.replace("source: folder, path: FACES", f"source: records, path: {path}")
    text = text[: text.index("evaluation:")] + f"output: {tmp_path / 'runs'}\n"
    (tmp_path / "c.yaml").write_text(text)
    folder = train(tmp_path / "c.yaml", ["--train.steps", "12", "--train.global_batch", "32"])
    assert (folder / "model.safetensors").is_file()


def test_pair_set_that_others_packed_reads_whole(shared_data: Path) -> None:
    pairs = load_pairs(shared_data / "insightface_files" / "small_lfw.bin")
    assert len(pairs) == 10 and pairs.is_same.all()
    assert {pairs.images[i].shape for i in range(len(pairs.images))} == {(112, 112, 3)}
    small = RecordReader(shared_data / "insightface_files" / "train.rec")
    assert (len(small), small.num_classes) == (8, 2)
