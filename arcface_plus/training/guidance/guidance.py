"""What other nets add to the loss of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from arcface_plus.data.batches.loader import Batch
from arcface_plus.losses.head.output import HeadOutput
from arcface_plus.training.guidance.old_classes import OldClasses
from arcface_plus.training.guidance.teacher import Teacher


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
