from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.elasticface import ElasticFace, in_order, normal_draws


def test_orders() -> None:
    """Cosines .1, .9, .5 and margins .4, .5, .6: as the text means it, and as its code has it."""
    cosine, margins = torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0.5, 0.6, 0.4])
    assert in_order(margins, cosine, "rank").tolist() == pytest.approx([0.6, 0.4, 0.5])
    assert in_order(margins, cosine, "argsort").tolist() == pytest.approx([0.5, 0.6, 0.4])


def test_draws_depend_on_seed_step_and_place_alone() -> None:
    whole = normal_draws(3, 7, np.arange(50))
    assert np.array_equal(normal_draws(3, 7, np.array([49, 2, 2])), whole[[49, 2, 2]])
    assert not np.array_equal(normal_draws(3, 8, np.arange(50)), whole)
    assert not np.array_equal(normal_draws(4, 7, np.arange(50)), whole)
    assert normal_draws(0, 0, np.arange(0)).shape == (0,)


def test_draws_are_standard_normal() -> None:
    many = np.concatenate([normal_draws(0, step, np.arange(1000)) for step in range(40)])
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
    assert abs((np.abs(many) < 1).mean() - 0.6827) < 0.01


@pytest.mark.parametrize(("base", "m"), [("arc", 0.5), ("cos", 0.35)])
def test_loss_is_that_of_the_drawn_margins(base: str, m: float) -> None:
    torch.manual_seed(0)
    margin = ElasticFace(base, m=m, std=0.05, s=16)
    head = ClassifierHead(7, 4, margin, mma_weight=0.0, seed=5).double()
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 7, (6,))
    cosine = F.normalize(x) @ F.normalize(head.weight).t()
    own = cosine.gather(1, y[:, None]).squeeze(1)
    drawn = m + 0.05 * torch.from_numpy(normal_draws(5, 11, np.arange(6))).double()
    target = torch.cos(own.acos() + drawn) if base == "arc" else own - drawn
    logits = 16 * cosine.scatter(1, y[:, None], target[:, None])
    torch.testing.assert_close(head(x, y, 11).loss, F.cross_entropy(logits, y))


def test_micro_batches_go_on_where_the_last_stopped() -> None:
    torch.manual_seed(0)
    head = ClassifierHead(7, 4, ElasticFace(s=16), mma_weight=0.0)
    x, y = torch.randn(6, 4), torch.randint(0, 7, (6,))
    whole = head(x, y, 3).loss
    plan = head.plan_step(y, 3)
    parts = [head(x[a:b], y[a:b], plan=plan).loss for a, b in ((0, 2), (2, 5), (5, 6))]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_needs_the_step() -> None:
    head = ClassifierHead(7, 4, ElasticFace(), mma_weight=0.0)
    with pytest.raises(ValueError, match="pass step="):
        head(torch.randn(2, 4), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"std": -0.1}, r"ElasticFace\nstd\n"),
        ({"order": "sorted"}, "'drawn', 'rank' or 'argsort'"),
        ({"base": "cos", "extension": "hard"}, "ElasticFace.extension"),
        ({"m": 1.7}, "radians"),
    ],
)
def test_refuses(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        ElasticFace(**arguments)
