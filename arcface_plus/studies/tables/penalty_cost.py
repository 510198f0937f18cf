"""What a penalty costs a training step: seconds and peak memory, Table 3 of the MMA paper.

All methods train the same net on the same batches in one process, a step of each in turn, so that a
busy machine is busy for all. Peaks come from a fresh process a method.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.models import build_model
from arcface_plus.regularizers.angular import AngularRegularizer
from arcface_plus.regularizers.mma import nearest_angles
from arcface_plus.regularizers.settings import RegularizerConfig
from arcface_plus.studies.table import cell, markdown
from arcface_plus.training.optim import build_optimizers
from arcface_plus.training.regularization import RunRegularizer, head_mma_weight
from arcface_plus.training.settings import OptimConfig

CLASSES = 100
Penalty = Callable[[int], Tensor]  # of a step


def _config(kind: str, weight: float, **options: float) -> RegularizerConfig:
    return RegularizerConfig(kind=kind, weight=weight, layers="all", **options)


class Method(NamedTuple):
    """A penalty, and how it is computed: by this package, or by autograd in one of two ways.

    ``cosines``: of the n × n matrix of cosines, as the public code of MHE. ``differences``: of all
    n²/2 differences of d numbers, as the paper's memory suggests.
    """

    config: RegularizerConfig = RegularizerConfig()  # of weight 0: no penalty
    form: Literal["ours", "cosines", "differences"] = "ours"


# λ as in the paper. Its MHE took 4.3 GiB more than the baseline from 30 % of the rows: n²·d numbers
# explain that, n² do not.
METHODS: dict[str, Method] = {
    "baseline": Method(),
    "MMA": Method(_config("mma", 0.07)),
    "MHE s=2, 30 %, differences": Method(_config("mhe", 1.0, s=2, fraction=0.3), "differences"),
    "MHE s=0, 30 %, differences": Method(_config("mhe", 1.0, s=0, fraction=0.3), "differences"),
    "MHE s=2, all rows, cosines": Method(_config("mhe", 1.0, s=2), "cosines"),
    "MHE s=0, all rows, cosines": Method(_config("mhe", 1.0, s=0), "cosines"),
    "MHE s=2, all rows, ours": Method(_config("mhe", 1.0, s=2)),
    "MHE s=2, 30 %, ours": Method(_config("mhe", 1.0, s=2, fraction=0.3)),
    "orthogonal": Method(_config("orthogonal", 1e-4)),
}
# The layers that Table 3 names: third convolution of blocks 3, 4 and 5.
NAMED_LAYERS = {"L3-3": 6, "L4-3": 10, "L5-3": 14}


class Bench:
    """One method's net, classifier, penalty and optimizer, and a step of them."""

    def __init__(
        self, method: Method, model: str, device: torch.device, *, width: int | None
    ) -> None:
        torch.manual_seed(0)
        self.net = build_model(model, embedding_dim=None, size=32, width=width).to(device)
        self.head = ClassifierHead(
            CLASSES,
            self.net.embedding_dim,
            None,
            mma_weight=head_mma_weight(method.config, 0.0),
            bias=True,
        ).to(device)
        self.penalty: Penalty | RunRegularizer = RunRegularizer(
            method.config, self.net, self.head, seed=0
        )
        if method.form != "ours":
            self.penalty = _autograd_energy(self.net, self.head, method)
        (self.optimizer,) = build_optimizers(self.net, self.head, OptimConfig(decay="all"))
        self.steps = 0

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Make one training step as the trainer does: the loss, then the penalty, then SGD.

        Returns the seconds of the penalty, value and gradient.
        """
        output = self.head(self.net(images), labels, self.steps)
        output.loss.backward()
        began = _now(images.device)
        if self.penalty:
            self.penalty(self.steps).backward()
        added = _now(images.device) - began
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return added

    def angles(self) -> dict[str, float]:
        """Return the smallest angle in degrees of the layers that Table 3 names."""
        found = AngularRegularizer(self.net, weight=0.0).minimum_angles()
        values = list(found.values())
        named = {k: values[i] for k, i in NAMED_LAYERS.items() if i < len(values)}
        smallest = float(nearest_angles(self.head.weight).angle.min())
        return {**named, "Classify": math.degrees(smallest)}


def _autograd_energy(net: nn.Module, head: ClassifierHead, method: Method) -> Penalty:
    """Return MHE of net and classifier, left to autograd: what users of the published forms run."""
    config = method.config
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    def energy(weight: Tensor, generator: torch.Generator) -> Tensor:
        count = max(2, math.ceil(config.fraction * len(weight)))
        rows = torch.randperm(len(weight), generator=generator)[:count].to(weight.device)
        unit = F.normalize(weight.flatten(1)[rows], dim=1)
        i, j = torch.triu_indices(count, count, offset=1, device=weight.device)
        if method.form == "differences":
            squared = (unit[i] - unit[j]).square().sum(dim=1)
        else:
            squared = (2 - 2 * (unit @ unit.t()))[i, j]
        squared = squared.clamp_min(1e-8)
        return (squared.pow(-config.s / 2) if config.s > 0 else -0.5 * squared.log()).mean()

    def penalty(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        energies = [energy(weight, generator) for weight in (*weights, head.weight)]
        return config.weight * torch.stack(energies).sum()

    return penalty


def batches(batch: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield endless seeded batches of noise (batch, 3, 32, 32): what is in it costs nothing."""
    generator = torch.Generator().manual_seed(0)
    while True:
        images = torch.randn(batch, 3, 32, 32, generator=generator)
        labels = torch.randint(0, CLASSES, (batch,), generator=generator)
        yield images.to(device), labels.to(device)


