"""Runs with a teacher or an old net: what is added to the loss, exact resume, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arcface_plus import Margin, load_config, load_model
from arcface_plus.data.sources.synthetic import SyntheticFaces
from arcface_plus.evaluation.embedding.embed import embed
from arcface_plus.losses.distillation.cosine import cosine_loss
from arcface_plus.losses.distillation.relational import relational_loss
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.runs.train import train
from arcface_plus.training.guidance.embeddings import ImageEmbeddings
from arcface_plus.training.guidance.old_classes import OldClasses
from arcface_plus.training.settings import CompatibleConfig

# The net stands still and sees its images unchanged: what it embeds can be computed beside.
STILL = [
    "--optim.lr", "1e-12", "--optim.weight_decay", "0", "--train.freeze_batch_norm", "true",
    "--train.steps", "2", "--schedule.warmup_steps", "0",
    "--data.augment", "{flip: 0, affine: 0, rotate: 0, brightness: 0}",
]  # fmt: skip


def lines(folder: Path) -> list[dict]:
    entries = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [entry for entry in entries if entry["kind"] == "train"]


def same(a: Path, b: Path) -> bool:
    first, second = (load_model(folder).state_dict() for folder in (a, b))
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def teacher(tiny: Path) -> Path:
    """A run with embeddings of 24 numbers of 16 pixels, where the others have 16 of 32."""
    small = ["--name", "teacher", "--model.embedding_dim", "24", "--data.size", "16"]
    return train(tiny, [*small, "--train.steps", "2", "--schedule.warmup_steps", "0"])


@pytest.fixture
def old(tiny: Path) -> Path:
    return train(tiny, ["--name", "old", "--seed", "5"])


def faces(seed: int) -> list[np.ndarray]:
    """All images that a tiny run of that seed trains on."""
    source = SyntheticFaces(13, 6, size=32, seed=seed)
    return [source.read(index)[0] for index in range(len(source))]


def taught(teacher: Path, *more: str) -> list[str]:
    return ["--train.teacher.model", str(teacher), *more]


def test_the_loss_is_the_weighted_sum_of_the_stated_terms(tiny: Path, teacher: Path) -> None:
    weights = ["--train.teacher.cosine", "3", "--train.teacher.relational", "5"]
    steps = ["--train.global_batch", "78"]  # all images in a step
    run = train(tiny, [*taught(teacher, *weights), *STILL, *steps])
    source = faces(1)
    theirs = torch.from_numpy(embed(load_model(teacher), source, resize=True))
    mine = torch.from_numpy(embed(load_model(run), source, flip=False))
    entry = lines(run)[0]
    assert entry["teacher_relational"] == pytest.approx(
        relational_loss(mine, theirs).item(), rel=1e-4
    )
    known = entry["classification"] + 0.03 * entry["mma"]
    added = 3 * entry["teacher_cosine"] + 5 * entry["teacher_relational"]
    assert entry["loss"] == pytest.approx(known + added, rel=1e-6)
    assert 0.5 < entry["teacher_cosine"] < 1.5, "the projection is drawn"


def test_without_a_projection_the_cosine_is_that_of_the_embeddings(tiny: Path, old: Path) -> None:
    options = [*STILL, "--train.global_batch", "78", "--train.accumulate", "2", "--seed", "5"]
    run = train(tiny, [*taught(old), *options, "--model.init", str(old)])
    source = faces(5)
    theirs = torch.from_numpy(embed(load_model(old), source))
    mine = torch.from_numpy(embed(load_model(run), source, flip=False))
    want = cosine_loss(mine, theirs).item()
    assert lines(run)[0]["teacher_cosine"] == pytest.approx(want, abs=1e-5) and want < 0.2
    matrix = np.load(run / "teacher.npy", mmap_mode="r")
    assert np.array_equal(matrix, embed(load_model(old), source))


def test_it_learns_what_the_teacher_says(tiny: Path, teacher: Path) -> None:
    """The projection and the net: they come nearer to it."""
    options = ["--train.steps", "30", "--train.teacher.cosine", "10", "--head.margin.s", "4"]
    entries = lines(train(tiny, taught(teacher, *options)))
    first, last = (
        sum(e["teacher_cosine"] for e in part) / 5 for part in (entries[:5], entries[-5:])
    )
    assert last < 0.6 * first


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [[], ["--head.sample_rate", "0.5"], ["--optim.kind", "adamw", "--optim.lr", "0.001"]],
    ids=["sgd", "partial_fc", "adamw"],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    tiny: Path, teacher: Path, old: Path, change: list[str]
) -> None:
    options = [*taught(teacher, "--train.teacher.relational", "1"), *change]
    options += ["--train.compatible_with", str(old), "--train.accumulate", "2"]
    options += ["--model.dropout", "0.3"]
    whole = train(tiny, options)
    cut = whole.parent / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    (cut / "teacher.npy").unlink()  # made again, of the same bits
    train(tiny, [*options, "--name", "cut"], resume="auto")
    assert same(whole, cut)
    for key in ("loss", "teacher_cosine", "teacher_relational", "compatible"):
        got, want = ([entry[key] for entry in lines(folder)] for folder in (cut, whole))
        assert got == want and len(want) == 6, key
    assert (whole / "teacher.npy").read_bytes() == (cut / "teacher.npy").read_bytes()


def test_clipping_counts_the_projection(tiny: Path, teacher: Path) -> None:
    """With its gradient a thousand times the others', the step of the net is clipped to nothing."""
    options = ["--train.steps", "1", "--schedule.warmup_steps", "0", "--optim.clip_norm", "1e-3"]
    options += ["--optim.weight_decay", "0"]
    heavy = taught(teacher, "--train.teacher.cosine", "1e4", "--optim.lr", "1")
    run = train(tiny, [*heavy, *options])
    start = train(tiny, [*options, "--optim.lr", "1e-12", "--name", "start"])
    a, b = (load_model(folder).state_dict() for folder in (run, start))
    moved = sum((a[k] - b[k]).square().sum() for k, _ in load_model(run).named_parameters())
    assert 0 < moved.sqrt() < 1e-3


