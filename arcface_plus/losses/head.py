"""The classifier head: margin softmax over classes split among ranks, with MMA on their weights.

``loss`` is one number, the same on every rank: the mean cross-entropy over the global batch plus
λ·MMA. One rank is the case of one shard. Shapes: B_r embeddings of this rank, B of all ranks,
C classes, C_r of this rank's shard, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.distributed import (
    Group,
    all_gather_rows,
    gather_rows,
    gather_sizes,
    logsumexp_over_ranks,
    rank,
    shard_bounds,
    sum_over_ranks,
    world_size,
)
from arcface_plus.losses.initial import initial_class_weights
from arcface_plus.losses.margins import Margin, target_logit
from arcface_plus.losses.sampling import sampled_rows
from arcface_plus.losses.softmax import OtherLogits, cross_entropy_of, shard_scores
from arcface_plus.regularizers.class_mma import ClassMMA


@dataclass(frozen=True)
class HeadOutput:
    """What one forward pass of the head returns; all numbers are the same on every rank.

    ``loss`` () is what to differentiate: ``classification`` + λ·``mma``. ``mma`` () is −(mean angle
    from each class weight to its nearest other, radians), or None where it was not computed.
    ``target_cosine`` (B,) is each sample's cosine to its own class.
    """

    loss: Tensor
    classification: Tensor
    mma: Tensor | None
    target_cosine: Tensor


@dataclass(frozen=True)
class StepPlan:
    """What all micro-batches of one optimizer step share.

    ``total`` samples over all ranks and micro-batches; ``rows`` of this shard that take part, or
    None where all do.
    """

    total: int
    step: int
    rows: Tensor | None


class ClassifierHead(nn.Module):
    """Score embeddings against every class, holding only this rank's shard of the class weights.

    After ``loss.backward()`` on every rank, ``weight.grad`` is the shard's gradient of the loss,
    unscaled, and the embeddings' gradient is W times theirs, so that DDP's averaging leaves the
    exact gradient in the backbone. Keep the head itself out of DDP.

    ``margin``: a :class:`Margin`, or None for a plain softmax of w·x, to which ``bias`` adds a
    number a class (from 0, sharded like the weights, no part of MMA). ``mma_weight``: λ.
    ``mma_rows``: estimate MMA from that many random rows. ``sample_rate``: share of classes that
    take part in a step besides the positives; ``weight.grad`` is then a sparse tensor of those
    rows, unless ``dense_gradient`` (arcface_torch's way: rows out of the sample decay and coast on
    too). ``class_chunk``: make logits that many classes at a time and again in backward, to save
    memory. ``filter_threshold``: leave out other classes whose cosine exceeds it. ``seed`` fixes
    initial weights and samples at any world size.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        margin: Margin | None,
        *,
        bias: bool = False,
        mma_weight: float = 0.03,
        mma_rows: int | None = None,
        mma_refresh_every: int = 1,
        sample_rate: float = 1.0,
        dense_gradient: bool = False,
        class_chunk: int | None = None,
        filter_threshold: float | None = None,
        seed: int = 0,
        group: Group = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least two classes, got {num_classes}.")
        if not 0 < sample_rate <= 1:
            raise ValueError(f"sample_rate is {sample_rate}, but must lie in (0, 1].")
        if mma_weight < 0:
            raise ValueError(f"mma_weight is {mma_weight}, but must not be negative.")
        if bias and margin is not None:
            raise ValueError("bias is for linear logits, w·x + b: use it with margin=None.")
        if bias and sample_rate < 1:
            raise ValueError(
                "bias needs every class in every step, but sample_rate is "
                f"{sample_rate}; set sample_rate to 1 or bias to False."
            )
        self.num_classes, self.embedding_dim, self.margin = num_classes, embedding_dim, margin
        self.mma_weight, self.sample_rate = mma_weight, sample_rate
        self.dense_gradient, self.class_chunk, self.seed = dense_gradient, class_chunk, seed
        self.filter_threshold = filter_threshold
        self.group = group
        self.lo, self.hi = shard_bounds(num_classes, world_size(group))[rank(group)]
        self.weight = nn.Parameter(initial_class_weights(seed, self.lo, self.hi, embedding_dim))
        self.bias = nn.Parameter(torch.zeros(self.hi - self.lo)) if bias else None
        self.mma = ClassMMA(
            num_classes, rows=mma_rows, refresh_every=mma_refresh_every, seed=seed, group=group
        )

    def extra_repr(self) -> str:
        return (
            f"classes {self.lo}–{self.hi} of {self.num_classes}, dim={self.embedding_dim}, "
            f"margin={self.margin}, mma_weight={self.mma_weight}, sample_rate={self.sample_rate}"
        )

    def sharded_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters whose rows are this rank's classes, by name."""
        named = {"weight": self.weight}
        return named if self.bias is None else named | {"bias": self.bias}

    def plan_step(
        self, labels: Tensor, step: int | None = None, *, sizes: Sequence[int] | None = None
    ) -> StepPlan:
        """Fix what the micro-batches of one optimizer step share, from all its labels (B_r,).

        ``sizes``: how many labels each rank has; finding them out costs a host synchronisation.
        """
        self._check_labels(labels)
        if sizes is None:
            sizes = gather_sizes(len(labels), labels.device, self.group)
        draws = self.sample_rate < 1 or (self.mma_weight > 0 and self.mma.samples)
        if draws and step is None:
            raise ValueError(
                "sample_rate < 1 and mma_rows draw other classes at every step: pass step=, the "
                "number of the optimizer step."
            )
        step = step or 0
        if self.sample_rate == 1.0:
            return StepPlan(sum(sizes), step, None)
        positives = torch.cat(all_gather_rows(labels, self.group, sizes=sizes))
        rows = sampled_rows(
            positives, rate=self.sample_rate, seed=self.seed, step=step, lo=self.lo, hi=self.hi
        )
        return StepPlan(sum(sizes), step, rows)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        step: int | None = None,
        *,
        plan: StepPlan | None = None,
        sizes: Sequence[int] | None = None,
        with_mma: bool = True,
    ) -> HeadOutput:
        """Return the loss of embeddings (B_r, D) with labels (B_r,) int64 in 0…C−1.

        For gradient accumulation, make one ``plan`` of all the step's labels and pass it with every
        micro-batch, ``with_mma`` for one of them: the losses then add up to that of the whole
        batch. ``sizes``: every rank's B_r where known. Runs in float32 (float64 for float64
        embeddings). Raises ValueError for shapes or labels that do not fit.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim:
            raise ValueError(
                f"embeddings must be (B, {self.embedding_dim}), got {tuple(embeddings.shape)}."
            )
        if labels.shape != embeddings.shape[:1]:
            raise ValueError(
                f"labels must be ({embeddings.shape[0]},) like the embeddings, got "
                f"{tuple(labels.shape)}."
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            if sizes is None:
                sizes = gather_sizes(len(labels), labels.device, self.group)
            if plan is None:
                plan = self.plan_step(labels, step, sizes=sizes)
            return self._forward(embeddings, labels, plan, sizes, with_mma)

    def _forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        plan: StepPlan,
        sizes: Sequence[int],
        with_mma: bool,
    ) -> HeadOutput:
        if embeddings.dtype not in (torch.float32, torch.float64):
            embeddings = embeddings.float()
        everyone = gather_rows(
            embeddings, self.group, sizes=sizes, gradient_scale=float(world_size(self.group))
        )
        target = torch.cat(all_gather_rows(labels, self.group, sizes=sizes)) - self.lo
        weight = self._active_weight(plan)
        inside = (target >= 0) & (target < self.hi - self.lo)
        row = torch.where(inside, target, torch.full_like(target, -1))
        if plan.rows is not None:
            found = torch.searchsorted(plan.rows, target)
            row = torch.where(inside, found, row)
        logit, others, cosine = self._scores(everyone, weight, row)
        losses = cross_entropy_of(
            sum_over_ranks(logit, self.group), logsumexp_over_ranks(others, self.group)
        )
        classification = losses.sum() / plan.total
        target_cosine = sum_over_ranks(cosine.detach(), self.group)
        if not (with_mma and self.mma_weight > 0):
            return HeadOutput(classification, classification, None, target_cosine)
        active = None if plan.rows is None else (plan.rows, weight)
        mma = self.mma(self.weight, plan.step, active=active)
        loss = classification + self.mma_weight * mma
        return HeadOutput(loss, classification, mma, target_cosine)

    def _active_weight(self, plan: StepPlan) -> Tensor:
        if plan.rows is None:
            return self.weight
        return F.embedding(plan.rows, self.weight, sparse=not self.dense_gradient)

    def _scores(self, x: Tensor, weight: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return this shard's share of target logits, log-sum-exp of others, target cosines (B,).

        A sample whose class is in another shard (``row`` < 0) has target share 0.
        """
        weight, mine = weight.to(x.dtype), row >= 0
        zero = x.new_zeros(len(x))
        if self.margin is None:
            return self._linear_scores(x, weight, row)
        form = OtherLogits(
            scale=self.margin.s, relu=self.margin.wc_relu, limit=self.filter_threshold
        )
        unit = F.normalize(x, dim=1)
        cosine, others = shard_scores(unit, weight, row, form, chunk=self.class_chunk)
        return torch.where(mine, target_logit(cosine, self.margin), zero), others, cosine

    def _linear_scores(
        self, x: Tensor, weight: Tensor, row: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        logit, others = shard_scores(
            x, weight, row, OtherLogits(unit=False), bias=bias, chunk=self.class_chunk
        )
        if not len(weight):
            return logit, others, x.new_zeros(len(x))
        with torch.no_grad():
            own = torch.linalg.vector_norm(weight[row.clamp_min(0)], dim=1)
            lengths = own * torch.linalg.vector_norm(x, dim=1)
            cosine = logit / lengths.clamp_min(1e-12)
        if bias is not None:
            logit = logit + torch.where(row >= 0, bias[row.clamp_min(0)], 0)
        return logit, others, cosine

    def _check_labels(self, labels: Tensor) -> None:
        if labels.dtype != torch.int64:
            raise ValueError(f"labels must be int64, got {labels.dtype}.")
        fine = ((labels >= 0) & (labels < self.num_classes)).all()
        if labels.is_cuda:
            torch._assert_async(fine)  # reading the answer here would stall every step
        elif not fine:
            wrong = labels[(labels < 0) | (labels >= self.num_classes)][0].item()
            raise ValueError(
                f"label {wrong} is outside 0…{self.num_classes - 1}; the head was built for "
                f"{self.num_classes} classes."
            )
