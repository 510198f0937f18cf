"""What a checkpoint of a run holds, and how a run is put back into that state.

Tensors go to DCP under plain names; class weights and their momenta as parts of whole (C, …)
tensors, so that any number of ranks can load them. Everything else is JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from arcface_plus.checkpoint import class_shard, local_rows
from arcface_plus.runs.configuration import RunConfig

if TYPE_CHECKING:
    from arcface_plus.training.trainer import Trainer

# A run may be resumed only with the settings of these sections unchanged but for the ones named:
# they decide what step k computes.
_FREE: dict[str, set[str]] = {
    "data": {"path", "workers", "on_bad_image", "quarantine_limit"},
    "model": {"weights", "checkpoint_gradients"},
    "head": {"class_chunk"},
    "regularizer": set(),
    "branch": set(),
    "train": {
        "steps", "device", "log_every", "checkpoint_every", "keep_checkpoints", "on_nonfinite",
        "nonfinite_limit", "channels_last",
    },
    "optim": set(),
    "schedule": set(),
}  # fmt: skip


def tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Return every tensor of the run by name; writing into them writes into the run."""
    head, mesh = trainer.head, trainer.checkpoints.mesh
    named: dict[str, Tensor] = {
        f"model.{name}": value.detach() for name, value in trainer.model.state_dict().items()
    }
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            named[f"momentum.model.{name}"] = _momentum(trainer, parameter)
    for name, parameter in head.sharded_parameters().items():
        momentum = _momentum(trainer, parameter)
        named[f"head.{name}"] = class_shard(parameter.data, head.num_classes, mesh)
        named[f"momentum.head.{name}"] = class_shard(momentum, head.num_classes, mesh)
    for name, parameter in head.replicated_parameters().items():
        named[f"head.{name}"] = parameter.detach()
        named[f"momentum.head.{name}"] = _momentum(trainer, parameter)
    for name, value in head.state_tensors().items():
        named[f"head.running.{name}"] = value
    for name, value in head.mma.state_tensors(head.weight.device).items():
        named[f"head.mma.{name}"] = class_shard(value, head.num_classes, mesh)
    if trainer.branch is not None:
        named["branch.scores"] = trainer.branch.scores.values
    return named | _random_state(trainer)


def state(trainer: Trainer) -> dict[str, Any]:
    """Return everything of the run that is not a tensor."""
    return {
        "step": trainer.step,
        "world_size": trainer.world.size,
        "threads": torch.get_num_threads(),
        "precision": trainer.precision,
        "neighbour_uses": trainer.head.mma.uses(),
        "scaler": trainer.scaler.state_dict() if trainer.precision == "fp16" else None,
        "skipped_steps": trainer.guard.counters.tolist(),
        "config": trainer.config.model_dump(mode="json"),
    }


def restore(trainer: Trainer, path: Path) -> int:
    """Put the run into the state saved at ``path`` and return its step.

    Random states are restored for ranks that were there; others go on from their own seed.
    """
    wanted = tensors(trainer)
    stored = trainer.checkpoints.stored_names(path)
    random = {name: t for name, t in wanted.items() if name.startswith("random.")}
    for name in random.keys() - stored:
        del wanted[name], random[name]
    saved = trainer.checkpoints.load(path, wanted)
    for name, value in random.items():
        kind = name.split(".")[1]
        if kind == "cpu":
            torch.set_rng_state(value)
        elif torch.cuda.is_available():
            torch.cuda.set_rng_state(value)
    if "head.mma.neighbours" in wanted:
        neighbours = local_rows(wanted["head.mma.neighbours"])
        trainer.head.mma.restore({"neighbours": neighbours}, saved["neighbour_uses"])
    if saved["scaler"]:
        trainer.scaler.load_state_dict(saved["scaler"])
    trainer.guard.counters.copy_(torch.tensor(saved["skipped_steps"]))
    return int(saved["step"])


def _momentum(trainer: Trainer, parameter: Tensor) -> Tensor:
    for optimizer in trainer.optimizers:
        if parameter in optimizer.state:
            return optimizer.state[parameter]["momentum_buffer"]
    raise AssertionError("every parameter has a momentum from the start")


def _random_state(trainer: Trainer) -> dict[str, Tensor]:
    """Return this rank's generators (dropout masks come from them), named by rank."""
    me = trainer.world.rank
    named = {f"random.cpu.{me}": torch.get_rng_state()}
    if trainer.world.device.type == "cuda":
        named[f"random.cuda.{me}"] = torch.cuda.get_rng_state()
    return named


def check_resumable(path: Path, config: RunConfig) -> None:
    """Raise ValueError where ``path`` was saved with settings that make another step k."""
    saved = json.loads((path / "state.json").read_text(encoding="utf-8"))["config"]
    now = config.model_dump(mode="json")
    free = {section: set(keys) for section, keys in _FREE.items()}
    if config.schedule.kind != "milestones":
        free["train"].discard("steps")  # the rate of every step depends on how many there are
    changed = [f"seed: {saved['seed']} → {now['seed']}"] if saved["seed"] != now["seed"] else []
    for section, keys in free.items():
        # A setting that came after the checkpoint had its default there.
        defaults = type(getattr(config, section)).model_construct().model_dump(mode="json")
        before = defaults | saved.get(section, {})
        for key, value in before.items():
            if key not in keys and now[section].get(key) != value:
                changed.append(f"{section}.{key}: {value!r} → {now[section].get(key)!r}")
    if changed:
        raise ValueError(
            f"{path} was saved by a run with other settings: {'; '.join(changed)}. Resume with "
            "those, or start a run of another --name (model.weights starts it from these weights)."
        )
