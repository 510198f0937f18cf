from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from arcface_plus.cli.verify import parse_preprocessing
from arcface_plus.data.pairs import save_pairs_bin
from arcface_plus.models import build_model, save_model
from arcface_plus.models.preprocessing import INSIGHTFACE, Preprocessing


@pytest.fixture
def app(cli):
    return lambda *arguments: cli("verify", *arguments)


def run(app, *arguments):
    return app(*arguments)


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 8))
    same = np.arange(40) % 2 == 0
    b = np.where(same[:, None], a + 0.1 * rng.normal(size=a.shape), rng.normal(size=a.shape))
    np.savez(tmp_path / "e.npz", embeddings_a=a, embeddings_b=b, is_same=same)
    return tmp_path / "e.npz"


def test_embeddings_to_table_and_json(app, npz, tmp_path):
    result = run(app, "--embeddings", npz, "--json", tmp_path / "out.json", "--folds", 5)
    assert result.exit_code == 0, result.output
    for words in ("20 genuine + 20 impostor", "5 folds", "accuracy", "95 % interval", "AUC", "EER"):
        assert words in result.output
    assert "refused: needs 100 impostor pairs" in result.output and "coarse" in result.output
    (entry,) = json.loads((tmp_path / "out.json").read_text())["results"]
    assert entry["name"] == "e" and len(entry["fold_accuracies"]) == 5
    assert f"{entry['accuracy']:.5f} ± {entry['accuracy_std']:.5f}" in result.output
    assert sorted(f.name for f in tmp_path.iterdir()) == ["e.npz", "out.json"]


def test_report_and_own_exports(app, npz, tmp_path):
    """What `embed` exports of a pair set is scored as it is, into a page."""
    with np.load(npz) as held:
        both = np.concatenate([held["embeddings_a"], held["embeddings_b"]]).astype(np.float32)
        index = np.arange(40)
        np.savez(tmp_path / "x.npz", embedding=both, index_a=index, index_b=index + 40,
                 is_same=held["is_same"])  # fmt: skip
    page = tmp_path / "out.html"
    result = run(app, "--embeddings", tmp_path / "x.npz", "--folds", 5, "--report", page)
    assert result.exit_code == 0, result.output
    assert "<svg" in page.read_text() and "</html>" in page.read_text()
    np.savez(tmp_path / "y.npz", embedding=both, index_a=index, index_b=index + 41,
             is_same=index > 3)  # fmt: skip
    result = run(app, "--embeddings", tmp_path / "y.npz")
    assert result.exit_code == 2 and "outside its 80 rows" in result.output


@pytest.fixture
def pair_set(tmp_path):
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (4, 7, 7, 3), dtype=np.uint8)
    a, b, c, d = np.kron(people, np.ones((1, 16, 16, 1), dtype=np.uint8))
    save_pairs_bin(tmp_path / "set.bin", [a, a, b, c, c, c, d, a], [True, False, True, False])
    return tmp_path / "set.bin"


@pytest.mark.slow
def test_model_and_several_pair_sets(app, pair_set, tmp_path):
    save_model(build_model("mobilefacenet", embedding_dim=16).eval(), tmp_path / "m.safetensors")
    other = tmp_path / "other.bin"
    other.write_bytes(pair_set.read_bytes())
    out = tmp_path / "out.json"
    model = tmp_path / "m.safetensors"
    # Values after the first one of --pairs are positional, wherever they stand.
    for order in (
        ["--model", model, "--pairs", pair_set, other, "--json", out, "--device", "cpu"],
        ["--pairs", pair_set, "--pairs", other, "--model", model, "--json", out],
    ):
        result = run(app, *order, "--folds", 2)
        assert result.exit_code == 0, result.output
        first, second = json.loads(out.read_text())["results"]
        assert (first["name"], second["name"]) == ("set", "other")
        assert first["fingerprint"] == second["fingerprint"] and first["flip"] is True
        assert first["fold_accuracies"] == second["fold_accuracies"]
    run(app, "--model", model, "--pairs", pair_set, "--json", out, "--no-flip", "--folds", 2)
    assert json.loads(out.read_text())["results"][0]["flip"] is False


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "either --model or --embeddings"),
        (["--model", "m", "--embeddings", "e"], "either --model or --embeddings"),
        (["--model", "m"], "at least one pair set"),
        (["--embeddings", "e", "--pairs", "a.txt", "b.txt"], "one list of pairs, but 2"),
        (["--embeddings", "none.npz"], "no file none.npz"),
        (["--model", "m", "--pairs", "none.bin"], "no file none.bin"),
    ],
)
def test_wrong_use(app, arguments, match):
    result = run(app, *arguments)
    assert result.exit_code == 2
    assert match in result.output


def test_preprocessing_forms():
    assert parse_preprocessing(None) is None
    assert parse_preprocessing("insightface") == INSIGHTFACE
    mine = Preprocessing(std=100.0)
    assert parse_preprocessing(mine.to_json()) == mine
    with pytest.raises(ValueError, match="not JSON"):
        parse_preprocessing("imagenet")


@pytest.mark.slow
def test_script_alone_and_under_torchrun(repository, npz, pair_set, tmp_path):
    script = str(repository / "eval" / "verification.py")
    done = subprocess.run(
        [sys.executable, script, "--embeddings", npz], capture_output=True, text=True
    )
    assert done.returncode == 0 and "10 folds" in done.stdout
    done = subprocess.run(
        [sys.executable, script, "--embeddings", npz, "--folds", "99"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "40 pairs cannot make 99 folds" in done.stderr
    model = save_model(
        build_model("mobilefacenet", embedding_dim=16).eval(), tmp_path / "m.safetensors"
    )
    results = []
    for launcher in ([], ["-m", "torch.distributed.run", "--nproc_per_node=2"]):
        out = tmp_path / f"{len(launcher)}.json"
        words = ["--model", model, "--pairs", pair_set, "--json", out, "--folds", "2"]
        command = [sys.executable, *launcher, script, *map(str, words), "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("accuracy") == 1, "only rank 0 speaks"
        results.append(json.loads(out.read_text()))
    assert results[0] == results[1]


def test_torch_is_imported_late():
    code = (
        "import sys, arcface_plus.cli.verify\n"
        "print([name for name in ('torch', 'cv2', 'scipy') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_lfw_embeddings(app, shared_data):
    npz = shared_data / "embeddings" / "lfw_mobilefacenet_y1.npz"
    result = run(app, "--embeddings", npz, "--pairs", shared_data / "lfw" / "pairs.txt")
    assert "0.99450 ± 0.00466" in result.output and "0.999043" in result.output


def test_real_bin_of_one_kind_is_refused(app, shared_data):
    result = run(
        app,
        "--model",
        shared_data / "models" / "mobilefacenet_y1.onnx",
        "--preprocessing",
        "insightface",
        "--pairs",
        shared_data / "insightface_files" / "small_lfw.bin",
    )
    assert result.exit_code == 2 and "All 10 pairs are genuine" in result.output
