"""Which parameters learn how fast and by which optimizer, and the gradient norm over shards."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from arcface_plus.distributed import Group, all_reduce_sum
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.training.settings import LayerRate, OptimConfig
from arcface_plus.training.updates.lamb import build_lamb
from arcface_plus.training.updates.rows import RowAdamW, RowSGD

_BatchNorm = nn.modules.batchnorm._BatchNorm
# Added to what they meet, as biases are.
_SHIFTS = ("bias", "pos_embed", "cls_token", "mask_token")


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
    convolutional layers. ``all``: everything, as arcface_torch. PReLU slopes count as gains,
    positions of a transformer as shifts.
    """
    if rule == "weights":
        is_layer = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        return is_layer and name == "weight"
    return rule == "all" or name not in _SHIFTS


def parameter_groups(
    model: nn.Module,
    head: ClassifierHead,
    rule: str,
    rates: Mapping[str, float] | None = None,
    *,
    rows_apart: bool = False,
    beside: Iterable[Tensor] = (),
) -> list[dict[str, Any]]:
    """Return the groups ``[decaying, not decaying]`` of the net and the head, then slower ones.

    ``rates``: what the learning rate is multiplied by, for parameters of the net by name; those
    with another one than 1 are groups of their own, which say it as ``lr_scale``.
    Class weights decay under every rule, biases of classes and what a margin learns as biases do.
    Parameters that need no gradient are left out, class weights too where ``rows_apart``.
    ``beside``: weights of neither, which decay.
    """
    groups: dict[tuple[float, bool], list[Tensor]] = {(1.0, True): [], (1.0, False): []}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                rate = (rates or {}).get(f"{prefix}.{name}".lstrip("."), 1.0)
                groups.setdefault((rate, decays(module, name, rule)), []).append(parameter)
    if not rows_apart:
        groups[1.0, True].append(head.weight)
    groups[1.0, True] += beside
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
    model: nn.Module, head: ClassifierHead, config: OptimConfig, beside: Iterable[Tensor] = ()
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a run: one of the net, and one of the class rows where need be.

    Rows are updated one by one where they are sampled, and by LAMB, to which each class is a layer:
    a shard's norm would depend on the ranks.
    Layers that ``config`` freezes need no gradient from here on.
    Fused, because only then can a non-finite gradient stop the step without asking the host.
    State of zero, which the first step starts from: left to itself, fused SGD makes it in that
    step, uninitialised where ``found_inf`` skips it; a checkpoint before would lack it.
    """
    rates = layer_rates(model, config.layers)
    freeze(model, rates)
    apart = sparse_updates(head) or config.kind == "lamb"
    groups = parameter_groups(model, head, config.decay, rates, rows_apart=apart, beside=beside)
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    adaptive: dict[str, Any] = {**common, "betas": config.betas, "eps": config.eps}
    optimizers: list[torch.optim.Optimizer] = []
    if config.kind == "sgd":
        common["momentum"] = config.momentum
        optimizers.append(torch.optim.SGD(groups, **common, nesterov=config.nesterov, fused=True))
    elif config.kind == "adamw":
        optimizers.append(torch.optim.AdamW(groups, **adaptive, fused=True))
    else:
        optimizers.append(build_lamb(groups, **adaptive))

    def counts() -> Tensor | None:
        return head.taking_part

    if apart and config.kind == "sgd":
        optimizers.append(RowSGD([head.weight], **common, taking_part=counts))
    elif apart:
        trust = config.kind == "lamb"
        optimizers.append(RowAdamW([head.weight], **adaptive, trust=trust, taking_part=counts))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                _begin_state(optimizer, parameter, adaptive=config.kind != "sgd")
    return optimizers


def _begin_state(optimizer: torch.optim.Optimizer, parameter: Tensor, *, adaptive: bool) -> None:
    """Give ``parameter`` the state of zero steps."""
    state = optimizer.state[parameter]
    for name in ("exp_avg", "exp_avg_sq") if adaptive else ("momentum_buffer",):
        state[name] = torch.zeros_like(parameter)
    if adaptive:
        counts = len(parameter) if isinstance(optimizer, RowAdamW) else ()
        state.setdefault("step", torch.zeros(counts, dtype=torch.float32, device=parameter.device))


def optimizer_state(
    optimizers: Iterable[torch.optim.Optimizer], parameter: Tensor
) -> dict[str, Tensor]:
    """Return what an optimizer keeps of ``parameter``, by the names that checkpoints have for it.

    ``momentum`` of SGD; ``exp_avg``, ``exp_avg_sq`` and ``step`` of AdamW and LAMB.
    """
    (state,) = (o.state[parameter] for o in optimizers if parameter in o.state)
    return {name.removesuffix("_buffer"): value for name, value in state.items()}


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
