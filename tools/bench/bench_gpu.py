"""Time a GPU's training step and its search for nearest classes; `make gpu` runs this.

    python tools/bench/bench_gpu.py [--peer CHECKOUT/recognition/arcface_torch] [--only step]

Medians of interleaved repeats of one run, a JSON object a line as each is done. Bars, on a GPU at
the default sizes: the step, IResNet-50 at batch 128 without MMA, reaches 0.92 of the bare compiled
net; it makes 1.25 times the images of arcface_torch in its fp16 defaults, where a checkout is
given; MMA of 10 572 classes takes at most 3 % of the step; the search among 85 742 classes reaches
60 % of the rate of a bf16 product, counting each pair of rows once.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from steps import DIM, Step, bare_step, medians, one_process, our_step, peer_step
from torch import Tensor, nn

from arcface_plus.models import build_model
from arcface_plus.regularizers.nearest.search import nearest_neighbors
from arcface_plus.training.precision import resolve_precision


def _of(options: argparse.Namespace) -> dict[str, Any]:
    precision = resolve_precision("auto", options.device)
    return {"device": options.device, "precision": precision}


def _ours(options: argparse.Namespace, net: nn.Module, mma_weight: float) -> Step:
    of = _of(options)
    return our_step(net, options.batch, classes=options.classes, mma_weight=mma_weight, **of)


def _net(options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    net = build_model(options.model, embedding_dim=DIM)
    net = net.to(options.device, memory_format=torch.channels_last).train()
    return torch.compile(net) if options.compile else net


def bench_step(options: argparse.Namespace) -> dict[str, float]:
    """Return seconds and ratios of our step, beside the bare net and, with a peer, beside it."""
    net = _net(options)
    bare = bare_step(net, options.batch, **_of(options))
    runs = {"bare": bare, "ours": _ours(options, net, 0.0)}
    if options.peer is not None:
        of = {"classes": options.classes, "mma_weight": 0.0, **_of(options)}
        runs["peer"] = peer_step(options.peer, options.batch, **of)
    found = medians(runs, options.device, options.repeats)
    found["of the bare net"] = found["bare"] / found["ours"]
    if "peer" in found:
        found["images of the peer"] = found["peer"] / found["ours"]
    return found


def bench_mma(options: argparse.Namespace) -> dict[str, float]:
    """Return seconds of our step with and without MMA, and the share that MMA takes."""
    net = _net(options)
    runs = {"without": _ours(options, net, 0.0), "with": _ours(options, net, 0.03)}
    found = medians(runs, options.device, options.repeats)
    return found | {"share": 1 - found["without"] / found["with"]}


def bench_search(options: argparse.Namespace) -> dict[str, float]:
    """Return seconds of the search among many classes, and its rate beside a bf16 product's."""
    device, n = options.device, options.many
    side = 8192 if device.type == "cuda" else 512
    rows = torch.nn.functional.normalize(torch.randn(n, DIM, device=device), dim=1)
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    runs: dict[str, Step] = {"product": lambda: a @ b}
    for precision in ("bf16", "fp32"):
        runs[precision] = lambda p=precision: nearest_neighbors(rows, precision=p)  # type: ignore[misc]
    found = medians(runs, device, options.repeats)
    rate = 2 * side**3 / found["product"]
    found["bf16 product, TFLOP/s"] = rate / 1e12
    # Each pair of rows is multiplied once; what looks like n² products is half of that.
    found["of that rate"] = n * n * DIM / found["bf16"] / rate
    found["of that rate, counting n²"] = 2 * found["of that rate"]
    return found | {"same neighbours": float(_same(rows))}


def _same(rows: Tensor) -> bool:
    found = [nearest_neighbors(rows, precision=p).cosine for p in ("bf16", "fp32")]  # type: ignore[arg-type]
    return bool((found[0] - found[1]).abs().max() < 1e-6)


BENCHES = {"search": bench_search, "mma": bench_mma, "step": bench_step}
BARS = {
    ("search", "of that rate"): (0.60, 1),
    ("search", "same neighbours"): (1.0, 1),
    ("mma", "share"): (0.03, -1),
    ("step", "of the bare net"): (0.92, 1),
    ("step", "images of the peer"): (1.25, 1),
}


def missed(name: str, found: dict[str, float]) -> list[str]:
    """Return which bars the bench ``name`` misses, in words."""
    return [
        f"{key} is {found[key]:.3f}, but the bar is {bar}"
        for (bench, key), (bar, sign) in BARS.items()
        if bench == name and key in found and sign * (found[key] - bar) < 0
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--model", default="iresnet50")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--classes", type=int, default=10_572)
    parser.add_argument("--many", type=int, default=85_742)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", choices=BENCHES, nargs="+", default=list(BENCHES))
    parser.add_argument("--peer", type=Path, default=None, help="arcface_torch, in a checkout")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = parser.parse_args()
    if options.device.type == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA GPU; give --device cpu to try the script.", file=sys.stderr)
        return 2
    full = options.device.type == "cuda"
    failures = 0
    with one_process(options.device):
        for name in options.only:
            found = BENCHES[name](options)
            print(json.dumps({"bench": name, **found, "missed": missed(name, found)}), flush=True)
            failures += bool(missed(name, found))
    return int(full and failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
