"""Time of each angular penalty alone, value and gradient, on every layer of a classification net.

python tools/bench/bench_penalties.py [--model vgg19_bn] [--width 64] [--repeats 5] [--threads 1]

Repeats are interleaved; a row is the median of its seconds, and of its share of the paper's
formulation of MMA left to autograd (an n × n matrix of cosines, arccos of its largest) in the same
repeat. Weights are the net's initial ones. Prints a Markdown table. Bar, at the net's own width:
MMA and MHE take no longer than their plain forms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.models import build_model
from arcface_plus.regularizers.angular import AngularRegularizer

CLASSES = 100
# Of each formulation left to autograd: ours, which must not be slower.
BARS = {"MMA, autograd": "mma", "MHE s=2, autograd": "mhe, s=2"}
KINDS: dict[str, dict[str, object]] = {
    "mma": {},
    "mma, rows=128": {"kind": "mma", "rows": 128},
    "cosine": {},
    "orthogonal": {},
    "mhe, s=2": {"kind": "mhe", "s": 2.0},
    "mhe, s=0": {"kind": "mhe", "s": 0.0},
    "mhe, s=2, fraction=0.3": {"kind": "mhe", "s": 2.0, "fraction": 0.3},
    "mhe, s=2, half_space": {"kind": "mhe", "s": 2.0, "half_space": True},
    "log": {},
    "smooth_mma": {},
}


def cosines(weight: Tensor) -> Tensor:
    unit = F.normalize(weight.flatten(1), dim=1)
    return unit @ unit.t()


def autograd_mma(weight: Tensor) -> Tensor:
    """Return MMA as its paper writes it."""
    others = cosines(weight) - 2 * torch.eye(len(weight))
    return -others.amax(dim=1).clamp(-0.99999, 0.99999).acos().mean()


def autograd_mhe(weight: Tensor) -> Tensor:
    """Return MHE, s = 2, from the matrix of cosines."""
    n = len(weight)
    squared = (2 - 2 * cosines(weight)).clamp_min(1e-8)
    return (1 / squared).fill_diagonal_(0).sum() / (n * (n - 1))


def seconds(call: Callable[[], Tensor], net: nn.Module) -> float:
    began = time.perf_counter()
    call().backward()
    taken = time.perf_counter() - began
    net.zero_grad(set_to_none=True)
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vgg19_bn")
    parser.add_argument("--width", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    body = build_model(options.model, size=32, width=options.width)
    net = nn.Sequential(body, nn.Linear(body.embedding_dim, CLASSES))
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    def summed(loss: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        return lambda: torch.stack([loss(weight) for weight in weights]).sum()

    calls: dict[str, Callable[[], Tensor]] = {
        "MMA, autograd": summed(autograd_mma),
        "MHE s=2, autograd": summed(autograd_mhe),
    }
    for name, own in KINDS.items():
        calls[name] = AngularRegularizer(net, weight=1.0, **{"kind": name, **own})  # type: ignore[arg-type]
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(options.repeats + 1):  # the first warms up
        for name, call in calls.items():
            one = seconds(call, net)
            if repeat:
                taken[name].append(one)
    base = taken["MMA, autograd"]
    print(f"{options.model}, {len(weights)} layers, {options.threads} thread(s)\n")
    print("| penalty | ms | share |\n|---|---:|---:|")
    for name, values in taken.items():
        share = median(a / b for a, b in zip(values, base, strict=True))
        print(f"| {name} | {1e3 * median(values):.0f} | {share:.2f} |")
    slower = [ours for plain, ours in BARS.items() if median(taken[ours]) > median(taken[plain])]
    return int(options.width is None and bool(slower))


if __name__ == "__main__":
    raise SystemExit(main())
