"""Memory of the classifier head per rank: full, recomputed in chunks, and with sampled classes.

python tools/bench/bench_head.py [--classes 500000 1000000 2000000] [--dim 64] [--batch 128]
[--ranks 2]

Every row is measured in fresh processes joined by gloo: resident memory at its peak over two whole
steps (forward, backward, update), less what the process held before the head was made. Prints a
Markdown table; the last column is what the weights and momenta of the shard alone take. Bar, from
500 000 classes on: beyond those, chunks and samples take at most half of what the full head takes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import torch

from arcface_plus.distributed import start_world
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.training.optim import build_optimizers
from arcface_plus.training.settings import OptimConfig

MB, BAR = 1 << 20, 0.5
VARIANTS: dict[str, dict[str, object]] = {
    "full": {},
    "full, logits in chunks of 8 192": {"class_chunk": 8192},
    "sampled 0.1": {"sample_rate": 0.1},
    "sampled 0.1, MMA from 4 096 rows": {"sample_rate": 0.1, "mma_weight": 0.03, "mma_rows": 4096},
}


def resident(kind: str) -> int:
    """Return VmRSS or VmHWM (its peak) of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {kind} in /proc/self/status")


def two_steps(options: argparse.Namespace, classes: int) -> ClassifierHead:
    embeddings = torch.randn(options.batch // options.ranks, options.dim, requires_grad=True)
    labels = torch.randint(0, classes, (len(embeddings),))
    variant = {"mma_weight": 0.0, **VARIANTS[options.variant]}
    head = ClassifierHead(classes, options.dim, Margin(), **variant)  # type: ignore[arg-type]
    optimizers = build_optimizers(torch.nn.Identity(), head, OptimConfig())
    for step in range(2):
        head(embeddings, labels, step).loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return head


def worker(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    with start_world("cpu") as world:
        two_steps(options, 5000)  # what libraries allocate and load on first use
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        head = two_steps(options, options.classes[0])
        if world.is_main:
            kept = 2 * head.weight.numel() * 4
            print(json.dumps({"peak": resident("VmHWM") - before, "kept": kept}))


def measure(options: argparse.Namespace, classes: int, variant: str) -> dict[str, int]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(options.ranks), __file__, "--variant", variant]
    command += ["--classes", str(classes), "--dim", str(options.dim)]
    command += ["--batch", str(options.batch), "--ranks", str(options.ranks)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{variant} with {classes} classes failed")
    return json.loads(done.stdout.splitlines()[-1])  # gloo of some releases writes there before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[500_000, 1_000_000, 2_000_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--heads", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        worker(options)
        return 0
    print(f"{options.ranks} ranks, d = {options.dim}, global batch {options.batch}; MB on rank 0\n")
    print("| classes | head | peak | beyond weights and momenta | weights and momenta |")
    print("|---:|---|---:|---:|---:|")
    missed = False
    for classes in options.classes:
        beyond: dict[str, float] = {}
        for variant in options.heads:
            got = measure(options, classes, variant)
            peak, kept = got["peak"] / MB, got["kept"] / MB
            beyond[variant] = peak - kept
            print(
                f"| {classes} | {variant} | {peak:.0f} | {peak - kept:.0f} | {kept:.0f} |",
                flush=True,
            )
        limit = BAR * beyond.pop("full", math.inf)
        missed |= classes >= 500_000 and any(memory > limit for memory in beyond.values())
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
