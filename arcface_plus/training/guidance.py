"""What embeddings of the training images by other nets add to the loss: distillation, and
compatibility with an old net.

The embeddings were made before training; a step looks up those of its images. Every rank computes
the whole of a micro-batch's loss, so that it is the same number on all.
Shapes: B_r images of this rank, B of all ranks, D dimensions, T of the teacher, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from arcface_plus.checkpoints.parts import Part, Stored
from arcface_plus.data.batches.loader import Batch
from arcface_plus.devices import to_device
from arcface_plus.distributed import World, all_gather_rows, gather_rows
from arcface_plus.losses.distillation.cosine import cosine_loss
from arcface_plus.losses.distillation.relational import relational_loss
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.head.initial import ClassMeans
from arcface_plus.losses.head.output import HeadOutput
from arcface_plus.losses.head.plan import StepPlan
from arcface_plus.losses.margins.base import MarginLoss
from arcface_plus.randomness import projection_generator
from arcface_plus.training.optim import optimizer_state
from arcface_plus.training.settings import CompatibleConfig, TeacherConfig

_BLOCK = 4096
Weighted = tuple[float, Tensor]


class ImageEmbeddings:
    """The embeddings that another net made of N training images, by the images' places.

    ``matrix`` (M, T), which may be mapped from a file; ``rows`` (N,) of the images in it, −1 where
    there is none. ``describe(index)`` names an image.
    """

    def __init__(
        self, matrix: np.ndarray, rows: np.ndarray, describe: Callable[[int], str]
    ) -> None:
        self.matrix, self.rows, self.describe = matrix, rows, describe

    @property
    def dim(self) -> int:
        return int(self.matrix.shape[1])

    def take(self, indices: np.ndarray) -> Tensor:
        """Return the embeddings (b, T) float32 of images ``indices``; ValueError for an absent."""
        rows = self.rows[indices]
        if (rows < 0).any():
            where = self.describe(int(indices[rows < 0][0]))
            raise ValueError(f"there is no embedding of {where}: it could not be read before")
        return torch.from_numpy(np.asarray(self.matrix[rows], dtype=np.float32))


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
    ) -> dict[str, Weighted]:
        """Return each loss () and its weight, of a micro-batch: ``part`` of this rank's batch."""
        wanted, ranks = self.config, self.world.size
        everyone = gather_rows(embeddings, sizes=sizes)
        if ranks > 1:  # each has the whole gradient, and gathering would add them up
            everyone.register_hook(lambda gradient: gradient / ranks)
        theirs = torch.cat(all_gather_rows(self._rows[part], sizes=sizes)).to(everyone.dtype)
        share = sum(sizes) / self._total
        found: dict[str, Weighted] = {}
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


class OldClasses:
    """Backward-compatible training: Shen et al., CVPR 2020, eq. (4).

    The margin loss of the new embeddings against the old net's classes, which stay where the means
    of its embeddings of the training images are ("synthesized classifier weights", sec. 3.4).
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
    ) -> dict[str, Weighted]:
        """Return the loss () of a micro-batch, and its weight."""
        output = self.head(embeddings, labels[part], plan=self._plan, sizes=sizes)
        return {"compatible": (self.weight, output.classification)}


class Guidance:
    """What other nets add to the loss of a step: nothing, where there are none."""

    def __init__(
        self, teacher: Teacher | None = None, old_classes: OldClasses | None = None
    ) -> None:
        self.teacher, self.old_classes = teacher, old_classes
        self._labels = torch.empty(0)

    @property
    def _all(self) -> list[Teacher | OldClasses]:
        return [each for each in (self.teacher, self.old_classes) if each is not None]

    def learned(self) -> list[nn.Module]:
        """Return what is trained beside the net and its head, the same on all ranks."""
        projection = None if self.teacher is None else self.teacher.projection
        return [] if projection is None else [projection]

    def begin(self, batch: Batch, labels: Tensor, sizes: Sequence[int]) -> None:
        """Begin a step, once for all its micro-batches; ``sizes``: images of each rank."""
        self._labels = labels
        for each in self._all:
            each.begin(batch, labels, sizes)

    def add(
        self, output: HeadOutput, embeddings: Tensor, part: slice, sizes: Sequence[int]
    ) -> HeadOutput:
        """Return ``output`` with the losses of a micro-batch added: ``part`` of this rank's batch.

        After backward on every rank the gradient of ``embeddings`` is W times its own, for DDP to
        average, as the head has it.
        """
        if not self._all:
            return output
        loss, measured = output.loss, {}
        with torch.autocast(embeddings.device.type, enabled=False):
            if embeddings.dtype not in (torch.float32, torch.float64):
                embeddings = embeddings.float()
            for each in self._all:
                for name, (weight, value) in each.losses(
                    embeddings, self._labels, part, sizes
                ).items():
                    loss = loss + weight * value
                    measured[name] = value.detach()
        return replace(output, loss=loss, measured=measured)


def described(guidance: Guidance, names: Mapping[str, str]) -> list[str]:
    """Return what each of them does, in a line; ``names``: what made the embeddings."""
    lines = []
    if (teacher := guidance.teacher) is not None:
        wanted = teacher.config
        through = "" if teacher.projection is None else ", through a learned projection"
        lines.append(
            f"teacher: {names['teacher']}, {wanted.cosine} × cosine{through}, "
            f"{wanted.relational} × relational"
        )
    if guidance.old_classes is not None:
        lines.append(
            f"compatible with {names['compatible_with']}: {guidance.old_classes.weight} × the "
            "margin loss against its class means"
        )
    return lines
