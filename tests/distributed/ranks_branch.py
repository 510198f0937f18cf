"""Steps with a second branch in each process of test_branch.py, and the dense reference."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from double_precision import in_double
from torch import Tensor
from torch.nn import functional as F

from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.data.batches.augmentation import augment, augmentation_draws, chosen_draws
from arcface_plus.data.batches.loader import Batch, TrainLoader
from arcface_plus.data.batches.order import OrderedSteps
from arcface_plus.data.sources.synthetic import SyntheticFaces
from arcface_plus.distributed import World, rank, world_size
from arcface_plus.losses.margins.family import Margin, margin_logits
from arcface_plus.runs.build import build
from arcface_plus.runs.configuration import RunConfig
from arcface_plus.training.health.forensics import Forensics
from arcface_plus.training.health.quarantine import Quarantine
from arcface_plus.training.log.monitor import Monitor
from arcface_plus.training.second_branch import SecondBranch
from arcface_plus.training.state import RunState
from arcface_plus.training.trainer import Trainer

SEED = 5


class SomeUnreadable(SyntheticFaces):
    """Synthetic images of which every seventh, from the third on, cannot be read."""

    unreadable = True

    def read(self, index: int) -> tuple[np.ndarray, int]:
        if self.unreadable and index % 7 == 3:
            raise ValueError(f"image {index} is damaged")
        return super().read(index)


class NotingBranch(SecondBranch):
    """Notes which images of a pass this rank really read."""

    read: list[int] | None = None

    def begin(self, batch: Batch) -> bool:
        self.read = None
        return super().begin(batch)

    def images(self) -> Batch:
        batch = super().images()
        self.read = batch.indices.tolist()
        return batch


class Recorder(Trainer):
    """Notes the gradients that every step is made of, after DDP's averaging, before clipping."""

    def _update(self, loss: Tensor, outputs, learning_rate: float) -> Tensor:
        chosen = self.branch.pass_ if self.branch is not None else None
        self.seen.append({
            "loss": loss.item(),
            "parts": self.branch._now.tolist(),
            "indices": None if chosen is None else chosen.indices.tolist(),
            "classes": None if chosen is None else chosen.classes.tolist(),
            "rows": None if chosen is None else chosen.rows.tolist(),
            "read": self.branch.read,
            "easiness": None if chosen is None else chosen.easiness,
            "backbone": torch.cat([p.grad.flatten() for p in self.model.parameters()
                                   if p.grad is not None]).clone(),
            "weight": self.head.weight.grad.clone(),
        })  # fmt: skip
        return super()._update(loss, outputs, learning_rate)


def make_config(case: dict, folder: Path) -> RunConfig:
    values = {
        "name": "branch",
        "output": str(folder),
        "seed": SEED,
        "data": {
            "source": "synthetic", "num_classes": 23, "images_per_class": 6, "size": 32,
            "workers": 0, "augment": {"affine": 0.5, "rotate": 10, "brightness": 0.1},
        },
        "model": {"name": "iresnet18", "embedding_dim": 16, "width": 8, "dropout": 0.0},
        "head": {"margin": {"s": 16}},
        "optim": {"lr": 0.02},
        "train": {
            "steps": 3, "global_batch": 13, "precision": "fp32", "device": "cpu",
            "freeze_batch_norm": True, "channels_last": False,
        },
        "branch": {
            "enabled": True, "interval": 2, "classes": 4, "easy": 3, "hard": 2, "hard_classes": 6,
        },
    }  # fmt: skip
    for section, change in case.items():
        values[section] |= change
    return RunConfig.model_validate(values)


def make_trainer(config: RunConfig) -> Recorder:
    world = World(rank(), world_size(), torch.device("cpu"))
    data = config.data
    source = SomeUnreadable(data.num_classes, data.images_per_class, size=data.size, seed=SEED)
    source.unreadable = data.on_bad_image == "quarantine"
    model, head = in_double(build)(config, source.num_classes, world)
    steps = OrderedSteps(
        len(source),
        config.train.global_batch,
        seed=SEED,
        start=0,
        stop=config.train.steps,
        rank=world.rank,
        size=world.size,
    )
    train = config.train
    branch = NotingBranch(
        config.branch, world, source=source, head=head, data=data, train=train, seed=SEED
    )
    loader = TrainLoader(source, data, steps)
    quarantine = Quarantine(config.folder, world.rank, data.quarantine_limit, source.describe)
    trainer = Recorder(
        RunState(model, head, world, optim=config.optim, train=train, branch=branch),
        train=train,
        optim=config.optim,
        schedule=config.schedule,
        loader=loader,
        monitor=Monitor(config.folder, total_steps=train.steps, enabled=False),
        checkpoints=Checkpoints(config.folder / "checkpoints", world),
        quarantine=quarantine,
        forensics=Forensics(config.folder, loader, world, train.accumulate),
    )
    trainer.seen = []
    trainer.branch.scores.values.copy_(first_scores(len(source)))
    return trainer


