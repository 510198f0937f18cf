"""The training loop. Everything counts in optimizer steps and global batches.

One process is the case of a world of one: the same path, DDP included.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.nn.parallel import DistributedDataParallel

from arcface_plus.checkpoint import Checkpoints
from arcface_plus.config import RunConfig
from arcface_plus.data.loader import Batch, TrainLoader
from arcface_plus.distributed import (
    World,
    average_batch_norm_buffers,
    contiguous_part,
    keep_own_buffers,
)
from arcface_plus.losses.head import ClassifierHead, HeadOutput
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.training import snapshot
from arcface_plus.training.guard import BatchNormRestorer, FiniteGuard
from arcface_plus.training.monitor import Monitor
from arcface_plus.training.optim import build_optimizers, scale_gradients, squared_gradient_norm
from arcface_plus.training.precision import autocast_dtype, resolve_precision
from arcface_plus.training.quarantine import Quarantine
from arcface_plus.training.schedule import lr_at
from arcface_plus.training.second_branch import SecondBranch
from arcface_plus.training.uniform_monitor import uniform_figures

# (model in eval mode, finished steps) -> numbers to log; called on all ranks together.
Evaluate = Callable[[EmbeddingModel, int], dict[str, float]]
# (step) -> a penalty () to add to the loss; the same on all ranks.
Penalty = Callable[[int], Tensor]


class Trainer:
    """Trains ``model`` and ``head`` on ``loader``; receives built objects, builds only DDP around
    them.

    ``evaluations``, by the kind of their lines in metrics.jsonl, are called every
    ``config.evaluation.every`` steps with the model in eval mode and running statistics averaged
    over ranks. ``regularizer`` is called once an optimizer step. ``branch`` adds a second pass over
    images it chooses to some steps.
    """

    def __init__(
        self,
        config: RunConfig,
        world: World,
        *,
        model: EmbeddingModel,
        head: ClassifierHead,
        loader: TrainLoader,
        monitor: Monitor,
        checkpoints: Checkpoints,
        evaluations: Mapping[str, Evaluate] | None = None,
        regularizer: Penalty | None = None,
        branch: SecondBranch | None = None,
    ) -> None:
        self.config, self.world = config, world
        self.model, self.head, self.loader = model, head, loader
        self.monitor, self.checkpoints = monitor, checkpoints
        self.evaluations: Mapping[str, Evaluate] = evaluations or {}
        self.regularizer, self.branch = regularizer, branch
        train = config.train
        self.precision = resolve_precision(train.precision, world.device)
        self.optimizers = build_optimizers(model, head, config.optim)
        self.scaler = ShardedGradScaler(
            device=world.device.type, enabled=self.precision == "fp16", init_scale=2.0**14
        )
        self.guard = FiniteGuard(train, world.device, overflow_is_normal=self.precision == "fp16")
        self.restorer = (
            BatchNormRestorer(model)
            if train.on_nonfinite == "skip" or self.precision == "fp16"
            else None
        )
        self.ddp = _wrap(model, world)
        self.parts = [contiguous_part(train.global_batch, r, world.size) for r in range(world.size)]
        self.quarantine = Quarantine(
            config.folder, world.rank, config.data.quarantine_limit, loader.source.describe
        )
        self.predicted = uniform_figures(head) if monitor.enabled else {}
        self.step, self.evaluated_at = 0, -1
        self.window = _Window(world.device)

    # -- the loop ------------------------------------------------------------------------------

    def train(self) -> None:
        """Train from the current step to the last one."""
        total = self.config.train.steps
        self._set_mode()
        if self.step == 0 and self.config.evaluation.at_start:
            self._run_evaluation()
        batches = iter(self.loader) if self.step < total else iter(())
        while self.step < total:
            began = time.perf_counter()
            batch = next(batches)
            self.window.waited += time.perf_counter() - began
            self.quarantine.record(batch)
            self.train_step(batch)
            self.step += 1
            self.monitor.advance(self.step)
            self._after_step(total)
        # Also where there was nothing left to train: a run killed after its last checkpoint.
        if self.evaluated_at != total:
            self._run_evaluation()

    def train_step(self, batch: Batch) -> None:
        """Make one optimizer step from this rank's part of the global batch."""
        assert batch.step == self.step
        learning_rate = self._set_learning_rate()
        device, accumulate = self.world.device, self.config.train.accumulate
        images = batch.images.to(device, non_blocking=True)
        labels = batch.labels.to(device, non_blocking=True)
        if self.restorer is not None:
            self.restorer.remember()
        plan = self.head.plan_step(labels, self.step, sizes=[hi - lo for lo, hi in self.parts])
        branches = self.branch is not None and self.branch.begin(batch)
        outputs = [
            self._forward_backward(images, labels, part, accumulate, plan, branches)
            for part in range(accumulate)
        ]
        loss = torch.stack([o.loss.detach() for o in outputs]).sum()
        if branches:
            loss = loss + self._add_branch()
        penalty = self._add_penalty()
        if penalty is not None:
            loss = loss + penalty
        skip = self._update(loss)
        if self.restorer is not None:
            self.restorer.restore_if(skip)
        if self.branch is not None:
            self.branch.learn(outputs, skip)
        self.window.add(outputs, loss, penalty, skip, learning_rate)

    def _forward_backward(
        self, images: Tensor, labels: Tensor, part: int, parts: int, plan: Any, branches: bool
    ) -> HeadOutput:
        lo, hi = contiguous_part(len(labels), part, parts)
        per_rank = (contiguous_part(stop - start, part, parts) for start, stop in self.parts)
        sizes = [stop - start for start, stop in per_rank]
        last = part == parts - 1
        # DDP averages once a step, with the last micro-batch or with what branches off after it.
        quiet = self.ddp.no_sync() if branches or not last else contextlib.nullcontext()
        with quiet:
            embeddings = self._embed(images[lo:hi])
            if branches and self.branch is not None:
                self.branch.keep(embeddings)
            output = self.head(embeddings, labels[lo:hi], plan=plan, sizes=sizes, with_mma=last)
            self.scaler.scale(output.loss).backward()
        return output

    def _embed(self, images: Tensor) -> Tensor:
        with torch.autocast(
            self.world.device.type,
            dtype=autocast_dtype(self.precision),
            enabled=self.precision != "fp32",
        ):
            return self.ddp(self.model.preprocessing.apply(images))

    def _add_branch(self) -> Tensor:
        """Add the second branch's gradient, averaged by DDP with the step's; return its loss."""
        assert self.branch is not None
        batch = self.branch.images()
        self.quarantine.record(batch)
        loss = self.branch.loss(self._embed(batch.images.to(self.world.device)))
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _add_penalty(self) -> Tensor | None:
        """Add the regularizer's gradient, once a step whatever the micro-batches; return its value.

        After the loss's backward: activations are gone, so it adds nothing to the peak of memory,
        and DDP has averaged, so what is equal on all ranks is added as it is.
        """
        if self.regularizer is None:
            return None
        penalty = self.regularizer(self.step)
        if penalty.requires_grad:  # otherwise every layer it covers is frozen
            self.scaler.scale(penalty).backward()
        return penalty.detach()

    def _update(self, loss: Tensor) -> Tensor:
        """Clip, step unless something is not finite; return 1.0 () where the step was skipped."""
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        squared = squared_gradient_norm(self.model, self.head, None)
        skip = self.guard.observe(self.step, loss, squared)
        limit = self.config.optim.clip_norm
        if limit is not None:
            scale_gradients(self.model, self.head, (limit / (squared.sqrt() + 1e-6)).clamp_max(1.0))
        for optimizer in self.optimizers:
            optimizer.grad_scale, optimizer.found_inf = None, skip  # type: ignore[attr-defined]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()
        return skip

    # -- what happens between steps ------------------------------------------------------------

    def _after_step(self, total: int) -> None:
        train, evaluation = self.config.train, self.config.evaluation
        ended = self.step == total
        if self.step % train.log_every == 0 or ended or self.window.is_first:
            self._log()
        # Before the checkpoint: a run resumed from it has then been scored at this step.
        if (evaluation.every and self.step % evaluation.every == 0) or ended:
            self._run_evaluation()
        if self.step % train.checkpoint_every == 0 or ended:
            self.save()

    def _log(self) -> None:
        message = self.guard.check(self.loader.describe_step)
        if message:
            self.monitor.say(message)
        values = self.window.close(self.config.train.global_batch)
        values |= self.head.mma.summary(self.head.weight, self.step) | self.predicted
        values |= {
            f"margin_{name}": value for name, value in self.head.margin_state.summary().items()
        }
        if self.branch is not None:
            values |= self.branch.summary()
        values["epoch"] = round(self.step / self.loader.steps.steps_per_epoch, 4)
        if self.precision == "fp16":
            values |= {"loss_scale": self.scaler.get_scale(), "overflows": self.guard.skipped()}
        self.monitor.log(self.step, values)

    def _run_evaluation(self) -> None:
        self.evaluated_at = self.step
        if not self.evaluations:
            return
        self._check_finite()
        average_batch_norm_buffers(self.model)
        self.model.eval()
        began = time.perf_counter()
        results = {kind: call(self.model, self.step) for kind, call in self.evaluations.items()}
        self._set_mode()
        self.window.skip_time(time.perf_counter() - began)
        for kind, numbers in results.items():
            self.monitor.write(self.step, numbers, prefix=kind)

    def _check_finite(self) -> None:
        """Never score or save a state that a policy would refuse."""
        message = self.guard.check(self.loader.describe_step)
        if message:
            self.monitor.say(message)

    def save(self) -> None:
        """Write a checkpoint of the current step."""
        self._check_finite()
        average_batch_norm_buffers(self.model)
        began = time.perf_counter()
        self.checkpoints.save(self.step, snapshot.tensors(self), snapshot.state(self))
        self.window.skip_time(time.perf_counter() - began)

    def resume(self, step: int) -> None:
        """Continue from this run's checkpoint of ``step``."""
        self.step = snapshot.restore(self, self.checkpoints.path(step))

    def _set_mode(self) -> None:
        self.model.train()
        if self.config.train.freeze_batch_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _set_learning_rate(self) -> float:
        value = lr_at(
            self.step,
            base_lr=self.config.optim.lr,
            total_steps=self.config.train.steps,
            schedule=self.config.schedule,
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = value
        return value


def _wrap(model: nn.Module, world: World) -> DistributedDataParallel:
    ddp = DistributedDataParallel(
        model,
        device_ids=[world.device.index] if world.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        # Not because parameters are unused: it keeps DDP from rebuilding its buckets after a
        # process's first step, which changes the order of sums and so the bits of a resumed run.
        # A sum of two has but one order, so up to two ranks it is not needed.
        find_unused_parameters=world.size > 2,
    )
    # Ranks keep statistics of their own batches; they are averaged before anything is scored.
    return keep_own_buffers(ddp)


class _Window:
    """Sums since the last log step, on the device; reading them synchronises the host."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.is_first = True
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counted = torch.zeros((), device=self.device, dtype=torch.float64)
        self.steps, self.waited, self.learning_rate = 0, 0.0, 0.0
        self.began = time.perf_counter()

    def skip_time(self, seconds: float) -> None:
        """Leave ``seconds`` spent on evaluation or saving out of the throughput."""
        self.began += seconds

    def add(
        self,
        outputs: list[HeadOutput],
        loss: Tensor,
        penalty: Tensor | None,
        skip: Tensor,
        learning_rate: float,
    ) -> None:
        """Add a step's numbers; those of a skipped one do not count."""
        numbers = {"loss": loss, **_step_numbers(outputs, penalty)}
        for name, value in numbers.items():
            value = torch.where(skip.bool(), torch.zeros_like(value), value).double()
            self.sums[name] = self.sums.get(name, 0) + value
        self.counted = self.counted + (1 - skip.double())
        self.steps += 1
        self.learning_rate = learning_rate

    def close(self, global_batch: int) -> dict[str, Any]:
        *sums, count = torch.stack([*self.sums.values(), self.counted]).tolist()
        seconds = max(1e-9, time.perf_counter() - self.began)
        values: dict[str, Any] = {}
        if count:  # otherwise every step was skipped: there is no mean to tell
            values = {name: each / count for name, each in zip(self.sums, sums, strict=True)}
            values["target_angle"] = math.degrees(values["target_angle"])
        values["lr"] = self.learning_rate
        values["images_per_second"] = self.steps * global_batch / seconds
        values["data_wait"] = min(1.0, self.waited / seconds)
        self.is_first = False
        self._reset()
        return values


def _step_numbers(outputs: list[HeadOutput], penalty: Tensor | None) -> dict[str, Tensor]:
    """Return what a step says beside its loss, by its name in metrics.jsonl; angle in radians."""
    numbers = {"classification": torch.stack([o.classification.detach() for o in outputs]).sum()}
    if (mma := outputs[-1].mma) is not None:
        numbers["mma"] = mma.detach()
    if penalty is not None:
        numbers["regularizer"] = penalty
    norms = [o.norm_penalty.detach() for o in outputs if o.norm_penalty is not None]
    if norms:
        numbers["norm_penalty"] = torch.stack(norms).sum()
    qualities = [o.quality.detach() for o in outputs if o.quality is not None]
    if qualities:
        numbers["quality"] = torch.cat(qualities).mean()
    cosines = torch.cat([o.target_cosine for o in outputs])
    return numbers | {"target_angle": cosines.clamp(-1, 1).acos().mean()}
