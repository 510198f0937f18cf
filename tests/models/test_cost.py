"""What a network costs, against counts by hand and against real tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arcface_plus.models import build_model
from arcface_plus.models.cost import cost_of


def kept_by_real_tensors(name: str, size: int, images: int) -> int:
    """Train on real images and add up what autograd holds, parameters and buffers left out."""
    model = build_model(name, size=size)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}
    alive = []

    def note(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        embeddings = model(torch.randn(images, 3, size, size))
    assert embeddings.requires_grad
    return sum(size for storage, size in kept.items() if storage not in own)


@pytest.mark.parametrize("name", ["iresnet18", "vit_t", "mobilefacenet"])
def test_activations_are_those_that_a_real_step_keeps(name: str) -> None:
    cost = cost_of(name, size=32)
    real = (kept_by_real_tensors(name, 32, 6) - kept_by_real_tensors(name, 32, 2)) / 4
    assert cost.activation_bytes == pytest.approx(real, rel=0.02)
    assert cost.activation_bytes > 200_000


def test_multiply_adds_of_a_transformer_by_hand() -> None:
    cost = cost_of("vit_t")
    width, tokens, depth = 256, 144, 12
    patches = tokens * 3 * 9 * 9 * width
    block = tokens * width * width * (3 + 1 + 4 + 4) + 2 * tokens * tokens * width
    head = tokens * width * width + width * 512
    assert cost.multiply_adds == patches + depth * block + head
    assert (cost.pixels, cost.embedding_dim) == (112, 512)
    assert cost.parameters == 19_137_792 and cost.trained == 19_137_792 - 512


def test_recomputing_keeps_less() -> None:
    plain = cost_of("iresnet18", size=32)
    recomputed = cost_of("iresnet18", size=32, checkpoint_gradients=True)
    assert recomputed.activation_bytes < plain.activation_bytes / 2
    assert recomputed._replace(activation_bytes=0) == plain._replace(activation_bytes=0)


def test_timms_networks_are_counted_too() -> None:
    pytest.importorskip("timm", reason="the extra timm is absent")
    cost = cost_of("timm:mobilenetv3_small_050", size=64)
    assert cost.pixels == 64 and cost.multiply_adds > 1e6 and cost.activation_bytes > 1e5
    with pytest.raises(ValueError, match="unknown model 'iresnet51'"):
        cost_of("iresnet51")
