"""LAMB of timm as a run uses it."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.training.optim import build_optimizers
from arcface_plus.training.settings import OptimConfig

CONFIG = OptimConfig(kind="lamb", lr=0.02, weight_decay=0.1, eps=1e-6)


def parts() -> tuple[nn.Module, ClassifierHead]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    return net, ClassifierHead(7, 4, Margin(s=8), mma_weight=0.0)


def test_layers_move_as_timm_says_and_a_bad_step_is_skipped() -> None:
    timm = pytest.importorskip("timm.optim", reason="the extra timm is absent")
    net, head = parts()
    other, _ = parts()
    optimizers = build_optimizers(net, head, CONFIG)
    groups = [
        {"params": [other[0].weight, other[2].weight]},
        {"params": [other[0].bias, other[2].bias], "weight_decay": 0.0},
    ]
    theirs = timm.Lamb(
        groups, lr=0.02, weight_decay=0.1, eps=1e-6, betas=(0.9, 0.999), max_grad_norm=None
    )
    assert [type(o).__name__ for o in optimizers] == ["Lamb", "RowAdamW"]
    begun = head.weight.detach().clone()
    for step in range(4):
        x, y = torch.randn(8, 6), torch.randint(0, 7, (8,))
        head(net(x), y).loss.backward()
        for ours, same in zip(net.parameters(), other.parameters(), strict=True):
            same.grad = ours.grad.clone()
        bad = torch.tensor(float(step == 2))
        for optimizer in optimizers:
            optimizer.found_inf = bad
            optimizer.step()
            optimizer.zero_grad()
        if not bad:
            theirs.step()
    for ours, same in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, same, rtol=1e-6, atol=1e-7)
    steps = {float(optimizers[0].state[p]["step"]) for p in net.parameters()}
    assert steps == {3.0} and (head.weight - begun).norm() > 0


def test_without_timm_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    net, head = parts()
    with pytest.raises(ValueError, match=r'lamb needs timm: pip install "arcface_plus\[timm\]"'):
        build_optimizers(net, head, CONFIG)
