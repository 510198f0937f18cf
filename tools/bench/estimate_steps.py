"""Estimate a training step on GPUs from multiply-adds, bytes and links: nothing is measured.

python tools/bench/estimate_steps.py [--model iresnet50] [--gpus 8] [--batch 128]

Each part takes at least the longer of its arithmetic at the card's peak rate and its bytes at the
rate of memory or of the links between cards; parts are not overlapped. Prints Markdown tables:
estimates, from the makers' figures, to set beside what `make gpu` measures.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from arcface_plus.models.cost import Cost, cost_of

DIM = 512
HALF, SINGLE = 2, 4  # bytes a number


@dataclass(frozen=True)
class Card:
    """The maker's figures: dense bf16 and fp32 FLOP/s, memory and link bytes/s (one direction)."""

    name: str
    bf16: float
    fp32: float
    memory: float
    link: float


CARDS = (
    Card("A100 80GB SXM", bf16=312e12, fp32=19.5e12, memory=2.04e12, link=300e9),
    Card("H200 SXM", bf16=989e12, fp32=67e12, memory=4.8e12, link=450e9),
)


@dataclass(frozen=True)
class Recipe:
    """A run: ``rate`` of the classes are drawn a step; MMA is of ``rows`` of them, or of all."""

    name: str
    classes: int
    batch: int
    rate: float = 1.0
    rows: int | None = None


RECIPES = (
    Recipe("CASIA-WebFace", 10_572, 440),
    Recipe("MS1MV2", 85_742, 1024),
    Recipe("WebFace12M", 617_970, 1024, 1.0, 4096),
    Recipe("WebFace42M, sampled 0.2", 2_059_906, 1024, 0.2, 4096),
)


def parts(recipe: Recipe, card: Card, net: Cost, gpus: int) -> dict[str, float]:
    """Return the least milliseconds of each part of a step on each of ``gpus`` cards."""
    images = recipe.batch / gpus
    drawn = recipe.classes * recipe.rate / gpus
    others = (gpus - 1) / gpus
    net_flops = 3 * 2 * images * net.multiply_adds
    net_bytes = 2 * images * net.activation_bytes * HALF / SINGLE  # written, and read for backward
    # Embeddings against the drawn rows, forward and both gradients, in fp32; logits pass memory
    # four times: product, softmax, its gradient, and that gradient's two products.
    head_flops = 3 * 2 * recipe.batch * drawn * DIM
    head_bytes = 4 * recipe.batch * drawn * SINGLE + 3 * drawn * DIM * SINGLE
    # Weight, momentum and gradient are read, two of them written: the net's and the drawn rows'.
    update_bytes = 5 * SINGLE * (net.parameters + drawn * DIM)
    # Over all ranks n²d/2 multiply-adds: pairs are multiplied once; sampled rows meet all classes.
    pairs = recipe.classes**2 / 2 if recipe.rows is None else recipe.rows * recipe.classes
    search_flops = 2 * pairs * DIM / gpus
    gradient_bytes = 2 * others * net.parameters * SINGLE  # a ring's all-reduce
    embedding_bytes = 2 * others * recipe.batch * DIM * SINGLE  # gathered; their gradient, summed
    # MMA's shards, or the sampled rows, travel twice round.
    shards_bytes = 2 * others * (recipe.rows or recipe.classes) * DIM * SINGLE
    seconds = {
        "net": max(net_flops / card.bf16, net_bytes / card.memory),
        "head": max(head_flops / card.fp32, head_bytes / card.memory),
        "update": update_bytes / card.memory,
        "MMA": search_flops / card.bf16,
        "links: gradients": gradient_bytes / card.link,
        "links: embeddings": embedding_bytes / card.link,
        "links: MMA": shards_bytes / card.link,
    }
    return {name: 1e3 * each for name, each in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="iresnet50")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--batch", type=int, help="over all cards, instead of each run's own")
    options = parser.parse_args()
    net = cost_of(options.model)
    print(
        f"{options.model}: {net.multiply_adds:.3g} multiply-adds and "
        f"{net.activation_bytes / 1e6:.0f} MB of activations an image (in float32), "
        f"{net.parameters / 1e6:.1f} M parameters. Estimates of the least milliseconds a step on "
        f"{options.gpus} card(s), nothing overlapped.\n"
    )
    names = list(parts(RECIPES[0], CARDS[0], net, options.gpus))
    print(f"| card | run | batch | {' | '.join(names)} | step | images/s | MMA's share |")
    print(f"|---|---|---:|{'---:|' * len(names)}---:|---:|---:|")
    for card in CARDS:
        for known in RECIPES:
            recipe = known if options.batch is None else replace(known, batch=options.batch)
            found = parts(recipe, card, net, options.gpus)
            step = sum(found.values())
            cells = " | ".join(f"{each:.2g}" for each in found.values())
            rate = 1e3 * recipe.batch / step
            share = (found["MMA"] + found["links: MMA"]) / step
            print(
                f"| {card.name} | {recipe.name} | {recipe.batch} | {cells} | {step:.1f} | "
                f"{rate:,.0f} | {share:.0%} |"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
