"""Snapshots of several processes, written beside their other collectives."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks_checkpoints import fail_on_one_rank, save_beside_collectives


@pytest.mark.parametrize("world", [1, 3, 4])
def test_a_save_beside_collectives_holds_one_moment(run_ranks, tmp_path: Path, world) -> None:
    """7 classes: at 4 ranks the last has one row, and rank 3 of 3 fewer than the others."""
    for same in run_ranks(save_beside_collectives, world, tmp_path):
        assert same == [True] * 9


@pytest.mark.parametrize("stage", ["write", "hash"])
def test_a_rank_that_fails_is_named_on_all(run_ranks, tmp_path: Path, stage: str) -> None:
    answers = run_ranks(fail_on_one_rank, 2, tmp_path, stage)
    assert len({said for said, _ in answers}) == 1
    said, left = answers[0]
    assert "step-00000002 could not be written: rank 1: [Errno 5] Input/output error" in said
    assert left == ["step-00000001"]
