from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from arcface_plus.data.pairs.sets import load_pairs, save_pairs_bin
from arcface_plus.evaluation.embedding.embed import embed
from arcface_plus.evaluation.pairs.verification import squared_distances, verify_distances
from arcface_plus.models import build_model, save_model


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


def results(path):
    return json.loads(path.read_text())["results"]


def test_far_list_advice_and_thresholds(app, npz, tmp_path):
    out = tmp_path / "out.json"
    result = run(app, "--embeddings", npz, "--folds", 5, "--far", "0.5 0.25", "--json", out,
                 "--advise-far", 0.1)  # fmt: skip
    assert result.exit_code == 0, result.output
    (entry,) = results(out)
    assert list(entry["tar_at_far"]) == ["0.5", "0.25"]
    assert entry["cosine_thresholds"] == [1 - t / 2 for t in entry["thresholds"]]
    advice = entry["advice"]
    assert advice["far"] == 0.1 and advice["far_reached"] <= 0.1 and advice["coarse"]
    assert advice["threshold_interval"][0] <= advice["threshold"]
    assert f"accept below {advice['threshold']:.4f} squared L2" in result.output
    assert f"above {advice['cosine_threshold']:.4f} cosine" in result.output
    result = run(app, "--embeddings", npz, "--folds", 5, "--advise-far", 0.01)
    assert result.exit_code == 2
    assert "--advise-far, e: 20 impostor pairs cannot show a FAR of 0.01" in result.output


def test_intervals_say_what_they_rest_on(app, npz, tmp_path):
    out = tmp_path / "out.json"
    result = run(app, "--embeddings", npz, "--folds", 5, "--json", out)
    intervals = results(out)[0]["intervals"]
    assert (intervals["basis"], intervals["units"]) == ("pairs", 40)
    assert "40 pairs, taken for independent" in result.output
    low, high = intervals["accuracy"]
    assert low <= results(out)[0]["accuracy"] <= high
    assert len(intervals["pairs_would_claim"]) == 2 and len(intervals["tar_at_far"]["0.1"]) == 2
    assert "pairs would claim" in result.output and "folds would claim" in result.output


@pytest.fixture
def listed(tmp_path):
    """Embeddings of six people's four photographs, and two lists of pairs of them."""
    rng = np.random.default_rng(1)
    people = rng.normal(size=(6, 8))
    files = [f"p{p}/p{p}_{i:04d}.jpg" for p in range(6) for i in range(1, 5)]
    emb = np.repeat(people, 4, axis=0) + 0.4 * rng.normal(size=(24, 8))
    np.savez(tmp_path / "m.npz", files=files, emb=emb.astype(np.float32))
    worse = emb + 1.5 * rng.normal(size=emb.shape)
    np.savez(tmp_path / "worse.npz", files=files, emb=worse.astype(np.float32))
    for name, shift in (("lfw", 1), ("agedb_30", 2)):
        lines = ["2 12"]
        for half in (range(3), range(3, 6)):
            lines += [f"p{p} {i} {i % 4 + 1}" for p in half for i in range(1, 5)]
            lines += [
                f"p{p} {i} p{(p - half[0] + shift) % 3 + half[0]} {5 - i}"
                for p in half
                for i in range(1, 5)
            ]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    return tmp_path


def test_rows_of_a_paper_from_one_file_and_several_lists(app, listed):
    words = ["--embeddings", listed / "m.npz", "--pairs", listed / "lfw.txt",
             listed / "agedb_30.txt"]  # fmt: skip
    result = run(app, *words, "--markdown", "--method", "Mine", "--json", listed / "o.json",
                 "--compare", listed / "worse.npz")  # fmt: skip
    assert result.exit_code == 0, result.output
    first, second = results(listed / "o.json")
    assert (first["name"], second["name"]) == ("lfw", "agedb_30")
    assert first["intervals"]["basis"] == "people" and first["intervals"]["units"] == 6
    lines = result.stdout.splitlines()
    assert lines[0] == "| Method | LFW | CFP-FP | AgeDB-30 |"
    assert (
        lines[2] == f"| Mine | {100 * first['accuracy']:.2f} | – | {100 * second['accuracy']:.2f} |"
    )
    other = first["comparisons"][0]["other"]["accuracy"]
    assert lines[3].startswith(f"| worse | {100 * other:.2f} |") and len(lines) == 4
    assert "Wrote" in result.stderr, "so that rows alone can go into a file"
    latex = run(app, *words, "--latex").stdout
    assert latex.startswith(r"\begin{tabular}{lrrr}") and "m & " in latex


