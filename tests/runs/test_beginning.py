"""Runs that start from others: their nets, their heads by name, class means; resumed exactly."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from arcface_plus import load_model
from arcface_plus.checkpoints.parts import ClassRows
from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.data.images import encode_jpeg, read_image
from arcface_plus.data.sources.synthetic import SyntheticFaces
from arcface_plus.distributed import start_world
from arcface_plus.evaluation.embedding.embed import embed
from arcface_plus.runs.train import train

DRAWN = SyntheticFaces(6, 4, size=32, seed=2)


def folder_of(path: Path, people: dict[str, int]) -> Path:
    """Make a folder of faces: of each name, the photographs of one of the drawn people."""
    for name, person in people.items():
        (path / name).mkdir(parents=True)
        for index in np.flatnonzero(DRAWN.labels == person):
            (path / name / f"{index}.jpg").write_bytes(encode_jpeg(DRAWN.read(int(index))[0], 95))
    return path


def class_weights(run: Path, classes: int, *, step: int, dim: int = 16) -> torch.Tensor:
    weight = torch.empty(classes, dim)
    with start_world("cpu") as world:
        checkpoints = Checkpoints(run / "checkpoints", world)
        checkpoints.load(checkpoints.path(step), {"head.weight": ClassRows(weight, classes)})
    return weight


STILL = [
    "--optim.lr", "1e-12", "--optim.weight_decay", "0", "--train.freeze_batch_norm", "true",
    "--train.steps", "3", "--schedule.warmup_steps", "0", "--train.global_batch", "8",
]  # fmt: skip


@pytest.fixture
def first(tiny: Path, tmp_path: Path) -> Path:
    """A run on people a, b, c, d."""
    faces = folder_of(tmp_path / "first", {"a": 0, "b": 1, "c": 2, "d": 3})
    return train(tiny, [*data(faces), "--train.global_batch", "8"])


def data(faces: Path) -> list[str]:
    return ["--data.source", "folder", "--data.path", str(faces), "--data.num_classes", "null"]


@pytest.fixture
def second(tmp_path: Path) -> list[str]:
    """The settings of a run on people 0new, b, d, e: only two of them were there before."""
    faces = folder_of(tmp_path / "second", {"0new": 4, "b": 1, "d": 3, "e": 5})
    return [*data(faces), "--name", "second", *STILL]


def test_people_who_persist_keep_their_rows_by_name(tiny, first, second, capsys) -> None:
    assert (first / "classes.txt").read_text() == "a\nb\nc\nd\n"
    start = ["--model.init", str(first), "--head.from_head", str(first)]
    run = train(tiny, [*second, *start])
    old, new = class_weights(first, 4, step=6), class_weights(run, 4, step=3)
    assert torch.allclose(new[1], old[1], atol=1e-7) and torch.allclose(new[2], old[3], atol=1e-7)
    assert not torch.allclose(new[0], old[0], atol=1e-3) and new[3].std() > 0.003
    said = " ".join(capsys.readouterr().out.split())
    assert f"head: of 4 people, 2 keep their row of {first}, 2 begin at random rows" in said
    assert "187 of the net's 187 tensors" in said
    kept, mine = load_file(first / "model.safetensors"), load_file(run / "model.safetensors")
    assert all(torch.allclose(kept[key], mine[key], atol=1e-6) for key in kept)
    by_label = train(tiny, [*second, *start, "--head.from_names", "labels", "--name", "labels"])
    assert torch.allclose(class_weights(by_label, 4, step=3), old, atol=1e-7)


def test_new_people_begin_at_class_means(tiny, first, second, capsys) -> None:
    start = ["--model.init", str(first), "--head.init", "class_means"]
    run = train(tiny, [*second, *start, "--head.from_head", str(first)])
    said = " ".join(capsys.readouterr().out.split())
    assert f"2 keep their row of {first}, 2 begin at the mean of their embeddings" in said
    old, new = class_weights(first, 4, step=6), class_weights(run, 4, step=3)
    assert torch.allclose(new[1], old[1], atol=1e-7)
    model = load_model(first)
    for row, person in ((0, 4), (3, 5)):
        folder = tiny.parent / "second" / ("0new" if row == 0 else "e")

        images = [read_image(path) for path in sorted(folder.iterdir())]
        vectors = embed(model, images, flip=False).astype(np.float64)
        mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
        expected = mean / np.linalg.norm(mean) * 0.01 * 4
        assert np.allclose(new[row].numpy(), expected, atol=1e-6), person


def test_arcface_torchs_head_files_take_names_from_a_list(tiny, first, second, tmp_path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    weight = torch.randn(5, 16)
    for rank, part in enumerate(torch.tensor_split(weight, 2)):
        torch.save({"weight": part.clone()}, theirs / f"softmax_fc_gpu_{rank}.pt")
    names = tmp_path / "names.txt"
    names.write_text("x\ne\nb\ny\nz\n")
    start = ["--model.init", str(first), "--head.from_head", str(theirs)]
    run = train(tiny, [*second, *start, "--head.from_names", str(names)])
    new = class_weights(run, 4, step=3)
    assert torch.allclose(new[1], weight[2], atol=1e-6)
    assert torch.allclose(new[3], weight[1], atol=1e-6)
    with pytest.raises(ValueError, match=r"does not say what its people are called"):
        train(tiny, [*second, *start, "--name", "third"])
    names.write_text("p\nq\nr\ns\nt\n")
    with pytest.raises(ValueError, match=r"none of the 4 people trained here \(0new, b, d"):
        train(tiny, [*second, *start, "--head.from_names", str(names), "--name", "third"])
    wider = ["--model.embedding_dim", "24"]
    with pytest.raises(ValueError, match="rows of 16 numbers, but the net's embeddings have 24"):
        train(tiny, [*second, *start, *wider, "--name", "third"])
    assert not (run.parent / "third").exists(), "checked before the folder is touched"


def test_class_means_go_on_without_unreadable_images(tiny, first, second, tmp_path) -> None:
    broken = tmp_path / "second" / "e"
    for path in broken.iterdir():
        path.write_bytes(b"no image")
    start = ["--model.init", str(first), "--head.init", "class_means"]
    with pytest.raises(ValueError, match="second/e"):
        train(tiny, [*second, *start])
    run = train(tiny, [*second, *start, "--name", "q", "--data.on_bad_image", "quarantine"])
    assert class_weights(run, 4, step=3)[3].std() > 0.003, "nothing known of e: a random row"


def test_class_means_of_a_drawn_net_are_refused(tiny) -> None:
    with pytest.raises(ValueError, match=r"class_means .* set model\.init to a file"):
        train(tiny, ["--head.init", "class_means"])
    with pytest.raises(ValueError, match=r"from_names is about from_head"):
        train(tiny, ["--head.from_names", "labels"])


def test_a_run_with_frozen_layers_resumes_exactly_without_the_file_it_began_from(
    tiny, first, tmp_path
) -> None:
    options = [
        *data(tmp_path / "first"), "--train.global_batch", "8", "--head.init", "class_means",
        "--optim.layers", "[{pattern: '*', lr: 0.1}, {pattern: 'layer[12]', lr: 0}]",
    ]  # fmt: skip
    moved = first.rename(tmp_path / "moved")
    whole = train(tiny, [*options, "--model.init", str(moved), "--name", "whole"])
    began, ended = load_file(whole / "start.safetensors"), load_file(whole / "model.safetensors")
    same = {key for key in began if torch.equal(began[key], ended[key])}
    frozen = {key for key in began if key.startswith(("layer1.", "layer2."))}
    assert frozen <= same and "layer3.0.conv1.weight" not in same and "conv1.weight" not in same
    assert "bn1.running_mean" not in same, "statistics of other layers move"
    cut = whole.parent / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    (cut / "model.safetensors").unlink()
    moved.rename(tmp_path / "gone")
    train(tiny, [*options, "--model.init", str(moved), "--name", "cut"], resume="auto")
    again = load_file(cut / "model.safetensors")
    assert all(torch.equal(again[key], ended[key]) for key in ended)
    with pytest.raises(ValueError, match=r"optim\.layers"):
        train(tiny, [*options[:-2], "--model.init", str(moved), "--name", "cut"], resume="auto")
