"""How long a save keeps the step loop waiting, beside one that is waited for.

python tools/bench/bench_save.py [--classes 10572 1000000] [--dims 512 128] [--repeats 5]

Makes steps of a net and a head with so many classes and, in turn, saves beside them (the time in
``save`` and the wait before the update) and saves while nothing else runs (``save`` and ``wait``).
Prints medians as a Markdown table, with the memory of the copy on the host. Bar, for the default
net at 10 572 and 1 000 000 classes: the first is below 5 % of the second.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.distributed import World, start_world
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.models import build_model
from arcface_plus.training.settings import OptimConfig, TrainConfig
from arcface_plus.training.state import RunState

BAR = 0.05


def make_state(model: str, classes: int, dim: int, world: World) -> RunState:
    net = build_model(model, embedding_dim=dim).to(memory_format=torch.channels_last)
    head = ClassifierHead(classes, dim, Margin(), mma_weight=0.0)
    train = TrainConfig(precision="fp32", device="cpu")
    return RunState(net, head, world, optim=OptimConfig(lr=1e-3), train=train)


def step(state: RunState, checkpoints: Checkpoints, batch: int) -> float:
    """Make one step; return the seconds it waited for a save before its update."""
    images = torch.randn(batch, 3, 112, 112).to(memory_format=torch.channels_last)
    labels = torch.randint(0, state.head.num_classes, (batch,))
    state.head(state.model(images), labels).loss.backward()
    began = time.perf_counter()
    checkpoints.before_update()
    waited = time.perf_counter() - began
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    state.step += 1
    return waited


def measure(state: RunState, checkpoints: Checkpoints, batch: int, repeats: int) -> tuple:  # type: ignore[type-arg]
    """Return the median seconds blocked by a save beside steps, and by one that is waited for."""
    beside, alone = [], []
    for repeat in range(repeats + 1):  # the first makes the buffers
        began = time.perf_counter()
        state.save(checkpoints)
        blocked = time.perf_counter() - began + step(state, checkpoints, batch)
        step(state, checkpoints, batch)
        checkpoints.wait()
        began = time.perf_counter()
        state.save(checkpoints)
        checkpoints.wait()
        if repeat:
            beside.append(blocked)
            alone.append(time.perf_counter() - began)
        step(state, checkpoints, batch)
    return statistics.median(beside), statistics.median(alone)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10_572, 1_000_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 128])
    parser.add_argument("--model", default="iresnet50")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"{options.model}, batch {options.batch}, {torch.get_num_threads()} threads\n")
    print("| classes × dim | saved, MB | copy, MB | blocked, s | waited for, s | share |")
    print("|---:|---:|---:|---:|---:|---:|")
    missed = False
    for classes, dim in zip(options.classes, options.dims, strict=True):
        with start_world("cpu") as world, tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(folder, world, keep=1)
            state = make_state(options.model, classes, dim, world)
            beside, alone = measure(state, checkpoints, options.batch, options.repeats)
            (newest,) = Path(folder).glob("step-*")
            saved = sum(path.stat().st_size for path in newest.iterdir()) / 1e6
            copy = checkpoints.copied_bytes() / 1e6
        share = beside / alone
        print(
            f"| {classes} × {dim} | {saved:.0f} | {copy:.0f} | {beside:.4f} | {alone:.3f} | "
            f"{share:.2%} |",
            flush=True,
        )
        full_size = options.model == "iresnet50" and classes in (10_572, 1_000_000)
        missed |= full_size and share >= BAR
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
