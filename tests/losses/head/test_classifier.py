"""The head in one process; tests/distributed/test_head.py compares it with a dense model."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

import arcface_plus as ap
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    return torch.randn(6, 8, generator=g), torch.tensor([0, 3, 3, 19, 7, 1])


def test_plain_softmax_is_torchs(batch) -> None:
    embeddings, labels = batch
    head = ClassifierHead(20, 8, None, mma_weight=0.0)
    output = head(embeddings, labels)
    want = F.cross_entropy(embeddings @ head.weight.t(), labels)
    torch.testing.assert_close(output.loss, want)
    cosine = F.cosine_similarity(embeddings, head.weight[labels])
    torch.testing.assert_close(output.target_cosine, cosine)


@pytest.mark.parametrize("chunk", [None, 7])
def test_linear_with_bias_is_torchs(batch, chunk) -> None:
    embeddings, labels = batch
    head = ClassifierHead(20, 8, None, bias=True, mma_weight=0.0, class_chunk=chunk)
    assert head.bias.shape == (20,) and (head.bias == 0).all()
    linear = torch.nn.Linear(8, 20)
    with torch.no_grad():
        head.bias.copy_(torch.linspace(-1, 1, 20))
        linear.weight.copy_(head.weight)
        linear.bias.copy_(head.bias)
    output, want = head(embeddings, labels), F.cross_entropy(linear(embeddings), labels)
    torch.testing.assert_close(output.loss, want)
    output.loss.backward()
    want.backward()
    torch.testing.assert_close(head.bias.grad, linear.bias.grad)
    torch.testing.assert_close(head.weight.grad, linear.weight.grad)
    cosine = F.cosine_similarity(embeddings, head.weight[labels])
    torch.testing.assert_close(output.target_cosine, cosine.detach())


def test_mma_leaves_the_bias_alone(batch) -> None:
    head = ClassifierHead(20, 8, None, bias=True, mma_weight=1.0)
    head(*batch).mma.backward()
    assert head.bias.grad is None and head.weight.grad is not None


def test_penalty_is_added_with_its_weight(batch) -> None:
    embeddings, labels = batch
    head = ClassifierHead(20, 8, Margin(s=8), mma_weight=0.5)
    output = head(embeddings, labels)
    torch.testing.assert_close(output.mma, ap.mma_loss(head.weight))
    torch.testing.assert_close(output.loss, output.classification + 0.5 * output.mma)


def test_zero_penalty_is_none_bit_for_bit(batch, monkeypatch) -> None:
    embeddings, labels = batch
    head = ClassifierHead(20, 8, Margin(s=8), mma_weight=0.0)
    monkeypatch.setattr(head, "mma", None)  # not even looked at
    output = head(embeddings, labels)
    assert output.mma is None and output.loss is output.classification


def test_half_precision_embeddings_are_scored_in_float32(batch) -> None:
    embeddings, labels = batch
    head = ClassifierHead(20, 8, Margin(s=8), mma_weight=0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(embeddings.bfloat16(), labels)
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, head(embeddings.bfloat16().float(), labels).loss)


def test_inputs_are_not_changed(batch) -> None:
    embeddings, labels = batch
    kept = embeddings.clone(), labels.clone()
    head = ClassifierHead(20, 8, Margin(), sample_rate=0.5)
    head(embeddings.requires_grad_(), labels, 0).loss.backward()
    assert torch.equal(embeddings, kept[0]) and torch.equal(labels, kept[1])


def test_sampled_gradient_is_sparse_or_dense_as_asked(batch) -> None:
    embeddings, labels = batch
    grads = []
    for dense in (False, True):
        head = ClassifierHead(
            20, 8, Margin(s=8), mma_weight=0, sample_rate=0.3, dense_gradient=dense
        )
        head(embeddings, labels, 4).loss.backward()
        assert head.weight.grad.is_sparse is not dense
        grads.append(head.weight.grad.to_dense())
    torch.testing.assert_close(grads[0], grads[1])
    full = ClassifierHead(20, 8, Margin(s=8), sample_rate=1.0)
    assert not full(embeddings, labels).loss.isnan()


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_sampled_rows_are_pulled_by_mma_as_much_as_all_rows_on_average(rate: float) -> None:
    """Of 400 classes over 500 steps; tools/bench/bench_sampled_mma.py has the whole measurement."""
    classes, steps, generator = 400, 500, torch.Generator().manual_seed(3)
    head = ClassifierHead(classes, 8, Margin(s=8), sample_rate=rate)
    full = ClassifierHead(classes, 8, Margin(s=8), sample_rate=1.0)
    embeddings = torch.randn(32, 8, generator=generator)
    full(embeddings, torch.arange(32)).mma.backward()
    whole = full.weight.grad.double()
    shares, positives = torch.zeros(steps, classes), torch.zeros(steps, classes, dtype=torch.bool)
    for step in range(steps):
        labels = torch.randint(0, classes, (32,), generator=generator)
        head.weight.grad = None
        head(embeddings, labels, step).mma.backward()
        pull = head.weight.grad.to_dense().double()
        shares[step] = (pull * whole).sum(dim=1) / whole.square().sum(dim=1)
        torch.testing.assert_close(pull, shares[step, :, None] * whole, rtol=1e-4, atol=1e-9)
        positives[step, labels] = True
    assert torch.allclose(shares[positives], torch.ones(()), rtol=1e-4), "as often as they come"
    drawn = shares[~positives]
    assert torch.allclose(drawn[drawn != 0], torch.tensor(1 / rate), rtol=1e-4)
    squares = whole.square().sum(dim=1)
    projection = (shares.mean(dim=0) * squares).sum() / squares.sum()
    assert projection.item() == pytest.approx(1, abs=0.02)
    errors = shares.std(dim=0) / steps**0.5
    assert ((shares.mean(dim=0) - 1).abs() < 5 * errors).all()


def test_a_dense_gradient_has_the_whole_pull_of_mma_in_every_step(batch) -> None:
    embeddings, labels = batch
    grads = []
    for options in ({"sample_rate": 0.2, "dense_gradient": True}, {"sample_rate": 1.0}):
        head = ClassifierHead(20, 8, Margin(s=8), **options)
        head(embeddings, labels, 4).mma.backward()
        grads.append(head.weight.grad)
    assert torch.equal(*grads) and grads[0].norm(dim=1).min() > 0


def test_sampling_needs_the_step(batch) -> None:
    embeddings, labels = batch
    with pytest.raises(ValueError, match="pass step="):
        ClassifierHead(20, 8, Margin(), sample_rate=0.3)(embeddings, labels)
    with pytest.raises(ValueError, match="pass step="):
        ClassifierHead(20, 8, Margin(), mma_rows=5)(embeddings, labels)


def test_filter_leaves_out_classes_that_are_too_like(batch) -> None:
    embeddings, labels = batch
    head = ClassifierHead(20, 8, Margin(m2=0, s=8), mma_weight=0, filter_threshold=0.3)
    cosine = F.normalize(embeddings, dim=1) @ F.normalize(head.weight, dim=1).t()
    own = F.one_hot(labels, 20).bool()
    logits = 8 * torch.where((cosine > 0.3) & ~own, torch.zeros_like(cosine), cosine)
    torch.testing.assert_close(head(embeddings, labels).loss, F.cross_entropy(logits, labels))


def test_poisoned_embedding_gives_nan_not_an_error(batch) -> None:
    """The trainer gates the step; raising on one rank would hang the others."""
    embeddings, labels = batch
    embeddings[0, 0] = math.nan
    assert ClassifierHead(20, 8, Margin())(embeddings, labels).loss.isnan()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 20, 3, 4, 5]), "label 20 is outside 0…19"),
        (torch.tensor([0, -1, 2, 3, 4, 5]), "label -1 is outside"),
        (torch.tensor([0.0, 1, 2, 3, 4, 5]), "int64"),
        (torch.tensor([0, 1]), r"\(6,\)"),
    ],
)
def test_refuses_labels(batch, labels, message) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifierHead(20, 8, Margin())(batch[0], labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "at least two classes"),
        ({"sample_rate": 0.0}, "sample_rate"),
        ({"sample_rate": 1.5}, "sample_rate"),
        ({"mma_weight": -0.1}, "mma_weight"),
        ({"bias": True}, "margin=None"),
        ({"bias": True, "margin": None, "sample_rate": 0.5}, "sample_rate"),
    ],
)
def test_refuses_arguments(arguments, message) -> None:
    settings = {"num_classes": 20, "embedding_dim": 8, "margin": Margin(), **arguments}
    with pytest.raises(ValueError, match=message):
        ClassifierHead(**settings)


def test_refuses_embeddings_of_another_width(batch) -> None:
    with pytest.raises(ValueError, match=r"\(B, 8\)"):
        ClassifierHead(20, 8, Margin())(batch[0][:, :4], batch[1])
