"""What each rank runs in test_angular.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from arcface_plus.regularizers.angular import AngularRegularizer

Steps = list[tuple[float, list[Tensor]]]


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(32, 5)
    ).double()


def train(
    model: nn.Module, regularizer: AngularRegularizer, part: slice, *, separately: bool
) -> Steps:
    """Make three steps on ``part`` of each batch; return penalty and gradients of each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    seen = []
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(8, 3, 6, 6, generator=generator, dtype=torch.float64)[part]
        labels = torch.randint(0, 5, (8,), generator=generator)[part]
        loss, penalty = F.cross_entropy(model(images), labels), regularizer(step)
        if separately:
            loss.backward()
            penalty.backward()
        else:
            (loss + penalty).backward()
        seen.append((penalty.item(), [p.grad.clone() for p in model.parameters()]))
        optimizer.step()
        optimizer.zero_grad()
    return seen


def regularized_steps(rank: int, cases: list[tuple[str, dict, bool]]) -> list[Steps]:
    """Train a net anew for each case: kind, options, and whether losses go backward separately."""
    return [_steps(rank, kind, options, separately) for kind, options, separately in cases]


def _steps(rank: int, kind: str, options: dict, separately: bool) -> Steps:
    torch.rand(1 + rank)  # the ranks' own generators differ
    model = DistributedDataParallel(make_model())
    regularizer = AngularRegularizer(model, kind, 0.5, **options)
    assert regularizer.layer_names == ("0", "2", "4")
    return train(model, regularizer, slice(4 * rank, 4 * rank + 4), separately=separately)
