"""``arcface-plus study distribution``: pairs, people and embeddings in files; refusals."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.pairs.sets import save_pairs_bin
from arcface_plus.evaluation.embedding.embed import pair_distances
from arcface_plus.evaluation.pairs.distribution import describe_cosines, people_cosines
from arcface_plus.models import build_model, load_model, save_model
from arcface_plus.models.preprocessing import Preprocessing


@pytest.fixture
def study(cli, tmp_path: Path):
    return lambda *words: cli("study", "distribution", "--output", tmp_path / "out", *words)


def faces(people: int = 5, each: int = 3, size: int = 32) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (people, 4, 4, 3), dtype=np.uint8)
    return [
        [
            np.clip(cv2.resize(face, (size, size)) + rng.integers(0, 40, (size, size, 3)), 0, 255)
            .astype(np.uint8)
            for _ in range(each)
        ]
        for face in coarse
    ]  # fmt: skip


@pytest.fixture
def model(tmp_path: Path):
    def make(name: str, seed: int) -> Path:
        torch.manual_seed(seed)
        own = Preprocessing(mean=127.5, std=128.0, size=32, flip_sum=True)
        net = build_model("resnet20", size=32, width=4, embedding_dim=16, preprocessing=own)
        save_model(net.eval(), tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    return make


def results(tmp_path: Path) -> list[dict]:
    return json.loads((tmp_path / "out" / "distribution.json").read_text())["results"]


def test_two_models_on_pairs(study, model, tmp_path: Path) -> None:
    from arcface_plus.data.pairs.sets import load_pairs

    first, second, known = model("a", 0), model("b", 1), faces()
    images = [image for face in known for image in face[:2]]
    images += [known[i][2] for i in (0, 1, 2, 3)]
    is_same = [True] * 5 + [False] * 2
    save_pairs_bin(tmp_path / "p.bin", [encode_jpeg(image) for image in images], is_same)
    answer = study("--model", first, "--pairs", tmp_path / "p.bin", "--compare", second,
                   "--device", "cpu")  # fmt: skip
    assert answer.exit_code == 0, answer.stderr
    assert "refused (needs 1000)" in answer.stdout and "refused (needs 100)" in answer.stdout
    one, two = results(tmp_path)
    assert (one["name"], two["name"]) == ("a", "b") and one["flip"] is True
    assert one["needs"] == {"boundary": 100, "tail": 1000} and one["boundary"] is None
    assert one["crossing"] != two["crossing"]
    pairs = load_pairs(tmp_path / "p.bin")
    distances = pair_distances(load_model(first), pairs)
    assert one["negative_mean"] == pytest.approx(np.mean(1 - distances[~pairs.is_same] / 2))
    for kind, count in (("positive", 5), ("negative", 2)):
        assert sum(one["histogram"][kind]) == count
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "distribution.svg", "distribution.png", "distribution.json"
    }  # fmt: skip


@pytest.mark.parametrize("against", ["images", "centres"])
def test_a_folder_of_people(study, model, tmp_path: Path, against: str) -> None:
    for i, person in enumerate(faces()):
        (tmp_path / "crops" / f"p{i}").mkdir(parents=True)
        for k, image in enumerate(person):
            (tmp_path / "crops" / f"p{i}" / f"{k}.jpg").write_bytes(encode_jpeg(image))
    words = ("--model", model("a", 0), "--input", tmp_path / "crops", "--device", "cpu")
    answer = study(*words, "--against", against)
    assert answer.exit_code == 0, answer.stderr
    (one,) = results(tmp_path)
    expected = {"images": (15, 90), "centres": (15, 60)}[against]
    assert (one["positives"], one["negatives"]) == expected and one["against"] == against
    answer = study(*words, "--against", against, "--at-most", "10")
    (one,) = results(tmp_path)
    assert (one["negatives"], one["negatives_in_all"]) == (10, expected[1])
    (tmp_path / "crops" / "stray.jpg").write_bytes(encode_jpeg(image))
    answer = study(*words)
    assert answer.exit_code == 2 and "1 images do not say who they show" in answer.stderr


def test_embeddings_in_files(study, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(50), 6)
    centre = rng.normal(size=(50, 16))
    made = (centre[label] + 0.4 * rng.normal(size=(300, 16))).astype(np.float32)
    keys = [f"p{who}/{i}.jpg" for i, who in enumerate(label)]
    np.savez(tmp_path / "e.npz", key=keys, embedding=made, label=label)
    answer = study("--embeddings", tmp_path / "e.npz", "--identity", "folder")
    assert answer.exit_code == 0, answer.stderr
    (one,) = results(tmp_path)
    expected = describe_cosines(*_kinds(made, label))
    assert one["boundary"] == expected.boundary and one["tail"] == expected.tail
    assert f"boundary {expected.boundary:.4f} (coarse)" in answer.stdout
    np.savez(tmp_path / "p.npz", embeddings_a=made[::2], embeddings_b=made[1::2],
             is_same=label[::2] == label[1::2])  # fmt: skip
    answer = study("--embeddings", tmp_path / "p.npz")
    assert answer.exit_code == 2 and "negative cosines" in answer.stderr
    np.savez(tmp_path / "p.npz", embeddings_a=made[:-3], embeddings_b=made[3:],
             is_same=label[:-3] == label[3:])  # fmt: skip
    answer = study("--embeddings", tmp_path / "p.npz")
    assert answer.exit_code == 0 and results(tmp_path)[0]["positives"] == 150


def _kinds(made: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = people_cosines(made, label)
    return found.positive, found.negative


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "either --model or --embeddings"),
        (("--model", "m"), "either --pairs lfw.bin or --input"),
        (("--model", "m", "--pairs", "p.bin", "--input", "f"), "either --pairs lfw.bin or --input"),
        (("--embeddings", "e.npz", "--input", "f"), "leave it out"),
        (("--embeddings", "e.npz", "--pairs", "p.txt", "--identity", "label"), "without --pairs"),
        (("--embeddings", "e.npz", "--compare", "m"), "takes what the first is"),
        (("--model", "m", "--pairs", "p.bin", "--compare", "./m"), "is the first itself"),
        (("--model", "m", "--input", "f", "--against", "centers"), "images or centres"),
    ],
)
def test_what_does_not_go_together_is_refused(study, tmp_path: Path, words, match: str) -> None:
    answer = study(*words)
    assert answer.exit_code == 2 and match in answer.stderr
    assert not (tmp_path / "out").exists()


def test_a_pair_set_is_no_folder_of_people(study, model, tmp_path: Path) -> None:
    image = encode_jpeg(faces(1, 1)[0][0])
    save_pairs_bin(tmp_path / "p.bin", [image] * 4, [True, False])
    answer = study("--model", model("a", 0), "--input", tmp_path / "p.bin", "--device", "cpu")
    assert answer.exit_code == 2 and "give it as --pairs" in answer.stderr
