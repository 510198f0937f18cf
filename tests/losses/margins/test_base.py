"""The margin schedule: margins grow with the step alone, the scale does not."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import UniFace

# Each with a schedule of 8 steps, and as it must be in step 1: margins of 2/8 of their size.
SCHEDULED = [
    (
        Margin(m0=0.6, m1=1.4, m2=0.4, m3=0.2, s=8, warmup_steps=8),
        Margin(m0=0.9, m1=1.1, m2=0.1, m3=0.05, s=8),
    ),
    (CurricularFace(m=0.4, s=8, warmup_steps=8), CurricularFace(m=0.1, s=8)),
    (MVSoftmax(m=0.4, t=0.3, s=8, warmup_steps=8), MVSoftmax(m=0.1, t=0.3, s=8)),
    (
        MagFace(l_a=0.5, u_a=9, l_m=0.4, u_m=0.8, s=8, warmup_steps=8),
        MagFace(l_a=0.5, u_a=9, l_m=0.1, u_m=0.2, s=8),
    ),
    (AdaFace(m=0.4, s=8, warmup_steps=8), AdaFace(m=0.1, s=8)),
    (ElasticFace(m=0.4, std=0.08, s=8, warmup_steps=8), ElasticFace(m=0.1, std=0.02, s=8)),
    (UniFace(m=0.4, s=8, warmup_steps=8), UniFace(m=0.1, s=8)),
]


def outputs(margin, step):
    """Return loss and gradients of the same head and batch in ``step``."""
    torch.manual_seed(3)
    head = ClassifierHead(9, 4, margin, mma_weight=0.0).double()
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    loss = head(x, torch.tensor([0, 8, 3, 3, 5, 1]), step).loss
    return (loss, *torch.autograd.grad(loss, (x, head.weight)))


@pytest.mark.parametrize(("margin", "in_step_1"), SCHEDULED, ids=lambda m: type(m).__name__)
def test_a_step_of_the_schedule_has_its_share_of_the_margins(margin, in_step_1) -> None:
    for ours, expected in zip(outputs(margin, 1), outputs(in_step_1, 1), strict=True):
        assert_close(ours, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("margin", "_"), SCHEDULED, ids=lambda m: type(m).__name__)
def test_margins_grow_linearly_to_their_size_and_stay(margin, _) -> None:
    early, late = margin.at_step(0), margin.at_step(6)
    for name, none in margin.margins.items():
        whole = getattr(margin, name) - none
        assert getattr(early, name) - none == pytest.approx(whole / 8)
        assert getattr(late, name) - none == pytest.approx(7 * whole / 8)
        assert whole != 0
    assert early.s == margin.s
    assert margin.at_step(7) is margin and margin.at_step(10**6) is margin


def test_without_a_schedule_every_step_has_the_whole_margin() -> None:
    margin = Margin()
    assert margin.at_step(0) is margin


def test_a_schedule_needs_the_step() -> None:
    head = ClassifierHead(4, 3, Margin(warmup_steps=5), mma_weight=0.0)
    with pytest.raises(ValueError, match="warmup_steps depend on the step: pass step="):
        head(torch.randn(2, 3), torch.tensor([0, 1]))


def test_a_schedule_of_a_negative_length_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup_steps"):
        Margin(warmup_steps=-1)


def test_the_first_steps_of_arcface_are_nearly_a_softmax() -> None:
    """By hand: one class at right angles, the own one at 60°, margin 0.5·1/100."""
    margin, angle = Margin(m2=0.5, s=4, warmup_steps=100), math.radians(60)
    logit = margin.at_step(0).target_logit(torch.tensor([math.cos(angle)], dtype=torch.float64))
    assert_close(logit.item(), 4 * math.cos(angle + 0.005), rtol=1e-12, atol=0)
