"""What the tests of the margin losses share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.head.output import HeadOutput
from arcface_plus.losses.margins.base import MarginLoss


def head_with_cosines(margin: MarginLoss, cosines: list[float]) -> ClassifierHead:
    """Return a float64 head in eval mode: its running averages stay as they are put.

    Its weights have the given cosines with the first axis; rows of different lengths.
    """
    head = ClassifierHead(len(cosines), 2, margin, mma_weight=0.0).double().eval()
    with torch.no_grad():
        for row, cosine in enumerate(cosines):
            direction = torch.tensor([cosine, (1 - cosine**2) ** 0.5], dtype=torch.float64)
            head.weight[row] = (row + 0.5) * direction
    return head


@pytest.fixture
def score() -> Callable[..., HeadOutput]:
    """``score(margin, state, norm=…)``: what the head says of one sample of class 0.

    Its cosines with three classes are .6 (its own), .5 and .1.
    """

    def call(margin: MarginLoss, state: dict[str, float] | None = None, *, norm: float = 3.0):
        head = head_with_cosines(margin, [0.6, 0.5, 0.1])
        known = {**head.state_tensors(), **head.replicated_parameters()}
        for name, value in (state or {}).items():
            known[name].data.fill_(value)
        x = torch.tensor([[norm, 0.0]], dtype=torch.float64)
        return head(x, torch.tensor([0]), 0)

    return call
