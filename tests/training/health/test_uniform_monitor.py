from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.distributed import World
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.base import MarginLoss
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.theory.uniform_law import log_negative_weight
from arcface_plus.losses.theory.uniform_prediction import own_gradient, termination_angle
from arcface_plus.runs.train import train
from arcface_plus.training.health import uniform_monitor
from arcface_plus.training.health.uniform_monitor import (
    CollapseWatch,
    NearClasses,
    margin_warnings,
    uniform_figures,
)


def head(margin: MarginLoss | None, classes: int = 500, dim: int = 32, **more) -> ClassifierHead:
    return ClassifierHead(classes, dim, margin, **more)


def test_initial_weights_stand_where_uniform_ones_are_expected() -> None:
    """The prediction against the measurement that is logged beside it, before any training."""
    mine = head(Margin())
    measured = mine.mma.summary(mine.weight)["nearest_angle"]
    figures = uniform_figures(mine)
    assert figures["nearest_angle_uniform"] == pytest.approx(measured, abs=0.7)
    assert figures["nearest_angle_uniform"] > 45  # degrees


def test_termination_is_where_the_gradient_is_two() -> None:
    angle = math.radians(uniform_figures(head(Margin(), dim=128))["termination_angle"])
    weight = log_negative_weight(500, 128, 64.0, form="exact")
    assert float(own_gradient(angle, Margin(), weight)) == pytest.approx(2, rel=1e-4)


def test_a_sample_of_classes_pulls_less() -> None:
    whole, part = head(Margin(), dim=128), head(Margin(), dim=128, sample_rate=0.1)
    figures = uniform_figures(part)
    assert figures["nearest_angle_uniform"] == uniform_figures(whole)["nearest_angle_uniform"]
    assert figures["termination_angle"] == math.degrees(termination_angle(Margin(), 50, 128))
    assert figures["termination_angle"] > uniform_figures(whole)["termination_angle"]


def test_no_termination_where_the_gradient_stays_small() -> None:
    assert set(uniform_figures(head(Margin(s=1.5)))) == {"nearest_angle_uniform"}


@pytest.mark.parametrize("margin", [None, AdaFace()])
def test_nothing_is_predicted_or_computed_without_a_fixed_margin(margin, monkeypatch) -> None:
    def refuse(*arguments):
        raise AssertionError("computed")

    monkeypatch.setattr(uniform_monitor, "nearest_class_angle", refuse)
    monkeypatch.setattr(uniform_monitor, "collapse_warning", refuse)
    assert uniform_figures(head(margin)) == {} and margin_warnings(head(margin)) == ()


def test_one_dimension_has_no_sphere() -> None:
    assert uniform_figures(head(Margin(), dim=1)) == {}


def test_warns_of_the_polar_collapse_alone() -> None:
    assert margin_warnings(head(Margin())) == ()
    (warning,) = margin_warnings(head(Margin(m0=0.4, m2=0.0)))
    assert "polar collapse" in warning and "500 classes" in warning


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_logs_and_shows_them(tiny: Path, capsys, monkeypatch) -> None:
    calls = []

    def counted(of):
        calls.append(of)
        return uniform_figures(of)

    monkeypatch.setattr(uniform_monitor, "uniform_figures", counted)
    options = ["--train.steps", "2", "--schedule.warmup_steps", "0"]
    options += ["--head.margin.m0", "0.4", "--head.margin.m2", "0"]
    logged = lines(train(tiny, options))
    assert len(calls) == 1 and len(logged) == 2  # once a run, not once a step
    expected = uniform_figures(calls[0])
    for line in logged:
        assert {key: line[key] for key in expected} == expected
    shown = capsys.readouterr().out
    assert f"° of {expected['nearest_angle_uniform']:.1f}°" in shown
    assert "warning: with m0=0.4" in shown and "polar collapse" in shown


def test_a_softmax_run_has_none(tiny: Path, capsys) -> None:
    text = tiny.read_text()
    assert "head: {margin: {s: 16}}" in text
    tiny.write_text(text.replace("head: {margin: {s: 16}}", "head: {logits: linear}"))
    logged = lines(train(tiny, ["--train.steps", "1", "--schedule.warmup_steps", "0"]))
    assert "nearest_angle_uniform" not in logged[0] and "termination_angle" not in logged[0]
    assert "° of" not in capsys.readouterr().out


# -- the polar collapse while it happens ---------------------------------------------------------

# Own and nearest angles of the run of docs/face_margins.md with the hard margin (240 classes in 256
# dimensions, s = 32): means over 50 steps each. Own angles pass 90° at step 205.
COLLAPSE = [(88.7, 78.5), (87.2, 77.6), (87.6, 76.9), (88.2, 75.8), (94.5, 71.9), (108.0, 61.9)]


