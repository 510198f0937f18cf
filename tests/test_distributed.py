"""Helpers in a world of one, and how work is cut; tests/distributed has the worlds of several."""

from __future__ import annotations

import itertools

import pytest
import torch

from arcface_plus import distributed as d


@pytest.mark.parametrize("total", [0, 1, 5, 1003])
@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
def test_shards_are_cut_as_torch_chunk_cuts(total: int, parts: int) -> None:
    bounds = d.shard_bounds(total, parts)
    chunks = [len(c) for c in torch.arange(total).chunk(parts)] if total else []
    assert [hi - lo for lo, hi in bounds if hi > lo] == [n for n in chunks if n]
    assert len(bounds) == parts and bounds[-1][1] == total and bounds[0][0] == 0


@pytest.mark.parametrize("total", [0, 1, 13, 440])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_parts_are_contiguous_and_even(total: int, size: int) -> None:
    parts = [d.contiguous_part(total, r, size) for r in range(size)]
    lengths = [hi - lo for lo, hi in parts]
    assert parts[0][0] == 0 and parts[-1][1] == total and max(lengths) - min(lengths) <= 1
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))


def test_world_of_one_is_the_identity() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert (d.rank(), d.world_size()) == (0, 1)
    assert d.all_gather_rows(x)[0] is x and d.gather_rows(x) is x
    assert torch.equal(d.sum_over_ranks(x), x) and torch.equal(d.logsumexp_over_ranks(x), x)
    assert d.gather_objects("a") == ["a"] and d.broadcast_object("a") == "a"


def test_start_world_makes_and_leaves_a_group() -> None:
    with d.start_world("cpu") as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        assert torch.distributed.is_initialized()
    assert not torch.distributed.is_initialized()
    with d.start_world("cpu"):  # and again in the same process
        pass


def test_refuses_devices() -> None:
    with pytest.raises(ValueError, match="auto, cpu, cuda"), d.start_world("tpu"):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"), d.start_world("cuda"):
            pass
