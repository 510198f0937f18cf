"""Train a configuration: open everything, check everything, then train, verify and save."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from arcface_plus.checkpoint import Checkpoints
from arcface_plus.cli.train_accuracy import save_accuracy
from arcface_plus.data.batches.loader import TrainLoader
from arcface_plus.data.batches.order import OrderedSteps
from arcface_plus.data.sources.image_source import (
    ImageSource,
    open_source,
    open_test_source,
)
from arcface_plus.distributed import World, barrier, start_world
from arcface_plus.evaluation.classification import AccuracyEvaluation
from arcface_plus.evaluation.hooks import (
    PairEvaluation,
    open_pair_sets,
)
from arcface_plus.evaluation.report.page import write_report
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.models import Preprocessing, build_model, load_model, save_model
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.runs.configuration import RunConfig, load_config
from arcface_plus.training import run_folder, snapshot
from arcface_plus.training.monitor import Monitor
from arcface_plus.training.regularization import RunRegularizer, head_mma_weight
from arcface_plus.training.second_branch import SecondBranch
from arcface_plus.training.trainer import Evaluate, Trainer
from arcface_plus.training.uniform_monitor import margin_warnings


def train(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: str = "never",
    overwrite: bool = False,
) -> Path:
    """Train what ``config_path`` with ``overrides`` says and return the run folder.

    Everything a run needs is opened and checked before its folder is touched. Raises ValueError or
    FileNotFoundError for bad input, NonFiniteError where training broke down.
    """
    config = load_config(config_path, overrides)
    source = open_source(config.data, seed=config.seed)
    tests = open_test_source(config.data) if config.evaluation.accuracy else None
    sets = open_pair_sets(config.evaluation, size=config.data.size)
    with start_world(config.train.device) as world:
        return _train(
            config, source, tests, PairEvaluation(sets, config.evaluation), world, resume, overwrite
        )


def _train(
    config: RunConfig,
    source: ImageSource,
    tests: ImageSource | None,
    evaluation: PairEvaluation,
    world: World,
    resume: str,
    overwrite: bool,
) -> Path:
    check_batch(config, world.size)
    model, head = build(config, source.num_classes, world)
    regularizer = RunRegularizer(config.regularizer, model, head, seed=config.seed)
    accuracy = None
    if tests is not None:
        accuracy = AccuracyEvaluation(
            tests, head, size=config.data.size, batch_size=config.evaluation.batch_size
        )
    branch = None
    if config.branch.enabled:
        branch = SecondBranch(config, world, source=source, head=head)
    checkpoints = Checkpoints(
        config.folder / "checkpoints", world, keep=config.train.keep_checkpoints
    )
    start = run_folder.choose_start(
        config, resume=resume, overwrite=overwrite, steps=checkpoints.steps()
    )
    if start is not None:
        snapshot.check_resumable(checkpoints.path(start), config)
    loader = TrainLoader(
        source,
        config.data,
        OrderedSteps(
            len(source),
            config.train.global_batch,
            seed=config.seed,
            start=start or 0,
            stop=config.train.steps,
            rank=world.rank,
            size=world.size,
        ),
        pin_memory=world.device.type == "cuda",
    )
    barrier(world.control)  # no rank may still be looking at a folder that rank 0 removes
    if world.is_main:
        run_folder.prepare(config, world, start=start, overwrite=overwrite)
    barrier(world.control)
    monitor = Monitor(
        config.folder, total_steps=config.train.steps, start_step=start or 0, enabled=world.is_main
    )
    try:
        trainer = Trainer(
            config,
            world,
            model=model,
            head=head,
            loader=loader,
            monitor=monitor,
            checkpoints=checkpoints,
            evaluations=_evaluations(evaluation, accuracy),
            regularizer=regularizer if regularizer else None,
            branch=branch,
        )
        monitor.say(describe(config, source, model, head, trainer.precision, world))
        if config.regularizer.weight > 0:
            monitor.say(f"penalty: {regularizer.describe()}")
        if branch is not None:
            monitor.say(branch.describe())
        late = [m for m in config.schedule.milestones if m >= config.train.steps]
        if late:
            monitor.say(f"warning: milestones {late} come after the last step; the rate stays")
        for warning in (*source.warnings, *margin_warnings(head)):
            monitor.say(f"warning: {warning}")
        if start is not None:
            trainer.resume(start)
            for hook in (evaluation, accuracy):
                if hook is not None:
                    hook.recall(config.folder / "metrics.jsonl")
            monitor.say(f"continuing from {checkpoints.path(start)}")
        trainer.train()
        if accuracy is not None:
            save_accuracy(config, world, model, accuracy, monitor)
        if world.is_main:
            finish(config, model, evaluation, monitor)
    finally:
        monitor.close()
    barrier(world.control)
    return config.folder


def _evaluations(pairs: PairEvaluation, accuracy: AccuracyEvaluation | None) -> dict[str, Evaluate]:
    chosen: dict[str, Evaluate] = {}
    if accuracy is not None:
        chosen["accuracy"] = accuracy
    if pairs.sets:
        chosen["verification"] = pairs
    return chosen


def check_batch(config: RunConfig, ranks: int) -> None:
    """Refuse a global batch that leaves a micro-batch with fewer than two images."""
    smallest = config.train.global_batch // ranks // config.train.accumulate
    if smallest < 2:
        raise ValueError(
            f"train.global_batch {config.train.global_batch} over {ranks} processes and "
            f"{config.train.accumulate} micro-batches leaves {smallest} images in one: batch "
            "normalisation needs at least 2. Raise --train.global_batch or use fewer processes."
        )


def build(
    config: RunConfig, num_classes: int, world: World
) -> tuple[EmbeddingModel, ClassifierHead]:
    """Return the net and the head with weights that depend on the seed alone, not on the ranks."""
    torch.manual_seed(config.seed)
    wanted = config.model
    model = build_model(
        wanted.name,
        embedding_dim=wanted.embedding_dim,
        dropout=wanted.dropout,
        size=config.data.size,
        width=wanted.width,
        preprocessing=Preprocessing(
            mean=wanted.mean, std=wanted.std, size=config.data.size, flip_sum=config.evaluation.flip
        ),
        init=wanted.init,
        fix_last_gain=wanted.fix_last_gain,
        checkpoint_gradients=wanted.checkpoint_gradients,
    )
    if wanted.weights is not None:
        start_from(model, wanted.weights)
    if config.train.sync_batch_norm:
        if world.device.type != "cuda":
            raise ValueError("train.sync_batch_norm needs CUDA; leave it false on the CPU.")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    head = ClassifierHead(
        config.data.num_classes or num_classes,
        model.embedding_dim,
        config.head.margin_loss,
        bias=config.head.bias,
        mma_weight=head_mma_weight(config.regularizer, config.head.mma_weight),
        mma_rows=config.head.mma_rows,
        mma_refresh_every=config.head.mma_refresh_every,
        sample_rate=config.head.sample_rate,
        dense_gradient=config.head.sample_dense,
        class_chunk=config.head.class_chunk,
        filter_threshold=config.head.filter_threshold,
        seed=config.seed,
    )
    # Dropout masks differ between ranks; everything drawn before here is the same on all.
    torch.manual_seed(config.seed + 1_000_003 * (world.rank + 1))
    return model.to(world.device), head.to(world.device)


def start_from(model: nn.Module, path: Path) -> None:
    """Copy the weights of ``path`` into ``model``; ValueError where the nets differ."""
    try:
        model.load_state_dict(load_model(path).state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"model.weights {path} do not fit the configured net: {error}. Set model.name and its "
            "options to those of the weights."
        ) from error


def describe(
    config: RunConfig,
    source: ImageSource,
    model: nn.Module,
    head: ClassifierHead,
    precision: str,
    world: World,
) -> str:
    """Return what is about to be trained, in two lines."""
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    penalty = f" + {head.mma_weight} × MMA" if head.mma_weight else ""
    return (
        f"{config.name}: {config.model.name} ({parameters:.2f} M parameters, {precision}) on "
        f"{len(source)} images of {source.num_classes} classes, "
        f"{head.margin or 'softmax'}{penalty}\n"
        f"{config.train.steps} steps of {config.train.global_batch} images on {world.size} "
        f"process(es), {world.device.type}; run folder {config.folder}"
    )


def finish(
    config: RunConfig, model: nn.Module, evaluation: PairEvaluation, monitor: Monitor
) -> None:
    """Save the model and what was measured, and show it."""
    save_model(model, config.folder / run_folder.FINISHED)
    if evaluation.sets:
        if config.evaluation.raw_pixels:
            evaluation.score_raw_pixels()
        evaluation.write(config.folder / "verification.json")
        monitor.close_progress()
        monitor.console.print(results_table(evaluation))
        write_report(
            config.folder / "report.html",
            evaluation.report_sections(),
            title=f"Verification of {config.name}",
            environment=run_folder.environment(),
            command=shlex.join(sys.argv),
        )
        monitor.say(f"report: {config.folder / 'report.html'}")
    monitor.say(f"model: {config.folder / run_folder.FINISHED}")


def results_table(evaluation: PairEvaluation) -> Table:
    """Return the results beside what needs no training, a row a set and method."""
    table = Table(title="Verification", title_justify="left")
    table.add_column("pairs")
    table.add_column("embedding")
    for heading in ("accuracy", "± std", "95 % interval", "AUC", "EER"):
        table.add_column(heading, justify="right")
    intervals = evaluation.intervals()
    for name in evaluation.sets:
        if name in evaluation.raw_pixels:
            table.add_row(name, "raw pixels", *_cells(evaluation.raw_pixels[name].to_dict()))
        if name in evaluation.untrained():
            table.add_row(name, "untrained net", *_cells(evaluation.untrained()[name]))
        low, high = intervals[name].accuracy
        cells = _cells(evaluation.last[name].result.to_dict(), f"{low:.3f}–{high:.3f}")
        table.add_row(name, "this model", *cells)
    return table


def _cells(numbers: dict[str, Any], interval: str = "") -> list[str]:
    return [
        f"{numbers['accuracy']:.4f}",
        f"{numbers['accuracy_std']:.4f}",
        interval,
        f"{numbers['auc']:.4f}",
        f"{numbers['eer']:.4f}",
    ]
