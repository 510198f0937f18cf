"""What a run with test images leaves behind: its accuracy, its classifier, its angles."""

from __future__ import annotations

import json
import math

from safetensors.torch import save_file
from torch import Tensor, nn

from arcface_plus.distributed import World
from arcface_plus.evaluation.classification import AccuracyEvaluation
from arcface_plus.regularizers.angular import AngularRegularizer
from arcface_plus.regularizers.mma import nearest_angles
from arcface_plus.runs.configuration import RunConfig
from arcface_plus.training import run_folder
from arcface_plus.training.monitor import Monitor
from arcface_plus.training.regularization import CLASSIFIER


def save_accuracy(
    config: RunConfig,
    world: World,
    model: nn.Module,
    accuracy: AccuracyEvaluation,
    monitor: Monitor,
) -> None:
    """Save the classifier beside the net, and what was measured of both, and show it.

    Called on all ranks together.
    """
    weight, bias = accuracy.classifier()
    if not world.is_main:
        return
    tensors = {"weight": weight.contiguous()} | ({} if bias is None else {"bias": bias})
    save_file(tensors, config.folder / run_folder.CLASSIFIER)
    measured = accuracy.to_dict(average_last=config.evaluation.average_last)
    measured["minimum_angles"] = minimum_angles(model, weight)
    text = json.dumps(measured, indent=1)
    (config.folder / run_folder.ACCURACY).write_text(text, encoding="utf-8")
    final, mean = measured["final"], measured["mean_of_last"]
    shown = ", ".join(
        f"{name} {final[name]:.4f} (mean of the last {mean['evaluations']}: {mean[name]:.4f})"
        for name in mean
        if name != "evaluations"
    )
    monitor.say(f"accuracy on {measured['test_images']} test images: {shown}")


def minimum_angles(model: nn.Module, class_weights: Tensor) -> dict[str, float]:
    """Return the smallest angle in degrees between two filters of each layer, and two classes."""
    angles = AngularRegularizer(model, weight=0.0).minimum_angles()
    smallest = nearest_angles(class_weights).angle.min()
    return {**angles, CLASSIFIER: math.degrees(float(smallest))}
