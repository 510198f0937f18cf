"""MMA across class shards against the dense formulation in float64."""

from __future__ import annotations

import math

import pytest
import ranks_mma
import torch
import torch.nn.functional as F
from torch import Tensor

from arcface_plus.distributed import shard_bounds
from arcface_plus.regularizers.mma import mma_loss, nearest_angles

pytestmark = pytest.mark.slow

WORLDS = (1, 2, 3, 4)
BOUND = {torch.float32: 1e-5, torch.float64: 1e-10}


def random(n: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).to(dtype)


def dense(weight: Tensor) -> tuple[float, Tensor]:
    leaf = weight.detach().clone().double().requires_grad_()
    unit = F.normalize(leaf, dim=1)
    cosine = (unit @ unit.t()).fill_diagonal_(-1)
    loss = -torch.acos(cosine.max(dim=1)[0]).mean()
    loss.backward()
    return loss.item(), leaf.grad


def assert_equals(results, value: float, gradient: Tensor, bound: float) -> None:  # type: ignore[no-untyped-def]
    assert len({loss for loss, _ in results}) == 1, "the value must be the same on every rank"
    assert abs(results[0][0] - value) < bound
    gathered = torch.cat([grad for _, grad in results]).double()
    assert ((gathered - gradient).norm() / gradient.norm()).item() < bound


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("classes", [1003, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_equal_the_dense_loss(run_ranks, world, classes, dtype) -> None:  # type: ignore[no-untyped-def]
    """Unequal shards; five classes on four ranks leave one with none."""
    weight = random(classes, 24, dtype)
    if classes == 5 and world == 4:
        assert shard_bounds(classes, world)[-1] == (5, 5)
    results = run_ranks(ranks_mma.loss_and_gradient, world, weight)
    assert_equals(results, *dense(weight), BOUND[dtype])


@pytest.mark.parametrize("world", [2, 3])
def test_bf16_search_across_shards(run_ranks, world) -> None:  # type: ignore[no-untyped-def]
    weight = random(1003, 64)
    results = run_ranks(ranks_mma.loss_and_gradient, world, weight, None, "bf16")
    assert_equals(results, *dense(weight), 1e-5)


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("classes", [1003, 5])
def test_sampled_rows_do_not_depend_on_the_number_of_ranks(run_ranks, world, classes) -> None:  # type: ignore[no-untyped-def]
    weight = random(classes, 12)
    leaf = weight.clone().requires_grad_()
    loss = mma_loss(leaf, rows=4, generator=torch.Generator().manual_seed(7))
    loss.backward()
    results = run_ranks(ranks_mma.loss_and_gradient, world, weight, 4)
    assert_equals(results, loss.item(), leaf.grad, 1e-6)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_neighbours_and_ties_are_those_of_one_process(run_ranks, world) -> None:  # type: ignore[no-untyped-def]
    weight = random(40, 6)
    weight[39], weight[11], weight[25] = weight[0], weight[0], weight[3] * 2
    weight[20] = weight[4] + 1e-5 * random(1, 6, seed=2)[0]
    expected = nearest_angles(weight)
    results = run_ranks(ranks_mma.angles_and_neighbours, world, weight)
    assert torch.equal(torch.cat([index for _, index in results]), expected.index)
    angle = torch.cat([angle for angle, _ in results])
    torch.testing.assert_close(angle, expected.angle, rtol=1e-6, atol=1e-9)


def test_every_rank_knows_the_nearest_of_all_classes(run_ranks) -> None:  # type: ignore[no-untyped-def]
    weight = random(41, 6)
    expected = nearest_angles(weight)
    for degrees, index in run_ranks(ranks_mma.nearest_classes, 3, weight):
        assert torch.equal(index, expected.index)
        torch.testing.assert_close(
            degrees, torch.rad2deg(expected.angle.double()), rtol=1e-5, atol=0
        )


def test_coincident_rows_on_different_ranks_part(run_ranks) -> None:  # type: ignore[no-untyped-def]
    weight = random(1, 5).repeat(2, 1)
    results = run_ranks(ranks_mma.loss_and_gradient, 2, weight)
    first, second = (gradient[0] for _, gradient in results)
    torch.testing.assert_close(first, -second)
    torch.testing.assert_close(first.norm(), 1 / weight[0].norm())


def test_bad_rows_are_reported_by_every_rank(run_ranks) -> None:  # type: ignore[no-untyped-def]
    weight = random(10, 4)
    weight[8], weight[5] = math.nan, 0.0
    messages = run_ranks(ranks_mma.error_of, 3, weight)
    assert all("row 5 of the weight is zero or not finite" in message for message in messages)
    assert all(math.isnan(value) for value in run_ranks(ranks_mma.value_of_bad_rows, 3, weight))
    one = run_ranks(ranks_mma.error_of, 2, weight[:1])
    assert all("at least two rows" in message for message in one)


def test_cached_neighbours_across_shards(run_ranks) -> None:  # type: ignore[no-untyped-def]
    weights = [random(30, 4, seed=s) for s in range(3)]
    results = run_ranks(ranks_mma.losses_with_cache, 3, weights, 2)
    index = nearest_angles(weights[0]).index
    stale = -torch.acos(F.cosine_similarity(weights[1], weights[1][index])).mean().item()
    expected = [mma_loss(weights[0]).item(), stale, mma_loss(weights[2]).item()]
    for losses in results:
        assert losses == pytest.approx(expected, abs=1e-6)


def test_no_collective_in_backward(run_ranks) -> None:  # type: ignore[no-untyped-def]
    assert all(run_ranks(ranks_mma.backward_without_a_group, 2, random(50, 4)))
