"""Verification during training, and the file it leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from arcface_plus.data.pairs.sets import PairSet, load_pairs
from arcface_plus.data.sources.orl import orl_pairs
from arcface_plus.distributed import Group
from arcface_plus.evaluation.classification import logged_scorings
from arcface_plus.evaluation.embedding.baselines import raw_pixel_embeddings
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions, pair_distances
from arcface_plus.evaluation.pairs.verification import (
    VerificationResult,
    check_protocol,
    verify,
    verify_distances,
)
from arcface_plus.evaluation.report.section import Baseline, MainNumbers, ReportSection
from arcface_plus.evaluation.scoring import all_numbers
from arcface_plus.evaluation.settings import EvaluationConfig
from arcface_plus.files import written_beside


def open_pair_sets(config: EvaluationConfig, *, size: int) -> dict[str, PairSet]:
    """Open every configured pair set; one that is absent is an error, never skipped.

    Raises ValueError or FileNotFoundError, naming the set, for one that cannot be read or scored.
    """
    sets: dict[str, PairSet] = {}
    for name, wanted in config.sets.items():
        if wanted.orl is not None:
            first, last = wanted.orl
            sets[name] = orl_pairs(range(first, last + 1), size=size)
            continue
        assert wanted.path is not None
        try:
            sets[name] = load_pairs(wanted.path, wanted.root)
            check_protocol(sets[name].is_same, sets[name].folds or config.folds)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"evaluation.sets.{name}: {error}") from error
    return sets


NUMBERS = ("accuracy", "accuracy_std", "auc", "eer")


class PairEvaluation:
    """Scores a model on pair sets; the hook that the trainer calls on all ranks together.

    ``last``: the newest result of each set, as the report takes it. ``history``: the main numbers
    of every scoring, as ``{"step", "set", "accuracy", "accuracy_std", "auc", "eer"}``.
    """

    def __init__(
        self, sets: dict[str, PairSet], config: EvaluationConfig, *, group: Group = None
    ) -> None:
        self.sets, self.config, self.group = sets, config, group
        # Scaled to the model's size: the pair sets were packed as aligned crops.
        self.options = EmbeddingOptions(config.flip, config.batch_size, resize=True)
        self.last: dict[str, ReportSection] = {}
        self.history: list[dict[str, Any]] = []
        self.raw_pixels: dict[str, VerificationResult] = {}

    def __call__(self, model: nn.Module, step: int) -> dict[str, float]:
        """Return ``{"lfw/accuracy": …, "lfw/accuracy_std": …, "lfw/auc": …, "lfw/eer": …}``."""
        numbers: dict[str, float] = {}
        for name, pairs in self.sets.items():
            distances = pair_distances(model, pairs, self.options, group=self.group)
            folds = pairs.folds or self.config.folds
            result = verify_distances(distances, pairs.is_same, folds)
            self.last[name] = ReportSection(name, pairs, distances, pairs.is_same, result)
            entry = {key: getattr(result, key) for key in NUMBERS}
            # A run resumed at a step it had scored scores it again: the newer entry stands.
            self.history = [e for e in self.history if (e["step"], e["set"]) != (step, name)]
            self.history.append({"step": step, "set": name, **entry})
            numbers |= {f"{name}/{key}": value for key, value in entry.items()}
        return numbers

    def recall(self, metrics: Path) -> None:
        """Take up the history that an interrupted run left in its metrics.jsonl, if any."""
        for entry in logged_scorings(metrics, "verification"):
            for name in self.sets:
                if f"{name}/accuracy" in entry:
                    numbers = {key: entry[f"{name}/{key}"] for key in NUMBERS}
                    self.history.append({"step": entry["step"], "set": name, **numbers})

    def score_raw_pixels(self) -> None:
        """Score plain pixels, the floor under every trained model."""
        for name, pairs in self.sets.items():
            pixels = raw_pixel_embeddings(pairs.images)
            a, b = pixels[pairs.index_a], pixels[pairs.index_b]
            folds = pairs.folds or self.config.folds
            self.raw_pixels[name] = verify(a, b, pairs.is_same, folds)

    def untrained(self) -> dict[str, dict[str, Any]]:
        """Return the history's entries of step 0 by set, if the net was scored before training."""
        return {entry["set"]: entry for entry in self.history if entry["step"] == 0}

    def to_dict(self) -> dict[str, Any]:
        """Return everything measured, JSON-able."""
        return {
            "protocol": {
                "flip": self.config.flip,
                "pairs": {name: repr(pairs) for name, pairs in self.sets.items()},
            },
            "results": {
                name: all_numbers(each, each.intervals) | {"precision": self.options.precision}
                for name, each in self.last.items()
            },
            "untrained_net": self.untrained(),
            "raw_pixels": {name: result.to_dict() for name, result in self.raw_pixels.items()},
            "history": self.history,
        }

    def report_sections(self) -> list[ReportSection]:
        """Return what the report shows of each set: the newest result beside the baselines."""
        sections = []
        for name, section in self.last.items():
            baselines: dict[str, Baseline] = {}
            if name in self.raw_pixels:
                baselines["raw pixels"] = self.raw_pixels[name]
            if name in self.untrained():
                numbers = self.untrained()[name]
                baselines["before training"] = MainNumbers(**{key: numbers[key] for key in NUMBERS})
            history = [(e["step"], e["accuracy"]) for e in self.history if e["set"] == name]
            sections.append(replace(section, baselines=baselines, history=history))
        return sections

    def write(self, path: Path, model: dict[str, Any]) -> None:
        """Write everything measured, and what is to be said of the ``model``, as JSON."""
        text = json.dumps({"model": model, **self.to_dict()}, indent=1)
        with written_beside(path) as beside:  # studies take a run with this file as finished
            beside.write_text(text, encoding="utf-8")
