"""Optimizers of class weights that touch only the rows present in a sparse gradient.

Other rows keep weight and state: no decay, and no further step along an old momentum. They take
``found_inf`` like torch's fused optimizers: a tensor, non-zero to skip the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

# Which rows of the gradient (k,) count at all, or None where all do.
TakingPart = Callable[[], Tensor | None]
_ROWS_AT_ONCE = 16_384  # bounds what an update of sampled rows makes beside them


class _RowOptimizer(torch.optim.Optimizer):
    """Updates rows part by part; a kind says how (``_changed``) and with what state."""

    names: tuple[str, ...] = ()

    def __init__(
        self, params: Iterable[Tensor], defaults: dict[str, Any], taking_part: TakingPart
    ) -> None:
        super().__init__(params, defaults)
        self.found_inf: Tensor | None = None
        self.taking_part = taking_part

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        kept = [parameter, *(self.state[parameter][name] for name in self.names)]
        for rows, gradient, counts in _parts(parameter.grad, self.taking_part()):  # type: ignore[arg-type]
            old = [tensor[rows] for tensor in kept]
            new = self._changed(gradient, old, group)
            bad = None if counts is None else ~counts
            if self.found_inf is not None:
                skip = self.found_inf.to(torch.bool)
                bad = skip if bad is None else bad | skip
            if bad is not None:
                each = [bad if bad.ndim == 0 else bad.view(-1, *[1] * (t.ndim - 1)) for t in old]
                new = [torch.where(b, x, y) for b, x, y in zip(each, old, new, strict=True)]
            for tensor, value in zip(kept, new, strict=True):
                tensor[rows] = value

    def _changed(self, gradient: Tensor, old: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Return rows (n, D) and their state after a step, of ``old`` ones."""
        raise NotImplementedError


def _parts(
    gradient: Tensor, counts: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield row numbers (n,), their gradient (n, D) and which count, in parts.

    Of the rows of a sparse gradient, or of all.
    """
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
    else:
        rows, values = torch.arange(len(gradient), device=gradient.device), gradient
    if counts is not None and len(counts) != len(rows):
        raise ValueError(
            f"the gradient has {len(rows)} rows of class weights, but the step's sample has "
            f"{len(counts)}; on a GPU, make one plan of all labels of an optimizer step "
            "(ClassifierHead.plan_step) and pass it with every micro-batch."
        )
    for low in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(low, low + _ROWS_AT_ONCE)
        yield rows[part], values[part], None if counts is None else counts[part]


class RowSGD(_RowOptimizer):
    """SGD with momentum and decay; state ``momentum_buffer`` (C_r, D)."""

    names = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        taking_part: TakingPart = lambda: None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults, taking_part)

    def _changed(self, gradient: Tensor, old: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        weight, kept = old
        momentum = gradient.add(weight, alpha=group["weight_decay"])
        momentum.add_(kept, alpha=group["momentum"])
        return [weight.sub(momentum, alpha=group["lr"]), momentum]


class RowAdamW(_RowOptimizer):
    """AdamW (Loshchilov and Hutter, ICLR 2019), each row as if its own steps were all.

    State: ``step`` (C_r,), how often a row took part, by which its averages are corrected;
    ``exp_avg`` and ``exp_avg_sq`` (C_r, D). ``trust``: LAMB (You et al., ICLR 2020) with each class
    as a layer: the step of a row, decay included, is as long as lr times the row.
    """

    names = ("step", "exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        trust: bool = False,
        taking_part: TakingPart = lambda: None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "trust": trust}, taking_part)

    def _changed(self, gradient: Tensor, old: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        weight, step, mean, square = old
        (first, second), lr, decay = group["betas"], group["lr"], group["weight_decay"]
        step = step + 1
        mean = torch.lerp(mean, gradient, 1 - first)
        square = torch.lerp(square, gradient.square(), 1 - second)
        corrected = (1 - second**step).sqrt()[:, None]
        update = mean / ((square.sqrt() / corrected).add_(group["eps"]))
        update /= (1 - first**step)[:, None]
        if not group["trust"]:
            return [weight * (1 - lr * decay) - lr * update, step, mean, square]
        update.add_(weight, alpha=decay)
        lengths = [torch.linalg.vector_norm(rows, dim=1) for rows in (weight, update)]
        ratio = torch.where((lengths[0] > 0) & (lengths[1] > 0), lengths[0] / lengths[1], 1.0)
        return [weight - lr * ratio[:, None] * update, step, mean, square]
