"""Closeness and diversity in training: a second pass over images chosen by their scores.

Every image has a score, the running mean of its cosine to its own class, which the ordinary step
keeps. Every few steps some classes of the batch get a second pass through the net: easy images of a
class are drawn together, hard ones pushed away from the centres of similar other classes. Sampling
and schedule follow the authors' published code; ``mining: soft`` is ours, [R]. Neither is claimed
to be the paper's "Soft Mining Scheme", which it names without saying what it is.

Scores are equal on all ranks, and draws depend on (seed, step): every rank chooses the same images,
takes its contiguous part of them through the net, and the loss and its gradient are those of one
process. Shapes: B images of the global batch, K classes of a pass, m = E + H images of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from arcface_plus.checkpoints.parts import Part, Stored
from arcface_plus.data.batches import score_sampling
from arcface_plus.data.batches.chosen_images import ChosenImages
from arcface_plus.data.batches.loader import Batch
from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.image_source import ImageSource
from arcface_plus.devices import to_device
from arcface_plus.distributed import (
    World,
    all_gather_rows,
    all_reduce_sum,
    contiguous_part,
    gather_rows,
)
from arcface_plus.losses.closeness.closeness import closeness_loss
from arcface_plus.losses.closeness.diversity import diversity_loss
from arcface_plus.losses.closeness.similar_classes import most_similar_classes, shard_rows_of
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.head.output import HeadOutput
from arcface_plus.randomness import branch_generator
from arcface_plus.training.image_scores import ImageScores, order_of_outputs
from arcface_plus.training.settings import BranchConfig, TrainConfig

_MEASURED = ("closeness", "diversity", "hard_classes", "score_threshold")


class Pass(NamedTuple):
    """What one pass is made of.

    ``classes`` (K,); ``rows`` (K,) of a sample of each in the batch; ``indices`` (K, m) of the
    images, easy first under threshold mining; ``easiness`` (K, m) or None under threshold mining;
    ``threshold`` between hard and easy scores.
    """

    classes: np.ndarray
    rows: np.ndarray
    indices: np.ndarray
    easiness: np.ndarray | None
    threshold: float


class SecondBranch(Part):
    """Keeps the scores of ``source``'s images, chooses those of a pass, computes its loss.

    A step calls ``begin``; where that says so, ``keep`` with the embeddings of the batch and, after
    their backward, ``images`` and ``loss``; at its end ``learn``. Raises ValueError for a
    configuration that the data or the number of ranks cannot serve.
    """

    def __init__(
        self,
        config: BranchConfig,
        world: World,
        *,
        source: ImageSource,
        head: ClassifierHead,
        data: DataConfig,
        train: TrainConfig,
        seed: int,
    ) -> None:
        self.config, self.world, self.head = config, world, head
        self.seed, self.device = seed, world.device
        if config.classes >= head.num_classes:
            raise ValueError(
                f"branch.classes is {config.classes}, but there are {head.num_classes} classes, "
                "and classes outside a pass are needed to push away from; set --branch.classes "
                "lower."
            )
        self._check_share(config.classes)
        self.members = score_sampling.ClassMembers(source.labels)
        self.chosen = ChosenImages(source, data, self.members, seed)
        self.scores = ImageScores(len(source), config.score_momentum, world.device)
        parts = [contiguous_part(train.global_batch, r, world.size) for r in range(world.size)]
        self.sizes = [hi - lo for lo, hi in parts]
        self.lo, self.hi = parts[world.rank]
        self._order = order_of_outputs(self.sizes, train.accumulate).to(world.device)
        self.indices = torch.empty(0, dtype=torch.int64)
        self.pass_: Pass | None = None
        self._embeddings: list[Tensor] = []
        self._collect: Callable[[], Batch] | None = None
        self._now = torch.zeros(len(_MEASURED), device=world.device, dtype=torch.float64)
        self._sums = torch.zeros(len(_MEASURED) + 1, device=world.device, dtype=torch.float64)

    def _check_share(self, classes: int) -> None:
        images = classes * (self.config.easy + self.config.hard)
        if images < 2 * self.world.size:
            raise ValueError(
                f"branch: {images} images of {classes} classes over {self.world.size} processes "
                "leave fewer than 2 in one, but batch normalisation needs 2. Raise "
                "--branch.classes or --branch.easy, or use fewer processes."
            )

    def describe(self) -> str:
        """Return what the branch does, in one line."""
        wanted = self.config
        return (
            f"second branch: {wanted.closeness_weight} × closeness + {wanted.diversity_weight} × "
            f"diversity ({wanted.mining}) every {wanted.interval} steps from step "
            f"{wanted.start_step}, {wanted.classes} × ({wanted.easy} + {wanted.hard}) images"
        )

    # -- a step, in the order of its calls -------------------------------------------------------

    def begin(self, batch: Batch) -> bool:
        """Note this rank's ``batch``; choose images and begin to read them where a pass is due.

        Choosing reads the scores after the step before, so that images are decoded while the net
        works on the batch. Synchronises the host, at steps with a pass alone.
        """
        mine = to_device(batch.indices, self.device)
        self.indices = torch.cat(all_gather_rows(mine, self.head.group, sizes=self.sizes))
        self.pass_, self._embeddings = None, []
        since = batch.step - self.config.start_step
        if since < 0 or since % self.config.interval:
            return False
        self.pass_ = self._choose(batch.step)
        lo, hi = self._part(self.world.rank)
        self._collect = self.chosen.start(batch.step, self.pass_.indices.reshape(-1)[lo:hi], lo)
        return True

    def keep(self, embeddings: Tensor) -> None:
        """Note the embeddings (b, D) of one of this rank's micro-batches, in their order."""
        self._embeddings.append(embeddings.detach())

    def images(self) -> Batch:
        """Return this rank's part of the images of the pass; waits for them."""
        assert self._collect is not None
        batch, self._collect = self._collect(), None
        return batch

    def loss(self, embeddings: Tensor) -> Tensor:
        """Return λ1·closeness + λ2·diversity () of the embeddings (b, D) of ``images``.

        The same number on all ranks. After backward on every rank the gradient of ``embeddings`` is
        W times its own, for DDP to average, as the head has it.
        """
        chosen, wanted = self.pass_, self.config
        assert chosen is not None
        with torch.autocast(self.device.type, enabled=False):
            if embeddings.dtype not in (torch.float32, torch.float64):
                embeddings = embeddings.float()
            sizes = [hi - lo for lo, hi in map(self._part, range(self.world.size))]
            everyone = gather_rows(embeddings, self.head.group, sizes=sizes)
            grid = everyone.view(*chosen.indices.shape, -1)
            easy, hard, easiness = grid[:, : wanted.easy], grid[:, wanted.easy :], None
            if chosen.easiness is not None:
                easy, hard = grid, grid
                easiness = torch.from_numpy(chosen.easiness).to(self.device)
            closeness = diversity = zero = grid.new_zeros(())
            hard_classes = 0
            if wanted.closeness_weight:
                closeness = self._closeness(easy, easiness)
            if wanted.diversity_weight:
                hardness = None if easiness is None else 1 - easiness.flatten()
                diversity, hard_classes = self._diversity(hard.flatten(0, 1), hardness, chosen)
            total = wanted.closeness_weight * closeness + wanted.diversity_weight * diversity
        numbers = [closeness.detach(), diversity.detach(), zero + hard_classes]
        self._now = torch.stack([*numbers, zero + chosen.threshold]).double()
        return total

    def learn(self, outputs: Sequence[HeadOutput], skip: Tensor) -> None:
        """Move the scores of the step's images to its cosines, unless ``skip`` () is not 0."""
        made = torch.cat([o.target_cosine for o in outputs]).detach()
        cosine = torch.empty_like(made).index_copy_(0, self._order, made)
        self.scores.learn(self.indices, cosine, skip)
        if self.pass_ is not None:
            kept = torch.where(skip.bool(), torch.zeros_like(self._now), self._now)
            self._sums += torch.cat([kept, (1 - skip.double()).reshape(1)])

    def summary(self) -> dict[str, float]:
        """Return the means over the passes since the last call, for logs; {} where none was.

        ``hard_classes`` is how many class centres the hard images were pushed from.
        """
        *sums, count = self._sums.tolist()
        self._sums.zero_()
        return dict(zip(_MEASURED, (s / count for s in sums), strict=True)) if count else {}

    def tensors(self) -> dict[str, Stored]:
        """Return the scores, which a checkpoint must hold."""
        return {"branch.scores": self.scores.values}

    # -- how -------------------------------------------------------------------------------------

    def _part(self, rank: int) -> tuple[int, int]:
        assert self.pass_ is not None
        return contiguous_part(self.pass_.indices.size, rank, self.world.size)

    def _choose(self, step: int) -> Pass:
        wanted = self.config
        generator = branch_generator(self.seed, step)
        labels = self.members.labels[self.indices.cpu().numpy()]
        classes, rows = score_sampling.choose_classes(labels, wanted.classes, generator)
        self._check_share(len(classes))
        members = [self.members.of(int(c)) for c in classes]
        scores, threshold = self.scores.read(
            members, wanted.quantile, wanted.quantile_sample, generator
        )
        easiness = None
        if wanted.mining == "soft":
            sizes, each = [len(own) for own in members], wanted.easy + wanted.hard
            positions = score_sampling.choose_evenly(sizes, each, generator)
            picked = np.stack([own[at] for own, at in zip(scores, positions, strict=True)])
            easiness = score_sampling.easiness(picked, threshold, wanted.softness)
        else:
            positions = score_sampling.choose_easy_and_hard(
                scores, threshold, wanted.easy, wanted.hard, generator
            )
        indices = np.stack([own[at] for own, at in zip(members, positions, strict=True)])
        return Pass(classes, rows, indices, easiness, threshold)

    def _closeness(self, easy: Tensor, easiness: Tensor | None) -> Tensor:
        """Return the closeness (), with a W-th of its gradient: every rank computes all of it."""
        loss = closeness_loss(easy, easiness)
        return loss.detach() + (loss - loss.detach()) / self.world.size

    def _diversity(self, hard: Tensor, hardness: Tensor | None, chosen: Pass) -> tuple[Tensor, int]:
        """Return the diversity (), with the gradient of this rank's centres, and P."""
        head = self.head
        classes = torch.from_numpy(chosen.classes).to(self.device)
        similar = most_similar_classes(
            self._batch_samples(chosen),
            classes,
            head.weight,
            head.num_classes,
            self.config.hard_classes,
            group=head.group,
        )
        rows, total = shard_rows_of(similar, classes, head.num_classes, group=head.group)
        centres = head.weight.detach()[rows]
        loss = diversity_loss(hard, centres, total, self.config.scale, hardness, group=head.group)
        return loss, total

    def _batch_samples(self, chosen: Pass) -> Tensor:
        """Return the embedding (K, D) of a batch sample of each class, on every rank."""
        mine = torch.cat(self._embeddings)
        rows = torch.from_numpy(chosen.rows).to(self.device)
        here = (rows >= self.lo) & (rows < self.hi)
        picked = mine[torch.where(here, rows - self.lo, 0)]
        # Each row is on one rank: adding zeros to it changes nothing.
        return all_reduce_sum(torch.where(here[:, None], picked, 0), self.head.group)
