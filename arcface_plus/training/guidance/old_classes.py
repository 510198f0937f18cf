"""Backward-compatible training: Shen et al., CVPR 2020."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from arcface_plus.data.batches.loader import Batch
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.head.initial import ClassMeans
from arcface_plus.losses.head.plan import StepPlan
from arcface_plus.losses.margins.base import MarginLoss
from arcface_plus.training.guidance.embeddings import ImageEmbeddings
from arcface_plus.training.settings import CompatibleConfig

_BLOCK = 4096


class OldClasses:
    """The margin loss of new embeddings against the old net's classes: the "influence loss".

    They stay where the means of its embeddings of the training images are, as in the paper for
    training images whose classes the old classifier does not have.
    Classes are cut among ranks, and sampled, as the run's own head's are.
    """

    def __init__(
        self, config: CompatibleConfig, margin: MarginLoss, like: ClassifierHead, *, seed: int
    ) -> None:
        self.weight = config.weight
        self.head = ClassifierHead(
            like.num_classes,
            like.embedding_dim,
            margin,
            mma_weight=0.0,
            sample_rate=like.sample_rate,
            class_chunk=like.class_chunk,
            seed=seed,
        ).to(like.weight.device)
        self.head.weight.requires_grad_(False)

    @torch.no_grad()
    def begin_at(self, table: ImageEmbeddings, labels: np.ndarray) -> None:
        """Put every class at the mean of its old embeddings; one without images at nowhere."""
        sums = ClassMeans(self.head.lo, self.head.hi, self.head.embedding_dim)
        mine = (labels >= self.head.lo) & (labels < self.head.hi) & (table.rows >= 0)
        chosen = np.flatnonzero(mine)
        for first in range(0, len(chosen), _BLOCK):
            block = chosen[first : first + _BLOCK]
            sums.add(table.take(block), torch.from_numpy(labels[block]))
        self.head.weight.copy_(sums.rows()[0])

    def begin(self, batch: Batch, labels: Tensor, sizes: Sequence[int]) -> None:
        self._plan: StepPlan = self.head.plan_step(labels, batch.step, sizes=sizes)

    def losses(
        self, embeddings: Tensor, labels: Tensor, part: slice, sizes: Sequence[int]
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the loss () of a micro-batch, and its weight."""
        output = self.head(embeddings, labels[part], plan=self._plan, sizes=sizes)
        return {"compatible": (self.weight, output.classification)}
