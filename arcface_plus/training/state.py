"""A run's state: the one object that checkpoints hold and that a resumed run restores.

Each part gives and takes its own state under its own names. A later part (a weight average, say)
is one more entry of ``RunState.parts`` and changes no format: a checkpoint from before it leaves it
as it begins, if it is ``optional``.

Tensors are stored under plain names; class weights and their momenta as parts of whole (C, …)
tensors, so that any number of ranks can load them. Everything else is JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

from arcface_plus.checkpoints.parts import ClassRows, Part, Stored, local_tensor
from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.distributed import World
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.models.batch_statistics import average_batch_norm_buffers
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.randomness import STREAMS
from arcface_plus.training.guidance.guidance import Guidance
from arcface_plus.training.health.guard import FiniteGuard
from arcface_plus.training.health.spikes import LossSpikes
from arcface_plus.training.log.window import LogWindow
from arcface_plus.training.optim import build_optimizers, optimizer_state
from arcface_plus.training.precision import resolve_precision
from arcface_plus.training.second_branch import SecondBranch
from arcface_plus.training.settings import OptimConfig, TrainConfig
from arcface_plus.training.updates.average import WeightAverage

Optimizers = list[torch.optim.Optimizer]


class RunState:
    """Everything of a run that changes from step to step.

    ``step``: optimizer steps made. ``settings``: the resolved configuration, JSON-able, which
    checkpoints record.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        head: ClassifierHead,
        world: World,
        *,
        optim: OptimConfig,
        train: TrainConfig,
        branch: SecondBranch | None = None,
        guidance: Guidance | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.head, self.world, self.branch = model, head, world, branch
        self.guidance = guidance or Guidance()
        # What every rank holds whole and trains.
        self.whole = nn.ModuleList([model, *self.guidance.learned()])
        self.settings = dict(settings or {})
        self.precision = resolve_precision(train.precision, world.device)
        beside = [p for each in self.guidance.learned() for p in each.parameters()]
        self.optimizers = build_optimizers(model, head, optim, beside)
        half = self.precision == "fp16"
        self.scaler = ShardedGradScaler(device=world.device.type, enabled=half, init_scale=2.0**14)
        self.guard = FiniteGuard(train, world.device)
        self.spikes = LossSpikes(world.device)
        self.best = BestModel(train.best, train.patience)
        self.window = LogWindow(world.device)
        self.step = 0
        self.parts: list[Part] = [
            _Net(model, self.optimizers),
            _Head(head, self.optimizers),
            _Scaler(self.scaler),
            self.guard,
            self.spikes,
            self.best,
            _Generators(world),
            self.window,
        ]
        if branch is not None:
            self.parts.append(branch)
        if (teacher := self.guidance.teacher) is not None:
            teacher.optimizers = self.optimizers
            self.parts.append(teacher)
        self.average: WeightAverage | None = None
        if train.ema is not None:
            self.average = WeightAverage(model, self.optimizers[0], train.ema)
            self.parts.append(self.average)

    @property
    def scored(self) -> EmbeddingModel:
        """The net that is scored and saved: the average of the weights, where one is kept."""
        return self.model if self.average is None else self.average.model

    def average_statistics(self) -> None:
        """Give all ranks the same batch statistics; called by them together."""
        average_batch_norm_buffers(self.model)
        if self.average is not None:
            average_batch_norm_buffers(self.average.model)

    def save(self, checkpoints: Checkpoints) -> None:
        """Begin to write a checkpoint of the current step; called by all ranks together.

        ``checkpoints.before_update()`` must come before the next step of an optimizer.
        """
        numbers: dict[str, Any] = {
            "step": self.step,
            "world_size": self.world.size,
            "threads": torch.get_num_threads(),
            "precision": self.precision,
            "random_streams": STREAMS,
            "config": self.settings,
        }
        tensors: dict[str, Stored] = {}
        for part in self.parts:
            tensors |= part.tensors()
            numbers |= part.numbers()
        updated = self._changed_by_updates(tensors)
        checkpoints.save(self.step, tensors, numbers, protected=self.best.step, updated=updated)

    def _changed_by_updates(self, tensors: Mapping[str, Stored]) -> set[str]:
        """Return the names of those of ``tensors`` that nothing but an optimizer's step changes."""
        owned: list[Tensor] = [*self.whole.parameters(), *self.head.parameters()]
        owned += [kept for o in self.optimizers for s in o.state.values() for kept in s.values()]
        places = {tensor.data_ptr() for tensor in owned}
        return {n for n, stored in tensors.items() if local_tensor(stored).data_ptr() in places}

    def restore(self, checkpoints: Checkpoints, path: Path) -> None:
        """Put the run into the state saved at ``path``, by any number of ranks."""
        stored = checkpoints.stored_names(path)
        given = [(part, part.tensors()) for part in self.parts]
        present = [(p, named) for p, named in given if not p.optional or named.keys() <= stored]
        wanted = {name: tensor for _, named in present for name, tensor in named.items()}
        numbers = checkpoints.load(path, wanted)
        for part, named in present:
            part.restore({name: wanted[name] for name in named}, numbers)
        self.step = int(numbers["step"])


