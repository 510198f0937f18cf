from __future__ import annotations

import pytest
import torch

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.curricularface import CurricularFace, curricular_negatives


def test_vector(score) -> None:
    assert score(CurricularFace(), {"t": 0.3}).loss.item() == pytest.approx(16.4474173, abs=1e-6)


def test_negatives_and_their_slope() -> None:
    """cosθ·(t + cosθ) above the threshold, slope t + 2·cosθ."""
    cosine = torch.tensor([[-0.5, 0.2, 0.8]], dtype=torch.float64)
    form = curricular_negatives(torch.tensor([0.1]).double(), torch.tensor(0.3).double())
    assert form.bend(cosine)[0].tolist() == pytest.approx([-0.5, 0.2 * 0.5, 0.8 * 1.1])
    assert form.slopes(cosine)[0].tolist() == pytest.approx([1, 0.3 + 0.4, 0.3 + 1.6])


def test_t_is_the_running_mean_of_own_cosines_updated_before_use() -> None:
    torch.manual_seed(0)
    head = ClassifierHead(9, 4, CurricularFace(s=8), mma_weight=0.0)
    t = 0.0
    for step in range(3):
        x, y = torch.randn(6, 4), torch.randint(0, 9, (6,))
        output = head(x, y, step)
        t = 0.99 * t + 0.01 * output.target_cosine.mean().item()
        assert head.state_tensors()["t"].item() == pytest.approx(t, rel=1e-5)
    head.eval()
    head(x, y)
    assert head.state_tensors()["t"].item() == pytest.approx(t, rel=1e-5), "eval moves nothing"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momentum": 1.0}, r"CurricularFace\nmomentum\n.*less than 1 .*input_value=1\.0"),
        ({"m": -0.1}, r"CurricularFace\nm\n"),
        ({"extension": "none"}, r"CurricularFace\nextension\n"),
    ],
)
def test_refuses(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        CurricularFace(**arguments)
