from __future__ import annotations

import numpy as np
import torch

from arcface_plus.losses.head.plan import (
    StepPlan,
    StepStatistics,
)


def test_parts_add_up_to_the_whole() -> None:
    numbers = torch.randn(17, dtype=torch.float64) * 3 + 100
    statistics = StepStatistics()
    for part in numbers.split([1, 4, 12]):
        mean, deviation = statistics.add(part)
    torch.testing.assert_close(mean, numbers.mean())
    torch.testing.assert_close(deviation, numbers.std())


def test_one_number_has_no_deviation() -> None:
    mean, deviation = StepStatistics().add(torch.tensor([2.0]))
    assert mean == 2 and deviation.isnan()


def test_places_in_the_global_batch() -> None:
    """Three ranks of 4, 3 and 1 samples, in two micro-batches."""
    plan = StepPlan((4, 3, 1), 0, None)
    assert plan.total == 8
    first = plan.take([2, 2, 1])
    assert first.tolist() == [0, 1, 4, 5, 7]
    assert np.sort(np.concatenate([first, plan.take([2, 1, 0])])).tolist() == list(range(8))
