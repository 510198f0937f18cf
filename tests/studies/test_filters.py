"""Cosines between filters (Fig 1) and gradient norms of the pair terms (Fig 2)."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from arcface_plus.studies import filters


def test_pair_cosines_are_those_of_a_double_loop() -> None:
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    naive = [
        float(torch.nn.functional.cosine_similarity(rows[i], rows[j], dim=0))
        for i in range(7)
        for j in range(i + 1, 7)
    ]
    np.testing.assert_allclose(filters.pair_cosines(rows), naive, atol=1e-6)


def test_first_filters_are_rows_of_the_first_convolution() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1))
    assert filters.first_filters(net).shape == (6, 27)
    with pytest.raises(ValueError, match="no 2-D convolution"):
        filters.first_filters(nn.Linear(2, 2))


@pytest.mark.parametrize("name", filters._CURVES)
@pytest.mark.parametrize("norm", [1.0, 2.0])
def test_closed_forms_are_what_autograd_gives(name: str, norm: float) -> None:
    for angle in (0.05, 0.1, 1.0, 2.5, 3.0):
        closed = float(filters.closed_form(name, torch.tensor([angle], dtype=torch.float64), norm))
        assert filters.measured_norm(name, angle, norm) == pytest.approx(closed, rel=1e-9)


def test_figures_and_their_numbers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = filters.draw_gradient_norms(tmp_path)
    with drawn[-1].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 17
    right = rows[8]  # 90°
    assert float(right["angle_deg"]) == 90
    assert float(right["MMA, eq. (8)"]) == pytest.approx(1)
    assert float(right["log, eq. (12)"]) == pytest.approx(math.cos(math.pi / 4) / math.sqrt(2))
    cosines = {"a": np.array([-0.5, 0.1, 0.3]), "b": np.array([0.0, 0.0, 0.9])}
    svg, png = filters.draw_cosines(cosines, tmp_path)
    assert "1 of 3 above 0.2" in svg.read_text() or svg.stat().st_size > 2000
    assert png.stat().st_size > 2000
