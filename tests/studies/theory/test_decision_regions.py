from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from arcface_plus.losses.margins.family import Margin
from arcface_plus.studies.theory.decision_regions import (
    NOBODY,
    PAPER_MARGINS,
    angular_owners,
    cap_half_angle,
    owners,
    ring_of_neighbours,
    visible_points,
)

M = math.radians(78.64)
CLOSED_FORMS = {
    "none": (M / 2, 39.32),
    "AmpFace": (math.atan((0.35 - math.cos(M)) / math.sin(M)), 8.87),
    "SphereFace": (M / 2.35, 33.46),
    "ArcFace": ((M - 0.6) / 2, 22.13),
    "CosFace": (M / 2 - math.asin(0.5 / (2 * math.sin(M / 2))), 16.08),
}


@pytest.mark.parametrize("name", PAPER_MARGINS)
def test_cap_half_angle_vector_and_closed_form(name: str) -> None:
    closed, degrees = CLOSED_FORMS[name]
    got = cap_half_angle(M, PAPER_MARGINS[name])
    assert math.degrees(got) == pytest.approx(degrees, abs=5.1e-3)
    assert got == pytest.approx(closed, abs=1e-9)


def test_cap_at_its_ends() -> None:
    assert cap_half_angle(1.0, Margin(m2=0.0, m3=1.0)) == 0.0  # not even its own direction
    assert cap_half_angle(1.0, Margin(m2=0.0, m3=-1.0)) == 1.0  # all of the way
    # A neighbour beyond a right angle counts as one at 90° with WC-ReLU.
    plain = PAPER_MARGINS["CosFace"]
    with_relu = cap_half_angle(math.pi, replace(plain, wc_relu=True))
    assert with_relu == pytest.approx(math.pi / 3, abs=1e-9)
    assert cap_half_angle(math.pi, plain) > with_relu
    for angle in (0.0, 4.0, math.nan):
        with pytest.raises(ValueError, match="inter_angle"):
            cap_half_angle(angle, plain)


@pytest.mark.parametrize("name", PAPER_MARGINS)
def test_a_ring_of_neighbours_leaves_that_cap(name: str) -> None:
    """Fig. 18: points straight towards a neighbour are the pole's up to the half angle."""
    ring = ring_of_neighbours(M, 200, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(ring, axis=1), 1)
    np.testing.assert_allclose(ring[:, 2], math.cos(M))
    prototypes = np.concatenate([[[0.0, 0.0, 1.0]], ring])
    alpha = cap_half_angle(M, PAPER_MARGINS[name])
    direction = ring[7, :2] / np.linalg.norm(ring[7, :2])
    for shift, inside in ((-1e-6, True), (1e-6, False)):
        angle = alpha + shift
        point = np.array([*(math.sin(angle) * direction), math.cos(angle)])
        assert (owners(prototypes @ point, PAPER_MARGINS[name]) == 0) == inside


@pytest.mark.parametrize(
    ("name", "second_at_boundary"),
    [
        ("none", lambda t: t),
        ("AmpFace", lambda t: math.acos(0.35 * math.cos(t))),
        ("SphereFace", lambda t: 1.35 * t),
        ("ArcFace", lambda t: t + 0.6),
        ("CosFace", lambda t: math.acos(math.cos(t) - 0.5)),
    ],
)
def test_boundaries_of_two_classes(name: str, second_at_boundary) -> None:
    """Fig. 15, and its mirror image for the second class."""
    margin = PAPER_MARGINS[name]
    for first in (0.1, 0.5, 0.9):
        second = second_at_boundary(first)
        assert angular_owners(first, second + 1e-6, margin) == 0
        assert angular_owners(second + 1e-6, first, margin) == 1
        if name != "none":
            assert angular_owners(first, second - 1e-6, margin) == NOBODY
            assert angular_owners(second - 1e-6, first, margin) == NOBODY


def test_amp_needs_a_rival_beyond_a_limit() -> None:
    """At m0 = .35 nothing is owned while both angles are below 69.5°."""
    theta = np.radians(np.linspace(0, 69.5, 40))
    assert (angular_owners(theta[:, None], theta, PAPER_MARGINS["AmpFace"]) == NOBODY).all()
    assert angular_owners(0.0, math.radians(69.6), PAPER_MARGINS["AmpFace"]) == 0


@pytest.mark.parametrize("wc_relu", [False, True])
@pytest.mark.parametrize("name", PAPER_MARGINS)
def test_owners_are_those_of_a_loop(name: str, wc_relu: bool) -> None:
    margin = replace(PAPER_MARGINS[name], wc_relu=wc_relu)
    cosine = np.random.default_rng(1).uniform(-1, 1, (300, 4))
    got = owners(cosine, margin)
    for row, owner in zip(cosine, got, strict=True):
        claims = []
        for k, c in enumerate(row):
            f = margin.m0 * math.cos(margin.m1 * math.acos(c) + margin.m2) - margin.m3
            rivals = [max(0, r) if wc_relu else r for j, r in enumerate(row) if j != k]
            if f >= max(rivals):
                claims.append(k)
        # Past π the raw cosine rises again, and several may claim a point.
        assert owner in claims if claims else owner == NOBODY


def test_ties_and_shapes() -> None:
    plain = PAPER_MARGINS["none"]
    assert owners(np.array([0.3, 0.3, -1.0]), plain) in (0, 1)
    assert owners(np.zeros((2, 5, 3)), plain).shape == (2, 5)
    with pytest.raises(ValueError, match="two classes or more"):
        owners(np.array([0.3]), plain)


@pytest.mark.parametrize("view", [(1.0, -1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 3.0, 0.0)])
def test_visible_points_are_the_facing_half(view: tuple[float, float, float]) -> None:
    points, screen = visible_points(view, 41)
    towards = np.asarray(view) / np.linalg.norm(view)
    on_disc = ~np.isnan(points[..., 0])
    seen = points[on_disc]
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), 1, atol=1e-12)
    assert (seen @ towards >= -1e-12).all()
    np.testing.assert_allclose(points[20, 20], towards, atol=1e-12)
    np.testing.assert_allclose(screen @ screen.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(screen @ points[20, 30], [0.5, 0], atol=1e-12)
    assert on_disc.mean() == pytest.approx(math.pi / 4, abs=0.05)