def test_comparison_is_paired_and_says_which_model(app, listed):
    words = ["--embeddings", listed / "m.npz", "--pairs", listed / "lfw.txt", "--json",
             listed / "o.json", "--report", listed / "r.html"]  # fmt: skip
    result = run(app, *words, "--compare", listed / "worse.npz")
    assert result.exit_code == 0, result.output
    (entry,) = results(listed / "o.json")
    (compared,) = entry["comparisons"]
    assert compared["other"]["embeddings"] == str(listed / "worse.npz")
    assert compared["difference"] == pytest.approx(
        entry["accuracy"] - compared["other"]["accuracy"]
    )
    assert compared["interval"][0] < compared["difference"] < compared["interval"][1]
    assert compared["gained"] - compared["lost"] == round(48 * compared["difference"])
    for part in ("worse.npz", "difference", "exact McNemar", "takes pairs for independent"):
        assert part in result.output
    assert "other: worse" in (listed / "r.html").read_text()


def test_other_pairs_are_not_compared(app, npz, tmp_path):
    with np.load(npz) as held:
        np.savez(tmp_path / "f.npz", **{**held, "is_same": ~held["is_same"]})
    result = run(app, "--embeddings", npz, "--compare", tmp_path / "f.npz", "--folds", 5)
    assert result.exit_code == 2 and "do not hold the same pairs" in result.output


def test_files_and_lists_go_in_turn(app, listed):
    result = run(app, "--embeddings", listed / "m.npz", "--embeddings", listed / "worse.npz",
                 "--pairs", listed / "lfw.txt", listed / "agedb_30.txt", "--json",
                 listed / "o.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    first, second = results(listed / "o.json")
    assert (first["name"], second["name"]) == ("m", "worse")
    assert first["pairs"].endswith("lfw.txt") and second["pairs"].endswith("agedb_30.txt")


def test_pca_is_said_and_changes_the_numbers(app, listed):
    words = ["--embeddings", listed / "m.npz", "--pairs", listed / "lfw.txt", "--json",
             listed / "o.json"]  # fmt: skip
    run(app, *words)
    (plain,) = results(listed / "o.json")
    result = run(app, *words, "--pca", 2)
    assert result.exit_code == 0, result.output
    (projected,) = results(listed / "o.json")
    assert projected["pca"] == 2 and "pca" not in plain
    assert projected["thresholds"] != plain["thresholds"]
    result = run(app, *words, "--pca", 9)
    assert result.exit_code == 2 and "9 components needs 1 to 8" in result.output


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


@pytest.mark.slow
def test_cache_gives_the_same_numbers_and_is_checked(app, pair_set, tmp_path, monkeypatch):
    model = save_model(
        build_model("mobilefacenet", embedding_dim=16).eval(), tmp_path / "m.safetensors"
    )
    kept, out = tmp_path / "kept", tmp_path / "o.json"
    words = ["--model", model, "--pairs", pair_set, "--folds", 2, "--json", out, "--cache", kept]
    assert run(app, *words).exit_code == 0
    first = results(out)
    (file,) = kept.iterdir()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("embedded again")

    with monkeypatch.context() as patch:
        patch.setattr("arcface_plus.evaluation.scoring.embed_pairs", refuse)
        assert run(app, *words).exit_code == 0
        assert results(out) == first
        assert "embedded again" in run(app, *words, "--no-flip").output, "another setting"
    assert run(app, *words, "--no-flip").exit_code == 0 and len(list(kept.iterdir())) == 2
    assert results(out) != first
    file.write_bytes(file.read_bytes()[:-100])
    result = run(app, *words)
    assert result.exit_code == 2 and file.name in result.output


@pytest.mark.slow
def test_new_photographs_against_an_old_gallery(app, pair_set, tmp_path):
    names, dims = ("new", "old", "wide"), (16, 16, 24)
    nets = [build_model("mobilefacenet", embedding_dim=d).eval() for d in dims]
    new, old, wide = (
        save_model(net, tmp_path / f"{name}.safetensors")
        for net, name in zip(nets, names, strict=True)
    )
    out = tmp_path / "out.json"
    words = ["--pairs", pair_set, "--folds", 2, "--json", out]
    mixed = run(app, "--model", new, "--against", old, "--compare", old, *words)
    assert mixed.exit_code == 0, mixed.output
    (entry,) = json.loads(out.read_text())["results"]
    pairs = load_pairs(pair_set)
    a, b = (embed(net, pairs.images)[rows] for net, rows in zip(
        nets[:2], (pairs.index_a, pairs.index_b), strict=True))  # fmt: skip
    distances = squared_distances(a, b)
    want = verify_distances(distances, pairs.is_same, 2)
    assert entry["fold_accuracies"] == want.to_dict()["fold_accuracies"]
    assert entry["auc"] == pytest.approx(want.auc, abs=1e-9)
    assert entry["threshold"] == pytest.approx(want.to_dict()["threshold"], abs=1e-4)
    assert entry["against"]["model"] == str(old) != entry["model"]
    (other,) = entry["comparisons"]
    assert other["other"]["against"] == entry["against"], "the old net against itself"
    run(app, "--model", old, *words)
    (itself,) = json.loads(out.read_text())["results"]
    assert other["other"]["accuracy"] == itself["accuracy"]
    for arguments, message in (
        (["--model", wide, "--against", old, *words], "24 numbers, .*old.safetensors of 16"),
        (["--model", new, "--against", old, "--calibrate", *words], "of one model, but --against"),
        (["--embeddings", "e.npz", "--against", old], "give models and pair sets"),
        (["--model", new, "--compare", "e.npz", "--against", old, *words], "no --embeddings or"),
    ):
        answer = run(app, *arguments)
        assert answer.exit_code == 2 and re.search(message, answer.output), answer.output


@pytest.mark.slow
def test_two_models_are_compared(app, pair_set, tmp_path):
    paths = [
        save_model(
            build_model("mobilefacenet", embedding_dim=dim).eval(), tmp_path / f"{dim}.safetensors"
        )
        for dim in (8, 16)
    ]
    out = tmp_path / "o.json"
    result = run(app, "--model", paths[0], "--pairs", pair_set, "--compare", paths[1], "--folds", 2,
                 "--json", out, "--markdown")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert results(out)[0]["comparisons"][0]["other"]["model"] == str(paths[1])
    assert [line.split()[1] for line in result.stdout.splitlines()[2:]] == ["8", "16"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "either --model or --embeddings"),
        (["--model", "m", "--embeddings", "e"], "either --model or --embeddings"),
        (["--model", "m"], "at least one pair set"),
        (
            ["--embeddings", "e", "--embeddings", "f", "--pairs", "a.txt", "b.txt", "c.txt"],
            "2 --embeddings and 3 lists",
        ),
        (["--embeddings", "e", "--pca", "2", "--advise-far", "0.1"], "one space for all pairs"),
        (["--embeddings", "e", "--markdown", "--latex"], "either --markdown or --latex"),
        (["--embeddings", "e", "--far", "0.1,x"], "--far '0.1,x'"),
        (["--embeddings", "e", "--far", "1e-3,2"], "above 0 and up to 1"),
        (["--embeddings", "e", "--far", ""], "above 0 and up to 1"),
        (["--embeddings", "e", "--compare", "m.onnx"], "needs the pairs' images"),
        (["--embeddings", "none.npz"], "no file none.npz"),
        (["--model", "m", "--pairs", "none.bin"], "no file none.bin"),
    ],
)
def test_wrong_use(app, arguments, match):
    result = run(app, *arguments)
    assert result.exit_code == 2
    assert match in result.output


