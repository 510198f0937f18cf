"""Time MMA, forward and backward, against its plain form and the limit of its products.

    python tools/bench/bench_mma.py                            # 10 572 classes, d = 512
    python tools/bench/bench_mma.py --classes 85742            # without the n × n reference
    python tools/bench/bench_mma.py --classes 1000000 --dim 64 --sampled-rows 4096

All times are medians of interleaved repeats of one run, so their ratios hold on a busy machine too;
``--cpu-time`` with ``--threads 1`` times the work alone. The limit is n²d/2 multiply-adds at the
rate of a 4096 × 4096 × 512 fp32 product. Extra memory is the peak above weight and gradient, of a
fresh process.

Bars, from 10 572 classes on: both precisions find the same neighbours of random rows; MMA in fp32
is 4 times as fast as its plain form, where that is timed; extra memory is at most a tenth of the
n × n matrix.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from steps import reference_mma
from torch import Tensor

from arcface_plus.regularizers.mma import mma_loss, mma_value_and_gradient

KINDS = ("random", "pairs", "trained", "cone")
SPEED_BAR, MEMORY_BAR = 4.0, 0.1
LARGEST_REFERENCE = 20_000


def make_rows(kind: str, classes: int, dim: int) -> Tensor:
    """Return class weights that are random, tight pairs, spread by MMA, or in a narrow cone."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(classes, dim, generator=generator)
    if kind == "pairs":
        half = rows[: -(-classes // 2)]
        near = half + 0.1 * torch.randn(half.shape, generator=generator)
        return torch.cat([half, near])[:classes].contiguous()
    if kind == "cone":  # any two rows have a cosine of about 0.96
        return rows + 5 * torch.randn(dim, generator=generator)
    if kind == "trained":
        rows /= rows.norm(dim=1, keepdim=True)
        for _ in range(40):
            gradient = mma_value_and_gradient(rows).gradient
            rows.sub_(gradient, alpha=0.03 * classes)
            rows /= rows.norm(dim=1, keepdim=True)
    return rows


def step(loss: Callable[[Tensor], Tensor], weight: Tensor) -> Callable[[], None]:
    def run() -> None:
        weight.grad = None
        loss(weight).backward()

    return run


def interleaved(
    runs: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> dict:
    """Return the median seconds of each of ``runs``, taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = clock()
            run()
            taken[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def compare(args: argparse.Namespace, kind: str) -> dict[str, float]:
    """Return medians in seconds, and ratios, for one kind of rows."""
    weight = make_rows(kind, args.classes, args.dim).requires_grad_()
    runs: dict[str, Callable[[], object]] = {}
    if args.classes <= LARGEST_REFERENCE:
        runs["reference"] = step(reference_mma, weight)
    for precision in ("fp32", "bf16"):
        runs[precision] = step(
            lambda w, p=precision: mma_loss(w, rows=args.sampled_rows, precision=p), weight
        )
    a, b, out = torch.randn(4096, 512), torch.randn(4096, 512), torch.empty(4096, 4096)
    runs["product"] = lambda: torch.mm(a, b.t(), out=out)
    seconds = interleaved(
        runs, args.repeats, time.process_time if args.cpu_time else time.perf_counter
    )
    work = (args.sampled_rows or args.classes / 2) * args.classes * args.dim
    result = dict(seconds, limit=seconds.pop("product") * work / (4096 * 4096 * 512))
    result["fp32_vs_limit"] = result["fp32"] / result["limit"]
    result["bf16_vs_fp32"] = result["fp32"] / result["bf16"]
    if "reference" in result:
        for precision in ("fp32", "bf16"):
            result[f"{precision}_vs_reference"] = result["reference"] / result[precision]
    if args.sampled_rows is None:
        found = [
            mma_value_and_gradient(weight, precision=p, need_gradient=False).index
            for p in ("fp32", "bf16")
        ]
        result["same_neighbours"] = float(torch.equal(*found))
    return result


def missed_bars(results: dict[str, dict[str, float]], classes: int) -> list[str]:
    """Return which of the bars at the top of this file ``results`` miss."""
    figures = {kind: row for kind, row in results.items() if kind in KINDS}
    matrix_mb = classes**2 * 4 / 1e6
    return [
        *(k for k, row in figures.items() if row.get("fp32_vs_reference", SPEED_BAR) < SPEED_BAR),
        *(["neighbours"] if figures.get("random", {}).get("same_neighbours") == 0 else []),
        *(p for p in ("fp32", "bf16") if results["extra_mb"][p] > MEMORY_BAR * matrix_mb),
    ]


def peak_of(args: argparse.Namespace, precision: str) -> float:
    """Return MB above weight and gradient in a fresh process that does one step."""
    command = [
        sys.executable,
        __file__,
        "--measure-peak",
        precision,
        "--classes",
        str(args.classes),
    ]
    command += ["--dim", str(args.dim), "--threads", str(args.threads)]
    if args.sampled_rows:
        command += ["--sampled-rows", str(args.sampled_rows)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(args: argparse.Namespace) -> float:
    """Do one step here and return its peak in MB; the kernels are loaded by a small step before."""

    def loss(weight: Tensor) -> Tensor:
        if args.measure_peak == "reference":
            return reference_mma(weight)
        return mma_loss(weight, rows=args.sampled_rows, precision=args.measure_peak)

    small = torch.randn(4096 if args.sampled_rows is None else 8192, args.dim, requires_grad=True)
    step(loss, small)()
    del small
    weight = torch.randn(args.classes, args.dim).requires_grad_()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    step(loss, weight)()
    return resident("VmHWM") - before - weight.numel() * weight.element_size() / 1e6


def resident(field: str) -> float:
    """Return a memory field of this process in MB (Linux)."""
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024 / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=10572)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--sampled-rows", type=int, default=None)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds, not wall clock")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    parser.add_argument("--measure-peak", default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.measure_peak:
        print(measure_peak(args))
        return 0
    small = args.classes <= LARGEST_REFERENCE and args.sampled_rows is None
    kinds = args.kinds or (KINDS if small else ("random",))
    results: dict[str, dict[str, float]] = {}
    for kind in kinds:
        results[kind] = compare(args, kind)
        print(
            kind, " ".join(f"{key} {value:.3f}" for key, value in results[kind].items()), flush=True
        )
    variants = (*(["reference"] if small else []), "fp32", "bf16")
    results["extra_mb"] = {variant: peak_of(args, variant) for variant in variants}
    print("extra MB", " ".join(f"{key} {value:.0f}" for key, value in results["extra_mb"].items()))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    missed = missed_bars(results, args.classes)
    if missed:
        print(f"bars missed: {', '.join(missed)}")
    return int(args.classes >= parser.get_default("classes") and bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
