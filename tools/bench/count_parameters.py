"""Print the table of docs/models.md: parameters and multiply-adds of every network, as built.

    python tools/bench/count_parameters.py

Counts come from networks on the meta device: nothing is allocated or computed.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from arcface_plus.models import MODELS, build_model


def table_row(name: str) -> str:
    """Count one network at its own input size."""
    with torch.device("meta"):
        model = build_model(name).eval()
        size = model.preprocessing.size
        image = torch.empty(1, 3, size, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    parameters = [p.numel() for p in model.parameters()]
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    gmacs = counter.get_total_flops() / 2e9  # a multiply-add counts as two operations
    mebibytes = sum(t.numel() * t.element_size() for t in model.state_dict().values()) / 2**20
    return (
        f"| {name} | {size} | {model.embedding_dim} | {sum(parameters):,} | {sum(trained):,} | "
        f"{gmacs:.2f} | {mebibytes:.1f} |"
    )


def main() -> int:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print("| name | pixels | dim | parameters | trained (last gain fixed) | GMACs | weights, MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in MODELS:
        print(table_row(name))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
