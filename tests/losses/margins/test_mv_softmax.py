from __future__ import annotations

import math

import pytest
import torch

from arcface_plus.losses.margins.base import Samples
from arcface_plus.losses.margins.mv_softmax import MVSoftmax, mv_negatives, mv_threshold


@pytest.mark.parametrize(
    ("margin", "loss"),
    [
        (MVSoftmax("arc", m=0.5, t=0.2, s=32), 21.0237086),
        (MVSoftmax("arc", m=0.5, t=0.2, s=32, weighting="fixed"), 17.8237086),
        (MVSoftmax("am", m=0.35, t=0.2, s=32), 17.6000000),
    ],
    ids=str,
)
def test_vector(score, margin, loss) -> None:
    assert score(margin).loss.item() == pytest.approx(loss, abs=1e-6)


def test_hard_negatives_weigh_h_more() -> None:
    """e^{s·N} = h·e^{s·cosθ}, h = e^{s·t·(cosθ + 1)} adaptive, e^{s·t} fixed; others stay."""
    cosine = torch.tensor([[-0.4, 0.2, 0.9]], dtype=torch.float64)
    threshold = torch.tensor([0.1], dtype=torch.float64)
    for weighting, power in (("adaptive", 0.3 * (cosine + 1)), ("fixed", 0.3)):
        bent = mv_negatives(threshold, 0.3, weighting).bend(cosine)
        extra = torch.where(cosine > 0.1, torch.as_tensor(power, dtype=torch.float64), 0)
        torch.testing.assert_close(bent, cosine + extra)


def test_threshold_knows_no_extension_but_the_target_does() -> None:
    cosine = torch.tensor([-0.2, 0.3], dtype=torch.float64)
    am, arc = MVSoftmax(s=1), MVSoftmax("arc", m=0.5, s=1)
    torch.testing.assert_close(mv_threshold(cosine, am), cosine - 0.35)
    torch.testing.assert_close(mv_threshold(cosine, arc), torch.cos(cosine.acos() + 0.5))
    samples = Samples(norm=cosine)
    assert am.target_logit(cosine, samples).tolist() == pytest.approx([-0.2, -0.05])
    shifted = math.cos(math.acos(0.3) + 0.5)
    assert arc.target_logit(cosine, samples).tolist() == pytest.approx([-0.2, shifted])
    raw = MVSoftmax(s=1, extension="raw").target_logit(cosine, samples)
    assert raw.tolist() == pytest.approx([-0.55, -0.05])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": "sphere"}, r"MVSoftmax\nbase\n.*'am' or 'arc'.*'sphere'"),
        ({"weighting": "soft"}, r"MVSoftmax\nweighting\n"),
        ({"t": -0.1}, r"MVSoftmax\nt\n.*-0\.1"),
        ({"s": 0}, r"MVSoftmax\ns\n"),
        ({"extension": "hard"}, "with base am it must be easy or raw"),
        ({"base": "arc", "m": 2.0}, "radians"),
        ({"m": math.nan}, r"MVSoftmax\nm\n.*finite"),
    ],
)
def test_refuses(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        MVSoftmax(**arguments)
