"""Every angular loss: worked examples, naive references, and every kind of degenerate weight."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from watch import NoWaits, as_on_a_gpu

from arcface_plus.regularizers import energies, smooth_mma
from arcface_plus.regularizers.energies import cosine_loss, log_loss, mhe_loss, riesz_loss
from arcface_plus.regularizers.geometry import closed_form
from arcface_plus.regularizers.mma import mma_loss
from arcface_plus.regularizers.orthogonal import orthogonal_loss
from arcface_plus.regularizers.regularface import regularface_loss
from arcface_plus.regularizers.smooth_mma import smooth_mma_loss

Loss = Callable[[Tensor], Tensor]


def cosines(weight: Tensor) -> Tensor:
    unit = F.normalize(weight.flatten(1), dim=1)
    return unit @ unit.t()


def others(matrix: Tensor) -> Tensor:
    """Return the entries off the diagonal (n, n − 1)."""
    n = len(matrix)
    return matrix[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)


def distances(weight: Tensor) -> Tensor:
    unit = F.normalize(weight.flatten(1), dim=1)
    return others((unit[:, None] - unit[None]).square().sum(2)).sqrt()


# Each loss, and the same by the obvious formula and autograd.
LOSSES: dict[str, tuple[Loss, Loss]] = {
    "mma": (mma_loss, lambda w: -others(cosines(w)).amax(1).acos().mean()),
    "cosine": (cosine_loss, lambda w: others(cosines(w)).amax(1).mean()),
    "regularface": (regularface_loss, lambda w: others(cosines(w)).amax(1).mean()),
    "riesz 1": (lambda w: riesz_loss(w, 1.0), lambda w: distances(w).pow(-1).mean()),
    "riesz 2": (riesz_loss, lambda w: distances(w).pow(-2).mean()),
    "riesz 0.5": (lambda w: riesz_loss(w, 0.5), lambda w: distances(w).pow(-0.5).mean()),
    "log": (log_loss, lambda w: -distances(w).log().mean()),
    "mhe 0": (lambda w: mhe_loss(w, s=0), lambda w: -distances(w).log().mean()),
    "mhe 2": (mhe_loss, lambda w: distances(w).pow(-2).mean()),
    "mhe half": (
        lambda w: mhe_loss(w, s=1, half_space=True),
        lambda w: distances(torch.cat([w, -w])).pow(-1).mean(),
    ),
    "mhe half 0": (
        lambda w: mhe_loss(w, s=0, half_space=True),
        lambda w: -distances(torch.cat([w, -w])).log().mean(),
    ),
    "orthogonal": (
        orthogonal_loss,
        lambda w: (cosines(w) - torch.eye(len(w))).square().sum() / 2,
    ),
    "smooth_mma": (
        smooth_mma_loss,
        lambda w: 0.1 * (others(cosines(w)).acos() / -0.1).logsumexp(1).mean(),
    ),
}
ALL = list(LOSSES)
PARTING = [name for name in ALL if name not in ("cosine", "regularface", "orthogonal")]


def with_gradient(loss: Loss, weight: Tensor) -> tuple[Tensor, Tensor]:
    leaf = weight.detach().clone().requires_grad_()
    value = loss(leaf)
    value.backward()
    return value.detach(), leaf.grad


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


# W = [[1, 0], [1, 1], [−1, 2]]: angles of 45, 116.5651 and 71.5651 degrees.
EXAMPLES = {
    "mma": (-0.9399474, [[0, 0.6666667], [0.1666667, -0.1666667], [0.1333333, 0.0666667]]),
    "cosine": (0.5768138, [[0, 0.4714045], [0.0775884, -0.0775884], [0.1264911, 0.0632456]]),
    "riesz 1": (0.9164909, [[0, 0.5862655], [0.1639917, -0.1639917], [0.1033129, 0.0516564]]),
    "riesz 2": (0.9279453, [[0, 1.4449486], [0.5177971, -0.5177971], [0.1637418, 0.0818709]]),
    "log": (-0.1401673, [[0, 0.5053746], [0.0855656, -0.0855656], [0.1336973, 0.0668487]]),
    "orthogonal": (0.8, [[0, 0.2], [0.2, -0.2], [-0.08, -0.04]]),
}
EXAMPLES |= {
    "regularface": EXAMPLES["cosine"],
    "mhe 2": EXAMPLES["riesz 2"],
    "mhe 0": EXAMPLES["log"],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_example(name: str, dtype: torch.dtype) -> None:
    weight = torch.tensor([[1, 0], [1, 1], [-1, 2]], dtype=dtype)
    value, gradient = with_gradient(LOSSES[name][0], weight)
    expected, rows = EXAMPLES[name]
    assert value.item() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(gradient, torch.tensor(rows, dtype=dtype), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("n", "d"), [(2, 2), (3, 300), (40, 7), (90, 33), (33, 90)])
def test_equals_the_obvious_formula(name: str, n: int, d: int, dtype: torch.dtype) -> None:
    loss, naive = LOSSES[name]
    weight = random(n, d).to(dtype) * random(n, 1, seed=1).to(dtype).exp()
    value, gradient = with_gradient(loss, weight)
    expected, expected_gradient = with_gradient(naive, weight.double())
    bound = 1e-10 if dtype == torch.float64 else 1e-5
    assert value.dtype == gradient.dtype == dtype and value.shape == ()
    assert abs(value.item() - expected.item()) < bound * max(1.0, abs(expected.item()))
    assert relative(gradient, expected_gradient) < bound


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 2, 3, 1), (2, 3)])
def test_gradient_is_that_of_the_value(name: str, shape: tuple[int, ...]) -> None:
    weight = random(*shape, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name][0], (weight,))


@pytest.mark.parametrize("name", ALL)
def test_blocks_of_any_size_add_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.cat([random(30, 5), random(30, 5) + 1e-4 * random(30, 5, seed=2)])
    expected = with_gradient(LOSSES[name][0], weight)
    for entries in (1, 500):
        monkeypatch.setattr(energies, "_ENTRIES_AT_ONCE", entries)
        monkeypatch.setattr(smooth_mma, "_ENTRIES_AT_ONCE", entries)
        for ours, theirs in zip(with_gradient(LOSSES[name][0], weight), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-10)


def cone(spread: float, n: int = 60) -> Tensor:
    return random(1, 6, seed=3) + spread * random(n, 6)


CROWDS = {
    "cone": cone(0.03),
    "tight cone": cone(1e-4),
    "tighter cone": cone(1e-5),
    "identical": random(1, 6).repeat(60, 1),
    "antipodal": torch.cat([random(1, 6).repeat(30, 1), -random(1, 6).repeat(30, 1)]),
    "mixed": torch.cat([random(1, 6).repeat(20, 1), cone(1e-3, 20), random(20, 6, seed=8)]),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("name", PARTING)
def test_crowds_are_computed_as_their_pairs_one_by_one(
    name: str, crowd: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where too many pairs are close for a list, float64 products take its place."""
    loss, weight = LOSSES[name][0], CROWDS[crowd].to(dtype)
    monkeypatch.setattr(closed_form, "_MOST_PAIRS", 10**9)
    expected, expected_gradient = with_gradient(loss, weight)
    monkeypatch.setattr(closed_form, "_MOST_PAIRS", 0)
    value, gradient = with_gradient(loss, weight)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert relative(gradient, expected_gradient) < 1e-4