@pytest.mark.slow
def test_script_under_torchrun_scores_as_the_command_does(
    app, torchrun, repository, npz, pair_set, tmp_path
):
    script = str(repository / "eval" / "verification.py")
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
    for number, call in enumerate((app, partial(torchrun, "eval/verification.py"))):
        out = tmp_path / f"{number}.json"
        words = ["--model", model, "--pairs", pair_set, "--json", out, "--folds", "2"]
        done = call(*words, "--device", "cpu")
        assert done.exit_code == 0, done.stderr
        assert done.stdout.count("accuracy") == 1, "only rank 0 speaks"
        results.append(json.loads(out.read_text()))
    # Nets round as the batches are; what is counted does not show it, but plain cosines do.
    views = [entry.pop("distribution") for found in results for entry in found["results"]]
    assert views[0].keys() == views[1].keys()
    for name, value in views[0].items():
        expected = value if isinstance(value, list | dict) else pytest.approx(value, abs=1e-5)
        assert views[1][name] == expected, name
    assert results[0] == results[1]


def test_torch_is_imported_late():
    code = (
        "import sys, arcface_plus.cli.verify.command\n"
        "print([name for name in ('torch', 'cv2', 'scipy') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_lfw_embeddings(app, shared_data):
    npz = shared_data / "embeddings" / "lfw_mobilefacenet_y1.npz"
    result = run(app, "--embeddings", npz, "--pairs", shared_data / "lfw" / "pairs.txt")
    assert "0.99450 ± 0.00466" in result.output and "0.999043" in result.output
    assert "4281 people left out in turn" in result.output


def test_lfw_distribution_in_json(app, shared_data, tmp_path):
    npz = shared_data / "embeddings" / "lfw_mobilefacenet_y1.npz"
    words = ["--embeddings", npz, "--pairs", shared_data / "lfw" / "pairs.txt"]
    run(app, *words, "--json", tmp_path / "out.json")
    (entry,) = results(tmp_path / "out.json")
    view = entry["distribution"]
    assert view["boundary"] == pytest.approx(0.305, abs=5e-4)
    assert view["crossing"] == pytest.approx(0.250, abs=5e-4) and view["coarse"] == ["tail"]


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
