"""Cross-entropy over classes that are split among ranks, in the form that keeps its digits.

With a = log Σ_{j≠y} e^{z_j} the loss is log(1 + e^{a − z_y}) and the gradient of the target logit
−σ(a − z_y): no 1 − p is ever formed, so that well-fitted samples (p → 1) keep their digits.

Shapes: B samples, C_r classes of this rank's shard, D dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus


class _Shape(NamedTuple):
    """How cosines (or inner products) of the other classes become logits."""

    scale: float
    relu: bool
    limit: float | None

    def bend(self, logits: Tensor) -> Tensor:
        """Return scaled inner products (…) with max(0, ·) and the limit applied."""
        if self.relu:
            logits = logits.clamp_min(0)
        if self.limit is not None:
            logits = torch.where(logits > self.limit * self.scale, 0.0, logits)
        return logits

    def passes(self, logits: Tensor) -> Tensor | None:
        """Return where ``bend`` lets gradient through, or None for everywhere."""
        if self.limit is None:
            return logits > 0 if self.relu else None
        below = logits <= self.limit * self.scale
        return below & (logits > 0) if self.relu else below


class _OthersLogSumExp(torch.autograd.Function):
    """log Σ_{j≠y} exp(bend(s·x·w_j)) over one shard."""

    @staticmethod
    def forward(ctx, x, w, target, shape, chunk):  # type: ignore[no-untyped-def]
        step = w.shape[0] if chunk is None else chunk
        total = x.new_full((x.shape[0],), -torch.inf)
        kept = []
        for lo in range(0, w.shape[0], step):
            logits = _scaled(x, w[lo : lo + step], shape.scale)
            if chunk is None:
                kept.append(logits)
            bent = _without_own(shape.bend(logits), target - lo)
            total = torch.logaddexp(total, bent.logsumexp(dim=1))
        ctx.save_for_backward(x, w, target, total, *kept)
        ctx.shape, ctx.step = shape, step
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, w, target, total, *kept = ctx.saved_tensors
        shape = ctx.shape
        # A shard that holds only the sample's own class has no others: nothing to pass on.
        finite = torch.where(torch.isinf(total), torch.zeros_like(total), total)
        grad_x, grad_w = torch.zeros_like(x), torch.empty_like(w)
        for lo in range(0, w.shape[0], ctx.step):
            part = w[lo : lo + ctx.step]
            logits = kept[0] if kept else _scaled(x, part, shape.scale)
            bent = _without_own(shape.bend(logits), target - lo)
            share = bent.sub_(finite[:, None]).exp_().mul_((grad * shape.scale)[:, None])
            passes = shape.passes(logits)
            if passes is not None:
                share *= passes
            grad_x.addmm_(share, part)
            torch.mm(share.t(), x, out=grad_w[lo : lo + ctx.step])
        return grad_x, grad_w, None, None, None


def _scaled(x: Tensor, w: Tensor, scale: float) -> Tensor:
    return torch.mm(x, w.t()).mul_(scale)


def _without_own(logits: Tensor, target: Tensor) -> Tensor:
    """Return a copy with −∞ at each sample's own class, where it is among these."""
    inside = (target >= 0) & (target < logits.shape[1])
    column = torch.where(inside, target, torch.zeros_like(target))[:, None]
    own = logits.gather(1, column).masked_fill_(inside[:, None], -torch.inf)
    return logits.scatter(1, column, own)


def others_logsumexp(
    x: Tensor,
    w: Tensor,
    target: Tensor,
    *,
    scale: float = 1.0,
    relu: bool = False,
    limit: float | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Return log Σ exp(scale·x·w_j) over the rows j ≠ target of ``w``, shape (B,).

    ``x`` (B, D), ``w`` (C_r, D); ``target`` (B,) is each sample's row in ``w``, or negative (or
    ≥ C_r) where its class is elsewhere. −∞ where no other row exists. ``relu`` takes max(0, x·w_j);
    ``limit`` sets inner products above it to 0, without gradient (arcface_torch's interclass
    filtering: such a class is taken for a mislabelled copy of the sample's own). With ``chunk`` the
    logits are made that many classes at a time and made again in backward: memory falls from B·C_r
    to B·chunk numbers for about a third more arithmetic. Differentiable once.
    """
    if w.shape[0] == 0:
        return x.new_full((x.shape[0],), -torch.inf) + 0 * x.sum() + 0 * w.sum()
    return _OthersLogSumExp.apply(x, w, target, _Shape(scale, relu, limit), chunk)


def cross_entropy_of(target: Tensor, others: Tensor) -> Tensor:
    """Return log(1 + e^{others − target}), shape (B,): target logits and others' log-sum-exp."""
    return softplus(others - target, threshold=50.0)