def naive_compatible(
    x: torch.Tensor, labels: torch.Tensor, old: torch.Tensor, old_labels: torch.Tensor, s: float
) -> torch.Tensor:
    means = []
    for person in range(int(old_labels.max()) + 1):
        unit = F.normalize(old[old_labels == person].double(), dim=1)
        means.append(F.normalize(unit.mean(dim=0), dim=0))
    cosine = F.normalize(x, dim=1) @ torch.stack(means).t()
    own = cosine.gather(1, labels[:, None]).squeeze(1)
    logits = s * cosine.scatter(1, labels[:, None], torch.cos(own.acos() + 0.5)[:, None])
    return F.cross_entropy(logits, labels)


@pytest.mark.parametrize("chunk", [None, 2])
def test_compatible_training_equals_the_naive_form_and_its_gradient(chunk: int | None) -> None:
    g = torch.Generator().manual_seed(0)
    table = torch.randn(20, 8, generator=g)
    labels = torch.arange(20) % 5
    like = ClassifierHead(5, 8, None, class_chunk=chunk)
    margin = Margin(m2=0.5, s=16)
    term = OldClasses(CompatibleConfig(model="x", weight=2.0), margin, like, seed=0)
    rows = np.arange(20)[::-1].copy()
    term.begin_at(ImageEmbeddings(table.numpy()[::-1], rows, str), labels.numpy())
    x = torch.randn(7, 8, generator=g, dtype=torch.float64, requires_grad=True)
    target = torch.randint(5, (7,), generator=g)

    class Step:
        step = 3

    term.begin(Step(), target, [7])
    ((weight, value),) = term.losses(x, target, slice(0, 7), [7]).values()
    want = naive_compatible(x, target, table, labels, 16)
    assert weight == 2.0 and value.item() == pytest.approx(want.item(), rel=1e-6)
    got, wanted = (torch.autograd.grad(v, x)[0] for v in (value, want))
    assert torch.allclose(got, wanted, atol=1e-6) and not term.head.weight.requires_grad


@pytest.mark.slow
def test_compatible_training_draws_the_new_net_to_the_old_one(tiny: Path) -> None:
    steps = ["--train.steps", "30", "--seed", "5", "--train.global_batch", "24"]
    old = train(tiny, [*steps, "--name", "old", "--model.width", "12"])
    plain = train(tiny, [*steps, "--name", "plain"])
    compatible = ["--train.compatible_with.model", str(old), "--train.compatible_with.weight", "2"]
    run = train(tiny, [*steps, *compatible])
    source = faces(5)
    before = torch.from_numpy(embed(load_model(old), source))
    labels = torch.arange(13).repeat_interleave(6)
    near, far = (
        naive_compatible(
            torch.from_numpy(embed(load_model(each), source)).double(), labels, before, labels, 16
        ).item()
        for each in (run, plain)
    )
    assert near < 0.8 * far


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--train.teacher", "nowhere"], "train.teacher: .*nowhere"),
        (["--train.teacher", "nowhere.npy"], "train.teacher: There is no file nowhere.npy"),
        (["--train.teacher.cosine", "0", "--train.teacher.model", "x"], "both 0"),
        (["--train.teacher.cosine", "1"], "give a model, or the embeddings"),
        (["--train.teacher.cosine", "-1", "--train.teacher.model", "x"], "greater than or equal"),
        (["--train.compatible_with.weight", "0", "--train.compatible_with.model", "x"], "greater"),
    ],
)
def test_refusals(tiny: Path, change: list[str], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(tiny, change)
    assert not (tiny.parent / "runs").exists()


def test_an_old_net_of_another_width_or_a_margin_with_state_is_refused(
    tiny: Path, teacher: Path
) -> None:
    wide = ["--train.compatible_with", str(teacher)]
    with pytest.raises(ValueError, match="embeddings of 24 numbers, but this net's have 16; set"):
        train(tiny, wide)
    assert not (tiny.parent / "runs" / "tiny").exists()
    adaptive = ["--head.margin", "{}", "--head.adaptive", "{kind: curricularface, s: 16, m: 0.3}"]
    for margin in (["--head.logits", "linear", "--head.margin", "{}"], adaptive):
        with pytest.raises(ValueError, match="neither learns nor keeps averages"):
            load_config(tiny, [*wide, *margin])


def test_another_weight_is_no_resume(tiny: Path, teacher: Path) -> None:
    train(tiny, taught(teacher))
    with pytest.raises(ValueError, match=r"train\.teacher"):
        train(tiny, taught(teacher, "--train.teacher.cosine", "2"), resume="auto")


def test_an_image_without_an_embedding_is_an_error_that_names_it() -> None:
    table = ImageEmbeddings(np.eye(3, dtype=np.float32), np.array([2, -1]), "picture {}".format)
    assert table.take(np.array([0])).tolist() == [[0, 0, 1]]
    with pytest.raises(ValueError, match="no embedding of picture 1"):
        table.take(np.array([0, 1]))
    assert table.dim == 3
