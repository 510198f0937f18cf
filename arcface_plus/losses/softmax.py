"""Cross-entropy over classes that are split among ranks, in the form that keeps its digits.

With a = log Σ_{j≠y} e^{z_j} the loss is log(1 + e^{a − z_y}) and the gradient of the target logit
−σ(a − z_y): no 1 − p is ever formed, so that well-fitted samples (p → 1) keep their digits.

Shapes: B samples, C_r classes of this rank's shard, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus


class _OthersLogSumExp(torch.autograd.Function):
    """log Σ_{j≠y} exp(s·g(x·w_j)) over one shard; g is the identity or max(0, ·)."""

    @staticmethod
    def forward(ctx, x, w, target, scale, relu, chunk):  # type: ignore[no-untyped-def]
        classes = w.shape[0]
        step = classes if chunk is None else chunk
        total = x.new_full((x.shape[0],), -torch.inf)
        kept = []
        for lo in range(0, classes, max(step, 1)):
            logits = _logits(x, w[lo : lo + step], target - lo, scale, relu)
            total = torch.logaddexp(total, logits.logsumexp(dim=1))
            if chunk is None:
                kept.append(logits)
        ctx.save_for_backward(x, w, target, total, *kept)
        ctx.scale, ctx.relu, ctx.step = scale, relu, step
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, w, target, total, *kept = ctx.saved_tensors
        # A shard that holds only the sample's own class has no others: nothing to pass on.
        finite = torch.where(torch.isinf(total), torch.zeros_like(total), total)
        grad_x, grad_w = torch.zeros_like(x), torch.empty_like(w)
        for lo in range(0, w.shape[0], max(ctx.step, 1)):
            part = w[lo : lo + ctx.step]
            if kept:
                logits = kept[0]
            else:
                logits = _logits(x, part, target - lo, ctx.scale, ctx.relu)
            share = torch.exp(logits - finite[:, None])
            share *= (grad * ctx.scale)[:, None]
            if ctx.relu:
                share *= logits > 0
            grad_x.addmm_(share, part)
            torch.mm(share.t(), x, out=grad_w[lo : lo + ctx.step])
        return grad_x, grad_w, None, None, None, None


def _logits(x: Tensor, w: Tensor, target: Tensor, scale: float, relu: bool) -> Tensor:
    """Return s·g(x wᵀ) with −∞ at each sample's own class, where it is among these."""
    logits = torch.mm(x, w.t()).mul_(scale)
    if relu:
        logits.clamp_min_(0)
    inside = (target >= 0) & (target < w.shape[0])
    column = torch.where(inside, target, torch.zeros_like(target))[:, None]
    own = torch.where(
        inside[:, None], torch.full_like(logits[:, :1], -torch.inf), logits.gather(1, column)
    )
    return logits.scatter_(1, column, own)


def others_logsumexp(
    x: Tensor,
    w: Tensor,
    target: Tensor,
    *,
    scale: float = 1.0,
    relu: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Return log Σ exp(scale·x·w_j) over the rows j ≠ target of ``w``, shape (B,).

    ``x`` (B, D), ``w`` (C_r, D); ``target`` (B,) is each sample's row in ``w``, or negative (or
    ≥ C_r) where its class is elsewhere. −∞ where no other row exists. With ``chunk`` the logits are
    made that many classes at a time and made again in backward: memory falls from B·C_r to B·chunk
    numbers for about a third more arithmetic. Differentiable once.
    """
    if w.shape[0] == 0:
        return x.new_full((x.shape[0],), -torch.inf) + 0 * x.sum() + 0 * w.sum()
    return _OthersLogSumExp.apply(x, w, target, scale, relu, chunk)


def cross_entropy_of(target: Tensor, others: Tensor) -> Tensor:
    """Return log(1 + e^{others − target}), shape (B,): target logits and others' log-sum-exp."""
    return softplus(others - target, threshold=50.0)
