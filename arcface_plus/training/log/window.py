"""What a log line says of the steps since the last one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from arcface_plus.checkpoints.parts import Part, Stored
from arcface_plus.clock import StepClock
from arcface_plus.losses.head.output import HeadOutput

# The part of a step, by its name in metrics.jsonl, that a phase of the loop belongs to. Parts of
# these are counted as MMA or communication where they are made.
_PARTS = {
    "data": "data_wait",
    "plan": "forward_share",
    "class logits": "forward_share",
    "second branch": "forward_share",
    "gradient all-reduce": "backward_share",
    "penalty": "mma_share",
    "update": "optimizer_share",
}


class LogWindow(Part):
    """Sums since the last log step, on the device; reading them synchronises the host.

    Part of a run's state: a line after a resume is that of the uninterrupted run, but for its
    times, which are of the steps that this process made.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.clock = device, StepClock(device)
        self.is_first = True
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counted = torch.zeros((), device=self.device, dtype=torch.float64)
        self.steps, self.learning_rate = 0, 0.0
        self.began = time.perf_counter()

    def entering(self, say: Callable[[str, int], None]) -> Callable[[str, int], None]:
        """Return what says a phase and its step, and counts the time from then on as its part."""

        def enter(phase: str, step: int) -> None:
            say(phase, step)
            self.clock.enter(_PARTS.get(phase))

        return enter

    def skip_time(self, seconds: float) -> None:
        """Leave ``seconds`` spent on evaluation or saving out of the throughput."""
        self.began += seconds

    def add(
        self,
        outputs: list[HeadOutput],
        loss: Tensor,
        penalty: Tensor | None,
        skip: Tensor,
        learning_rate: float,
    ) -> None:
        """Add a step's numbers; those of a skipped one do not count."""
        numbers = {"loss": loss, **_step_numbers(outputs, penalty)}
        for name, value in numbers.items():
            value = torch.where(skip.bool(), torch.zeros_like(value), value).double()
            self.sums[name] = self.sums.get(name, 0) + value
        self.counted = self.counted + (1 - skip.double())
        self.steps += 1
        self.learning_rate = learning_rate

    def close(self, global_batch: int) -> dict[str, Any]:
        *sums, count = torch.stack([*self.sums.values(), self.counted]).tolist()
        seconds = max(1e-9, time.perf_counter() - self.began)
        values: dict[str, Any] = {}
        if count:  # otherwise every step was skipped, and there is no mean
            values = {name: each / count for name, each in zip(self.sums, sums, strict=True)}
            values["target_angle"] = math.degrees(values["target_angle"])
        values["lr"] = self.learning_rate
        values["images_per_second"] = self.steps * global_batch / seconds
        taken = self.clock.read()
        values |= {phase: min(1.0, took / seconds) for phase, took in taken.items()}
        self.is_first = False
        self._reset()
        return values

    def numbers(self) -> dict[str, Any]:
        sums = {name: float(value) for name, value in self.sums.items()}
        kept = {"sums": sums, "counted": float(self.counted), "lr": self.learning_rate}
        return {"log_window": {**kept, "is_first": self.is_first}}

    def restore(self, tensors: Mapping[str, Stored], numbers: Mapping[str, Any]) -> None:
        self._reset()
        if kept := numbers.get("log_window"):  # absent from older checkpoints
            self.sums = {name: self.counted + value for name, value in kept["sums"].items()}
            self.counted = self.counted + kept["counted"]
            self.learning_rate, self.is_first = kept["lr"], kept["is_first"]


def _step_numbers(outputs: list[HeadOutput], penalty: Tensor | None) -> dict[str, Tensor]:
    """Return what a step says beside its loss, by its name in metrics.jsonl; angle in radians."""
    numbers = {"classification": torch.stack([o.classification.detach() for o in outputs]).sum()}
    if (mma := outputs[-1].mma) is not None:
        numbers["mma"] = mma.detach()
    if penalty is not None:
        numbers["regularizer"] = penalty
    norms = [o.norm_penalty.detach() for o in outputs if o.norm_penalty is not None]
    if norms:
        numbers["norm_penalty"] = torch.stack(norms).sum()
    qualities = [o.quality.detach() for o in outputs if o.quality is not None]
    if qualities:
        numbers["quality"] = torch.cat(qualities).mean()
    for name in outputs[0].measured:
        numbers[name] = torch.stack([o.measured[name] for o in outputs]).sum()
    cosines = torch.cat([o.target_cosine for o in outputs])
    return numbers | {"target_angle": cosines.clamp(-1, 1).acos().mean()}