@pytest.mark.parametrize("crowd", ["none", *CROWDS])
@pytest.mark.parametrize("name", PARTING[1:])
def test_a_gpu_computes_the_same_without_a_list_of_pairs(name: str, crowd: str) -> None:
    loss = LOSSES[name][0]
    weight = (CROWDS | {"none": random(60, 6)})[crowd].float()
    expected, expected_gradient = with_gradient(loss, weight)
    with as_on_a_gpu(), NoWaits():
        value, gradient = with_gradient(loss, weight)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    # Norms are measured otherwise: in the tighter cone their last bits are 0.6 % of a distance.
    assert relative(gradient, expected_gradient) < 2e-3


@pytest.mark.parametrize("name", PARTING[1:])
def test_a_whole_layer_of_identical_rows_parts(name: str) -> None:
    """In one step; MMA, which moves a row by one other, takes several."""
    weight = torch.ones(300, 40)
    _, gradient = with_gradient(LOSSES[name][0], weight)
    assert gradient.isfinite().all() and (gradient.norm(dim=1) > 0).sum() > 250
    weight = weight - 1e-3 * F.normalize(gradient, dim=1)
    assert others(cosines(weight.double())).amax(1).median() < 1 - 1e-9


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_norms_beyond_the_range_of_their_squares(name: str, scale: float) -> None:
    """The value does not feel the norms; the gradient is one over them."""
    weight = random(9, 6, dtype=torch.float32)
    value, gradient = with_gradient(LOSSES[name][0], weight)
    scaled_value, scaled_gradient = with_gradient(LOSSES[name][0], weight * scale)
    assert scaled_value.item() == pytest.approx(value.item(), rel=1e-5)
    assert relative(scaled_gradient.double() * scale, gradient) < 1e-5


