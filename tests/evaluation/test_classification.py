"""Accuracy on test images: ranks of the own class, ties, chunks, history."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from arcface_plus.data.sources.synthetic import SyntheticFaces
from arcface_plus.evaluation.classification import AccuracyEvaluation, mean_of_last, target_ranks
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.models.preprocessing import Preprocessing


class Pixels(nn.Module):
    """Embeds an image as the means of its three channels, without learning."""

    preprocessing = Preprocessing(size=16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def evaluation(classes: int = 8, *, margin: Margin | None = None, batch: int = 64, bias=False):
    head = ClassifierHead(classes, 3, margin, mma_weight=0, bias=bias)
    source = SyntheticFaces(classes, 5, size=16, seed=3)
    return AccuracyEvaluation(source, head, size=16, batch_size=batch), head, source


def test_ranks_are_those_of_a_full_sort() -> None:
    scores = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 30
    order = scores.argsort(dim=1, descending=True)
    expected = (order == labels[:, None]).int().argmax(dim=1)
    assert torch.equal(target_ranks(scores, labels), expected)


def test_ties_and_nan_count_against_the_sample() -> None:
    scores = torch.tensor([[1.0, 1.0, 0.0], [math.nan, 0.0, 0.0], [2.0, math.nan, 0.0]])
    assert target_ranks(scores, torch.tensor([0, 0, 0])).tolist() == [1, 2, 1]


@pytest.mark.parametrize("margin", [None, Margin()])
def test_equals_scoring_all_images_at_once(margin: Margin | None) -> None:
    accuracy, head, source = evaluation(margin=margin, batch=7, bias=margin is None)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(1))
        if margin is None:
            head.bias.normal_(generator=torch.Generator().manual_seed(2))
    model = Pixels()
    found = accuracy(model, 10)
    images = np.stack([source.read(i)[0] for i in range(len(source))])
    x = model(model.preprocessing.apply(torch.from_numpy(images)))
    if margin is None:
        scores = x @ head.weight.t() + head.bias
    else:
        scores = nn.functional.normalize(x) @ nn.functional.normalize(head.weight).t()
    labels = torch.from_numpy(source.labels)
    top = scores.topk(5, dim=1).indices == labels[:, None]
    assert found["top1"] == pytest.approx(top[:, 0].float().mean().item())
    assert found["top5"] == pytest.approx(top.any(dim=1).float().mean().item())
    assert 0 < found["top1"] < found["top5"] < 1
    # The second scoring reads what the first one kept.
    assert accuracy(model, 20) == found
    assert [entry["step"] for entry in accuracy.history] == [10, 20]


def test_a_step_scored_again_replaces_its_entry_and_files_are_recalled(tmp_path) -> None:
    accuracy, _, _ = evaluation()
    numbers = accuracy(Pixels(), 4)
    accuracy(Pixels(), 4)
    assert accuracy.history == [{"step": 4, **numbers}]
    lines = [{"step": 2, "kind": "accuracy", "top1": 0.5}, {"step": 2, "kind": "train", "loss": 1}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    accuracy.recall(tmp_path / "metrics.jsonl")
    assert accuracy.history[-1] == {"step": 2, "top1": 0.5}
    accuracy.recall(tmp_path / "absent.jsonl")


def test_few_classes_have_no_top_5() -> None:
    accuracy, _, _ = evaluation(classes=4)
    assert set(accuracy(Pixels(), 0)) == {"top1"}


def test_more_test_classes_than_the_classifier_has_are_refused() -> None:
    head = ClassifierHead(4, 3, None, mma_weight=0)
    with pytest.raises(ValueError, match="9 classes, but the classifier 4"):
        AccuracyEvaluation(SyntheticFaces(9, 1, size=16), head, size=16)


def test_mean_of_the_last_leaves_out_the_untrained_net() -> None:
    history = [{"step": s, "top1": s / 10} for s in (0, 1, 2, 3)]
    assert mean_of_last(history, 2) == {"top1": pytest.approx(0.25), "evaluations": 2}
    assert mean_of_last(history, 9) == {"top1": pytest.approx(0.2), "evaluations": 3}
    assert mean_of_last(history[:1], 5) == {"top1": 0.0, "evaluations": 1}
