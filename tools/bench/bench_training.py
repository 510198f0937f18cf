"""Whole training steps, from .rec file to log line, beside the bare net's forward and backward.

python tools/bench/bench_training.py [--nets iresnet50:64 mobilefacenet:128] [--steps 5]
[--blocks 3] [--precision bf16]

The trainer of `arcface-plus train` with one loader process, ArcFace head of 10 572 classes without
MMA, clipping, SGD, metrics.jsonl, CSV and TensorBoard, a log line a block. After each of its steps
the bare net makes one; a block is --steps of both. Prints a Markdown table of medians over blocks.
Bar at the default sizes: 0.92 of the bare net's images.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch
from bench_input import write_records
from steps import Step, bare_step

from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.data.sources.image_source import open_source
from arcface_plus.distributed import start_world
from arcface_plus.runs.build import build_loader, build_state, build_trainer
from arcface_plus.runs.configuration import RunConfig, load_config
from arcface_plus.training.log.monitor import Monitor
from arcface_plus.training.precision import resolve_precision
from arcface_plus.training.regularization import RunRegularizer

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "casia_r50_arcface.yaml"
BAR, CLASSES = 0.92, 10_572


class Alternation:
    """Times the trainer's steps, and one of the bare net after each."""

    def __init__(self, bare: Step) -> None:
        self.bare = bare
        self.ours: list[float] = []
        self.alone: list[float] = []
        self.began = time.perf_counter()

    def __call__(self) -> None:
        now = time.perf_counter()
        self.ours.append(now - self.began)
        self.bare()
        self.began = time.perf_counter()
        self.alone.append(self.began - now)

    def blocks(self, size: int) -> list[tuple[float, float]]:
        """Return seconds a step of each block, ours and bare; the first block does not count."""
        starts = range(size, len(self.ours), size)
        return [
            tuple(sum(t[start : start + size]) / size for t in (self.ours, self.alone))  # type: ignore[misc]
            for start in starts
        ]


def configuration(folder: Path, net: str, batch: int, options: argparse.Namespace) -> RunConfig:
    steps = options.steps * (1 + options.blocks)
    words = f"--output {folder} --data.path {folder / 'train.rec'} --data.num_classes {CLASSES} "
    words += f"--data.workers 1 --model.name {net} --train.steps {steps} --train.device cpu "
    words += f"--train.global_batch {batch} --train.precision {options.precision} "
    words += f"--train.log_every {options.steps} --schedule.milestones [] --schedule.warmup_steps 0"
    words += f" --train.checkpoint_every {2 * steps} --optim.clip_norm 5 --evaluation.sets {{}}"
    words += " --optim.lr 1e-4 --model.dropout null"
    return load_config(CONFIG, words.split())


def train(config: RunConfig, batch: int) -> Alternation:
    """Train as ``arcface-plus train`` does, a step of the bare net after every step."""
    config.folder.mkdir(parents=True)
    source = open_source(config.data, seed=config.seed)
    with (
        start_world("cpu", config.train.timeout) as world,
        Checkpoints(config.folder / "checkpoints", world, keep=1) as checkpoints,
        closing(Monitor(config.folder, total_steps=config.train.steps)) as monitor,
    ):
        monitor.console.quiet = True  # its times would count the bare net's steps
        state = build_state(config, source, world)
        loader = build_loader(config, source, world, start=0)
        penalty = RunRegularizer(config.regularizer, state.model, state.head, seed=config.seed)
        trainer = build_trainer(config, state, loader, monitor, checkpoints, {}, penalty)
        trainer.saved_at = config.train.steps  # the checkpoint after the last step is not timed
        precision = resolve_precision(config.train.precision, world.device)
        net = build_state(config, source, world).model.train()
        bare = bare_step(net, batch, device=world.device, precision=precision)
        trainer.after_step = both = Alternation(bare)
        trainer.train()
    return both


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=["iresnet50:64", "mobilefacenet:128"])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--steps", type=int, default=5, help="of a block")
    parser.add_argument("--blocks", type=int, default=3)
    options = parser.parse_args()
    rows, missed = [], []
    for net, batch in (each.split(":") for each in options.nets):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_records(folder / "train.rec", max(4000, 2 * int(batch)))
            both = train(configuration(folder, net, int(batch), options), int(batch))
        ratios = [alone / ours for ours, alone in both.blocks(options.steps)]
        ours, alone = (statistics.median(t) for t in zip(*both.blocks(options.steps), strict=True))
        ratio = statistics.median(ratios)
        each = ", ".join(f"{r:.3f}" for r in ratios)
        rows.append(f"| {net} | {batch} | {ours:.3f} | {alone:.3f} | **{ratio:.3f}** | {each} |")
        missed += [net] if ratio < BAR else []
    print(f"\n{options.precision}, {torch.get_num_threads()} threads, C = {CLASSES}\n")
    print("| net | batch | training step, s | bare net, s | of the bare net | of each block |")
    print("|---|---:|---:|---:|---:|---|\n" + "\n".join(rows))
    full = all(getattr(options, k) == parser.get_default(k) for k in ("nets", "steps", "blocks"))
    return int(full and bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
