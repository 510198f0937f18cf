"""MMA's gradient on sampled class weights (Partial FC), averaged over draws, against the full one.

python tools/bench/bench_sampled_mma.py [--classes 1000] [--dim 32] [--draws 2000] [--batch 64]
[--rates 0.1 0.5]

Every draw is a step with a batch of its own: its classes take part, the others at the rate. Bars,
from 2 000 draws on: the mean gradient's projection on the full one is within 2 % of it, and every
class's within 5 standard errors of its own. For comparison the same without the factor that makes
up for the steps in which a class is not drawn. Prints a Markdown table.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin

PROJECTION, ERRORS, FULL_SIZE = 0.02, 5.0, 2000


def pulls(head: ClassifierHead, draws: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return the whole pull (C, D), and the share (draws, C) of it that each class got, by step."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(batch, head.embedding_dim, generator=generator)
    whole = head.mma.terms(head.weight, 0, need_gradient=True).gradient
    assert whole is not None
    shares = []
    for step in range(draws):
        labels = torch.randint(0, head.num_classes, (batch,), generator=generator)
        head.weight.grad = None
        mma = head(embeddings, labels, step).mma
        assert mma is not None
        mma.backward()
        assert head.weight.grad is not None
        pull = head.weight.grad.to_dense()
        shares.append((pull * whole).sum(dim=1) / whole.square().sum(dim=1))
        off = pull - shares[-1][:, None] * whole
        assert off.norm() <= 1e-5 * whole.norm(), "a class is pulled in another direction"
    return whole, torch.stack(shares).double()


def measure(whole: Tensor, shares: Tensor) -> tuple[float, float]:
    """Return the projection of the mean gradient on the whole one, less 1, and the largest
    deviation of a class's pull from its whole one, in standard errors."""
    squares = whole.double().square().sum(dim=1)
    mean, error = shares.mean(dim=0), shares.std(dim=0) / len(shares) ** 0.5
    projection = float((mean * squares).sum() / squares.sum()) - 1
    return projection, float(((mean - 1).abs() / error.clamp_min(1e-12)).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.5])
    options = parser.parse_args()
    print("| rate | projection − 1 | largest deviation | without the factor: projection − 1 |")
    print("|---:|---:|---:|---:|")
    missed = False
    for rate in options.rates:
        head = ClassifierHead(options.classes, options.dim, Margin(s=16), sample_rate=rate)
        whole, shares = pulls(head, options.draws, options.batch)
        projection, deviation = measure(whole, shares)
        plain, _ = measure(whole, shares.clamp_max(1))
        print(f"| {rate:g} | {projection:+.2%} | {deviation:.1f} standard errors | {plain:+.1%} |")
        missed |= abs(projection) > PROJECTION or deviation > ERRORS
    full_size = options.draws >= FULL_SIZE
    words = "missed" if missed else "met"
    print(f"\nbars ({PROJECTION:.0%}, {ERRORS:g} standard errors): {words}", end="")
    print("" if full_size else f"; they hold from {FULL_SIZE} draws on")
    return int(missed and full_size)


if __name__ == "__main__":
    raise SystemExit(main())