class _Net(Part):
    """Weights, buffers and momenta of the net, under ``model.`` and ``momentum.model.``.

    What other optimizers keep has their names in place of ``momentum``.
    """

    def __init__(self, model: EmbeddingModel, optimizers: Optimizers) -> None:
        self.model, self.optimizers = model, optimizers

    def tensors(self) -> dict[str, Stored]:
        momenta = {
            f"{kind}.model.{name}": value
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
            for kind, value in optimizer_state(self.optimizers, parameter).items()
        }
        state = self.model.state_dict()
        return {**{f"model.{name}": value.detach() for name, value in state.items()}, **momenta}


class _Head(Part):
    """Class weights, what the margin keeps and learns, neighbours in use, and momenta."""

    def __init__(self, head: ClassifierHead, optimizers: Optimizers) -> None:
        self.head, self.optimizers = head, optimizers

    def tensors(self) -> dict[str, Stored]:
        head = self.head
        named: dict[str, Stored] = {}
        for name, parameter in head.sharded_parameters().items():
            named[f"head.{name}"] = self._rows(parameter.data)
            for kind, value in optimizer_state(self.optimizers, parameter).items():
                named[f"{kind}.head.{name}"] = self._rows(value) if value.ndim else value
        for name, value in head.sharded_state().items():
            named[f"head.{name}"] = ClassRows(value, head.num_classes)
        for name, parameter in head.replicated_parameters().items():
            named[f"head.{name}"] = parameter.detach()
            for kind, value in optimizer_state(self.optimizers, parameter).items():
                named[f"{kind}.head.{name}"] = value
        named |= {f"head.running.{name}": value for name, value in head.state_tensors().items()}
        kept = head.mma.state_tensors(head.weight.device)
        return named | {f"head.mma.{n}": ClassRows(v, head.num_classes) for n, v in kept.items()}

    def _rows(self, local: Tensor) -> ClassRows:
        return ClassRows(self.head.centres.by_class(local), self.head.num_classes)

    def numbers(self) -> dict[str, Any]:
        return {"neighbour_uses": self.head.mma.uses()}

    def restore(self, tensors: Mapping[str, Stored], numbers: Mapping[str, Any]) -> None:
        neighbours = tensors.get("head.mma.neighbours")
        if isinstance(neighbours, ClassRows):
            self.head.mma.restore({"neighbours": neighbours.local}, numbers["neighbour_uses"])


class BestModel(Part):
    """The best evaluation so far by the number ``name``; nothing is compared where it is None.

    ``step``: of the best evaluation, None before the first. ``waited``: evaluations since then.
    Of equally good ones the first counts. Equal error rates are better when smaller.
    """

    def __init__(self, name: str | None, patience: int | None = None) -> None:
        self.name, self.patience = name, patience
        self.step: int | None = None
        self.score, self.waited = 0.0, 0

    def observe(self, step: int, results: Mapping[str, Mapping[str, float]]) -> bool:
        """Take the results of an evaluation, by kind; return whether it is the best so far."""
        if self.name is None:
            return False
        found = [numbers[self.name] for numbers in results.values() if self.name in numbers]
        if not found:
            raise ValueError(f"train.best is {self.name!r}, which the evaluation did not measure.")
        score = -found[0] if self.name.endswith("/eer") else found[0]
        if self.step is not None and self.step != step and score <= self.score:
            self.waited += 1
            return False
        self.step, self.score, self.waited = step, score, 0
        return True

    @property
    def gave_up(self) -> bool:
        """Whether ``patience`` evaluations in a row were no better."""
        return self.patience is not None and self.waited >= self.patience

    def numbers(self) -> dict[str, Any]:
        return {"best": {"step": self.step, "score": self.score, "waited": self.waited}}

    def restore(self, tensors: Mapping[str, Stored], numbers: Mapping[str, Any]) -> None:
        if kept := numbers.get("best"):  # absent from older checkpoints
            self.step, self.score, self.waited = kept["step"], kept["score"], kept["waited"]


class _Scaler(Part):
    """The scale of fp16's gradients."""

    def __init__(self, scaler: ShardedGradScaler) -> None:
        self.scaler = scaler

    def numbers(self) -> dict[str, Any]:
        return {"scaler": self.scaler.state_dict() if self.scaler.is_enabled() else None}

    def restore(self, tensors: Mapping[str, Stored], numbers: Mapping[str, Any]) -> None:
        if numbers["scaler"]:
            self.scaler.load_state_dict(numbers["scaler"])


class _Generators(Part):
    """This rank's generators, which dropout masks come from, under names with the rank.

    A rank that did not exist when the checkpoint was written keeps the seed it began with.
    """

    optional = True

    def __init__(self, world: World) -> None:
        self.rank, self.on_cuda = world.rank, world.device.type == "cuda"

    def tensors(self) -> dict[str, Stored]:
        named: dict[str, Stored] = {f"random.cpu.{self.rank}": torch.get_rng_state()}
        if self.on_cuda:
            named[f"random.cuda.{self.rank}"] = torch.cuda.get_rng_state()
        return named

    def restore(self, tensors: Mapping[str, Stored], numbers: Mapping[str, Any]) -> None:
        for name, state in tensors.items():
            assert isinstance(state, Tensor)
            setter = torch.cuda.set_rng_state if ".cuda." in name else torch.set_rng_state
            setter(state)
