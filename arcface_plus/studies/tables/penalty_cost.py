"""What a penalty costs a training step: seconds and peak memory, Table 3 of the MMA paper.

All methods train the same net on the same batches in one process, a step of each in turn, so that a
busy machine is busy for all. Peaks come from a fresh process a method.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
from arcface_plus.training.optim import build_optimizers
from arcface_plus.training.regularization import RunRegularizer, head_mma_weight
from arcface_plus.training.settings import OptimConfig

CLASSES = 100


def _config(kind: str, weight: float, **options: float) -> RegularizerConfig:
    return RegularizerConfig(kind=kind, weight=weight, layers="all", **options)


class Method(NamedTuple):
    """A penalty, and how it is computed: by this package, or by autograd in one of two ways.

    ``cosines``: of the n × n matrix of cosines, as the public code of MHE. ``differences``: of all
    n²/2 differences of d numbers, as the paper's memory suggests.
    """

    config: RegularizerConfig | None = None
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


class Cost(NamedTuple):
    """Median seconds a step, those of the penalty, peak bytes beyond what was held, final angles.

    MMA of the classifier is part of the head's loss: its time is in the step, not in the penalty's.
    """

    seconds: float
    added_seconds: float
    peak: int | None
    angles: dict[str, float]


class Bench:
    """One method's net, classifier, penalty and optimizer, and a step of them."""

    def __init__(
        self, method: Method, model: str, device: torch.device, *, width: int | None
    ) -> None:
        torch.manual_seed(0)
        self.net = build_model(model, embedding_dim=None, size=32, width=width).to(device)
        config = method.config or RegularizerConfig()
        self.head = ClassifierHead(
            CLASSES,
            self.net.embedding_dim,
            None,
            mma_weight=head_mma_weight(config, 0.0),
            bias=True,
        ).to(device)
        self.penalty: Callable[[int], Tensor] | None = None
        if method.form != "ours":
            self.penalty = _AutogradEnergy(self.net, self.head, method)
        elif method.config is not None:
            self.penalty = RunRegularizer(config, self.net, self.head, seed=0)
        (self.optimizer,) = build_optimizers(self.net, self.head, OptimConfig(decay="all"))
        self.steps = 0

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Make one training step as the trainer does: the loss, then the penalty, then SGD.

        Returns the seconds of the penalty, value and gradient.
        """
        output = self.head(self.net(images), labels, self.steps)
        output.loss.backward()
        began = _now(images.device)
        if self.penalty is not None:
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


class _AutogradEnergy:
    """MHE of net and classifier, left to autograd: what users of the published forms run."""

    def __init__(self, net: nn.Module, head: ClassifierHead, method: Method) -> None:
        self.weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        self.weights.append(head.weight)
        assert method.config is not None
        self.config, self.form = method.config, method.form

    def __call__(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        energies = [self._energy(weight, generator) for weight in self.weights]
        return self.config.weight * torch.stack(energies).sum()

    def _energy(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        count = max(2, math.ceil(self.config.fraction * len(weight)))
        rows = torch.randperm(len(weight), generator=generator)[:count].to(weight.device)
        unit = F.normalize(weight.flatten(1)[rows], dim=1)
        i, j = torch.triu_indices(count, count, offset=1, device=weight.device)
        if self.form == "differences":
            squared = (unit[i] - unit[j]).square().sum(dim=1)
        else:
            squared = (2 - 2 * (unit @ unit.t()))[i, j]
        squared = squared.clamp_min(1e-8)
        s = self.config.s
        return (squared.pow(-s / 2) if s > 0 else -0.5 * squared.log()).mean()


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
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Cost]:
    """Return the cost of each method of ``names``; the first is what the others are added to."""
    benches = {name: Bench(METHODS[name], model, device, width=width) for name in names}
    source = batches(batch, device)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    added: dict[str, list[float]] = {name: [] for name in names}
    for done in range(rounds + 1):  # the first round warms up
        images, labels = next(source)
        for name, bench in benches.items():
            began = _now(device)
            penalty = bench.step(images, labels)
            if done:
                seconds[name].append(_now(device) - began)
                added[name].append(penalty)
        if progress is not None:
            progress(done, rounds + 1)
    angles = {name: bench.angles() for name, bench in benches.items()}
    del benches
    costs = {}
    for name in names:
        peak = measured_peak(name, model=model, width=width, batch=batch, device=device)
        costs[name] = Cost(median(seconds[name]), median(added[name]), peak, angles[name])
    if progress is not None:
        progress(rounds + 1, rounds + 1)
    return costs


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
    words = json.dumps([name, model, width, batch])
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import _child; _child()"],
        input=words,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {name} failed: {done.stderr[-500:]}")
    return int(done.stdout)


def _three_steps(
    name: str, model: str, width: int | None, batch: int, device: torch.device
) -> None:
    bench = Bench(METHODS[name], model, device, width=width)
    for (images, labels), _ in zip(batches(batch, device), range(3), strict=False):
        bench.step(images, labels)


def _child() -> None:
    name, model, width, batch = json.loads(sys.stdin.read())
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    _three_steps(name, model, width, batch, torch.device("cpu"))
    sys.stdout.write(str(_resident("VmHWM") - before))


def _resident(kind: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {kind} in /proc/self/status")


def rows_of(costs: dict[str, Cost]) -> list[dict[str, Any]]:
    """Return a row a method, with its penalty's milliseconds and the MiB it adds to the first."""
    first = next(iter(costs.values()))
    rows = []
    for name, cost in costs.items():
        has_peak = cost.peak is not None and first.peak is not None
        row: dict[str, Any] = {
            "method": name,
            "ms_per_step": 1e3 * cost.seconds,
            "added_ms": 1e3 * cost.added_seconds,
            "peak_mib": cost.peak / 2**20 if cost.peak is not None else None,
            "added_mib": (cost.peak - first.peak) / 2**20 if has_peak else None,  # type: ignore[operator]
        }
        rows.append(row | {f"{layer}_deg": angle for layer, angle in cost.angles.items()})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return ``rows_of`` as a Markdown table."""
    angles = [key for key in rows[0] if key.endswith("_deg")]
    heads = [
        "method",
        "ms a step",
        "of it the penalty",
        "peak MiB",
        "added",
        *(a[:-4] for a in angles),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in rows:
        cells = [row["method"], f"{row['ms_per_step']:.0f}", f"{row['added_ms']:.0f}"]
        for key, form in (("peak_mib", "{:.0f}"), ("added_mib", "{:+.0f}")):
            cells.append("–" if row[key] is None else form.format(row[key]))
        cells += [f"{row[angle]:.1f}°" for angle in angles]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
