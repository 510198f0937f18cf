"""Points far apart on the sphere: known optima, certificates, polish, seeds, hostile sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arcface_plus import solve_tammes
from arcface_plus.studies.tammes.angles import certified_angle, smallest_angle
from arcface_plus.studies.tammes.polish import polish
from arcface_plus.studies.tammes.search import move_into_hole
from arcface_plus.studies.tammes.solve import closed_form, solve_with_report


def naive_angle(rows: np.ndarray) -> float:
    """The smallest angle by a double loop in longer floating-point numbers."""
    exact = rows.astype(np.longdouble)
    exact /= np.sqrt((exact**2).sum(1, keepdims=True))
    angles = []
    for i in range(len(exact)):
        for j in range(i):
            cosine = float((exact[i] * exact[j]).sum())
            angles.append(math.acos(max(-1.0, min(1.0, cosine))))
    return min(angles)


# Proved optima that are no closed form of ours (Schütte and van der Waerden; Musin; Danzer).
PROVED = [
    (3, 7, 77.8695421),
    (3, 8, 74.8584922),
    (3, 9, 70.5287794),
    (3, 10, 66.1468220),
    (3, 12, 63.4349488),
    (3, 24, 43.6907671),
    (4, 24, 60.0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "points", "degrees"), PROVED)
def test_finds_the_proved_optimum(dim: int, points: int, degrees: float) -> None:
    solution = solve_with_report(dim, points, restarts=48)
    assert math.degrees(solution.certified) == pytest.approx(degrees, abs=2e-6)
    assert solution.method == "search" and solution.restarts == 48


@pytest.mark.parametrize(
    ("dim", "points", "method", "degrees"),
    [
        (2, 2, "simplex", 180),
        (7, 2, "simplex", 180),
        (2, 5, "regular polygon", 72),
        (2, 1000, "regular polygon", 0.36),
        (3, 4, "simplex", math.degrees(math.acos(-1 / 3))),
        (4, 5, "simplex", math.degrees(math.acos(-1 / 4))),
        (5, 6, "simplex", math.degrees(math.acos(-1 / 5))),
        (3, 5, "cross-polytope", 90),
        (4, 8, "cross-polytope", 90),
    ],
)
def test_closed_forms(dim: int, points: int, method: str, degrees: float) -> None:
    solution = solve_with_report(dim, points)
    assert solution.method == method and solution.rows.shape == (points, dim)
    assert math.degrees(solution.angle) == pytest.approx(degrees, abs=1e-9)
    assert solution.converged and solution.certified <= solution.angle


@pytest.mark.parametrize(("dim", "points"), [(1024, 1025), (300, 600)])
def test_many_closest_pairs_in_many_dimensions_fit_into_memory(dim: int, points: int) -> None:
    """Every pair of these is among the closest: their chords at once would be gigabytes."""
    solution = solve_with_report(dim, points)
    expected = math.acos(-1 / dim) if points == dim + 1 else math.pi / 2
    assert 0 <= expected - solution.certified < 1e-12


def test_others_have_no_closed_form() -> None:
    assert closed_form(3, 7) is None and closed_form(4, 24) is None


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-7])
def test_certificate_is_below_the_angle_and_close_to_it(scale: float) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 5))
    rows[1] = rows[0] + scale * rng.standard_normal(5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    certified, angle = certified_angle(rows), smallest_angle(rows)
    assert 0 <= angle - certified < 1e-13
    if scale > 1e-5:  # arccos of the naive reference loses the digits of smaller angles
        assert certified <= naive_angle(rows) + 1e-12
        assert angle == pytest.approx(naive_angle(rows), abs=1e-10)


def test_certificate_holds_against_longer_arithmetic() -> None:
    """At chords, at cosines and near π: never above the angle of the exact rows."""
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(2)
    for degrees in (1e-6, 0.5, 20.0, 59.9, 60.1, 90.0, 119.9, 120.1, 179.0, 179.99999):
        for dim in (2, 5):
            a, b = np.linalg.qr(rng.standard_normal((dim, 2)))[0].T
            turn = math.radians(degrees)
            rows = np.array([a, math.cos(turn) * a + math.sin(turn) * b])
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            with mpmath.workdps(60):
                first, second = ([mpmath.mpf(x) for x in row.tolist()] for row in rows)
                dot = mpmath.fsum(x * y for x, y in zip(first, second, strict=True))
                norms = [mpmath.sqrt(mpmath.fsum(x * x for x in row)) for row in (first, second)]
                exact = mpmath.acos(dot / norms[0] / norms[1])
                assert mpmath.mpf(certified_angle(rows)) <= exact
                assert abs(exact - certified_angle(rows)) < 2e-14
                assert abs(exact - smallest_angle(rows)) < 4e-15


def test_rows_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1 is not of unit length"):
        certified_angle(np.array([[1.0, 0.0], [0.0, 2.0]]))


def test_coincident_points_have_angle_0() -> None:
    assert certified_angle(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) == 0


def test_polish_never_makes_it_worse_and_reaches_the_icosahedron() -> None:
    golden = (1 + 5**0.5) / 2
    corners = [(0, a, b * golden) for a in (1, -1) for b in (1, -1)]
    rows = np.array([np.roll(c, k) for c in corners for k in range(3)], dtype=np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rng = np.random.default_rng(1)
    shaken = rows + 0.05 * rng.standard_normal(rows.shape)
    shaken /= np.linalg.norm(shaken, axis=1, keepdims=True)
    done = polish(shaken)
    assert done.converged
    assert math.degrees(smallest_angle(done.rows)) == pytest.approx(63.43494882, abs=1e-7)
    random = rng.standard_normal((20, 3))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    for programs in (0, 1, 3):
        assert smallest_angle(polish(random, programs=programs).rows) >= smallest_angle(random)


def test_a_hop_moves_one_point_into_a_hole() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    moved = move_into_hole(rows, rng)
    assert (moved != rows).any(axis=1).sum() == 1


def test_same_seed_same_rows() -> None:
    one, same, other = (solve_tammes(3, 11, restarts=4, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert one.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-14)


def test_a_limit_in_seconds_still_gives_an_answer() -> None:
    counted: list[tuple[int, int]] = []
    solution = solve_with_report(
        4, 40, restarts=64, seconds=1e-6, progress=lambda *c: counted.append(c)
    )
    assert solution.rows.shape == (40, 4) and not solution.converged
    assert counted[-1][0] == counted[-1][1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 1, "points": 3}, "dim is 1"),
        ({"dim": 10**6, "points": 3}, "dim is 1000000"),
        ({"dim": 3, "points": 1}, "points is 1"),
        ({"dim": 3, "points": 10**6}, "at most 5000"),
        ({"dim": 2, "points": 10**6}, "at most 20000"),
        ({"dim": 3, "points": 9, "restarts": 0}, "restarts is 0"),
        ({"dim": 3, "points": 9, "seconds": float("nan")}, "seconds is nan"),
        ({"dim": 3, "points": 9, "seed": -1}, "seed is -1"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_tammes(**arguments)


def test_simplex_rows_meet_its_gram_matrix() -> None:
    rows = torch.from_numpy(solve_tammes(6, 5))
    expected = 1.25 * torch.eye(5, dtype=torch.float64) - 0.25
    torch.testing.assert_close(rows @ rows.t(), expected)
