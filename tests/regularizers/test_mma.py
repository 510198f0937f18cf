"""MMA against autograd through the plain formulation, and against its own closed form."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_plus.regularizers.geometry.angles import index_tangent
from arcface_plus.regularizers.mma import mma_loss, mma_value_and_gradient, nearest_angles
from arcface_plus.regularizers.nearest.cache import NeighbourCache
from arcface_plus.regularizers.sharded.mma import MMATerms, attach_gradient, pick_rows


def plain(weight: Tensor) -> Tensor:
    """Return eq. (6) with the whole matrix."""
    unit = F.normalize(weight.flatten(1), dim=1)
    cosine = (unit @ unit.t()).fill_diagonal_(-1)
    return -torch.acos(cosine.max(dim=1)[0]).mean()


def with_gradient(loss, weight: Tensor, **options) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    leaf = weight.detach().clone().requires_grad_()
    value = loss(leaf, **options)
    value.backward()
    return value.detach(), leaf.grad


def whole_gradient(terms: MMATerms, weight: Tensor) -> Tensor:
    """Return the gradient of all rows, touched or not."""
    leaf = weight.detach().clone().requires_grad_()
    attach_gradient(leaf, terms).backward()
    return leaf.grad


def relative(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_worked_example() -> None:
    weight = torch.tensor([[1.0, 0], [1, 1], [-1, 2]])
    value, gradient = with_gradient(mma_loss, weight)
    expected = [[0, 2 / 3], [1 / 6, -1 / 6], [2 / 15, 1 / 15]]
    assert value.item() == pytest.approx(-0.9399474, abs=1e-6)
    torch.testing.assert_close(gradient, torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_simplex_is_the_minimum(n: int) -> None:
    simplex = torch.linalg.svd(torch.eye(n, dtype=torch.float64) - 1 / n)[0][:, : n - 1]
    value = mma_loss(simplex)
    assert value.item() == pytest.approx(-math.acos(-1 / (n - 1)), abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(2, 2), (3, 1000), (50, 7), (700, 33), (2500, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_plain_formulation(n: int, d: int, dtype: torch.dtype) -> None:
    weight = random(n, d).to(dtype) * random(n, 1, seed=1).to(dtype).exp()
    value, gradient = with_gradient(mma_loss, weight)
    expected, expected_gradient = with_gradient(plain, weight.double())
    bound = 1e-10 if dtype == torch.float64 else 1e-5
    assert value.dtype == gradient.dtype == dtype
    assert abs(value.item() - expected.item()) < bound
    assert relative(gradient, expected_gradient) < bound


def test_gradient_is_that_of_the_value() -> None:
    weight = random(7, 4).requires_grad_()
    assert torch.autograd.gradcheck(mma_loss, (weight,))
    weight = random(6, 2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(mma_loss, (weight,))


def pair(angle: float, d: int, dtype: torch.dtype) -> Tensor:
    """Return two rows of norms 3 and 1/2 at ``angle``."""
    q = torch.linalg.qr(random(d, 2))[0].t()
    return torch.stack([3 * q[0], 0.5 * (math.cos(angle) * q[0] + math.sin(angle) * q[1])]).to(
        dtype
    )


@pytest.mark.parametrize(
    "angle", [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 1.0, math.pi / 2, 3.0, math.pi - 1e-6, math.pi - 1e-9]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [2, 64])
def test_gradient_norm_is_one_over_the_row_norm(angle: float, dtype: torch.dtype, d: int) -> None:
    """Eq. (8). The pair is mutual and the mean is over two rows, so each row gets one pair term."""
    weight = pair(angle, d, dtype)
    value, gradient = with_gradient(mma_loss, weight)
    accuracy = 1e-6 if dtype == torch.float32 else 1e-7
    norms = gradient.norm(dim=1) * weight.norm(dim=1)
    assert (norms - 1).abs().max() < accuracy
    assert ((gradient * weight).sum(1).abs() < accuracy).all()
    assert -value.item() == pytest.approx(angle, abs=2e-7 if dtype == torch.float32 else 1e-14)


def test_a_small_angle_keeps_its_digits_and_direction() -> None:
    weight = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1e-6, 0.0]])
    value, gradient = with_gradient(mma_loss, weight)
    assert -value.item() == pytest.approx(1e-6, rel=1e-5)
    expected = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5)


def test_coincident_rows_part_and_antipodal_rows_turn() -> None:
    row = random(1, 5, dtype=torch.float32)
    _, apart = with_gradient(mma_loss, row.repeat(2, 1))
    torch.testing.assert_close(apart[0], -apart[1])
    torch.testing.assert_close(apart.norm(dim=1), 1 / row.norm(dim=1).repeat(2))
    _, again = with_gradient(mma_loss, row.repeat(2, 1))
    assert torch.equal(apart, again)
    stepped = row.repeat(2, 1) - 1e-3 * apart
    expected = 2e-3 / row.norm() ** 2  # both turn by their step over their norm
    assert -mma_loss(stepped).item() == pytest.approx(expected.item(), rel=1e-3)
    _, turned = with_gradient(mma_loss, torch.cat([row, -row]))
    torch.testing.assert_close(turned[0], turned[1])
    torch.testing.assert_close(turned.norm(dim=1), 1 / row.norm(dim=1).repeat(2))


def test_many_identical_rows_scatter() -> None:
    weight = random(1, 16, dtype=torch.float32).repeat(40, 1)
    for _ in range(200):
        _, gradient = with_gradient(mma_loss, weight)
        assert gradient.isfinite().all()
        weight = weight - 0.1 * gradient
    assert nearest_angles(weight).angle.min() > 0.05


def test_index_tangent_at_a_coordinate_axis_and_in_one_dimension() -> None:
    axis = torch.eye(3)
    i, j = torch.tensor([0, 1, 2]), torch.tensor([5, 6, 7])
    tangent = index_tangent(axis, i, j)
    torch.testing.assert_close(tangent.norm(dim=1), torch.ones(3))
    assert ((tangent * axis).sum(1) == 0).all()
    assert torch.equal(index_tangent(axis, j, i), tangent)
    _, gradient = with_gradient(mma_loss, torch.tensor([[2.0], [3.0], [-1.0]]))
    assert gradient.abs().max() == 0  # a line has no direction to turn to


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    weight = random(60, 8).to(dtype)
    value, gradient = with_gradient(mma_loss, weight)
    expected, expected_gradient = with_gradient(mma_loss, weight.float())
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    assert value == expected
    assert torch.equal(gradient, expected_gradient.to(dtype))


def test_layouts_autocast_and_repeated_backward() -> None:
    weight = random(40, 6, 3, 3, dtype=torch.float32)
    expected, gradient = with_gradient(mma_loss, weight)
    last = weight.to(memory_format=torch.channels_last)
    value, other = with_gradient(mma_loss, last)
    assert value == expected and torch.equal(other, gradient)
    with torch.autocast("cpu", torch.bfloat16):
        assert mma_loss(weight) == expected
    leaf = weight.clone().requires_grad_()
    loss = mma_loss(leaf)
    first = torch.autograd.grad(3 * loss, leaf, retain_graph=True)[0]
    second = torch.autograd.grad(loss, leaf)[0]
    torch.testing.assert_close(first, 3 * second)
    assert not mma_loss(weight).requires_grad
    with torch.no_grad():
        assert not mma_loss(leaf).requires_grad


def test_second_derivative_is_refused() -> None:
    leaf = random(5, 3).requires_grad_()
    gradient = torch.autograd.grad(mma_loss(leaf), leaf, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        (gradient.sum() + leaf.sum()).backward()


def test_row_norms_beyond_the_range_of_their_squares() -> None:
    weight = random(6, 4, dtype=torch.float32)
    scales = torch.tensor([1e-30, 1e-20, 1.0, 1e10, 1e25, 1e30])[:, None]
    value, gradient = with_gradient(mma_loss, weight * scales)
    expected, expected_gradient = with_gradient(mma_loss, weight)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert relative(gradient.double() * scales, expected_gradient) < 1e-6


def test_sampled_rows_estimate_value_and_gradient_without_bias() -> None:
    weight = random(30, 5, dtype=torch.float32)
    expected, expected_gradient = with_gradient(mma_loss, weight)
    generator = torch.Generator().manual_seed(3)
    draws = [mma_value_and_gradient(weight, rows=6, generator=generator) for _ in range(2000)]
    values = torch.stack([t.value for t in draws]).double()
    error = values.std() / math.sqrt(len(draws))
    assert 0 < error < 0.01
    assert abs(values.mean() - expected) < 3 * error
    direction = random(30, 5, seed=9)
    gradients = torch.stack([whole_gradient(t, weight) for t in draws]).double()
    along = (gradients * direction).sum((1, 2))
    error = along.std() / math.sqrt(len(draws))
    assert abs(along.mean() - (expected_gradient.double() * direction).sum()) < 3 * error
    errors = gradients.std(0) / math.sqrt(len(draws))
    off = (gradients.mean(0) - expected_gradient).abs() / errors
    assert (off < 3).double().mean() > 0.97 and off.max() < 5


def test_sampled_rows_are_the_generators_and_search_all_rows() -> None:
    weight = random(500, 6)
    all_rows = nearest_angles(weight)
    terms = mma_value_and_gradient(weight, rows=9, generator=torch.Generator().manual_seed(1))
    drawn = torch.randperm(500, generator=torch.Generator().manual_seed(1))[:9]
    assert torch.equal(terms.index, all_rows.index[drawn])
    torch.testing.assert_close(terms.value, -all_rows.angle[drawn].mean())
    touched, times = torch.cat([drawn, terms.index]).unique(return_counts=True)
    assert torch.equal(terms.touched, touched.repeat_interleave(times))
    first = torch.searchsorted(terms.touched, touched)
    assert (terms.gradient.abs().sum(1) > 0).nonzero().flatten().tolist() == first.tolist()
    loss, gradient = with_gradient(
        mma_loss, weight, rows=9, generator=torch.Generator().manual_seed(1)
    )
    assert loss == terms.value and torch.equal(gradient, whole_gradient(terms, weight))
    assert mma_loss(weight, rows=500) == mma_loss(weight)


def test_touched_rows_and_picked_rows() -> None:
    weight = random(50, 2, 3)
    few = mma_value_and_gradient(weight, rows=4, generator=torch.Generator().manual_seed(5))
    assert few.gradient.shape == (len(few.touched), 2, 3) and len(few.touched) <= 8
    whole = whole_gradient(few, weight)
    assert torch.equal(whole, torch.zeros_like(whole).index_add_(0, few.touched, few.gradient))
    rows = torch.tensor([49, 0, *few.touched.tolist(), 7])
    assert torch.equal(pick_rows(few, rows).gradient, whole[rows])
    untouched = few._replace(gradient=whole, touched=None)
    assert torch.equal(pick_rows(untouched, rows).gradient, whole[rows])
    picked = weight[rows].requires_grad_()
    attach_gradient(picked, pick_rows(few, rows)).backward()
    assert torch.equal(picked.grad, whole[rows])


def test_neighbour_cache_reuses_and_refreshes() -> None:
    first, second = random(30, 4), random(30, 4, seed=1)
    cache = NeighbourCache(refresh_every=2)
    assert mma_loss(first, neighbours=cache) == mma_loss(first)
    stale = mma_loss(second, neighbours=cache)
    index = nearest_angles(first).index
    expected = -torch.acos(F.cosine_similarity(second, second[index])).mean()
    torch.testing.assert_close(stale, expected)
    assert stale < mma_loss(second)
    other = NeighbourCache(2)
    other.index, other.uses = cache.index, cache.uses
    for kept in (cache, other):
        assert mma_loss(second, neighbours=kept) == mma_loss(second)
    with pytest.raises(ValueError, match="30 rows, but the weight has 10"):
        mma_loss(first[:10], neighbours=cache)


def test_angles_for_logs() -> None:
    weight = pair(0.01, 8, torch.float32)
    terms = nearest_angles(torch.cat([weight, -weight]))
    assert terms.index.tolist() == [1, 0, 3, 2] and terms.gradient is None
    torch.testing.assert_close(terms.angle, torch.full((4,), 0.01), rtol=1e-4, atol=0)


def test_hostile_weights() -> None:
    weight = random(10, 4, dtype=torch.float32)
    for value, row in ((0.0, 3), (math.nan, 0), (math.inf, 9), (-math.inf, 5)):
        bad = weight.clone()
        bad[row] = value
        with pytest.raises(ValueError, match=f"row {row} of the weight is zero or not finite"):
            mma_loss(bad)
        terms = mma_value_and_gradient(bad, on_bad_rows="nan")
        assert terms.value.isnan() and terms.gradient.isnan().all()
    for wrong in (weight[:1], weight[:0]):
        with pytest.raises(ValueError, match="at least two rows"):
            mma_loss(wrong)
    with pytest.raises(ValueError, match="not its bias"):
        mma_loss(weight[0])
    with pytest.raises(ValueError, match="rows is 0"):
        mma_loss(weight, rows=0)
    with pytest.raises(ValueError, match="exclude each other"):
        mma_loss(weight, rows=3, neighbours=NeighbourCache(2))
    with pytest.raises(ValueError, match="at least 1"):
        NeighbourCache(0)
