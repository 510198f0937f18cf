"""The regularizer of a model on two ranks of DistributedDataParallel against one process."""

from __future__ import annotations

import pytest
import ranks_angular
import torch

from arcface_plus.regularizers.angular import AngularRegularizer

pytestmark = pytest.mark.slow


CASES = [
    (kind, options, separately)
    for kind, options in (
        ("mma", {}),
        ("mma", {"rows": 3}),
        ("mhe", {"fraction": 0.5}),
        ("orthogonal", {}),
    )
    for separately in (False, True)
]


def test_ranks_agree_and_average_to_one_process(run_ranks) -> None:  # type: ignore[no-untyped-def]
    """Every rank computes the whole penalty; averaging equal gradients leaves them as they are."""
    ranks = run_ranks(ranks_angular.regularized_steps, 2, CASES)
    for (kind, options, separately), *found in zip(CASES, *ranks, strict=True):
        model = ranks_angular.make_model()
        regularizer = AngularRegularizer(model, kind, 0.5, **options)
        alone = ranks_angular.train(model, regularizer, slice(0, 8), separately=separately)
        for (penalty, expected), first, second in zip(alone, *found, strict=True):
            assert first[0] == second[0] == pytest.approx(penalty, rel=1e-12)
            for gradient, ours, theirs in zip(expected, first[1], second[1], strict=True):
                assert torch.equal(ours, theirs)
                torch.testing.assert_close(ours, gradient, rtol=1e-9, atol=1e-12)
