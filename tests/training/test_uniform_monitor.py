from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.base import MarginLoss
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.theory.uniform_law import log_negative_weight
from arcface_plus.losses.theory.uniform_prediction import own_gradient, termination_angle
from arcface_plus.runs.train import train
from arcface_plus.training import uniform_monitor
from arcface_plus.training.uniform_monitor import margin_warnings, uniform_figures


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