def watch(margin=None, classes=240, dim=256) -> CollapseWatch:
    return CollapseWatch(head(margin or Margin(s=32), classes, dim))


def seen(watch: CollapseWatch, angles) -> list[int]:
    """Return the places in ``angles`` at which ``watch`` warns."""
    lines = ({"target_angle": own, "nearest_angle": nearest} for own, nearest in angles)
    return [k for k, line in enumerate(lines) if watch.warning(line)]


def test_a_collapse_is_told_once_soon_after_samples_pass_90_degrees() -> None:
    assert seen(watch(), [*COLLAPSE, (130.0, 40.0), (150.0, 14.0)]) == [4]
    message = watch().warning({"target_angle": 120.0, "nearest_angle": 50.0})
    assert "head.margin.warmup_steps" in message and "120°" in message and "50°" in message


def test_adaptive_margins_are_watched_too_and_the_fix_names_their_key() -> None:
    watched = watch(CurricularFace())
    message = watched.warning({"target_angle": 120.0, "nearest_angle": 50.0})
    assert "head.adaptive.warmup_steps" in message


@pytest.mark.parametrize(
    "angles",
    [
        [(90.2, 79.8), (84.0, 78.0), (60.0, 65.0), (40.0, 70.0)],  # a run that learns
        [(91.0, 79.9), (93.0, 79.5), (94.0, 79.0)],  # samples drift, classes do not draw together
        [(89.0, 70.0), (80.0, 50.0), (70.0, 40.0)],  # classes draw together, samples follow
        [(99.0, 60.0), (98.0, 61.0), (97.0, 63.0)][1:],  # on the way back
    ],
)
def test_other_runs_are_left_in_peace(angles) -> None:
    watched = watch()
    if angles[0] == (98.0, 61.0):
        watched.before = (99.0, 60.0)
    assert seen(watched, angles) == []


@pytest.mark.parametrize(
    "margin", [Margin(m2=0, s=32), Margin(m2=0, m3=0.35, s=32), Margin(s=32, extension="easy")]
)
def test_what_cannot_fall_towards_the_poles_is_not_watched(margin) -> None:
    assert seen(watch(margin), COLLAPSE) == []


