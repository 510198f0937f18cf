"""The classifier head: margin softmax over classes split among ranks, with MMA on their weights.

``loss`` is one number, the same on every rank: the mean cross-entropy over the global batch plus
λ·MMA. One rank is the case of one shard. Shapes: B_r embeddings of this rank, B of all ranks,
C classes, C_r of this rank's shard, K centres a class (1 unless asked), D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.clock import counted_as
from arcface_plus.devices import to_device
from arcface_plus.distributed import (
    Group,
    all_gather_rows,
    gather_rows,
    gather_sizes,
    logsumexp_over_ranks,
    rank,
    shard_bounds,
    shared_by_ranks,
    sum_over_ranks,
    world_size,
)
from arcface_plus.losses.head.centres import Centres
from arcface_plus.losses.head.initial import initial_class_weights
from arcface_plus.losses.head.margin_state import MarginState
from arcface_plus.losses.head.output import HeadOutput, with_norms
from arcface_plus.losses.head.plan import StepPlan, check_labels
from arcface_plus.losses.head.sampling import full_share, sampled_rows
from arcface_plus.losses.head.scoring import Scores, linear_scores, margin_scores, own_cosines
from arcface_plus.losses.margins.base import MarginLoss, Samples
from arcface_plus.losses.margins.elasticface import normal_draws
from arcface_plus.losses.softmax import cross_entropy_of
from arcface_plus.regularizers.sharded.class_mma import ClassMMA


class ClassifierHead(nn.Module):
    """Score embeddings against every class, holding only this rank's shard of the class weights.

    After ``loss.backward()`` on every rank, ``weight.grad`` is the shard's gradient of the loss,
    unscaled, and the embeddings' gradient is W times theirs, so that DDP's averaging leaves the
    exact gradient in the backbone. Keep the head itself out of DDP.

    ``margin``: a ``Margin`` or another ``MarginLoss``, or None for a plain softmax of w·x, to which
    ``bias`` adds a number a class (from 0, sharded like the weights, no part of MMA).
    ``mma_weight``: λ.
    ``mma_rows``: estimate MMA from that many random rows. ``sample_rate``: share of classes that
    take part in a step besides the positives; ``weight.grad`` is then a sparse tensor of those
    rows, unless ``dense_gradient`` (arcface_torch's way: weight decay, momentum and MMA move rows
    out of the sample too). MMA pulls a row that was drawn by 1/``sample_rate`` of its gradient, so
    that on average every row gets the whole one. ``class_chunk``: make logits that many classes at
    a time and again in backward, to save memory. ``filter_threshold``: leave out other classes
    whose cosine exceeds it.
    ``centres``: K rows a class, of which the nearest to a sample counts (see ``centres.py``);
    ``weight`` is (C_r · K, D). MMA then compares the dominant centres of the classes.
    ``seed`` fixes initial weights and samples at any world size.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        margin: MarginLoss | None,
        *,
        bias: bool = False,
        mma_weight: float = 0.03,
        mma_rows: int | None = None,
        mma_refresh_every: int = 1,
        sample_rate: float = 1.0,
        dense_gradient: bool = False,
        class_chunk: int | None = None,
        filter_threshold: float | None = None,
        centres: int = 1,
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
        if margin is None and centres > 1:
            raise ValueError(f"centres is {centres}, but linear logits know one row a class.")
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
        self.centres = Centres(self.hi - self.lo, centres)
        rows = (self.lo * centres, self.hi * centres)
        self.weight = nn.Parameter(initial_class_weights(seed, *rows, embedding_dim))
        self.bias = nn.Parameter(torch.zeros(self.hi - self.lo)) if bias else None
        self.margin_state = MarginState(margin, num_classes, sample_rate)
        self.taking_part: Tensor | None = None  # rows (k,) of a sparse gradient that do, or all
        self.mma = ClassMMA(
            num_classes, rows=mma_rows, refresh_every=mma_refresh_every, seed=seed, group=group
        )

    def extra_repr(self) -> str:
        return (
            f"classes {self.lo}–{self.hi} of {self.num_classes}, dim={self.embedding_dim}, "
            f"centres={self.centres.count}, margin={self.margin}, mma_weight={self.mma_weight}, "
            f"sample_rate={self.sample_rate}"
        )

    def sharded_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters whose rows are this rank's classes, by name."""
        named = {"weight": self.weight}
        return named if self.bias is None else named | {"bias": self.bias}

    def class_weights(self) -> Tensor:
        """Return one row a class (C_r, D): the weights, or those of the dominant centres."""
        return self.centres.dominant_rows(self.weight)

    def sharded_state(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold of each class besides parameters, by name."""
        return {} if self.centres.count == 1 else {"centre_counts": self.centres.counts}

    def replicated_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters () that every rank holds, by name: what the margin learns."""
        return dict(self.margin_state.named_parameters())

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the running averages () of the margin by name; a checkpoint must hold them."""
        return dict(self.margin_state.named_buffers())

    def plan_step(
        self, labels: Tensor, step: int | None = None, *, sizes: Sequence[int] | None = None
    ) -> StepPlan:
        """Fix what the micro-batches of one optimizer step share, from all its labels (B_r,).

        ``sizes``: how many labels each rank has; finding them out costs a host synchronisation.
        """
        check_labels(labels, self.num_classes)
        if sizes is None:
            sizes = gather_sizes(len(labels), labels.device, self.group)
        draws = self.sample_rate < 1 or (self.mma_weight > 0 and self.mma.samples)
        margin = self.margin
        if step is None and (draws or (margin and (margin.draws or margin.warmup_steps))):
            raise ValueError(
                "sample_rate < 1, mma_rows, ElasticFace and warmup_steps depend on the step: pass "
                "step=, the number of the optimizer step."
            )
        step = step or 0
        if self.training:
            self.centres.begin_step()
        if self.sample_rate == 1.0:
            return StepPlan(tuple(sizes), step, None)
        positives = torch.cat(all_gather_rows(labels, self.group, sizes=sizes))
        sample = sampled_rows(
            positives, rate=self.sample_rate, seed=self.seed, step=step, lo=self.lo, hi=self.hi
        )
        self.taking_part = self.centres.per_row(sample.taking_part)
        share = full_share(sample.rows, positives, rate=self.sample_rate, lo=self.lo)
        return StepPlan(tuple(sizes), step, sample, share)

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
        everyone = gather_rows(embeddings, self.group, sizes=sizes)
        target = torch.cat(all_gather_rows(labels, self.group, sizes=sizes)) - self.lo
        weight: Tensor = self.weight
        row = target
        if plan.sample is not None:
            rows = self.centres.rows_of(plan.sample.rows)
            weight = plan.pick(self.weight, rows, sparse=not self.dense_gradient)
            row = torch.searchsorted(plan.sample.rows, target)
        inside = (target >= 0) & (target < self.hi - self.lo)
        row = torch.where(inside, row, -1)
        places = plan.take(sizes)
        samples = None
        if self.margin is None:
            dtype = everyone.dtype
            bias = plan.hidden(dtype) if self.bias is None else self.bias.to(dtype)
            scores = linear_scores(everyone, weight.to(dtype), row, bias, chunk=self.class_chunk)
        else:
            samples, scores = self._margin_scores(everyone, weight, row, plan, places)
        classification = self._losses(scores).sum() / plan.total
        target_cosine = sum_over_ranks(scores.cosine.detach(), self.group)
        norm = torch.linalg.vector_norm(everyone.detach(), dim=1)
        output = HeadOutput(classification, classification, None, target_cosine, norm)
        if samples is not None and self.margin is not None and self.margin.uses_norm:
            norm = samples.norm
            output = with_norms(output, self.margin, norm, inside, plan.total, group=self.group)
        if not (with_mma and self.mma_weight > 0):
            return output
        active = None  # with a dense gradient every row gets its pull in every step
        if plan.sample is not None and plan.share is not None and not self.dense_gradient:
            picked = self.centres.dominant_rows(weight, plan.sample.rows)
            active = (plan.sample.rows, picked, plan.share)
        with counted_as("mma_share"):
            mma = self.mma(self.class_weights(), plan.step, active=active)
        return replace(output, loss=output.loss + self.mma_weight * mma, mma=mma)

    def _margin_scores(
        self, x: Tensor, weight: Tensor, row: Tensor, plan: StepPlan, places: np.ndarray
    ) -> tuple[Samples, Scores]:
        assert self.margin is not None
        margin = self.margin.at_step(plan.step)
        weight, unit = weight.to(x.dtype), F.normalize(x, dim=1)
        own = draws = None
        if margin.informed or self.centres.count > 1:
            cosines = own_cosines(unit, weight, row, self.centres.count)
            if self.training and self.centres.count > 1 and len(weight):
                here = row if plan.sample is None else plan.sample.rows[row.clamp_min(0)]
                self.centres.observe(cosines, here, row >= 0)
            if margin.informed:
                own = sum_over_ranks(cosines.amax(dim=1), self.group)
        if margin.draws:
            drawn = torch.from_numpy(normal_draws(self.seed, plan.step, places))
            draws = to_device(drawn, x.device).to(x.dtype)
        norm = torch.linalg.vector_norm(x, dim=1) if margin.uses_norm else x.new_empty(0)
        learned = {
            name: shared_by_ranks(value, self.group).to(x.dtype)
            for name, value in self.replicated_parameters().items()
        }
        samples = Samples(norm, own, draws, learned=learned)
        score = partial(margin_scores, margin, unit, weight, row, centres=self.centres.count)
        score = partial(score, hidden=plan.hidden(x.dtype), limit=self.filter_threshold)
        score = partial(score, chunk=self.class_chunk)
        if margin.surveys:
            with torch.no_grad():
                before = _copies(plan.state or self.state_tensors(), x)
                others = score(samples=replace(samples, state=before)).others
                samples = replace(samples, rivals=logsumexp_over_ranks(others, self.group))
        self.margin_state.observe(samples, plan)
        # Copies: another micro-batch moves them before this one goes backward.
        samples = replace(samples, state=_copies(self.state_tensors(), x))
        return samples, score(samples=samples)

    def _losses(self, scores: Scores) -> Tensor:
        """Return the loss (B,) of every sample, from the scores of all shards."""
        over_ranks = logsumexp_over_ranks if scores.sums == "logsumexp" else sum_over_ranks
        losses = cross_entropy_of if self.margin is None else self.margin.losses
        target = sum_over_ranks(scores.target, self.group)
        return losses(target, over_ranks(scores.others, self.group))


def _copies(state: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
    return {name: value.to(like.dtype, copy=True) for name, value in state.items()}
