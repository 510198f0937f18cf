from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.base import MarginLoss
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.theory.uniform_law import log_negative_weight
from arcface_plus.losses.theory.uniform_prediction import own_gradient, termination_angle
from arcface_plus.runs.train import train
from arcface_plus.training import uniform_monitor
from arcface_plus.training.uniform_monitor import (
    CollapseWatch,
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

    monkeypatch.setattr(sys.modules["arcface_plus.training.trainer"], "uniform_figures", counted)
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
