"""Train a configuration: open everything, check everything, then train, verify and save."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.data.batches.loader import explained_workers
from arcface_plus.data.sources.image_source import open_source
from arcface_plus.distributed import World, barrier, start_world
from arcface_plus.models.autocast import fp32_products
from arcface_plus.runs.beginning import Beginning
from arcface_plus.runs.build import announce, build_loader, build_state, build_trainer
from arcface_plus.runs.configuration import RunConfig, load_config
from arcface_plus.runs.evaluation import RunEvaluation
from arcface_plus.runs.folder import choose_together, prepare
from arcface_plus.runs.guides.guides import Guides
from arcface_plus.runs.lock import RunLock
from arcface_plus.runs.preemption import Stopped, StopRequest, stops_on_signals, unmark
from arcface_plus.training.determinism import deterministic
from arcface_plus.training.log.monitor import Monitor
from arcface_plus.training.log.profiling import check_profile, profiled
from arcface_plus.training.log.trackers import WandB, import_wandb
from arcface_plus.training.regularization import RunRegularizer
from arcface_plus.training.trainer import Trainer


def train(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: str = "never",
    overwrite: bool = False,
    profile: int | None = None,
) -> Path:
    """Train what ``config_path`` with ``overrides`` says and return the run folder.

    ``overrides``: ``["--optim.lr", "0.05"]``. ``resume``: never, auto (the newest checkpoint, if
    any) or a checkpoint folder. ``profile``: steps to trace. Under torchrun, called by every
    process. All is opened and checked before the run folder is touched. Raises ValueError or
    FileNotFoundError for bad input, NonFiniteError, PeerFailed, Stopped (a SystemExit, saved).
    """
    config = load_config(config_path, overrides)
    source = open_source(config.data, seed=config.seed)
    evaluation = RunEvaluation(config)
    guides = Guides(config, source)
    with _workplace(config) as (world, lock, checkpoints):
        chosen = choose_together(config, checkpoints, resume=resume, overwrite=overwrite)
        start = chosen.step
        state = build_state(config, source, world, guides, resumes=start is not None)
        check_profile(profile, config.train.steps - (start or 0))
        regularizer = RunRegularizer(config.regularizer, state.model, state.head, seed=config.seed)
        evaluation.attach(state.head)
        beginning = Beginning(config, source, state) if start is None else None
        loader = build_loader(config, source, world, start=start or 0)
        lock.take()
        prepare(config, world, start=start, overwrite=overwrite)
        opened = closing(_open_monitor(config, world, start or 0))
        signals, workers = stops_on_signals(world.watch), explained_workers(config.data)
        with opened as monitor, signals as asked, workers:
            trainer = build_trainer(
                config, state, loader, monitor, checkpoints, evaluation.hooks(), regularizer
            )
            for words in filter(None, (lock.warning, *chosen.skipped)):
                monitor.say(words)
            announce(config, source, state, regularizer, monitor)
            guides.begin(state.guidance, world, monitor)
            _begin(trainer, beginning, start, evaluation, monitor)
            with profiled(config.folder, profile, world, monitor.say) as trainer.after_step:
                finished = _finish(trainer, evaluation, asked, config)
        barrier(world.control)
    if not finished:
        raise Stopped(asked.exit_code)
    return config.folder


@contextmanager
def _workplace(config: RunConfig) -> Iterator[tuple[World, RunLock, Checkpoints]]:
    """Join the other processes and lock the run folder; afterwards, wait for the last save."""
    folder, wanted = config.folder, config.train
    if wanted.wandb:
        import_wandb()
    with (
        start_world(wanted.device, wanted.timeout) as world,
        deterministic(wanted.deterministic, world.device),
        fp32_products(tf32=wanted.precision == "tf32"),
        closing(RunLock(folder, world)) as lock,
        Checkpoints(
            folder / "checkpoints",
            world,
            keep=wanted.keep_checkpoints,
            keep_every=wanted.keep_every,
        ) as checkpoints,
    ):
        lock.take_if_used()
        yield world, lock, checkpoints


def _begin(
    trainer: Trainer,
    beginning: Beginning | None,
    start: int | None,
    evaluation: RunEvaluation,
    monitor: Monitor,
) -> None:
    if beginning is not None:
        beginning.apply(monitor)
    if start is not None:
        trainer.resume(start)
        evaluation.recall()
        monitor.say(f"continuing from {trainer.checkpoints.path(start)}")


def _finish(
    trainer: Trainer, evaluation: RunEvaluation, asked: StopRequest, config: RunConfig
) -> bool:
    """Train to the end and save what came out; return False where the run was asked to stop."""
    finished = trainer.train()
    if finished:
        evaluation.save(trainer.state, trainer.monitor)
        trainer.monitor.sync()
    else:
        asked.mark(config.folder, trainer.state.step, trainer.monitor)
    return finished


def _open_monitor(config: RunConfig, world: World, start: int) -> Monitor:
    if world.is_main:
        unmark(config.folder)
    project, trackers = config.train.wandb, []
    if project and world.is_main:
        trackers.append(WandB(config.folder, project, config.model_dump(mode="json")))
    return Monitor(
        config.folder,
        total_steps=config.train.steps,
        start_step=start,
        enabled=world.is_main,
        trackers=trackers,
    )
