"""Build what a run trains from its configuration: the net, the head, and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.data.batches.loader import TrainLoader
from arcface_plus.data.batches.order import OrderedSteps
from arcface_plus.data.sources.image_source import ImageSource
from arcface_plus.distributed import World
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.models import Preprocessing, build_model
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.start import start_from
from arcface_plus.runs.configuration import RunConfig
from arcface_plus.runs.folder import START
from arcface_plus.runs.guides.guides import Guides
from arcface_plus.training.health.forensics import Forensics
from arcface_plus.training.health.quarantine import Quarantine
from arcface_plus.training.health.uniform_monitor import NearClasses, margin_warnings
from arcface_plus.training.log.monitor import Monitor
from arcface_plus.training.regularization import RunRegularizer, head_mma_weight
from arcface_plus.training.second_branch import SecondBranch
from arcface_plus.training.state import RunState
from arcface_plus.training.trainer import Evaluate, Trainer


def build_state(
    config: RunConfig,
    source: ImageSource,
    world: World,
    guides: Guides | None = None,
    *,
    resumes: bool = False,
) -> RunState:
    """Return the state that the run begins in; ValueError where its parts do not fit.

    ``guides``: other nets that it learns from. A run that ``resumes`` takes the net that it began
    with from its own folder.
    """
    check_batch(config, world.size)
    model, head = build(config, source.num_classes, world, resumes=resumes)
    branch = None
    if config.branch.enabled:
        branch = SecondBranch(
            config.branch,
            world,
            source=source,
            head=head,
            data=config.data,
            train=config.train,
            seed=config.seed,
        )
    return RunState(
        model,
        head,
        world,
        optim=config.optim,
        train=config.train,
        branch=branch,
        guidance=None if guides is None else guides.guidance(head, world),
        settings=config.model_dump(mode="json"),
    )


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
    config: RunConfig, num_classes: int, world: World, *, resumes: bool = False
) -> tuple[EmbeddingModel, ClassifierHead]:
    """Return the net and the head with weights that depend on the seed alone, not on the ranks."""
    torch.manual_seed(config.seed)
    model = _build_net(config, resumes=resumes)
    if config.train.sync_batch_norm:
        if world.device.type != "cuda":
            raise ValueError("train.sync_batch_norm needs CUDA; leave it false on the CPU.")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
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
        centres=config.head.centres,
        seed=config.seed,
    )
    # Dropout masks differ between ranks; everything drawn before here is the same on all.
    torch.manual_seed(config.seed + 1_000_003 * (world.rank + 1))
    return model.to(world.device), head.to(world.device)


def _build_net(config: RunConfig, *, resumes: bool) -> EmbeddingModel:
    """Return the net with drawn weights, or as a file or the run's own beginning has it."""
    wanted, size = config.model, config.data.size
    options = wanted.model_dump(
        exclude={"init", "checkpoint_gradients", "mean", "std", "channels"}, exclude_none=True
    )
    if wanted.checkpoint_gradients:
        options["checkpoint_gradients"] = True
    inputs = wanted.model_dump(include={"mean", "std", "channels"}, exclude_none=True)
    inputs["flip_sum"] = config.evaluation.flip
    if wanted.start is None:
        preprocessing = Preprocessing(size=size, **inputs)
        return build_model(size=size, init=wanted.init, preprocessing=preprocessing, **options)
    own = config.folder / START
    path = own if resumes and own.is_file() else wanted.start
    return start_from(path, options, inputs, size=size)


def build_loader(
    config: RunConfig, source: ImageSource, world: World, *, start: int
) -> TrainLoader:
    """Return this rank's batches from step ``start`` on; ValueError for too few images."""
    steps = OrderedSteps(
        len(source),
        config.train.global_batch,
        seed=config.seed,
        start=start,
        stop=config.train.steps,
        rank=world.rank,
        size=world.size,
        window=config.data.window if config.data.order == "windowed" else None,
    )
    return TrainLoader(source, config.data, steps, pin_memory=world.device.type == "cuda")


def build_trainer(
    config: RunConfig,
    state: RunState,
    loader: TrainLoader,
    monitor: Monitor,
    checkpoints: Checkpoints,
    evaluations: Mapping[str, Evaluate],
    regularizer: RunRegularizer,
) -> Trainer:
    """Return the trainer of a run, given the sections that it needs."""
    quarantine = Quarantine(
        config.folder, state.world.rank, config.data.quarantine_limit, loader.source.describe
    )
    return Trainer(
        state,
        train=config.train,
        optim=config.optim,
        schedule=config.schedule,
        loader=loader,
        monitor=monitor,
        checkpoints=checkpoints,
        quarantine=quarantine,
        forensics=Forensics(config.folder, loader, state.world, config.train.accumulate),
        evaluations=evaluations,
        evaluate_every=config.evaluation.every,
        evaluate_at_start=config.evaluation.at_start,
        regularizer=regularizer if regularizer else None,
        near_classes=NearClasses(
            state.head,
            loader.source,
            steps=loader.steps.steps_per_epoch,
            folder=config.folder,
            world=state.world,
        ),
    )


def announce(
    config: RunConfig,
    source: ImageSource,
    state: RunState,
    regularizer: RunRegularizer,
    monitor: Monitor,
) -> None:
    """Say what is about to be trained, and what looks wrong about it."""
    head, world = state.head, state.world
    parameters = sum(p.numel() for p in state.model.parameters()) / 1e6
    penalty = f" + {head.mma_weight} × MMA" if head.mma_weight else ""
    if state.model.origin:
        monitor.say(state.model.origin)
    monitor.say(
        f"{config.name}: {state.model.name} ({parameters:.2f} M parameters, {state.precision}) "
        f"on {len(source)} images of {source.num_classes} classes, "
        f"{head.margin or 'softmax'}{penalty}\n"
        f"{config.train.steps} steps of {config.train.global_batch} images on {world.size} "
        f"process(es), {world.device.type}; run folder {config.folder}"
    )
    if config.train.ema is not None:
        monitor.say(f"model: the running average of the weights, {config.train.ema} kept each step")
    if config.regularizer.weight > 0:
        monitor.say(f"penalty: {regularizer.describe()}")
    if state.branch is not None:
        monitor.say(state.branch.describe())
    late = [m for m in config.schedule.milestones if m >= config.train.steps]
    if late:
        monitor.say(f"warning: milestones {late} come after the last step; the rate stays")
    for warning in (*source.warnings, *margin_warnings(head)):
        monitor.say(f"warning: {warning}")
