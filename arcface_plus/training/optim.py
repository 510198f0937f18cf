"""Which parameters learn how fast, the gradient norm over shards, and the row-wise optimizer."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from arcface_plus.distributed import Group, all_reduce_sum
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.training.settings import LayerRate, OptimConfig

_BatchNorm = nn.modules.batchnorm._BatchNorm
_ROWS_AT_ONCE = 16_384  # bounds what an update of sampled rows makes beside them


def layer_rates(model: nn.Module, layers: Sequence[LayerRate]) -> dict[str, float]:
    """Return what the learning rate is multiplied by, for each parameter of ``model`` by its name.

    Running means of batch norms have an entry too: where it is 0, they stay. A pattern, as
    ``fnmatch`` reads it, names parameters or modules around them; the last that matches counts.
    Raises ValueError for a pattern that matches nothing, naming the nearest names, and where every
    parameter would be frozen.
    """
    names = [name for name, _ in model.named_parameters()]
    names += [f"{name}.running_mean".lstrip(".") for name, _ in _tracking(model)]
    rates = dict.fromkeys(names, 1.0)
    for layer in layers:
        matching = [name for name in names if _matches(name, layer.pattern)]
        if not matching:
            raise ValueError(
                f"optim.layers: {layer.pattern!r} matches no layer of the {_kind(model)}; the "
                f"nearest are {', '.join(_nearest(layer.pattern, names))}"
            )
        rates |= dict.fromkeys(matching, layer.lr)
    learning = (rates[name] for name, p in model.named_parameters() if p.requires_grad)
    if layers and not any(learning):
        raise ValueError(
            "optim.layers freezes every layer of the net, so that nothing but the head would "
            "learn; give one of them an lr above 0"
        )
    return rates


def freeze(model: nn.Module, rates: dict[str, float]) -> None:
    """Let the parameters whose rate is 0 need no gradient."""
    for name, parameter in model.named_parameters():
        if rates[name] == 0:
            parameter.requires_grad_(False)


def set_training(model: nn.Module, layers: Sequence[LayerRate], *, all_statistics: bool) -> None:
    """Put ``model`` into training mode, but for batch norms whose statistics are frozen.

    ``all_statistics``: all are.
    """
    rates = layer_rates(model, layers)
    model.train()
    for name, module in _tracking(model):
        if all_statistics or rates[f"{name}.running_mean".lstrip(".")] == 0:
            module.eval()


def _tracking(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm)]


def _matches(name: str, pattern: str) -> bool:
    """Return whether ``pattern`` fits the name of a parameter or of a module around it."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:k]), pattern) for k in range(1, len(parts) + 1))


def _nearest(pattern: str, names: Sequence[str]) -> list[str]:
    parts = [name.split(".") for name in names]
    known = dict.fromkeys(".".join(each[:k]) for each in parts for k in range(1, len(each) + 1))
    return difflib.get_close_matches(pattern.strip("*."), known, n=5, cutoff=0.0)


def _kind(model: nn.Module) -> str:
    return str(getattr(model, "name", type(model).__name__))


def decays(module: nn.Module, name: str, rule: str) -> bool:
    """Return whether the parameter ``name`` directly in ``module`` decays.

    ``mxnet``: weights and gains, not biases or shifts. ``weights``: only those of linear and
    convolutional layers. ``all``: everything, as arcface_torch. PReLU slopes count as gains.
    """
    if rule == "weights":
        is_layer = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        return is_layer and name == "weight"
    return rule == "all" or name != "bias"


def parameter_groups(
    model: nn.Module, head: ClassifierHead, rule: str, rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Return the groups ``[decaying, not decaying]`` of the net and the head, then slower ones.

    ``rates``: what the learning rate is multiplied by, for parameters of the net by name; those
    with another one than 1 are groups of their own, which say it as ``lr_scale``.
    Class weights decay under every rule, biases of classes and what a margin learns as biases do.
    Parameters that need no gradient are left out.
    """
    groups: dict[tuple[float, bool], list[Tensor]] = {(1.0, True): [], (1.0, False): []}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                rate = (rates or {}).get(f"{prefix}.{name}".lstrip("."), 1.0)
                groups.setdefault((rate, decays(module, name, rule)), []).append(parameter)
    if not sparse_updates(head):
        groups[1.0, True].append(head.weight)
    offsets = [] if head.bias is None else [head.bias]
    offsets += head.replicated_parameters().values()
    groups[1.0, decays(head, "bias", rule)].extend(offsets)
    return [
        {"params": parameters, "lr_scale": rate} | ({} if decaying else {"weight_decay": 0.0})
        for (rate, decaying), parameters in groups.items()
    ]


def sparse_updates(head: ClassifierHead) -> bool:
    return head.sample_rate < 1.0 and not head.dense_gradient


def build_optimizers(
    model: nn.Module, head: ClassifierHead, config: OptimConfig
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a run: SGD, and one for sampled class rows where they are sampled.

    Layers that ``config`` freezes need no gradient from here on.
    Fused, because only then can a non-finite gradient stop the step without asking the host.
    """
    rates = layer_rates(model, config.layers)
    freeze(model, rates)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(
            parameter_groups(model, head, config.decay, rates),
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
                taking_part=lambda: head.taking_part,
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
    ``taking_part`` returns which rows of the gradient (k,) count at all, or None where all do.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        taking_part: Callable[[], Tensor | None] = lambda: None,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.found_inf: Tensor | None = None
        self.taking_part = taking_part

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad.coalesce()  # type: ignore[union-attr]
        buffer = self.state[parameter]["momentum_buffer"]
        every, counts = gradient.indices()[0], self.taking_part()
        if counts is not None and len(counts) != len(every):
            raise ValueError(
                f"the gradient has {len(every)} rows of class weights, but the step's sample has "
                f"{len(counts)}; on a GPU, make one plan of all labels of an optimizer step "
                "(ClassifierHead.plan_step) and pass it with every micro-batch."
            )
        at_once = range(0, len(every), _ROWS_AT_ONCE)
        for part in (slice(low, low + _ROWS_AT_ONCE) for low in at_once):
            rows, values = every[part], gradient.values()[part]
            old, kept = parameter[rows], buffer[rows]
            momentum = values.add(old, alpha=group["weight_decay"])
            momentum.add_(kept, alpha=group["momentum"])
            new = old.sub(momentum, alpha=group["lr"])
            bad = None if counts is None else ~counts[part, None]
            if self.found_inf is not None:
                skip = self.found_inf.to(torch.bool)
                bad = skip if bad is None else bad | skip
            if bad is not None:
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
