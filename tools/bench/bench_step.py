"""What share of a training step MMA takes: IResNet-50 with CASIA-WebFace's 10 572 classes.

python tools/bench/bench_step.py [--batches 32 64] [--repeats 3] [--precision bf16]

Measures whole steps with and without the penalty, interleaved, and the penalty alone; then computes
the share at batch 440 from multiply-adds. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.models import build_model
from arcface_plus.training.optim import build_optimizers
from arcface_plus.training.settings import OptimConfig

CLASSES, DIM = 10_572, 512
# Multiply-adds of a 112×112 image through IResNet-50 (docs/models.md); a step is three times that.
IRESNET50_MACS = 6.31e9


def step_seconds(model, head, optimizers, batch: int, dtype: torch.dtype | None) -> float:  # type: ignore[no-untyped-def]
    images = torch.randn(batch, 3, 112, 112).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,))
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        embeddings = model(images)
    head(embeddings, labels).loss.backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def mma_seconds(head: ClassifierHead) -> float:
    began = time.perf_counter()
    head.mma(head.weight, 0).backward()
    elapsed = time.perf_counter() - began
    head.weight.grad = None
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--model", default="iresnet50")
    options = parser.parse_args()
    dtype = torch.bfloat16 if options.precision == "bf16" else None
    torch.manual_seed(0)
    model = build_model(options.model, embedding_dim=DIM).to(memory_format=torch.channels_last)
    heads = {
        weight: ClassifierHead(CLASSES, DIM, Margin(), mma_weight=weight) for weight in (0.0, 0.03)
    }
    optimizers = {
        w: build_optimizers(model, head, OptimConfig(lr=1e-4)) for w, head in heads.items()
    }
    print(
        f"{options.model}, {options.precision}, {torch.get_num_threads()} threads, C = {CLASSES}\n"
    )
    print("| batch | step without MMA, s | step with MMA, s | MMA alone, s | MMA alone / step |")
    print("|---:|---:|---:|---:|---:|")
    for batch in options.batches:
        times: dict[float, list[float]] = {weight: [] for weight in heads}
        alone = []
        for repeat in range(options.repeats + 1):
            for weight, head in heads.items():
                seconds = step_seconds(model, head, optimizers[weight], batch, dtype)
                times[weight].append(seconds)
            alone.append(mma_seconds(heads[0.03]))
            if repeat == 0:  # warm-up
                alone.clear()
                for list_ in times.values():
                    list_.clear()
        without, with_ = (statistics.median(times[w]) for w in (0.0, 0.03))
        mma = statistics.median(alone)
        print(f"| {batch} | {without:.2f} | {with_:.2f} | {mma:.3f} | {mma / with_:.1%} |")
    search = CLASSES**2 * DIM / 2
    for batch in (*options.batches, 440):
        net = 3 * batch * IRESNET50_MACS
        softmax = 3 * batch * CLASSES * DIM
        share = search / (search + net + softmax)
        print(
            f"\nbatch {batch}: MMA {search:.3g} multiply-adds (half of C²·d), net {net:.3g} "
            f"(3 × batch × {IRESNET50_MACS:.3g}), softmax {softmax:.3g}: share {share:.2%}"
        )


if __name__ == "__main__":
    main()
