"""RegularFace's exclusive regularization against its definition, written out."""

from __future__ import annotations

import torch

from arcface_plus.regularizers.energies import cosine_loss
from arcface_plus.regularizers.regularface import regularface_loss


def test_gradient_flows_to_both_classes_of_a_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(30, 8, generator=generator, dtype=torch.float64)
    leaf = weight.clone().requires_grad_()
    unit = leaf / leaf.norm(dim=1, keepdim=True)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(30):
        cosine = unit.detach() @ unit[i].detach()
        nearest = max((j for j in range(30) if j != i), key=lambda j: float(cosine[j]))
        total = total + unit[i] @ unit[nearest]
    (total / 30).backward()
    ours = weight.clone().requires_grad_()
    value = regularface_loss(ours)
    value.backward()
    torch.testing.assert_close(value.detach(), (total / 30).detach())
    torch.testing.assert_close(ours.grad, leaf.grad)
    assert torch.equal(value.detach(), cosine_loss(weight))