def first_scores(images: int) -> Tensor:
    return torch.rand(images, generator=torch.Generator().manual_seed(1)) * 0.6 - 0.1


def branch_steps(rank_: int, cases: list[dict], folder: Path) -> list[dict]:
    """Train each case and return what its steps were made of."""
    results = []
    for number, case in enumerate(cases):
        config = make_config(case, folder / str(number))
        config.folder.mkdir(parents=True, exist_ok=True)
        trainer = make_trainer(config)
        trainer._set_mode()
        for batch in trainer.loader:
            trainer.quarantine.record(batch)
            trainer.train_step(batch)
            trainer.seen[-1] |= {"batch": trainer.branch.indices.tolist()}
            trainer.state.step += 1
        results.append({
            "steps": trainer.seen,
            "scores": trainer.branch.scores.values.clone(),
            "quarantined": sorted(trainer.quarantine.known),
        })  # fmt: skip
    return results


def with_reference(rank_: int, cases: list[dict], folder: Path) -> tuple[list, list]:
    """Train each case, in one process, and compute its first step anew."""
    results = branch_steps(rank_, cases, folder)
    dense = [
        dense_first_step(case, folder / f"dense{number}", result["steps"][0])
        for number, (case, result) in enumerate(zip(cases, results, strict=True))
    ]
    return results, dense


def dense_first_step(case: dict, folder: Path, seen: dict) -> dict:
    """The first step in float64 and one process, from the images ``seen`` says were read.

    Nothing of the head, the losses or the search for similar classes is used.
    """
    config = make_config(case, folder)
    config.folder.mkdir(parents=True, exist_ok=True)
    trainer = make_trainer(config)
    trainer._set_mode()
    source, wanted = trainer.loader.source, config.branch
    net = copy.deepcopy(trainer.model).double()
    weight = trainer.head.weight.detach().double().requires_grad_()
    batch = np.array(seen["batch"])
    draws = list(augmentation_draws(config.data.augment, config.data.size, SEED, 0, batch))
    x = embed(net, config, source, batch, draws)
    labels = torch.from_numpy(source.labels[batch])
    unit = F.normalize(weight, dim=1)
    logits = margin_logits(F.normalize(x, dim=1) @ unit.t(), labels, Margin(s=16.0))
    loss = F.cross_entropy(logits, labels)
    cosines = unit @ unit.t() - 3 * torch.eye(len(unit), dtype=torch.float64)
    loss = loss - config.head.mma_weight * torch.acos(cosines.max(dim=1).values).mean()

    indices = np.array(seen["read"]).reshape(len(seen["classes"]), -1)
    flat = indices.reshape(-1)
    draws = list(chosen_draws(config.data.augment, config.data.size, SEED, 0, flat, 0))
    z = F.normalize(embed(net, config, source, flat, draws), dim=1).view(*indices.shape, -1)
    soft = seen["easiness"]
    easy = torch.ones(indices.shape) if soft is None else torch.from_numpy(soft)
    hard = torch.ones(indices.shape) if soft is None else 1 - torch.from_numpy(soft)
    if soft is None:
        easy[:, wanted.easy :], hard[:, : wanted.easy] = 0, 0
    easy, hard = easy.double(), hard.double()
    total = norm = 0
    for k in range(len(indices)):
        for i in range(indices.shape[1]):
            for j in range(i):
                total = total + easy[k, i] * easy[k, j] * (z[k, i] - z[k, j]).square().sum()
                norm = norm + easy[k, i] * easy[k, j]
    closeness = total / norm
    centres = hard_centres(seen, x.detach(), unit.detach(), wanted.hard_classes)
    cosine = z @ unit.detach()[centres].t()
    each = (wanted.scale * cosine.clamp_min(0) ** 2).exp().mean(dim=2).log()
    diversity = (hard * each).sum() / hard.sum()
    loss = loss + wanted.closeness_weight * closeness + wanted.diversity_weight * diversity
    loss.backward()
    return {
        "loss": loss.item(),
        # A part of no weight is not computed.
        "parts": [
            closeness.item() if wanted.closeness_weight else 0,
            diversity.item() if wanted.diversity_weight else 0,
            len(centres) if wanted.diversity_weight else 0,
        ],
        "backbone": torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]),
        "weight": weight.grad,
    }


def hard_centres(seen: dict, x: Tensor, unit: Tensor, count: int) -> list[int]:
    """The union of the classes most like each chosen class's sample, without the chosen."""
    found: set[int] = set()
    for label, row in zip(seen["classes"], seen["rows"], strict=True):
        order = (unit @ F.normalize(x[row], dim=0)).argsort(descending=True).tolist()
        found |= set([c for c in order if c != label][:count])
    return sorted(found - set(seen["classes"]))


def embed(net, config: RunConfig, source, indices: np.ndarray, draws: list) -> Tensor:
    images = [
        augment(SyntheticFaces.read(source, int(i))[0], config.data.augment, drawn)
        for i, drawn in zip(indices, draws, strict=True)
    ]
    inputs = net.preprocessing.apply(torch.from_numpy(np.stack(images)))
    return net(inputs.double())
