from __future__ import annotations

import numpy as np

from arcface_plus.losses.head.plan import StepPlan


def test_places_in_the_global_batch() -> None:
    """Three ranks of 4, 3 and 1 samples, in two micro-batches."""
    plan = StepPlan((4, 3, 1), 0, None)
    assert plan.total == 8
    first = plan.take([2, 2, 1])
    assert first.tolist() == [0, 1, 4, 5, 7]
    assert np.sort(np.concatenate([first, plan.take([2, 1, 0])])).tolist() == list(range(8))
