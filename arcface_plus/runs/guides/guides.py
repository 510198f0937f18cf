"""The teacher and the old net of a run: opened before its folder is touched, then made ready."""

from __future__ import annotations

from arcface_plus.data.sources.image_source import ImageSource
from arcface_plus.distributed import World
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.runs.configuration import RunConfig
from arcface_plus.runs.guides.stored import StoredEmbeddings
from arcface_plus.training.guidance.guidance import Guidance, described
from arcface_plus.training.guidance.old_classes import OldClasses
from arcface_plus.training.guidance.teacher import Teacher
from arcface_plus.training.log.monitor import Monitor


class Guides:
    """What ``train.teacher`` and ``train.compatible_with`` name.

    Raises FileNotFoundError or ValueError where it is not there or does not fit.
    """

    def __init__(self, config: RunConfig, source: ImageSource) -> None:
        self.config, self.source = config, source
        wanted = {
            "teacher": config.train.teacher,
            "compatible_with": config.train.compatible_with,
        }
        self.stored = {
            name: StoredEmbeddings(name, section, config, source)
            for name, section in wanted.items()
            if section is not None
        }

    def guidance(self, head: ClassifierHead, world: World) -> Guidance:
        """Return what they add to a step; ``begin`` gives it the embeddings."""
        train, seed = self.config.train, self.config.seed
        teacher = old = None
        if train.teacher is not None:
            dim = self.stored["teacher"].dim
            teacher = Teacher(train.teacher, dim, head.embedding_dim, world, seed=seed)
        if train.compatible_with is not None:
            stored = self.stored["compatible_with"]
            if stored.dim != head.embedding_dim:
                raise ValueError(
                    f"train.compatible_with {stored.name} makes embeddings of {stored.dim} "
                    f"numbers, but this net's have {head.embedding_dim}; set --model.embedding_dim "
                    f"{stored.dim}"
                )
            margin = self.config.head.margin_loss
            assert margin is not None  # RunConfig has seen to it
            old = OldClasses(train.compatible_with, margin, head, seed=seed)
        return Guidance(teacher, old)

    def begin(self, guidance: Guidance, world: World, monitor: Monitor) -> None:
        """Embed the training images where that has not been done; called by all ranks together."""
        names = {setting: stored.name for setting, stored in self.stored.items()}
        for line in described(guidance, names):
            monitor.say(line)
        tables = {name: each.table(world, monitor) for name, each in self.stored.items()}
        if guidance.teacher is not None:
            guidance.teacher.table = tables["teacher"]
        if guidance.old_classes is not None:
            guidance.old_classes.begin_at(tables["compatible_with"], self.source.labels)
