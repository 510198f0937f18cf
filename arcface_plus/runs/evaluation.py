"""What a run is scored on while it trains, and what it leaves behind of it."""

from __future__ import annotations

import json
import math
import shlex
import sys
from typing import Any

from rich.table import Column, Table
from safetensors.torch import save_file
from torch import Tensor, nn

from arcface_plus.data.sources.image_source import open_test_source
from arcface_plus.distributed import World
from arcface_plus.evaluation.classification import AccuracyEvaluation
from arcface_plus.evaluation.hooks import PairEvaluation, open_pair_sets
from arcface_plus.evaluation.report.page import write_report
from arcface_plus.files import written_beside
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.models import save_model
from arcface_plus.regularizers.angular import AngularRegularizer
from arcface_plus.regularizers.mma import nearest_angles
from arcface_plus.runs.configuration import RunConfig
from arcface_plus.runs.folder import FINISHED, environment
from arcface_plus.runs.results import ACCURACY, CLASSIFIER_WEIGHTS, VERIFICATION
from arcface_plus.training.log.monitor import Monitor
from arcface_plus.training.regularization import CLASSIFIER
from arcface_plus.training.state import RunState


class RunEvaluation:
    """The pair sets and test images of a run, opened before anything is trained.

    Raises ValueError or FileNotFoundError where one of them is not what it should be.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        wanted = config.evaluation
        self._tests = open_test_source(config.data) if wanted.accuracy else None
        self.pairs = PairEvaluation(open_pair_sets(wanted, size=config.data.size), wanted)
        self.accuracy: AccuracyEvaluation | None = None

    def attach(self, head: ClassifierHead) -> None:
        """Score test images, where there are any, with the classes of ``head``."""
        if self._tests is not None:
            self.accuracy = AccuracyEvaluation(
                self._tests,
                head,
                size=self.config.data.size,
                batch_size=self.config.evaluation.batch_size,
            )

    def hooks(self) -> dict[str, PairEvaluation | AccuracyEvaluation]:
        """Return what the trainer calls, by the kind of their lines in metrics.jsonl."""
        pairs = self.pairs if self.pairs.sets else None
        hooks = {"accuracy": self.accuracy, "verification": pairs}
        return {kind: hook for kind, hook in hooks.items() if hook is not None}

    def recall(self) -> None:
        """Take up the history that an interrupted run left in its metrics.jsonl."""
        for hook in self.hooks().values():
            hook.recall(self.config.folder / "metrics.jsonl")

    def save(self, state: RunState, monitor: Monitor) -> None:
        """Save the model and what was measured of it, and show it; called by all ranks."""
        folder, pairs, model, world = self.config.folder, self.pairs, state.scored, state.world
        if self.accuracy is not None:
            self._save_accuracy(self.accuracy, model, world, monitor)
        if not world.is_main:
            return
        save_model(model, folder / FINISHED)
        if pairs.sets:
            if self.config.evaluation.raw_pixels:
                pairs.score_raw_pixels()
            about: dict[str, Any] = {"step": state.step, "chosen_by": state.best.name}
            if state.average is not None:
                about["average_of_weights"] = self.config.train.ema
            pairs.write(folder / VERIFICATION, about)
            monitor.close_progress()
            monitor.console.print(_results_table(pairs))
            write_report(
                folder / "report.html",
                pairs.report_sections(),
                title=f"Verification of {self.config.name}",
                environment=environment(),
                command=shlex.join(sys.argv),
            )
            monitor.say(f"report: {folder / 'report.html'}")
        monitor.say(f"model: {folder / FINISHED}")

    def _save_accuracy(
        self, accuracy: AccuracyEvaluation, model: nn.Module, world: World, monitor: Monitor
    ) -> None:
        weight, bias = accuracy.classifier()
        if not world.is_main:
            return
        folder = self.config.folder
        tensors = {"weight": weight.contiguous()} | ({} if bias is None else {"bias": bias})
        save_file(tensors, folder / CLASSIFIER_WEIGHTS)
        measured = accuracy.to_dict(average_last=self.config.evaluation.average_last)
        measured["minimum_angles"] = _minimum_angles(model, weight)
        with written_beside(folder / ACCURACY) as beside:
            beside.write_text(json.dumps(measured, indent=1), encoding="utf-8")
        final, mean = measured["final"], measured["mean_of_last"]
        shown = ", ".join(
            f"{name} {final[name]:.4f} (mean of the last {mean['evaluations']}: {mean[name]:.4f})"
            for name in mean
            if name != "evaluations"
        )
        monitor.say(f"accuracy on {measured['test_images']} test images: {shown}")


def _minimum_angles(model: nn.Module, class_weights: Tensor) -> dict[str, float]:
    """Return the smallest angle in degrees between two filters of each layer, and two classes."""
    angles = AngularRegularizer(model, weight=0.0).minimum_angles()
    smallest = nearest_angles(class_weights).angle.min()
    return {**angles, CLASSIFIER: math.degrees(float(smallest))}


def _results_table(evaluation: PairEvaluation) -> Table:
    """Return the results beside what needs no training, a row a set and method."""
    headings = ("accuracy", "± std", "95 % interval", "AUC", "EER")
    numbers = (Column(heading, justify="right") for heading in headings)
    table = Table("pairs", "embedding", *numbers, title="Verification", title_justify="left")
    for name in evaluation.sets:
        if name in evaluation.raw_pixels:
            table.add_row(name, "raw pixels", *_cells(evaluation.raw_pixels[name].to_dict()))
        if name in evaluation.untrained():
            table.add_row(name, "before training", *_cells(evaluation.untrained()[name]))
        low, high = evaluation.last[name].intervals.accuracy
        cells = _cells(evaluation.last[name].result.to_dict(), f"{low:.3f}–{high:.3f}")
        table.add_row(name, "this model", *cells)
    return table


def _cells(numbers: dict[str, Any], interval: str = "") -> list[str]:
    return [
        f"{numbers['accuracy']:.4f}",
        f"{numbers['accuracy_std']:.4f}",
        interval,
        f"{numbers['auc']:.4f}",
        f"{numbers['eer']:.4f}",
    ]
