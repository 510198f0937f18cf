"""The bench that docs/cleaning.md quotes plants what it says and counts rightly."""

from __future__ import annotations

import importlib.util
import json
import sys

import cv2
import numpy as np
import pytest
import torch

from arcface_plus.data.images import encode_jpeg
from arcface_plus.evaluation.cleaning.findings import Finding
from arcface_plus.evaluation.cleaning.search import Found
from arcface_plus.models import Preprocessing, build_model, save_model


@pytest.fixture(scope="module")
def bench(repository):
    path = repository / "tools" / "bench" / "bench_clean.py"
    spec = importlib.util.spec_from_file_location("bench_clean", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_clean"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def faces_of(bench, crowd):
    made = crowd(20, 8)
    return bench.Faces(made.embeddings, made.labels, made.looks, images=[])


def test_swaps_leave_everybody_their_number_of_photographs(bench, crowd) -> None:
    faces = faces_of(bench, crowd)
    planted, wrong = bench.swap_labels(faces, 0.1, np.random.default_rng(0))
    assert wrong == set(np.flatnonzero(planted.labels != faces.labels).tolist())
    assert 10 <= len(wrong) <= 16
    assert (np.bincount(planted.labels) == 8).all()


def test_cut_people_have_half_their_photographs_each(bench, crowd) -> None:
    faces = faces_of(bench, crowd)
    planted, cut = bench.cut_people(faces, 0.1, np.random.default_rng(0))
    assert len(cut) == 2
    for first, second in map(sorted, cut):
        assert (planted.labels == first).sum() == (planted.labels == second).sum() == 4
        assert set(faces.labels[planted.labels == second]) == {first}


def test_joined_people_are_two(bench, crowd) -> None:
    faces = faces_of(bench, crowd)
    planted, joined = bench.join_people(faces, 0.1, np.random.default_rng(0))
    assert len(joined) == 2
    for label in joined:
        assert len(set(faces.labels[planted.labels == label])) == 2


def test_what_was_there_before_is_neither_found_nor_false(bench) -> None:
    def found(*pairs):
        made = [Finding("duplicates", 1.0, (copy,), 0, kept=kept) for copy, kept in pairs]
        return bench.named(Found(made, None, 0.0, 1.0), "duplicates")

    truth = {frozenset({100, 3}), frozenset({101, 4}), frozenset({102, 8})}
    before = found((4, 5))
    listed = found((3, 100), (4, 101), (5, 101), (7, 8))
    assert bench.counted(listed, truth, before, "duplicates") == {
        "planted": 3,
        "found": 2,
        "false": 1,  # 7 and 8; 5 is a copy of 101 because 4 is one of 5
        "there_before": 1,
    }


def test_the_bench_runs_on_a_folder_and_a_model(bench, tmp_path, monkeypatch, capsys) -> None:
    for person in range(24):
        pattern = np.random.default_rng(person).integers(0, 256, (6, 6, 3)).astype(np.float64)
        for image in range(6):
            noise = np.random.default_rng((person, image)).normal(0, 30, (6, 6, 3))
            small = np.clip(pattern + noise, 0, 255).astype(np.uint8)
            path = tmp_path / "faces" / f"p{person:02}" / f"{image}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_jpeg(cv2.resize(small, (32, 32))))
    torch.manual_seed(0)
    net = build_model(
        "iresnet18", embedding_dim=32, width=8, size=32, preprocessing=Preprocessing(size=32)
    )
    save_model(net.eval(), tmp_path / "net.safetensors")
    (tmp_path / "doubtful.txt").write_text("p00/0.jpg\t0.1\np03/5.jpg\t0.2\n")
    words = [tmp_path / "faces", tmp_path / "net.safetensors", "--draws", 1]
    words += ["--leave-out", tmp_path / "doubtful.txt", "--json", tmp_path / "out.json"]
    monkeypatch.setattr(sys, "argv", ["bench_clean.py", *map(str, words)])
    assert bench.main() == 0  # bars are for larger sets
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["photographs"] == 142
    assert {kind: rows[0]["planted"] for kind, rows in report["results"].items()} == {
        "labels": 6,
        "duplicates": 7,
        "merge": 1,
        "split": 1,
        "training": 1,
    }
    assert report["results"]["duplicates"][0]["found"] == 7
    assert report["results"]["labels"][0]["found"] >= 4
    assert "precision" in capsys.readouterr().out
