"""Two steps with a teacher and an old net in each process of test_guidance.py."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from launch import join_as_under_torchrun
from torch import Tensor

from arcface_plus.data.sources.image_source import open_source
from arcface_plus.distributed import start_world
from arcface_plus.export import embeddings
from arcface_plus.runs.build import build_loader, build_state, build_trainer
from arcface_plus.runs.configuration import load_config
from arcface_plus.runs.guides.guides import Guides
from arcface_plus.runs.train import train
from arcface_plus.training.log.monitor import Monitor
from arcface_plus.training.regularization import RunRegularizer
from arcface_plus.training.trainer import Trainer


def train_one(rank: int, config: str, words: list[str], resume: str) -> None:
    """Train a run as under torchrun."""
    embeddings.BLOCK = 16  # several, of two ranks
    (environment,) = join_as_under_torchrun(rank, 1)
    os.environ |= environment
    train(config, words, resume=resume)


def guided_steps(rank: int, config_path: str, words: list[str]) -> tuple[list[dict], np.ndarray]:
    """Return losses and gradients of each step, and the stored embeddings."""
    embeddings.BLOCK = 16
    (environment,) = join_as_under_torchrun(rank, 1)
    os.environ |= environment
    config = load_config(config_path, words)
    source = open_source(config.data, seed=config.seed)
    seen: list[dict] = []
    with start_world("cpu") as world:
        guides = Guides(config, source)
        state = build_state(config, source, world, guides)
        config.folder.mkdir(parents=True, exist_ok=True)
        monitor = Monitor(config.folder, total_steps=2, enabled=False)
        guides.begin(state.guidance, world, monitor)
        regularizer = RunRegularizer(config.regularizer, state.model, state.head, seed=config.seed)
        loader = build_loader(config, source, world, start=0)
        trainer = build_trainer(config, state, loader, monitor, Unsaved(), {}, regularizer)
        update = trainer._update

        def noting(loss: Tensor, outputs: list, learning_rate: float) -> Tensor:
            names = outputs[0].measured
            projection = state.guidance.learned()[0].weight
            seen.append(
                {
                    "loss": loss.item(),
                    "measured": {n: sum(o.measured[n].item() for o in outputs) for n in names},
                    "net": gradients(trainer),
                    "projection": projection.grad.clone(),
                }
            )
            return update(loss, outputs, learning_rate)

        trainer._update = noting
        trainer._set_mode()
        for batch in loader:
            trainer.train_step(batch)
            state.step += 1
        return seen, np.load(config.folder / "teacher.npy")


def gradients(trainer: Trainer) -> Tensor:
    found = (p.grad for p in trainer.model.parameters())
    return torch.cat([each.flatten() for each in found if each is not None])


class Unsaved:
    """Checkpoints that nobody wants."""

    folder = Path("nowhere")

    def before_update(self) -> None:
        pass
