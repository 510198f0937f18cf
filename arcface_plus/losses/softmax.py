"""Scores over classes that are split among ranks, and cross-entropy that keeps its digits.

With a = log Σ_{j≠y} e^{z_j} the loss is log(1 + e^{a − z_y}) and the gradient of the target logit
−σ(a − z_y): no 1 − p is ever formed, so that well-fitted samples (p → 1) keep their digits.

Shapes: B samples, C_r classes of this rank's shard, K rows (centres) a class, D dimensions.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

# Logits are made in blocks of about this many numbers, so that what is only passing through stays
# small beside what is kept.
_BLOCK_NUMBERS = 1 << 22


Sums = Literal["logsumexp", "softplus"]


class HardNegatives(NamedTuple):
    """What becomes of a cosine c above its sample's ``threshold`` (B,).

    It is square·c² + slope·c + shift, times the scale. Which cosines are above it is a fact,
    through which no gradient flows.
    """

    threshold: Tensor
    square: float = 0.0
    slope: float | Tensor = 1.0
    shift: float = 0.0

    def mask(self, products: Tensor) -> Tensor:
        return products > self.threshold[:, None]

    def bend(self, products: Tensor) -> Tensor:
        bent = products * self.slope
        if self.square:
            bent.addcmul_(products, products, value=self.square)
        return torch.where(self.mask(products), bent.add_(self.shift), products)

    def slopes(self, products: Tensor) -> Tensor:
        slopes = 2 * self.square * products + self.slope
        return slopes.masked_fill_(~self.mask(products), 1.0)


class OtherLogits(NamedTuple):
    """How a shard's products with the other classes become logits, and what is summed.

    ``unit``: normalise the class weights first, so that products are cosines of unit samples.
    ``relu`` takes max(0, ·). ``limit`` sets products above it to 0, without gradient
    (arcface_torch's interclass filtering: such a class is taken for a mislabelled copy of the
    sample's own). ``hard``: bend what is above a threshold of each sample. ``sums``: log Σ exp of
    the logits, or Σ log(1 + exp).
    """

    scale: float | Tensor = 1.0
    unit: bool = True
    relu: bool = False
    limit: float | None = None
    hard: HardNegatives | None = None
    sums: Sums = "logsumexp"

    def bend(self, products: Tensor) -> Tensor:
        """Return the logits (…) of products (…) as a new tensor."""
        logits = (products if self.hard is None else self.hard.bend(products)) * self.scale
        if self.relu:
            logits.clamp_min_(0)
        if self.limit is not None:
            logits.masked_fill_(products > self.limit, 0)
        return logits

    def slopes(self, products: Tensor) -> Tensor | None:
        """Return ∂bend/∂products in units of ``scale``, or None where it is 1 everywhere.

        Booleans where it is 0 or 1.
        """
        slopes = None if self.hard is None else self.hard.slopes(products)
        if self.relu:
            bent = products if self.hard is None else self.hard.bend(products)
            slopes = bent > 0 if slopes is None else slopes.mul_(bent > 0)
        if self.limit is not None:
            below = products <= self.limit
            slopes = below if slopes is None else slopes * below
        return slopes

    def nothing(self) -> float:
        """Return the sum over no class."""
        return -torch.inf if self.sums == "logsumexp" else 0.0

    def add(self, total: Tensor, logits: Tensor) -> Tensor:
        """Return ``total`` (B,) with the classes of ``logits`` (B, c), which may be −∞, added."""
        if self.sums == "logsumexp":
            return torch.logaddexp(total, logits.logsumexp(dim=1))
        return total + softplus(logits, threshold=50.0).sum(dim=1)

    def pull(self, logits: Tensor, total: Tensor) -> Tensor:
        """Return ∂total/∂logits (B, c) in the memory of ``logits``."""
        if self.sums == "softplus":
            return logits.sigmoid_()
        # A shard that holds only the sample's own class has no others: nothing to pass on.
        finite = total.masked_fill(torch.isinf(total), 0)
        return logits.sub_(finite[:, None]).exp_()


def shard_scores(
    x: Tensor,
    w: Tensor,
    target: Tensor,
    form: OtherLogits,
    *,
    bias: Tensor | None = None,
    chunk: int | None = None,
    centres: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return each sample's product with its own class and the sum over its others, (B,) each.

    ``x`` (B, D), ``w`` (C_r · K, D) this shard's class weights, K = ``centres`` rows a class, one
    class after another: a sample's product with a class is the largest of its K. ``target`` (B,) is
    each sample's class in ``w``, or negative where its class is in another shard: its product is
    then 0. ``bias`` (C_r,) is added to the logits of the others; own products are without it. A
    log-sum-exp is −∞ where the shard holds no other class.

    The products (B, C_r) are kept for backward; with ``chunk`` they are made that many classes at a
    time and made again instead, for about a third more arithmetic. Nothing else of size C_r × D is
    made but the gradient of ``w``. Differentiable once.
    """
    own, others = _ShardScores.apply(x, w, bias, target, form, chunk, centres)
    return own, others


class _ShardScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w, bias, target, form, chunk, centres):
        inverse = None
        if form.unit:
            inverse = torch.linalg.vector_norm(w, dim=1).clamp_min_(1e-12).reciprocal_()
        block = chunk or max(1024, _BLOCK_NUMBERS // max(1, centres * x.shape[0]))
        others = x.new_full((x.shape[0],), form.nothing())
        own = x.new_zeros(x.shape[0])
        kept = []
        for lo in range(0, w.shape[0] // centres, block):
            products, nearest = _products(x, w, inverse, lo, block, centres)
            column, inside, logits = _other_logits(products, form, bias, target - lo, lo)
            own = torch.where(inside, products.gather(1, column).squeeze(1), own)
            others = form.add(others, logits)
            if chunk is None:
                kept += [products, nearest]
        ctx.save_for_backward(x, w, bias, target, others, inverse, *kept)
        ctx.form, ctx.block, ctx.centres = form, block, centres
        return own, others

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_own, grad_others):
        x, w, bias, target, others, inverse, *kept = ctx.saved_tensors
        form, block, centres = ctx.form, ctx.block, ctx.centres
        pull = (grad_others * form.scale)[:, None]
        grad_x, grad_w = torch.zeros_like(x), torch.empty_like(w)
        grad_bias = None if bias is None else bias.new_empty(bias.shape)
        for lo in range(0, w.shape[0] // centres, block):
            part = slice(lo * centres, (lo + block) * centres)
            if kept:
                products, nearest = kept[2 * (lo // block) :][:2]
            else:
                products, nearest = _products(x, w, inverse, lo, block, centres)
            column, inside, logits = _other_logits(products, form, bias, target - lo, lo)
            grads = form.pull(logits, others).mul_(pull)  # ∂loss/∂bent products (B, c)
            if grad_bias is not None:
                grad_bias[lo : lo + block] = grads.sum(dim=0) / form.scale
            slopes = form.slopes(products)
            if slopes is not None:
                grads *= slopes
            grads.scatter_add_(1, column, (grad_own * inside)[:, None])
            if inverse is not None:
                along = _to_centres(grads * products, nearest, centres).sum(dim=0) * inverse[part]
            grads = _to_centres(grads, nearest, centres)
            torch.mm(grads.t(), x, out=grad_w[part])
            if inverse is not None:
                # Through w/‖w‖: take away what lies along the row, then divide by its norm.
                grad_w[part].addcmul_(along[:, None], w[part], value=-1)
                grad_w[part].mul_(inverse[part, None])
                grads *= inverse[part]
            grad_x.addmm_(grads, w[part])
        return grad_x, grad_w, grad_bias, None, None, None, None


def _products(
    x: Tensor, w: Tensor, inverse: Tensor | None, lo: int, block: int, centres: int
) -> tuple[Tensor, Tensor | None]:
    """Return x·w_j, or cosines, (B, c) of a block of classes, and which centre gives each (B, c).

    With one centre a class that is None.
    """
    part = slice(lo * centres, (lo + block) * centres)
    products = torch.mm(x, w[part].t())
    if inverse is not None:
        products.mul_(inverse[part])
    if centres == 1:
        return products, None
    largest, nearest = products.unflatten(1, (-1, centres)).max(dim=2)
    return largest, nearest.to(torch.uint8)


def _to_centres(numbers: Tensor, nearest: Tensor | None, centres: int) -> Tensor:
    """Return ``numbers`` (B, c) of classes at their centres (B, c · K), 0 at the others."""
    if nearest is None:
        return numbers
    spread = numbers.new_zeros(*numbers.shape, centres)
    return spread.scatter_(2, nearest.long()[:, :, None], numbers[:, :, None]).flatten(1)


def _other_logits(
    products: Tensor, form: OtherLogits, bias: Tensor | None, target: Tensor, lo: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each sample's column (B, 1) in a block of classes from ``lo`` on, whether it has one
    (B,), and the logits (B, c) as a new tensor, −∞ at each sample's own class.

    ``target`` (B,) counts from the block's first class.
    """
    inside = (target >= 0) & (target < products.shape[1])
    column = torch.where(inside, target, torch.zeros_like(target))[:, None]
    logits = form.bend(products)
    if bias is not None:
        logits.add_(bias[lo : lo + logits.shape[1]])
    own = logits.gather(1, column).masked_fill_(inside[:, None], -torch.inf)
    return column, inside, logits.scatter_(1, column, own)


def cross_entropy_of(target: Tensor, others: Tensor) -> Tensor:
    """Return log(1 + e^{others − target}), shape (B,): target logits and others' log-sum-exp."""
    return softplus(others - target, threshold=50.0)
