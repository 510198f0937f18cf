"""Distillation: a teacher's embeddings of the images of a step, which the net's own are held to.

Every rank computes the whole of a micro-batch's loss, so that it is the same number on all.
Shapes: B_r images of this rank, B of all ranks, D dimensions, T of the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from arcface_plus.checkpoints.parts import Part, Stored
from arcface_plus.data.batches.loader import Batch
from arcface_plus.devices import to_device
from arcface_plus.distributed import World, all_gather_rows, gather_rows
from arcface_plus.losses.distillation.cosine import cosine_loss
from arcface_plus.losses.distillation.relational import relational_loss
from arcface_plus.randomness import projection_generator
from arcface_plus.training.guidance.embeddings import ImageEmbeddings
from arcface_plus.training.optim import optimizer_state
from arcface_plus.training.settings import TeacherConfig


class Teacher(Part):
    """Losses against a teacher's embeddings; through a linear projection where widths differ.

    ``table`` has the embeddings, and is set before the first step.
    """

    table: ImageEmbeddings

    def __init__(
        self, config: TeacherConfig, dim: int, own_dim: int, world: World, *, seed: int
    ) -> None:
        self.config, self.world = config, world
        self.projection: nn.Linear | None = None
        if config.cosine and dim != own_dim:
            self.projection = nn.Linear(own_dim, dim, bias=False, device="cpu")
            drawn = projection_generator(seed).standard_normal((dim, own_dim)) / own_dim**0.5
            with torch.no_grad():
                self.projection.weight.copy_(torch.from_numpy(drawn))
            self.projection.to(world.device)
        self.optimizers: Sequence[torch.optim.Optimizer] = ()

    def begin(self, batch: Batch, labels: Tensor, sizes: Sequence[int]) -> None:
        """Look up the embeddings of this rank's ``batch``."""
        self._rows = to_device(self.table.take(batch.indices.numpy()), self.world.device)
        self._total = sum(sizes)

    def losses(
        self, embeddings: Tensor, labels: Tensor, part: slice, sizes: Sequence[int]
    ) -> dict[str, tuple[float, Tensor]]:
        """Return each loss () and its weight, of a micro-batch: ``part`` of this rank's batch."""
        wanted, ranks = self.config, self.world.size
        everyone = gather_rows(embeddings, sizes=sizes)
        if ranks > 1:  # each has the whole gradient, and gathering would add them up
            everyone.register_hook(lambda gradient: gradient / ranks)
        theirs = torch.cat(all_gather_rows(self._rows[part], sizes=sizes)).to(everyone.dtype)
        share = sum(sizes) / self._total
        found: dict[str, tuple[float, Tensor]] = {}
        if wanted.cosine:
            mine = everyone
            if self.projection is not None:
                mine = mine @ self.projection.weight.t().to(mine.dtype)
            found["teacher_cosine"] = wanted.cosine, share * cosine_loss(mine, theirs)
        if wanted.relational:
            found["teacher_relational"] = (
                wanted.relational,
                share * relational_loss(everyone, theirs),
            )
        return found

    def tensors(self) -> dict[str, Stored]:
        if self.projection is None:
            return {}
        weight = self.projection.weight
        kept = optimizer_state(self.optimizers, weight)
        named = {f"{kind}.teacher.projection": value for kind, value in kept.items()}
        return {"teacher.projection": weight.detach(), **named}
