"""Memory of the classifier head per rank: full, recomputed in chunks, and with sampled classes.

python tools/bench/bench_head.py [--classes 500000 1000000 2000000] [--dim 64] [--batch 128]
[--ranks 2]

Every row is measured in fresh processes joined by gloo: resident memory at its peak over two whole
steps (forward, backward, update), less what the process held before the head was made. Prints a
Markdown table; the last column is what the weights and momenta of the shard alone take.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from arcface_plus.config import OptimConfig
from arcface_plus.distributed import start_world
from arcface_plus.losses.head import ClassifierHead
from arcface_plus.losses.margins import Margin
from arcface_plus.training.optim import build_optimizers

MB = 1 << 20
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, __file__, "--variant", variant, "--classes", str(classes)]
    command += ["--dim", str(options.dim), "--batch", str(options.batch)]
    command += ["--ranks", str(options.ranks)]
    ranks = [
        subprocess.Popen(
            command,
            env=os.environ
            | {"RANK": str(r), "WORLD_SIZE": str(options.ranks), "MASTER_ADDR": "127.0.0.1"}
            | {"MASTER_PORT": port, "LOCAL_RANK": str(r)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for r in range(options.ranks)
    ]
    outputs = [process.communicate()[0] for process in ranks]
    if any(process.returncode for process in ranks):
        sys.exit(f"{variant} with {classes} classes failed")
    return json.loads(outputs[0].splitlines()[-1])  # gloo of some releases writes there before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[500_000, 1_000_000, 2_000_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        worker(options)
        return
    print(f"{options.ranks} ranks, d = {options.dim}, global batch {options.batch}; MB on rank 0\n")
    print("| classes | head | peak | beyond weights and momenta | weights and momenta |")
    print("|---:|---|---:|---:|---:|")
    for classes in options.classes:
        for variant in VARIANTS:
            got = measure(options, classes, variant)
            peak, kept = got["peak"] / MB, got["kept"] / MB
            print(
                f"| {classes} | {variant} | {peak:.0f} | {peak - kept:.0f} | {kept:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
