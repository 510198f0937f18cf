"""Every shipped classification configuration is executed, shrunk, on files in real formats."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from arcface_plus import load_config
from arcface_plus.data.images import encode_jpeg
from arcface_plus.runs.train import train

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "classification"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
# Parameters of a whole WRN-28-10 would take a minute a step: nets shrink, but for their depth.
WIDTHS = {
    "wrn_16_8": "2",
    "wrn_28_10": "2",
    "vgg16_bn": "8",
    "vgg19_bn": "8",
    "densenet_40_12": "2",
}


def cifar100(folder: Path) -> Path:
    """Write CIFAR-100's files with an image a class and as many to test on."""
    rng = np.random.default_rng(0)
    root = folder / "cifar-100-python"
    root.mkdir(parents=True)
    for name in ("train", "test"):
        content = {
            b"data": rng.integers(0, 256, (100, 3072), dtype=np.uint8),
            b"fine_labels": [i % 100 for i in range(100)],
            b"coarse_labels": [i % 20 for i in range(100)],
            b"filenames": [b"%d.png" % i for i in range(100)],
            b"batch_label": b"a batch",
        }
        (root / name).write_bytes(pickle.dumps(content, protocol=2))
    meta = {b"fine_label_names": [b"class%d" % i for i in range(100)]}
    (root / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return folder


def tiny_imagenet(folder: Path) -> Path:
    """Write TinyImageNet's layout with four classes."""
    rng = np.random.default_rng(0)
    names = [f"n0000000{i}" for i in range(4)]
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{name}\n" for name in names))
    lines = []
    for at, name in enumerate(names):
        (folder / "train" / name / "images").mkdir(parents=True)
        for i in range(4):
            image = encode_jpeg(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
            (folder / "train" / name / "images" / f"{name}_{i}.JPEG").write_bytes(image)
            (folder / "val" / "images" / f"val_{at}{i}.JPEG").write_bytes(image)
            lines.append(f"val_{at}{i}.JPEG\t{name}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def crops(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for person in range(7):
        (folder / str(person)).mkdir(parents=True)
        for i in range(4):
            image = encode_jpeg(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
            (folder / str(person) / f"{i}.jpg").write_bytes(image)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    return {
        "cifar100": cifar100(root / "cifar100"),
        "tiny_imagenet": tiny_imagenet(root / "tiny-imagenet-200"),
        "folder": crops(root / "crops"),
    }


def shrunk(source: Path, output: Path, net: str) -> list[str]:
    words = ["--output", str(output), "--data.path", str(source), "--data.workers", "0"]
    words += ["--train.global_batch", "4", "--train.steps", "2", "--train.device", "cpu"]
    words += ["--schedule.milestones", "[]", "--schedule.warmup_steps", "0"]
    words += ["--train.precision", "fp32", "--evaluation.every", "1"]
    return words + (["--model.width", WIDTHS[net]] if net in WIDTHS else [])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str, data: dict[str, Path], tmp_path: Path) -> None:
    """Trains two steps, scores the test images after each, leaves accuracy, classifier, angles."""
    config = load_config(CONFIGS / f"{name}.yaml")
    words = shrunk(data[config.data.source], tmp_path, config.model.name)
    folder = train(CONFIGS / f"{name}.yaml", words)
    measured = json.loads((folder / "accuracy.json").read_text())
    assert [entry["step"] for entry in measured["history"]] == [1, 2]
    assert 0 <= measured["final"]["top1"] <= 1
    assert (folder / "classifier.safetensors").is_file()
    angles = measured["minimum_angles"]
    assert "classifier" in angles and len(angles) > 10
    assert all(0 <= angle <= 180 for angle in angles.values())
    last = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in last if line["kind"] == "train"][-1]
    penalty = config.regularizer.weight * trained.get("mma", 0) + trained.get("regularizer", 0)
    assert trained["loss"] == pytest.approx(trained["classification"] + penalty, rel=1e-5)
    assert (config.regularizer.weight > 0) == (penalty != 0)


@pytest.mark.slow
def test_digits_learn_through_the_same_path(tmp_path: Path) -> None:
    """A real, small image set (scikit-learn's digits) is learnt, with a penalty on all layers."""
    text = f"""
name: digits
output: {tmp_path}
data: {{source: digits, size: 16, workers: 0, augment: {{flip: 0, pad_crop: 1}}}}
model: {{name: resnet20}}
head: {{logits: linear, bias: true, mma_weight: 0}}
regularizer: {{kind: mma, weight: 0.03, layers: all}}
optim: {{lr: 0.1, weight_decay: 1.0e-4, decay: all}}
schedule: {{kind: cosine, warmup_steps: 5}}
train: {{steps: 60, global_batch: 64, precision: fp32, device: cpu, log_every: 10}}
evaluation: {{accuracy: true, every: 30, at_start: true}}
"""
    (tmp_path / "digits.yaml").write_text(text)
    folder = train(tmp_path / "digits.yaml")
    measured = json.loads((folder / "accuracy.json").read_text())
    untrained, final = measured["history"][0]["top1"], measured["final"]["top1"]
    assert untrained < 0.4 and final > 0.85
    assert measured["mean_of_last"]["evaluations"] == 2