@pytest.mark.parametrize("name", ALL)
def test_mixed_norms_and_no_gradient_along_the_rows(name: str) -> None:
    weight = random(9, 6) * torch.logspace(-8, 8, 9, dtype=torch.float64)[:, None]
    _, gradient = with_gradient(LOSSES[name][0], weight)
    assert (gradient.norm(dim=1) > 0).all()
    along = (gradient * weight).sum(1).abs()
    assert (along <= 1e-12 * gradient.norm(dim=1) * weight.norm(dim=1)).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    weight = random(20, 8).to(dtype)
    value, gradient = with_gradient(LOSSES[name][0], weight)
    expected, expected_gradient = with_gradient(LOSSES[name][0], weight.float())
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    assert torch.equal(value, expected)
    assert torch.equal(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize("name", ALL)
def test_layouts_autocast_and_no_gradient(name: str) -> None:
    loss = LOSSES[name][0]
    weight = random(12, 3, 4, 4, dtype=torch.float32)
    expected, expected_gradient = with_gradient(loss, weight)
    strided = torch.empty(4, 4, 3, 24).permute(3, 2, 0, 1)[::2].copy_(weight)
    assert not strided.is_contiguous()
    for other in (weight.to(memory_format=torch.channels_last), strided):
        value, gradient = with_gradient(loss, other)
        assert torch.equal(value, expected) and torch.equal(gradient, expected_gradient)
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = with_gradient(loss, weight)
    assert torch.equal(value, expected) and torch.equal(gradient, expected_gradient)
    with torch.no_grad():
        assert not loss(weight.requires_grad_()).requires_grad
    torch.testing.assert_close(loss(weight.detach()), expected)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_coincident_and_antipodal_rows_are_finite(name: str, dtype: torch.dtype) -> None:
    row = random(1, 6, seed=5)
    row = 2 * row / row.norm()
    for rows in (
        row.repeat(2, 1),
        row.repeat(9, 1),
        torch.cat([row, 3 * row]),
        torch.cat([row, -row]),
        torch.cat([row, row, -row, -row, random(2, 6)]),
        torch.cat([row, row + 1e-5 * random(1, 6)]),
    ):
        value, gradient = with_gradient(LOSSES[name][0], rows.to(dtype))
        assert value.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", PARTING)
@pytest.mark.parametrize("copies", [2, 7])
def test_coincident_rows_part(name: str, copies: int, dtype: torch.dtype) -> None:
    weight = random(1, 5, seed=5).to(dtype).repeat(copies, 1)
    for _ in range(5):
        _, gradient = with_gradient(LOSSES[name][0], weight)
        assert (gradient.norm(dim=1) > 0).all() or copies > 2
        weight = weight - 1e-3 * gradient / gradient.norm(dim=1).max()
    assert others(cosines(weight.double())).amax() < 1 - 1e-8


@pytest.mark.parametrize("name", ["cosine", "orthogonal"])
def test_cosine_and_orthogonal_loss_leave_coincident_rows(name: str) -> None:
    """Eq. (7) at angle 0: their gradient vanishes, which is why they are hard to optimise."""
    value, gradient = with_gradient(LOSSES[name][0], random(1, 5).repeat(3, 1))
    assert value > 0.9 and gradient.abs().max() < 1e-15


@pytest.mark.parametrize("name", ALL)
def test_one_dimensional_rows_have_a_value_and_no_gradient(name: str) -> None:
    values = []
    for rows in ([[1.0], [-2.0]], [[1.0], [3.0]], [[1.0], [3.0], [-0.5], [0.1]]):
        value, gradient = with_gradient(LOSSES[name][0], torch.tensor(rows))
        assert value.isfinite()
        values.append(value.item())
        # Rounding of 1/3·3 is what is left: there is nowhere to turn.
        assert gradient.isfinite().all() and gradient.abs().max() < 1e-2
    assert any(values), "they have values"


@pytest.mark.parametrize("name", ALL)
def test_rows_without_a_direction_are_named(name: str) -> None:
    weight = random(10, 4, dtype=torch.float32)
    for value, row in ((0.0, 3), (math.nan, 0), (math.inf, 9), (-math.inf, 5)):
        bad = weight.clone()
        bad[row] = value
        with pytest.raises(ValueError, match=f"row {row} of the weight is zero or not finite"):
            LOSSES[name][0](bad)


@pytest.mark.parametrize("name", ALL)
def test_weights_that_have_no_pairs_are_refused(name: str) -> None:
    for count in (0, 1):
        with pytest.raises(ValueError, match=f"at least two rows, but the weight has {count}"):
            LOSSES[name][0](torch.ones(count, 3))
    for wrong in (torch.ones(4), torch.ones(4, 4, dtype=torch.int64), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="must be floating-point rows"):
            LOSSES[name][0](wrong)


@pytest.mark.parametrize("name", ALL)
def test_second_derivative_is_refused(name: str) -> None:
    weight = random(5, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name][0](weight), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gradient.sum().backward()


@pytest.mark.parametrize("name", ALL)
def test_weight_of_more_than_one_use_gets_the_sum(name: str) -> None:
    weight = random(6, 4).requires_grad_()
    (2 * LOSSES[name][0](weight) + weight.square().sum()).backward()
    _, alone = with_gradient(LOSSES[name][0], weight)
    torch.testing.assert_close(weight.grad, 2 * alone + 2 * weight.detach())
