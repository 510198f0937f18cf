"""A training step beside arcface_torch's and the bare net's, and what share of it MMA takes.

python tools/bench/bench_step.py [--peer CHECKOUT/recognition/arcface_torch] [--batches 32]
[--precisions fp32 bf16] [--repeats 3]

IResNet-50, CASIA-WebFace's 10 572 classes, images in memory. Steps take turns: the net's forward
and backward alone, ours with and without MMA, and with a checkout arcface_torch's, with MMA as its
authors compute it and without; medians. MMA is also timed alone, and its share at batch 440
computed from that and from multiply-adds. Prints Markdown tables. Bars at the default sizes, of the
smallest batch: 1.07 times the images of arcface_torch where both are in fp32, 2.04 times in bf16
beside its fp32, and 2.84 times with MMA on both sides; and the computed shares are below 2 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from steps import bare_step, medians, one_process, our_step, peer_step

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.models import build_model

CLASSES, DIM, WEIGHT = 10_572, 512, 0.03
# Multiply-adds of a 112×112 image through IResNet-50 (docs/models.md); a step is three times that.
IRESNET50_MACS = 6.31e9
PAPERS_BATCH, SHARE = 440, 0.02
CPU = torch.device("cpu")
# (our step, arcface_torch's step): how many times its images a second.
BARS = {
    ("fp32", "arcface_torch fp32"): 1.07,
    ("bf16", "arcface_torch fp32"): 2.04,
    ("bf16 + MMA", "arcface_torch fp32 + MMA"): 2.84,
}
Times = dict[str, float]


def measure(options: argparse.Namespace, batch: int) -> Times:
    """Return the median seconds of every kind of step at ``batch``."""
    torch.manual_seed(0)
    net = build_model(options.model, embedding_dim=DIM).to(memory_format=torch.channels_last)
    head = ClassifierHead(CLASSES, DIM, Margin(), mma_weight=WEIGHT)

    def mma_alone() -> None:
        head.mma(head.weight, 0).backward()
        head.weight.grad = None

    runs = {"MMA alone": mma_alone}
    for precision in options.precisions:
        common = {"device": CPU, "precision": precision}
        runs[f"bare {precision}"] = bare_step(net.train(), batch, **common)
        for weight, mark in ((0.0, ""), (WEIGHT, " + MMA")):
            of = {"classes": CLASSES, "mma_weight": weight, **common}
            runs[f"{precision}{mark}"] = our_step(net, batch, **of)
            if options.peer is not None:
                name = f"arcface_torch {precision}{mark}"
                runs[name] = peer_step(options.peer, batch, **of)
    return medians(runs, CPU, options.repeats)


def table(options: argparse.Namespace, batch: int, found: Times) -> None:
    print(f"\n{options.model}, batch {batch}, {torch.get_num_threads()} threads, C = {CLASSES}\n")
    print("| step | s | images/s | of the bare net | × arcface_torch, same format | MMA alone |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, seconds in found.items():
        if name == "MMA alone":
            continue
        ours = not name.startswith(("bare", "arcface_torch"))
        bare = found[f"bare {next(p for p in options.precisions if p in name)}"]
        peer = found.get(f"arcface_torch {name}") if ours else None
        cells = [
            f"{seconds:.2f}",
            f"{batch / seconds:.1f}",
            f"{bare / seconds:.2f}",
            f"{peer / seconds:.2f}" if peer else "",
            f"{found['MMA alone'] / seconds:.1%}" if ours and "MMA" in name else "",
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def shares(options: argparse.Namespace, batch: int, found: Times) -> list[float]:
    """Print and return MMA's share at the papers' batch: from times, and from multiply-adds."""
    search = CLASSES**2 * DIM / 2
    # A step takes time in proportion to its batch, MMA the same at every batch.
    step = found[f"{options.precisions[-1]} + MMA"] * PAPERS_BATCH / batch
    timed = found["MMA alone"] / step
    print(f"\nMMA at batch {PAPERS_BATCH}, from the times at {batch}: share {timed:.2%}")
    net, softmax = 3 * PAPERS_BATCH * IRESNET50_MACS, 3 * PAPERS_BATCH * CLASSES * DIM
    share = search / (search + net + softmax)
    print(
        f"\nMMA at batch {PAPERS_BATCH}, from multiply-adds: MMA {search:.3g} (half of C²·d), net "
        f"{net:.3g} (3 × batch × {IRESNET50_MACS:.3g}), softmax {softmax:.3g}: share {share:.2%}"
    )
    return [timed, share]


def below_bars(found: Times) -> list[str]:
    """Return which ratios to arcface_torch are below their bars; print all of them."""
    missed = []
    for (ours, peer), bar in BARS.items():
        if ours in found and peer in found:
            ratio = found[peer] / found[ours]
            print(f"\n{ours} beside {peer}: {ratio:.2f} times (bar {bar})")
            if ratio < bar:
                missed.append(ours)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[32])
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="iresnet50")
    parser.add_argument("--peer", type=Path, default=None, help="arcface_torch, in a checkout")
    parser.set_defaults(precisions=["fp32", "bf16"])
    options = parser.parse_args()
    missed: list[str] = []
    with one_process(CPU):
        for batch in options.batches:
            found = measure(options, batch)
            table(options, batch, found)
            if batch == min(options.batches):
                missed = below_bars(found)
    computed = shares(options, batch, found)
    full = all(getattr(options, k) == parser.get_default(k) for k in ("model", "batches"))
    return int(full and (bool(missed) or max(computed) > SHARE))


if __name__ == "__main__":
    raise SystemExit(main())
