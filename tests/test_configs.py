"""Every shipped configuration is executed, shrunk by overrides."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_plus import load_config, load_model
from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.pairs.sets import save_pairs_bin
from arcface_plus.data.records.reader import RecordWriter
from arcface_plus.runs.train import train

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
CASIA = sorted(path.name for path in CONFIGS.glob("casia_*.yaml"))
MARGINS = sorted(path.stem for path in (CONFIGS / "margins").glob("*.yaml"))


@pytest.fixture(scope="module")
def casia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record file with CASIA-WebFace's 10 572 classes and the three pair sets beside it."""
    folder = tmp_path_factory.mktemp("faces_webface_112x112")
    rng = np.random.default_rng(0)
    faces = [
        encode_jpeg(cv2.resize(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8), (112, 112)))
        for _ in range(40)
    ]
    with RecordWriter(folder / "train.rec", num_classes=10572) as writer:
        for label in range(10572):
            writer.write(faces[label % 40], label)
    for name in ("lfw", "cfp_fp", "agedb_30"):
        pairs = [(i, i if i % 2 else i + 1) for i in range(20)]
        images = [faces[i] for pair in pairs for i in pair]
        save_pairs_bin(folder / f"{name}.bin", images, [bool(i % 2) for i in range(20)])
    return folder


def shrunk(folder: Path, output: Path) -> list[str]:
    words = ["--output", str(output), "--data.path", str(folder / "train.rec")]
    words += ["--model.name", "iresnet18", "--model.width", "8", "--data.workers", "1"]
    words += ["--train.global_batch", "8", "--train.steps", "2", "--train.device", "cpu"]
    for name in ("lfw", "cfp_fp", "agedb_30"):
        words += [f"--evaluation.sets.{name}", str(folder / f"{name}.bin")]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("name", CASIA)
def test_casia(name: str, casia: Path, tmp_path: Path) -> None:
    """Starts, takes steps, verifies on three pair sets and ends with a model."""
    folder = train(CONFIGS / name, shrunk(casia, tmp_path))
    assert load_model(folder).embedding_dim == 512
    results = json.loads((folder / "verification.json").read_text())["results"]
    assert set(results) == {"lfw", "cfp_fp", "agedb_30"}
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-2])
    assert last["step"] == 2
    if "plus" in name:
        assert last["loss"] == pytest.approx(last["classification"] + 0.03 * last["mma"], rel=1e-6)
        # Random directions in 512 dimensions: 80.2 degrees to the nearest of 10 572.
        assert last["nearest_angle"] == pytest.approx(80.22, abs=0.3)
    else:
        assert "mma" not in last


@pytest.mark.slow
@pytest.mark.parametrize("name", MARGINS)
def test_margins(name: str, casia: Path, tmp_path: Path) -> None:
    """Every recipe takes steps on 10 572 classes, with a finite loss, and verifies."""
    small = ["--data.size", "32", "--evaluation.folds", "4"]
    folder = train(CONFIGS / "margins" / f"{name}.yaml", [*shrunk(casia, tmp_path), *small])
    assert set(json.loads((folder / "verification.json").read_text())["results"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "train"][-1]
    assert last["step"] == 2 and 5 < last["classification"] < 100
    extra = last["loss"] - last["classification"]
    assert extra > 0.7 if name == "magface" else extra == 0


def test_margin_recipes_differ_from_arcface_in_the_margin_alone() -> None:
    assert len(MARGINS) == 11

    def without_margin(path: Path) -> tuple[dict, tuple]:
        config = load_config(path).model_dump()
        del config["name"], config["model"]["fix_last_gain"]
        return config, (config["head"].pop("margin"), config["head"].pop("adaptive"))

    arcface, its_margin = without_margin(CONFIGS / "casia_r50_arcface.yaml")
    for name in MARGINS:
        path = CONFIGS / "margins" / f"{name}.yaml"
        rest, margin = without_margin(path)
        assert rest == arcface and margin != its_margin, name
        config = load_config(path)
        assert config.name == name
        assert config.model.fix_last_gain == (name != "magface")


def test_arcface_and_arcface_plus_differ_in_the_penalty_alone() -> None:
    plus = load_config(CONFIGS / "casia_r50_arcface_plus.yaml").model_dump()
    plain = load_config(CONFIGS / "casia_r50_arcface.yaml").model_dump()
    assert (plus["head"].pop("mma_weight"), plain["head"].pop("mma_weight")) == (0.03, 0.0)
    assert (plus.pop("name"), plain.pop("name")) == ("casia_r50_arcface_plus", "casia_r50_arcface")
    assert plus == plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data.path", "nowhere/train.rec"], "nowhere"),
        (["--data.num_classes", "10000"], "10000"),
        (["--evaluation.sets.lfw", "nowhere/lfw.bin"], "evaluation.sets.lfw"),
        (["--optim.lrr", "1"], "optim.lr"),
    ],
)
def test_bad_input_exits_2_before_anything_is_written(
    cli, casia: Path, tmp_path: Path, change: list[str], message: str
) -> None:
    config = CONFIGS / "casia_r50_arcface_plus.yaml"
    answer = cli("train", config, *shrunk(casia, tmp_path / "runs"), *change)
    assert answer.exit_code == 2 and message in answer.stderr
    assert not (tmp_path / "runs").exists()


def test_a_bin_that_is_none_exits_2(cli, casia: Path, tmp_path: Path) -> None:
    (tmp_path / "lfw.bin").write_bytes(b"\x80\x04 not a pair set")
    change = ["--evaluation.sets.lfw", str(tmp_path / "lfw.bin")]
    config = CONFIGS / "casia_r50_arcface_plus.yaml"
    answer = cli("train", config, *shrunk(casia, tmp_path / "runs"), *change)
    assert answer.exit_code == 2 and "lfw.bin" in answer.stderr
    assert not (tmp_path / "runs").exists()
