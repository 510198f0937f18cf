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
WEB = sorted(path.stem for path in (CONFIGS / "web").glob("*.yaml"))
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


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record file of 60 classes and the three pair sets beside it."""
    folder = tmp_path_factory.mktemp("web")
    rng = np.random.default_rng(0)
    faces = [encode_jpeg(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(60)]
    with RecordWriter(folder / "train.rec", num_classes=60) as writer:
        for label, face in enumerate(faces):
            writer.write(face, label)
    for name in ("lfw", "cfp_fp", "agedb_30"):
        save_pairs_bin(folder / f"{name}.bin", faces[:16], [bool(i % 2) for i in range(8)])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", WEB)
def test_web(name: str, web: Path, tmp_path: Path) -> None:
    """Every recipe of the large sets takes steps on few people, MMA and sampling as it says."""
    small = ["--data.num_classes", "60", "--data.size", "32", "--evaluation.folds", "4"]
    small += ["--model.embedding_dim", "32", "--schedule.warmup_steps", "0"]
    sampled = load_config(f"web/{name}").head.mma_rows is not None
    small += ["--head.mma_rows", "20"] if sampled else []
    folder = train(CONFIGS / "web" / f"{name}.yaml", [*shrunk(web, tmp_path), *small])
    assert set(json.loads((folder / "verification.json").read_text())["results"])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "train"][-1]
    assert last["loss"] == pytest.approx(last["classification"] + 0.03 * last["mma"], rel=1e-6)


def test_margin_recipes_differ_from_arcface_in_the_margin_alone() -> None:
    assert len(MARGINS) == 12

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


def test_own_faces_train_and_choose_their_best_model(tmp_path: Path, monkeypatch) -> None:
    """The recipe of the README, on patterns in the place of people, for one epoch."""
    rng = np.random.default_rng(0)
    for person in range(8):
        pattern = cv2.resize(rng.integers(0, 200, (6, 6, 3), dtype=np.uint8), (112, 112))
        folder = tmp_path / "data" / "mine" / "train" / f"person{person}"
        folder.mkdir(parents=True)
        for number in range(9):
            noisy = pattern + rng.integers(0, 55, (112, 112, 3), dtype=np.uint8)
            (folder / f"{number}.jpg").write_bytes(encode_jpeg(noisy))
    faces = [path.read_bytes() for path in sorted(tmp_path.glob("data/mine/train/*/*.jpg"))][:40]
    same = [bool(k % 2) for k in range(20)]
    save_pairs_bin(tmp_path / "data" / "mine" / "heldout.bin", faces, same)
    monkeypatch.chdir(tmp_path)
    short = ["--train.steps", "4 epochs", "--schedule.warmup_steps", "1 epoch"]
    folder = train(CONFIGS / "own_faces.yaml", [*short, "--evaluation.every", "1"])
    written = load_config(folder / "config.yaml")
    assert (written.train.steps, written.head.margin.warmup_steps) == (4, 30)
    assert written.optim.lr == pytest.approx(0.1)
    measured = json.loads((folder / "verification.json").read_text())
    assert measured["model"]["chosen_by"] == "heldout/accuracy"
    assert measured["model"]["step"] in range(5)


def test_fine_tuning_starts_from_an_onnx_file(tmp_path: Path) -> None:
    """The layers it names are there, the others stay, and the run loads without the file."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx2torch")
    rng, helper = np.random.default_rng(0), onnx.helper
    shapes = {"w": (4, 3, 8, 8), "s": (4, 1, 1), "g": (9, 64), "b": (9,)}
    node = [
        helper.make_node("Conv", ["input", "w"], ["x"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("PRelu", ["x", "s"], ["y"]),
        helper.make_node("Flatten", ["y"], ["z"]),
        helper.make_node("Gemm", ["z", "g", "b"], ["embedding"], transB=1),
    ]
    info = helper.make_tensor_value_info
    ends = [[info("input", 1, ["N", 3, 32, 32])], [info("embedding", 1, ["N", 9])]]
    weights = [
        onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / 8, name)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(node, "net", *ends, weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "net.onnx")
    for person in "abc":
        (tmp_path / "train" / person).mkdir(parents=True)
        for name in ("1.jpg", "2.jpg", "3.jpg"):
            face = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            (tmp_path / "train" / person / name).write_bytes(encode_jpeg(face))
    faces = [encode_jpeg(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(40)]
    save_pairs_bin(tmp_path / "lfw.bin", faces, [bool(i % 2) for i in range(20)])
    words = ["--model.init", str(tmp_path / "net.onnx"), "--output", str(tmp_path / "runs")]
    words += ["--data.path", str(tmp_path / "train"), "--data.size", "32", "--train.steps", "2"]
    words += ["--schedule.warmup_steps", "0", "--train.global_batch", "4", "--data.workers", "0"]
    words += ["--train.device", "cpu", "--evaluation.sets", f"{{lfw: {tmp_path / 'lfw.bin'}}}"]
    folder = train(CONFIGS / "faces" / "fine_tune.yaml", words)
    (tmp_path / "net.onnx").unlink()
    ended = load_model(folder).state_dict()
    began = load_model(folder / "start.safetensors").state_dict()
    assert {key for key in began if not began[key].equal(ended[key])} == {
        "net.Gemm.weight",
        "net.Gemm.bias",
    }
