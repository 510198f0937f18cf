"""What every margin owes the head; tests/distributed/test_head.py compares them with dense ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adacos import AdaCos
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import UniFace

MARGINS = [
    Margin(s=4),
    Margin(m0=0.4, m2=0, s=4, wc_relu=True),
    MVSoftmax(s=4),
    MVSoftmax("arc", m=0.4, s=4, weighting="fixed", extension="raw"),
    CurricularFace(s=4),
    MagFace(l_a=0.5, u_a=9, s=4, penalty=3),
    MagFace(l_a=0.5, u_a=9, s=4, penalty=3, extension="hard"),
    AdaFace(s=4, start_mean=2.0, start_deviation=0.8),
    ElasticFace(s=4),
    ElasticFace("cos", m=0.35, s=4, order="rank"),
    UniFace(s=4),
    AdaCos(),
    AdaCos(dynamic=False),
]


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("margin", MARGINS, ids=str)
@pytest.mark.parametrize("centres", [1, 3])
def test_gradcheck_of_embeddings_weights_and_what_is_learned(margin, chunk, centres) -> None:
    torch.manual_seed(1)
    head = ClassifierHead(9, 4, margin, mma_weight=0.0, class_chunk=chunk, centres=centres)
    head = head.double().eval()
    with torch.no_grad():
        head.weight.mul_(100)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 8, 3, 3, 5])
    names = [name for name, _ in head.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in head.parameters()]

    def loss(x, *values):
        return functional_call(head, dict(zip(names, values, strict=True)), (x, y, 2)).loss

    if isinstance(margin, AdaFace):
        # Its score of the norm has no gradient, which numeric differences would see: flatten it.
        head.margin_state.deviation.fill_(1e9)
    assert torch.autograd.gradcheck(loss, (x, *values))


@pytest.mark.parametrize("margin", MARGINS, ids=str)
def test_empty_poisoned_and_single_samples(margin) -> None:
    head = ClassifierHead(9, 4, margin, mma_weight=0.0)
    zero = torch.zeros(1, 4, requires_grad=True)
    output = head(zero, torch.tensor([3]), 0)
    output.loss.backward()
    assert torch.isfinite(output.loss) and torch.isfinite(zero.grad).all()
    assert torch.isfinite(head.weight.grad).all()
    state = {name: value.item() for name, value in head.state_tensors().items()}
    poisoned = torch.tensor([[math.nan, 0, 0, 0], [1.0, 0, 0, 0]])
    assert head(poisoned, torch.tensor([3, 4]), 1).loss.isnan(), "the trainer gates the step"
    kept = {name: value.item() for name, value in head.state_tensors().items()}
    assert kept == state, "a poisoned batch leaves no trace"


@pytest.mark.parametrize("margin", MARGINS, ids=str)
def test_aligned_and_opposite_samples_have_finite_gradients(margin) -> None:
    head = ClassifierHead(4, 3, margin, mma_weight=0.0)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0, 0], [-1, 0, 0], [1, 0, 0], [0, 1, 0]]))
    x = torch.tensor([[2.0, 0, 0], [2.0, 0, 0], [-1.0, 0, 0]], requires_grad=True)
    head(x, torch.tensor([0, 1, 2]), 0).loss.backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(head.weight.grad).all()


@pytest.mark.parametrize("margin", MARGINS, ids=str)
def test_half_precision_embeddings_are_scored_in_float32(margin) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(5, 4).bfloat16(), torch.tensor([0, 8, 3, 3, 5])
    heads = [ClassifierHead(9, 4, margin, mma_weight=0.0) for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = heads[0](x, y, 0).loss
    assert loss.dtype == torch.float32 and torch.equal(loss, heads[1](x.float(), y, 0).loss)


def test_averages_move_once_a_step_whatever_the_micro_batches() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, 4) * 8, torch.randint(0, 9, (7,))
    for margin in (CurricularFace(s=4), AdaFace(s=4), AdaCos()):
        states = []
        for cuts in ([7], [2, 4, 1]):
            head = ClassifierHead(9, 4, margin, mma_weight=0.0)
            for step in range(3):
                plan = head.plan_step(y, step)
                for a, b in zip(x.split(cuts), y.split(cuts), strict=True):
                    head(a, b, plan=plan)
            states.append({name: value.item() for name, value in head.state_tensors().items()})
        assert states[1] == pytest.approx(states[0], rel=1e-5, abs=1e-8)


def test_quality_is_the_norm_where_it_means_something() -> None:
    x, y = torch.tensor([[3.0, 4.0], [0.6, 0.8]]), torch.tensor([0, 1])
    for margin in (MagFace(), AdaFace()):
        quality = ClassifierHead(3, 2, margin, mma_weight=0.0)(x, y).quality
        assert quality.tolist() == pytest.approx([5, 1]) and not quality.requires_grad
    assert ClassifierHead(3, 2, Margin(), mma_weight=0.0)(x, y).quality is None
