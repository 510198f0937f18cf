"""The first state of a run: what its classes begin as, and what its folder keeps of it."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.data.sources.image_source import fit_square
from arcface_plus.distributed import all_gather_rows
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions, embed_rows, raise_together
from arcface_plus.losses.head.initial import ClassMeans
from arcface_plus.models import save_model
from arcface_plus.runs.classes import names_of_data, names_of_head, write_classes
from arcface_plus.runs.configuration import RunConfig
from arcface_plus.runs.folder import START
from arcface_plus.runs.other_head import OtherHead
from arcface_plus.training.log.monitor import Monitor
from arcface_plus.training.state import RunState

_BATCH = 64
_BLOCK = 16 * _BATCH  # images a rank embeds at a time: the same batches at every world size


class Beginning:
    """What a new run begins from, opened and checked before its folder is touched.

    Called by all ranks together. Raises ValueError where ``head.from_head`` does not fit the net,
    or none of its people is trained here.
    """

    def __init__(self, config: RunConfig, source: ImageSource, state: RunState) -> None:
        self.config, self.source = config, source
        self.model, self.head, self.world = state.model, state.head, state.world
        self.other: OtherHead | None = None
        # The row of the other head that each class keeps; -1 for none.
        self.rows = np.full(self.head.num_classes, -1, dtype=np.int64)
        if config.head.from_head is not None:
            self.other = OtherHead(config.head.from_head, self.world)
            self._match(self.other)

    def _match(self, other: OtherHead) -> None:
        if other.dim != self.head.embedding_dim:
            raise ValueError(
                f"head.from_head {other.path} has rows of {other.dim} numbers, but the net's "
                f"embeddings have {self.head.embedding_dim}; start the net from the same run "
                "(model.init)"
            )
        given = self.config.head.from_names
        theirs = names_of_head(other.folder, given, other.count)
        ours = names_of_data(self.source, given)
        row_of = {name: row for row, name in enumerate(theirs)}
        self.rows[: len(ours)] = [row_of.get(name, -1) for name in ours]
        if not (self.rows >= 0).any():
            raise ValueError(
                f"none of the {len(ours)} people trained here ({', '.join(ours[:3])}, …) is among "
                f"the {len(theirs)} of head.from_head {other.path} ({', '.join(theirs[:3])}, …)"
            )

    def apply(self, monitor: Monitor) -> None:
        """Write the first class weights into the head, and into the folder what resuming needs."""
        if self.world.is_main:
            write_classes(self.source, self.config.folder)
            if self.config.model.start is not None:
                save_model(self.model, self.config.folder / START)
        if self.config.head.init == "class_means" and (self.rows < 0).any():
            monitor.say(f"class means: embedding {len(self.source)} images once")
        if self.other is not None or self.config.head.init == "class_means":
            monitor.say(self._start_head())

    def _start_head(self) -> str:
        kept = int((self.rows >= 0).sum())
        new, means = self.head.num_classes - kept, 0
        if new and self.config.head.init == "class_means":
            means = self._means()
        if self.other is not None:
            self._keep(self.other)
        words = [
            f"{count} {what}"
            for count, what in (
                (kept, f"keep their row of {self.config.head.from_head}"),
                (means, "begin at the mean of their embeddings"),
                (new - means, "begin at random rows"),
            )
            if count
        ]
        return f"head: of {self.head.num_classes} people, {', '.join(words)}"

    @torch.no_grad()
    def _keep(self, other: OtherHead) -> None:
        head = self.head
        mine = torch.from_numpy(self.rows[head.lo : head.hi])
        for first, weights in other.parts():
            here = torch.nonzero((mine >= first) & (mine < first + len(weights))).flatten()
            chosen = weights[mine[here] - first]
            if not bool(torch.isfinite(chosen).all()):
                raise ValueError(f"head.from_head {other.path} holds numbers that are not finite")
            head.weight[here.to(head.weight.device)] = chosen.to(head.weight)

    @torch.no_grad()
    def _means(self) -> int:
        """Put class means into the head; return how many of all new people have one.

        Every image is embedded once, unchanged, in float32. Rank r takes every W-th block.
        """
        head, world, images = self.head, self.world, TrainingImages(self.config, self.source)
        sums = ClassMeans(head.lo, head.hi, head.embedding_dim)
        labels = torch.from_numpy(self.source.labels)
        options = EmbeddingOptions(flip=False, batch_size=_BATCH, device=world.device)
        total, size = len(images), world.size
        for round_ in range(0, total, _BLOCK * size):
            starts = [min(total, round_ + rank * _BLOCK) for rank in range(size + 1)]
            part, failure = range(starts[world.rank], starts[world.rank + 1]), None
            made = np.empty((len(part), head.embedding_dim), dtype=np.float32)
            try:
                made = embed_rows(self.model, images, part, options)
            except Exception as error:  # raised again once the others know
                failure = error
            raise_together(failure, world.control)
            sizes = [hi - lo for lo, hi in itertools.pairwise(starts)]
            rows = torch.cat(all_gather_rows(torch.from_numpy(made), world.control, sizes=sizes))
            read = torch.isfinite(rows).all(dim=1)
            sums.add(rows[read], labels[starts[0] : starts[-1]][read])
        rows, known = sums.rows()
        head.weight[known.to(head.weight.device)] = rows[known].to(head.weight)
        everyone = torch.cat(all_gather_rows(known, world.control)).numpy()
        return int((everyone & (self.rows < 0)).sum())


class TrainingImages:
    """The training images as they are, nothing changed at random, resized to ``size``.

    That is the size of training where it is not given. An image that cannot be read is None where
    the run goes on without such images.
    """

    def __init__(self, config: RunConfig, source: ImageSource, size: int | None = None) -> None:
        self.config, self.source = config.data, source
        self.size = size or config.data.size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray:
        try:
            where = self.describe(index)
            return fit_square(self.source.read(index)[0], self.size, where=where)
        except (ValueError, OSError):
            if self.config.on_bad_image == "stop":
                raise
            return None  # type: ignore[return-value]

    def describe(self, index: int) -> str:
        return self.source.describe(index)
