"""Energies near distance zero, MHE's random part and half space, and the norms (7) to (12)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arcface_plus.regularizers.energies import (
    SMALLEST_DISTANCE,
    cosine_loss,
    log_loss,
    mhe_loss,
    riesz_loss,
)
from arcface_plus.regularizers.geometry import gradient_norms
from arcface_plus.regularizers.mma import mma_loss

SMALLEST_ANGLE = 2 * math.asin(SMALLEST_DISTANCE / 2)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair(angle: float, norm: float = 1.0, d: int = 5) -> Tensor:
    """Return two rows at ``angle``, the first of ``norm``, the second of norm 1/2."""
    q = torch.linalg.qr(random(d, 2))[0].t()
    return torch.stack([norm * q[0], 0.5 * (math.cos(angle) * q[0] + math.sin(angle) * q[1])])


def with_gradient(loss: Callable[[Tensor], Tensor], weight: Tensor) -> tuple[float, Tensor]:
    leaf = weight.detach().clone().requires_grad_()
    value = loss(leaf)
    value.backward()
    return value.item(), leaf.grad


# For two rows a loss of means is its one pair's term: angle -> (cosine, MMA, Riesz 1 and 2, log).
NORMS_AT_NORM_2 = {
    0.1: (0.049917, 0.5, 49.979148, 999.999583, 4.995833),
    1.0: (0.420735, 0.5, 0.477261, 0.995485, 0.457622),
    2.5: (0.299236, 0.5, 0.043767, 0.046120, 0.083068),
}
TERMS = {
    "cosine": (cosine_loss, gradient_norms.cosine_gradient_norm),
    "mma": (mma_loss, gradient_norms.mma_gradient_norm),
    "riesz 1": (
        lambda w: riesz_loss(w, 1.0),
        lambda *a: gradient_norms.riesz_gradient_norm(*a, s=1.0),
    ),
    "riesz 2": (riesz_loss, lambda *a: gradient_norms.riesz_gradient_norm(*a, s=2.0)),
    "log": (log_loss, gradient_norms.log_gradient_norm),
}


@pytest.mark.parametrize("angle", NORMS_AT_NORM_2)
@pytest.mark.parametrize(("index", "name"), list(enumerate(TERMS)))
def test_norms_of_equations_7_8_10_12(index: int, name: str, angle: float) -> None:
    """The closed form, the table of it, and the gradient of the loss itself are one number."""
    loss, norm = TERMS[name]
    expected = NORMS_AT_NORM_2[angle][index]
    closed = norm(torch.tensor(angle, dtype=torch.float64), 2.0)
    assert closed.item() == pytest.approx(expected, abs=1e-6)
    _, gradient = with_gradient(loss, pair(angle, norm=2.0))
    assert gradient[0].norm().item() == pytest.approx(closed.item(), rel=1e-9)
    assert gradient[1].norm().item() == pytest.approx(4 * closed.item(), rel=1e-9)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("angle", [0.04, 0.1, 0.109, 0.11, 0.3, 1.6, 3.0, 3.1])
def test_float32_keeps_its_digits_at_small_angles(name: str, angle: float) -> None:
    loss, norm = TERMS[name]
    value, gradient = with_gradient(loss, pair(angle).float())
    exact, _ = with_gradient(loss, pair(angle))
    assert value == pytest.approx(exact, rel=2e-5)
    closed = norm(torch.tensor(angle, dtype=torch.float64))
    assert gradient[0].norm().item() == pytest.approx(closed.item(), rel=1e-4, abs=1e-6)


def test_norms_broadcast_and_go_to_infinity_where_the_formulas_do() -> None:
    angle = torch.tensor([0.0, 1.0, math.pi], dtype=torch.float64)
    norm = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    for _, closed in TERMS.values():
        both = closed(angle, norm)
        assert both.shape == (2, 3) and (both[:, 1] > 0).all()
        torch.testing.assert_close(both[0, 1:], 2 * both[1, 1:])
    riesz = gradient_norms.riesz_gradient_norm(angle)
    assert riesz[0] == math.inf and riesz[2].abs() < 1e-15
    assert gradient_norms.log_gradient_norm(angle)[0] == math.inf
    assert gradient_norms.mma_gradient_norm(angle).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="s is 0, but must be above 0"):
        gradient_norms.riesz_gradient_norm(angle, s=0)


@pytest.mark.parametrize("s", [0.0, 0.5, 2.0, 20.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_coincident_rows_have_the_stated_energy_and_force(s: float, dtype: torch.dtype) -> None:
    """On as a line from the smallest distance z: f(z) + z·|f'(z)|, and a force of |f'(z)|."""
    row = random(1, 5).to(dtype)
    row = 2 * row / row.norm()
    value, gradient = with_gradient(lambda w: mhe_loss(w, s=s), row.repeat(2, 1))
    z = SMALLEST_DISTANCE
    energy = -math.log(z) + 1 if s == 0 else z**-s * (1 + s)
    force = 1 / z if s == 0 else s * z ** (-s - 1)
    assert value == pytest.approx(energy, rel=1e-5)
    torch.testing.assert_close(gradient[0], -gradient[1])
    assert gradient[0].double().norm().item() == pytest.approx(force / 2, rel=1e-5)


@pytest.mark.parametrize("s", [0.0, 1.0, 2.0])
def test_energy_and_force_are_continuous_at_the_smallest_distance(s: float) -> None:
    def at(angle: float) -> tuple[float, Tensor]:
        return with_gradient(lambda w: mhe_loss(w, s=s), pair(angle))

    below, above = at(SMALLEST_ANGLE * (1 - 1e-9)), at(SMALLEST_ANGLE * (1 + 1e-9))
    assert below[0] == pytest.approx(above[0], rel=1e-7)
    torch.testing.assert_close(below[1], above[1], rtol=1e-7, atol=0)
    # Below, the force is level where the energy's own would be hundreds of times as large.
    inside = at(SMALLEST_ANGLE / 10)[1].norm()
    assert inside.item() == pytest.approx(above[1].norm().item(), rel=1e-3)


@pytest.mark.parametrize("s", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("angle", [1e-4, 1e-2, 0.03, 0.033])
def test_gradient_is_that_of_the_value_near_zero(s: float, angle: float) -> None:
    weight = torch.cat([pair(angle), random(2, 5)]).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w: mhe_loss(w, s=s), (weight,), eps=1e-9, rtol=1e-4, atol=1e-3
    )


def test_an_antipodal_row_of_the_half_space_is_a_coincident_one() -> None:
    row = random(1, 5, seed=1)
    weight = torch.cat([row, -row])
    value, gradient = with_gradient(lambda w: mhe_loss(w, half_space=True), weight)
    # Four points: two coincident pairs, two antipodal ones and two of a row and its negative.
    at_zero = 3 / SMALLEST_DISTANCE**2
    assert value == pytest.approx((2 * at_zero + 4 / 4) / 6, rel=1e-9)
    turned = weight - 1e-6 * gradient
    cosine = torch.nn.functional.cosine_similarity(turned[0], turned[1], dim=0)
    assert cosine > -1 + 1e-9


@pytest.mark.parametrize("s", [0.0, 1.0, 2.0])
def test_half_space_is_the_energy_of_rows_and_negatives(s: float) -> None:
    weight = random(7, 3)
    value, gradient = with_gradient(lambda w: mhe_loss(w, s=s, half_space=True), weight)
    expected, doubled = with_gradient(lambda w: mhe_loss(w, s=s), torch.cat([weight, -weight]))
    assert value == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(gradient, doubled[:7] - doubled[7:])


def test_value_of_the_public_code_of_mhe_is_twice_ours_for_s_0() -> None:
    weight = torch.tensor([[1.0, 0], [1, 1], [-1, 2]], dtype=torch.float64)
    assert 2 * mhe_loss(weight, s=0).item() == pytest.approx(-0.2803346, abs=1e-6)


@pytest.mark.parametrize("s", [0.0, 2.0])
def test_random_part_is_the_energy_of_those_rows(s: float) -> None:
    weight = random(20, 6)
    value, gradient = with_gradient(
        lambda w: mhe_loss(w, s=s, fraction=0.3, generator=torch.Generator().manual_seed(4)),
        weight,
    )
    drawn = torch.randperm(20, generator=torch.Generator().manual_seed(4))[:6]
    expected, expected_gradient = with_gradient(lambda w: mhe_loss(w, s=s), weight[drawn])
    assert value == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(gradient[drawn], expected_gradient)
    assert gradient.norm(dim=1).count_nonzero() == 6


@pytest.mark.parametrize(
    ("n", "fraction", "rows"),
    [(10, 0.3, 3), (10, 0.31, 4), (100, 0.07, 7), (30, 0.001, 2), (7, 0.999, 7), (2, 0.5, 2)],
)
def test_number_of_rows_drawn(n: int, fraction: float, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    _, gradient = with_gradient(
        lambda w: mhe_loss(w, fraction=fraction, generator=generator), random(n, 40)
    )
    assert gradient.norm(dim=1).count_nonzero() == rows


def test_random_part_is_an_unbiased_estimate() -> None:
    weight, generator, draws = random(6, 4, seed=2), torch.Generator().manual_seed(0), 1200
    value, gradient = with_gradient(mhe_loss, weight)
    leaf = weight.clone().requires_grad_()
    values = torch.stack([mhe_loss(leaf, fraction=0.5, generator=generator) for _ in range(draws)])
    values.mean().backward()
    error = values.std().item() / draws**0.5
    assert error < 0.05 * value
    assert abs(values.mean().item() - value) < 4 * error
    assert (leaf.grad - gradient).norm() < 0.15 * gradient.norm()


def test_a_bad_row_of_the_drawn_part_is_named_by_its_place_in_the_weight() -> None:
    weight = random(5, 3)
    weight[3] = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(5, generator=torch.Generator().manual_seed(seed))[:3]
        if 3 in drawn:
            with pytest.raises(ValueError, match="row 3 of the weight is zero"):
                mhe_loss(weight, fraction=0.6, generator=generator)
        else:
            assert mhe_loss(weight, fraction=0.6, generator=generator).isfinite()


@pytest.mark.parametrize("s", [-1.0, math.nan, math.inf, 21.0])
def test_exponents_out_of_range_are_refused(s: float) -> None:
    for loss in (lambda w: riesz_loss(w, s), lambda w: mhe_loss(w, s=s)):
        with pytest.raises(ValueError, match=f"s is {s}, but must be .* and at most 20"):
            loss(random(3, 2))
    with pytest.raises(ValueError, match="s is 0, but must be above 0"):
        riesz_loss(random(3, 2), 0)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, math.nan])
def test_fractions_out_of_range_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"fraction is {fraction}, but must be above 0"):
        mhe_loss(random(3, 2), fraction=fraction)
