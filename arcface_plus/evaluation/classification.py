"""Top-1 and top-5 accuracy of net and classifier on test images, during and after training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_plus.data.sources.image_source import ImageSource, fit_square
from arcface_plus.distributed import (
    all_gather_rows,
    all_reduce_sum,
    contiguous_part,
    rank,
    shard_bounds,
    world_size,
)
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.models.autocast import fp32_products
from arcface_plus.models.embedding_model import EmbeddingModel

TOP = (1, 5)
_MOST_KEPT_BYTES = 1 << 30  # test images up to this many are decoded once, not at every scoring


def target_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Return how many classes stand at or above each sample's own, itself apart (N,).

    ``scores`` (N, C), ``labels`` (N,) int64. A tie counts against the sample, and a score that is
    not a number puts it last: neither may look like knowledge.
    """
    own = scores.gather(1, labels[:, None])
    return (~(scores < own)).sum(dim=1) - 1


class AccuracyEvaluation:
    """Scores the net on a test source, every rank a part; the hook that the trainer calls.

    ``history``: ``{"step", "top1", "top5"}`` of every scoring, shares of the test images. With
    fewer than six classes there is no top-5.
    """

    def __init__(
        self, source: ImageSource, head: ClassifierHead, *, size: int, batch_size: int = 64
    ) -> None:
        if source.num_classes > head.num_classes:
            raise ValueError(
                f"the test images have {source.num_classes} classes, but the classifier "
                f"{head.num_classes}; train and test must come from the same classes."
            )
        self.source, self.head, self.size, self.batch_size = source, head, size, batch_size
        self.top = [k for k in TOP if k < head.num_classes]
        self.history: list[dict[str, Any]] = []
        self._kept: list[tuple[Tensor, Tensor]] = []

    def __call__(self, model: EmbeddingModel, step: int) -> dict[str, float]:
        """Return ``{"top1": …, "top5": …}`` of ``model``, which is in eval mode."""
        device = self.head.weight.device
        weight, bias = self.classifier()
        hits = torch.zeros(len(self.top), dtype=torch.int64, device=device)
        group = self.head.group
        with torch.inference_mode(), fp32_products():
            for images, labels in self._batches(rank(group), world_size(group)):
                embedding = model(model.preprocessing.apply(images.to(device))).float()
                if self.head.margin is not None:
                    embedding = F.normalize(embedding, dim=1)
                places = target_ranks(F.linear(embedding, weight, bias), labels.to(device))
                hits += torch.stack([(places < k).sum() for k in self.top])
        shares = (all_reduce_sum(hits, group).double() / len(self.source)).tolist()
        numbers = {f"top{k}": share for k, share in zip(self.top, shares, strict=True)}
        # A run resumed at a step it had scored scores it again: the newer entry stands.
        self.history = [e for e in self.history if e["step"] != step]
        self.history.append({"step": step, **numbers})
        return numbers

    def recall(self, metrics: Path) -> None:
        """Take up the history that an interrupted run left in its metrics.jsonl, if any."""
        self.history += logged_scorings(metrics, "accuracy")

    def to_dict(self, *, average_last: int) -> dict[str, Any]:
        """Return everything measured, JSON-able: final, mean of the last scorings, history."""
        return {
            "test_images": len(self.source),
            "classes": self.head.num_classes,
            "precision": "fp32",
            "final": self.history[-1],
            "mean_of_last": mean_of_last(self.history, average_last),
            "history": self.history,
        }

    def classifier(self) -> tuple[Tensor, Tensor | None]:
        """Return what scores the embeddings: class weights (C, D) of all ranks and bias (C,).

        Unit rows where the head scores by cosine. Called on all ranks together.
        """
        head = self.head
        sizes = [hi - lo for lo, hi in shard_bounds(head.num_classes, world_size(head.group))]
        own = head.class_weights().detach()
        weight = torch.cat(all_gather_rows(own, head.group, sizes=sizes)).float()
        if head.margin is not None:
            return F.normalize(weight, dim=1), None
        if head.bias is None:
            return weight, None
        return weight, torch.cat(all_gather_rows(head.bias.detach(), head.group, sizes=sizes))

    def _batches(self, part: int, parts: int) -> Iterator[tuple[Tensor, Tensor]]:
        if self._kept:
            yield from self._kept
            return
        total, at_once = len(self.source), self.batch_size
        # Whole batches, so that the bits of a score do not depend on how many ranks there are.
        low, high = contiguous_part(-(-total // at_once), part, parts)
        low, high = low * at_once, min(total, high * at_once)
        keep = (high - low) * self.size * self.size * 3 <= _MOST_KEPT_BYTES
        made = []
        for start in range(low, high, at_once):
            read = [self._read(i) for i in range(start, min(high, start + at_once))]
            images, labels = zip(*read, strict=True)
            batch = (
                torch.from_numpy(np.stack(images)),
                torch.tensor(labels, dtype=torch.int64),
            )
            if keep:
                made.append(batch)
            yield batch
        self._kept = made

    def _read(self, index: int) -> tuple[np.ndarray, int]:
        image, label = self.source.read(index)
        return fit_square(image, self.size, where=self.source.describe(index)), label


def mean_of_last(history: Sequence[dict[str, Any]], count: int) -> dict[str, float]:
    """Return the mean of each number over the last ``count`` scorings, and how many there were."""
    last = [entry for entry in history if entry["step"] > 0][-count:] or list(history[-1:])
    names = [name for name in last[0] if name != "step"]
    means = {name: sum(entry[name] for entry in last) / len(last) for name in names}
    return {**means, "evaluations": len(last)}


def logged_scorings(metrics: Path, kind: str) -> list[dict[str, Any]]:
    """Return the entries of ``kind``, without it, that a run left in its metrics.jsonl, if any."""
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    return [entry for entry in map(json.loads, lines) if entry.pop("kind") == kind]
