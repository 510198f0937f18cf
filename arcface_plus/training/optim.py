"""Parameter groups, the gradient norm that counts each shard once, and the row-wise optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from arcface_plus.distributed import Group, all_reduce_sum
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.training.settings import OptimConfig

_ROWS_AT_ONCE = 16_384  # bounds what an update of sampled rows makes beside them


def decays(module: nn.Module, name: str, rule: str) -> bool:
    """Return whether the parameter ``name`` directly in ``module`` decays.

    ``mxnet``: weights and gains, not biases or shifts. ``weights``: only those of linear and
    convolutional layers. ``all``: everything, as arcface_torch. PReLU slopes count as gains.
    """
    if rule == "weights":
        is_layer = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        return is_layer and name == "weight"
    return rule == "all" or name != "bias"


def parameter_groups(model: nn.Module, head: ClassifierHead, rule: str) -> list[dict[str, Any]]:
    """Return the groups ``[decaying, not decaying]`` of the net and the head.

    Class weights decay under every rule, biases of classes and what a margin learns as biases do.
    Parameters that need no gradient are left out.
    """
    decaying: list[Tensor] = []
    others: list[Tensor] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                (decaying if decays(module, name, rule) else others).append(parameter)
    if not sparse_updates(head):
        decaying.append(head.weight)
    offsets = [] if head.bias is None else [head.bias]
    offsets += head.replicated_parameters().values()
    (decaying if decays(head, "bias", rule) else others).extend(offsets)
    return [{"params": decaying}, {"params": others, "weight_decay": 0.0}]


def sparse_updates(head: ClassifierHead) -> bool:
    return head.sample_rate < 1.0 and not head.dense_gradient


def build_optimizers(
    model: nn.Module, head: ClassifierHead, config: OptimConfig
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a run: SGD, and one for sampled class rows where they are sampled.

    Fused, because only then can a non-finite gradient stop the step without asking the host.
    """
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(
            parameter_groups(model, head, config.decay),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            fused=True,
        )
    ]
    if sparse_updates(head):
        optimizers.append(
            RowSGD(
                [head.weight],
                lr=config.lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
            )
        )
    # Momenta of zero, which SGD's first step starts from. Left to itself, fused SGD makes them in
    # that step, uninitialised where ``found_inf`` skips it; a checkpoint before would lack them.
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizers


class RowSGD(torch.optim.Optimizer):
    """SGD with momentum and decay that touches only the rows present in a sparse gradient.

    Other rows keep weight and momentum: no decay, and no further step along an old momentum.
    Takes ``found_inf`` like torch's fused optimizers: a tensor, non-zero to skip the step.
    """

    def __init__(
        self, params: Iterable[Tensor], *, lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad.coalesce()  # type: ignore[union-attr]
        buffer = self.state[parameter]["momentum_buffer"]
        parts = (gradient.indices()[0].split(_ROWS_AT_ONCE), gradient.values().split(_ROWS_AT_ONCE))
        for rows, values in zip(*parts, strict=True):
            old, kept = parameter[rows], buffer[rows]
            momentum = values.add(old, alpha=group["weight_decay"])
            momentum.add_(kept, alpha=group["momentum"])
            new = old.sub(momentum, alpha=group["lr"])
            if self.found_inf is not None:
                bad = self.found_inf.to(torch.bool)
                momentum, new = torch.where(bad, kept, momentum), torch.where(bad, old, new)
            buffer[rows] = momentum
            parameter[rows] = new


def gradient_values(parameter: Tensor) -> Tensor | None:
    """Return the numbers of a dense or sparse gradient, or None; sparse ones are coalesced once."""
    gradient = parameter.grad
    if gradient is None or not gradient.is_sparse:
        return gradient
    parameter.grad = gradient = gradient.coalesce()  # itself, where it is
    return gradient.values()


def _gradients(model: nn.Module, head: ClassifierHead) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients of what every rank holds whole, and of what is cut among them."""
    whole = [*model.parameters(), *head.replicated_parameters().values()]
    cut = map(gradient_values, head.sharded_parameters().values())
    return [p.grad for p in whole if p.grad is not None], [g for g in cut if g is not None]


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], value: float) -> None:
    """Let every parameter of ``optimizers`` have the learning rate ``value``."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = value


def squared_gradient_norm(model: nn.Module, head: ClassifierHead, group: Group = None) -> Tensor:
    """Return the squared norm () of the whole gradient: the net's, and each class shard's once.

    The net's gradients must already be averaged over ranks, so that they are equal everywhere.
    """
    whole, shards = _gradients(model, head)
    total = torch.zeros((), device=head.weight.device, dtype=head.weight.dtype)
    for shard in shards:
        total += torch.linalg.vector_norm(shard).square()
    all_reduce_sum(total, group)
    if whole:
        total += torch.stack(torch._foreach_norm(whole)).square().sum()
    return total


def scale_gradients(model: nn.Module, head: ClassifierHead, factor: Tensor) -> None:
    """Multiply every gradient in place by ``factor`` ()."""
    whole, shards = _gradients(model, head)
    torch._foreach_mul_(whole + shards, factor)
