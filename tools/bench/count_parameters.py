"""Print the table of docs/models.md: parameters and multiply-adds of every network.

    python tools/bench/count_parameters.py

Counts come from networks on the meta device: nothing is allocated or computed.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from arcface_plus.models import MODELS, build_model


def table_row(name: str, size: int) -> str:
    """Count one network at ``size`` × ``size`` pixels."""
    with torch.device("meta"):
        model = build_model(name, size=size).eval()
        image = torch.empty(1, 3, size, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    parameters = [p.numel() for p in model.parameters()]
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    gmacs = counter.get_total_flops() / 2e9  # a multiply-add counts as two operations
    mebibytes = sum(t.numel() * t.element_size() for t in model.state_dict().values()) / 2**20
    return f"| {name} | {sum(parameters):,} | {sum(trained):,} | {gmacs:.2f} | {mebibytes:.1f} |"


def main() -> int:
    """Print the table for one input size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=112, help="input size in pixels")
    size = parser.parse_args().size
    print("| name | parameters | trained (last gain fixed) | GMACs | weights, MiB |")
    print("|---|---:|---:|---:|---:|")
    for name in MODELS:
        print(table_row(name, size))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