def measure(
    names: list[str],
    *,
    model: str = "vgg19_bn",
    width: int | None = None,
    batch: int = 128,
    rounds: int = 5,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Return a row a method of ``names``; the first is what the others are added to.

    Median milliseconds a step and those of the penalty, peak MiB beyond what was held, what it adds
    to the first, final angles. MMA of the classifier is part of the head's loss: its time is in the
    step, not in the penalty's.
    """
    benches = {name: Bench(METHODS[name], model, device, width=width) for name in names}
    source = batches(batch, device)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for done in range(rounds + 1):
        images, labels = next(source)
        for name, bench in benches.items():
            began = _now(device)
            penalty = bench.step(images, labels)
            seconds[name].append((_now(device) - began, penalty))
        progress(done, rounds + 1)
    angles = {name: bench.angles() for name, bench in benches.items()}
    del benches
    peaks = {
        name: measured_peak(name, model=model, width=width, batch=batch, device=device)
        for name in names
    }
    progress(rounds + 1, rounds + 1)
    return [
        {
            "method": name,
            # The first round warms up.
            "ms_per_step": 1e3 * median(step for step, _ in seconds[name][1:]),
            "added_ms": 1e3 * median(penalty for _, penalty in seconds[name][1:]),
            "peak_mib": _mebibytes(peaks[name], 0),
            "added_mib": _mebibytes(peaks[name], peaks[names[0]]),
            **{f"{layer}_deg": angle for layer, angle in angles[name].items()},
        }
        for name in names
    ]


def _mebibytes(more: int | None, less: int | None) -> float | None:
    return None if more is None or less is None else (more - less) / 2**20


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# -- peaks -----------------------------------------------------------------------------------------


def measured_peak(
    name: str, *, model: str, width: int | None, batch: int, device: torch.device
) -> int | None:
    """Return the most bytes that three steps hold; on the CPU of a fresh process, where Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        _three_steps(name, model, width, batch, device)
        return torch.cuda.max_memory_allocated(device)
    if not Path("/proc/self/clear_refs").exists():
        return None
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_added_memory, name, model, width, batch).result()


def _three_steps(
    name: str, model: str, width: int | None, batch: int, device: torch.device
) -> None:
    bench = Bench(METHODS[name], model, device, width=width)
    for (images, labels), _ in zip(batches(batch, device), range(3), strict=False):
        bench.step(images, labels)


def _added_memory(name: str, model: str, width: int | None, batch: int) -> int:
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    _three_steps(name, model, width, batch, torch.device("cpu"))
    return _resident("VmHWM") - before


def _resident(kind: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) * 1024


def cost_markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows of ``measure`` as a Markdown table."""
    angles = [key for key in rows[0] if key.endswith("_deg")]
    layers = [key.removesuffix("_deg") for key in angles]
    lines = [
        [row["method"], f"{row['ms_per_step']:.0f}", f"{row['added_ms']:.0f}"]
        + [cell(row["peak_mib"], ".0f"), cell(row["added_mib"], "+.0f")]
        + [f"{row[angle]:.1f}°" for angle in angles]
        for row in rows
    ]
    heading = ["method", "ms a step", "of it the penalty", "peak MiB", "added", *layers]
    return markdown(heading, lines)
