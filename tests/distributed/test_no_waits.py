"""Across ranks, too, no host waits for its GPU; see tests/gpu/watch.py."""

from __future__ import annotations

import pytest
import ranks_no_waits

CASES = {
    "mma": {},
    "mma-rows": {"mma_rows": 6},
    "partial-fc": {"sample_rate": 0.4, "mma_rows": 6},
    "partial-fc-mma": {"sample_rate": 0.4},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("world", "classes"), [(2, 29), (3, 4)])
def test_messages_have_sizes_that_every_host_knows(run_ranks, world, classes, case) -> None:  # type: ignore[no-untyped-def]
    """The same losses and gradients as the CPU's own paths give; one of three ranks is empty."""
    work = ranks_no_waits.losses_and_gradients, world, classes, CASES[case]
    for expected, found in zip(run_ranks(*work, False), run_ranks(*work, True), strict=True):
        assert found[0] == pytest.approx(expected[0], rel=1e-6)
        for a, b in zip(expected[1:], found[1:], strict=True):
            assert (b - a).norm() <= 1e-5 * a.norm()