def test_a_collapsing_run_says_so_on_the_terminal_and_in_its_metrics(
    tiny: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(uniform_monitor, "OWN_ANGLE", 0.0)
    monkeypatch.setattr(uniform_monitor, "DRAWN_TOGETHER", 2.0)
    logged = lines(train(tiny, ["--optim.lr", "0.5"]))
    (warning,) = [line for line in logged if line["kind"] == "warning"]
    assert "opposite poles" in warning["message"]
    assert "warning: this run is collapsing" in capsys.readouterr().out


class Faces(ImageSource):
    """Classes with names and so many images each."""

    def __init__(self, counts: list[int]) -> None:
        self.labels = np.repeat(np.arange(len(counts)), counts)
        self.num_classes = len(counts)
        self.class_names = [f"p{label}" for label in range(len(counts))]


def near_classes(folder: Path, counts: list[int], steps: int = 10) -> NearClasses:
    head = ClassifierHead(len(counts), 32, Margin(m2=0.5, s=32))
    return NearClasses(
        head, Faces(counts), steps=steps, folder=folder, world=World(0, 1, torch.device("cpu"))
    )


def angles(pairs: dict[tuple[int, int], float], classes: int = 40) -> tuple[Tensor, Tensor]:
    """Return angles about 70° in a ring of neighbours, and ``pairs`` that are mutual."""
    degrees = 70 + torch.linspace(-2, 2, classes, dtype=torch.float64)
    nearest = (torch.arange(classes) + 1) % classes
    for (first, second), angle in pairs.items():
        degrees[[first, second]] = angle
        nearest[first], nearest[second] = second, first
    return degrees, nearest


def test_near_classes_are_named_once_and_kept(tmp_path) -> None:
    watch = near_classes(tmp_path, [9] * 40)
    near = angles({(3, 30): 14.4, (5, 8): 33.0, (10, 20): 60.0})
    assert watch.warnings(9, *near) == []  # the first epoch
    assert watch.warnings(20, *near) == [
        "classes 'p3' and 'p30' are 14° apart (typical: 70°): likely one person under two labels",
        "classes 'p5' and 'p8' are 33° apart (typical: 70°): likely one person under two labels",
    ]
    assert watch.warnings(30, *near) == []
    (said,) = watch.warnings(40, *angles({(3, 30): 11.0, (1, 2): 40.0}))
    assert "'p1' and 'p2'" in said
    lines = (tmp_path / "near_classes.csv").read_text().splitlines()
    assert lines[0] == "class,other_class,step,degrees,typical_degrees"
    assert [line.rsplit(",", 1)[0] for line in lines[1:]] == [
        "p3,p30,20,14.4",
        "p5,p8,20,33.0",
        "p1,p2,40,40.0",
    ]


def test_a_resumed_run_knows_what_was_named_and_forgets_what_comes_later(tmp_path) -> None:
    watch = near_classes(tmp_path, [9] * 40)
    watch.warnings(20, *angles({(3, 30): 14.0}))
    watch.warnings(40, *angles({(1, 2): 40.0}))
    resumed = near_classes(tmp_path, [9] * 40)
    (said,) = resumed.warnings(40, *angles({(3, 30): 14.0, (1, 2): 40.0}))
    assert "'p1' and 'p2'" in said  # the log of step 40 was cut with the run


@pytest.mark.parametrize(
    ("near", "counts"),
    [
        ({}, [9] * 40),
        ({(3, 30): 58.0}, [9] * 40),  # 0.83 of the median
        ({(3, 30): 20.0}, [9] * 3 + [4] + [9] * 36),  # too few images of one
    ],
)
def test_nothing_stands_out(tmp_path, near, counts) -> None:
    watch = near_classes(tmp_path, counts)
    assert watch.warnings(50, *angles(near)) == []
    degrees, nearest = angles({(3, 30): 20.0})
    nearest[30] = 31  # not mutual
    assert watch.warnings(50, degrees, nearest) == []
    assert watch.warnings(50, torch.full((40,), torch.nan), nearest) == []
    assert not (tmp_path / "near_classes.csv").exists()


def test_initial_classes_are_not_near(tmp_path) -> None:
    """Of uniform classes the nearest two are 0.9 of the median apart."""
    head = ClassifierHead(3000, 64, Margin(m2=0.5, s=32), seed=1)
    watch = NearClasses(
        head, Faces([9] * 3000), steps=1, folder=tmp_path, world=World(0, 1, torch.device("cpu"))
    )
    degrees, nearest = head.mma.nearest(head.weight)
    assert watch.warnings(50, degrees, nearest) == []
    with torch.no_grad():
        head.weight[7] = head.weight[2000] + 0.1 * head.weight[5]
    (said,) = watch.warnings(60, *head.mma.nearest(head.weight))
    assert "'p7' and 'p2000'" in said


def test_many_pairs_are_counted(tmp_path) -> None:
    pairs = {(2 * k, 2 * k + 1): 20.0 + k for k in range(8)}
    said = near_classes(tmp_path, [9] * 40).warnings(50, *angles(pairs))
    assert len(said) == 6 and said[-1].startswith("and 3 more") and "near_classes.csv" in said[-1]
    assert len((tmp_path / "near_classes.csv").read_text().splitlines()) == 9


@pytest.mark.slow
def test_a_run_names_the_person_who_has_two_labels(tiny: Path, tmp_path, capsys) -> None:
    """The same photographs under two names: nothing can tell their classes apart."""
    faces = tmp_path / "faces"
    for person in range(40):
        (faces / f"p{person:02}").mkdir(parents=True)
        pattern = np.random.default_rng(person).integers(0, 256, (32, 32, 3))
        for image in range(8):
            noise = np.random.default_rng((person, image)).normal(0, 40, (32, 32, 3))
            data = encode_jpeg(np.clip(pattern + noise, 0, 255).astype(np.uint8))
            (faces / f"p{person:02}" / f"{image}.jpg").write_bytes(data)
    shutil.copytree(faces / "p04", faces / "zoe")
    words = ["--data.source", "folder", "--data.path", faces, "--data.num_classes", "null"]
    words += ["--train.steps", 100, "--train.global_batch", 40, "--train.log_every", 10]
    words += ["--train.checkpoint_every", 100, "--model.embedding_dim", 64]
    words += ["--optim.lr", 0.02, "--head.margin.m2", 0.2, "--head.mma_weight", 0.0]
    folder = train(tiny, [str(word) for word in words])
    warned = [line["message"] for line in lines(folder) if line["kind"] == "warning"]
    assert len(warned) == 1 and "'p04' and 'zoe'" in warned[0]
    assert warned[0] in capsys.readouterr().out
    rows = (folder / "near_classes.csv").read_text().splitlines()
    assert len(rows) == 2 and rows[1].startswith("p04,zoe,")


def test_large_classes_that_draw_together_are_compared_with_one_another(tmp_path) -> None:
    """As 89 people of 100 images did among 1 100 people of four: none is one person twice."""
    near = {(2 * k, 2 * k + 1): 12.0 + k for k in range(5)}
    watch = near_classes(tmp_path, [100] * 10 + [9] * 30)
    assert watch.warnings(50, *angles(near)) == []
    (said,) = watch.warnings(60, *angles({**near, (20, 30): 20.0}))
    assert "'p20' and 'p30'" in said
