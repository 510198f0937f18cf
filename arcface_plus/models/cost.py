"""What a network costs: numbers, multiply-adds, and memory of its activations in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from arcface_plus.models.build import build_model
from arcface_plus.models.embedding_model import EmbeddingModel


class Cost(NamedTuple):
    """What a network costs at one input size.

    ``parameters`` of which ``trained`` learn; ``weight_bytes`` counts running statistics too, in
    float32. ``multiply_adds`` of convolutions, linear layers and attention for one image.
    ``activation_bytes``: what a training step keeps for backward, per image, in float32.
    """

    pixels: int
    embedding_dim: int
    parameters: int
    trained: int
    weight_bytes: int
    multiply_adds: int
    activation_bytes: int


def cost_of(name: str, *, size: int | None = None, checkpoint_gradients: bool = False) -> Cost:
    """Return what ``name`` of ``build_model`` costs for images of ``size`` pixels, or its own size.

    Nothing is computed: only shapes are followed. ``checkpoint_gradients`` as of ``build_model``.
    Raises ValueError as ``build_model`` does.
    """
    with torch.device("meta"):
        model = build_model(name, size=size, checkpoint_gradients=checkpoint_gradients).eval()
        pixels = model.preprocessing.size
    model = model.to("meta")  # the parts too that are always made on the CPU
    # On "meta" attention is two matrix products, which are counted; fused, it is not.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, pixels, pixels, device="meta"))
    parameters = list(model.parameters())
    held = _held_for_backward(model, (2, 4))
    return Cost(
        pixels=pixels,
        embedding_dim=model.embedding_dim,
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        weight_bytes=sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        multiply_adds=counter.get_total_flops() // 2,  # a multiply-add counts as two operations
        activation_bytes=(held[1] - held[0]) // 2,  # what grows with the images
    )


def _held_for_backward(model: EmbeddingModel, batches: Sequence[int]) -> list[int]:
    """Return the bytes that a training pass of each batch keeps besides the weights.

    ``batches``: how many images each has. Leaves ``model`` without numbers.
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()  # once, however many layers keep it
        return tensor

    size, sums = model.preprocessing.size, []
    # Tensors without numbers for the CPU's kernels, fused attention among them.
    with FakeTensorMode(allow_non_fake_inputs=True):
        net = model.to_empty(device="cpu").train()
        own = {tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers())}
        for images in batches:
            kept.clear()
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                embeddings = net(torch.empty(images, 3, size, size))
            sums.append(sum(bytes_ for storage, bytes_ in kept.items() if storage not in own))
            del embeddings
    return sums
