"""Verification during training, and the file it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from arcface_plus.config import EvaluationConfig
from arcface_plus.data.orl import orl_pairs
from arcface_plus.data.pairs import PairSet, load_pairs
from arcface_plus.distributed import Group
from arcface_plus.evaluation.baselines import raw_pixel_embeddings
from arcface_plus.evaluation.embedding import evaluate_pairs
from arcface_plus.evaluation.verification import VerificationResult, verify


def open_pair_sets(config: EvaluationConfig, *, size: int) -> dict[str, PairSet]:
    """Open every configured pair set; one that is absent is an error, never skipped."""
    sets: dict[str, PairSet] = {}
    for name, wanted in config.sets.items():
        if wanted.orl is not None:
            first, last = wanted.orl
            sets[name] = orl_pairs(range(first, last + 1), size=size)
        else:
            assert wanted.path is not None
            try:
                sets[name] = load_pairs(wanted.path, wanted.root)
            except (ValueError, FileNotFoundError) as error:
                raise type(error)(f"evaluation.sets.{name}: {error}") from error
    return sets


class PairEvaluation:
    """Scores a model on pair sets; the hook that the trainer calls on all ranks together.

    Keeps every result: ``history`` is a list of ``(step, set name, VerificationResult)``.
    """

    def __init__(
        self, sets: dict[str, PairSet], config: EvaluationConfig, *, group: Group = None
    ) -> None:
        self.sets, self.config, self.group = sets, config, group
        self.history: list[tuple[int, str, VerificationResult]] = []
        self.raw_pixels: dict[str, VerificationResult] = {}

    def __call__(self, model: nn.Module, step: int) -> dict[str, float]:
        """Return ``{"lfw/accuracy": …, "lfw/accuracy_std": …, "lfw/auc": …, "lfw/eer": …}``."""
        numbers: dict[str, float] = {}
        for name, pairs in self.sets.items():
            result = evaluate_pairs(
                model,
                pairs,
                folds=self._folds(pairs),
                flip=self.config.flip,
                batch_size=self.config.batch_size,
                resize=True,  # to the model's size: the pair sets were packed as aligned crops
                group=self.group,
            )
            self.history.append((step, name, result))
            for key in ("accuracy", "accuracy_std", "auc", "eer"):
                numbers[f"{name}/{key}"] = getattr(result, key)
        return numbers

    def score_raw_pixels(self) -> None:
        """Score plain pixels, the floor under every trained model."""
        for name, pairs in self.sets.items():
            pixels = raw_pixel_embeddings(pairs.images)
            self.raw_pixels[name] = verify(
                pixels[pairs.index_a],
                pixels[pairs.index_b],
                pairs.is_same,
                folds=self._folds(pairs),
            )

    def last(self) -> dict[str, VerificationResult]:
        """Return the newest result of each set."""
        return {name: result for _, name, result in self.history}

    def untrained(self) -> dict[str, VerificationResult]:
        """Return the results at step 0, where they were asked for."""
        return {name: result for step, name, result in self.history if step == 0}

    def to_dict(self) -> dict[str, Any]:
        """Return everything measured, JSON-able."""

        def plain(results: dict[str, VerificationResult]) -> dict[str, Any]:
            return {name: result.to_dict() for name, result in results.items()}

        return {
            "protocol": {
                "flip": self.config.flip,
                "pairs": {name: repr(pairs) for name, pairs in self.sets.items()},
            },
            "results": plain(self.last()),
            "untrained_net": plain(self.untrained()),
            "raw_pixels": plain(self.raw_pixels),
            "history": [
                {"step": step, "set": name, "accuracy": result.accuracy, "auc": result.auc}
                for step, name, result in self.history
            ],
        }

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    def _folds(self, pairs: PairSet) -> int:
        return pairs.folds or self.config.folds
