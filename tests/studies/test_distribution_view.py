from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from arcface_plus.evaluation.pairs.distribution import Cosines
from arcface_plus.studies.distribution_view import distribution_numbers, draw_distributions


def cosines(count: int = 2000, seed: int = 0) -> Cosines:
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(0.6, 0.2, count), rng.normal(0, 0.1, count)
    return Cosines(positive.clip(-1, 1), negative.clip(-1, 1), count, count)


def words(path: Path) -> str:
    """The texts of an SVG, which matplotlib keeps as comments beside their outlines."""
    return "\n".join(re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8")))


def test_one_model_is_drawn_with_its_boundary(tmp_path: Path) -> None:
    svg, png = draw_distributions({"mine": cosines()}, tmp_path, "view")
    assert png.stat().st_size > 5000
    numbers = distribution_numbers(cosines())
    text = words(svg)
    assert "same person" in text and "mine" in text
    assert f"boundary {numbers['boundary']:.3f}" in text and f"tail {numbers['tail']:.3f}" in text


def test_two_models_have_a_legend_each_and_names_are_no_formulas(tmp_path: Path) -> None:
    name = "a$x^$" + "very long name " * 9
    svg, _ = draw_distributions({name: cosines(), "b": cosines(seed=1)}, tmp_path, "view")
    assert words(svg).count("different people") == 2 and "…" in words(svg)


def test_what_cannot_be_shown_is_not_drawn(tmp_path: Path) -> None:
    few = Cosines(np.array([0.5, 1 + 1e-9]), np.array([-0.1]), 2, 1)
    svg, _ = draw_distributions({"few": few}, tmp_path, "view")
    assert "boundary 0" not in words(svg) and "tail 0" not in words(svg)
    numbers = distribution_numbers(few)
    assert sum(numbers["histogram"]["positive"]) == 2  # what rounding put beyond 1 too


def test_numbers_are_json_and_the_histogram_holds_all() -> None:
    numbers = json.loads(json.dumps(distribution_numbers(cosines()), allow_nan=False))
    histogram = numbers["histogram"]
    assert len(histogram["edges"]) == 101 and histogram["edges"][51] == 0.02
    assert sum(histogram["negative"]) == numbers["negatives"] == 2000


@pytest.mark.parametrize("count", [0, 3])
def test_more_than_two_models_are_refused(count: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one model or two"):
        draw_distributions({str(i): cosines() for i in range(count)}, tmp_path, "view")
    assert not list(tmp_path.iterdir())
