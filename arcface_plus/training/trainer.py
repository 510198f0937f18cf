"""The training loop. Everything counts in optimizer steps and global batches.

One process is the case of a world of one: the same path, DDP included.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.data.batches.loader import Batch, TrainLoader
from arcface_plus.devices import SideCopies, to_device
from arcface_plus.distributed import contiguous_part
from arcface_plus.losses.head.classifier import HeadOutput
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.training.data_parallel import data_parallel, settle
from arcface_plus.training.health.forensics import Forensics
from arcface_plus.training.health.guard import BatchNormRestorer, current_scale, update_scale
from arcface_plus.training.health.quarantine import Quarantine
from arcface_plus.training.health.uniform_monitor import AngleWatch, NearClasses
from arcface_plus.training.health.watch import StepWatch
from arcface_plus.training.log.monitor import Monitor
from arcface_plus.training.optim import scale_gradients, set_training, squared_gradient_norm
from arcface_plus.training.precision import autocast_dtype
from arcface_plus.training.schedule import set_learning_rate
from arcface_plus.training.settings import OptimConfig, ScheduleConfig, TrainConfig
from arcface_plus.training.state import RunState
from arcface_plus.training.updates.average import scores

# (model in eval mode, finished steps) -> numbers to log; called on all ranks together.
Evaluate = Callable[[EmbeddingModel, int], dict[str, float]]
# (step) -> a penalty () to add to the loss; the same on all ranks.
Penalty = Callable[[int], Tensor]


class Trainer:
    """Trains a run's ``state`` on ``loader``; receives built objects, builds only DDP around them.

    ``evaluations``, by the kind of their lines in metrics.jsonl, are called every
    ``evaluate_every`` steps (0: only at the end; ``evaluate_at_start``: also before the first) with
    the model in eval mode and running statistics averaged over ranks. ``regularizer`` is called
    once an optimizer step, ``near_classes`` at log steps. The state's branch adds a second pass
    over images it chooses to some steps.
    """

    def __init__(
        self,
        state: RunState,
        *,
        train: TrainConfig,
        optim: OptimConfig,
        schedule: ScheduleConfig,
        loader: TrainLoader,
        monitor: Monitor,
        checkpoints: Checkpoints,
        quarantine: Quarantine,
        forensics: Forensics,
        evaluations: Mapping[str, Evaluate] | None = None,
        evaluate_every: int = 0,
        evaluate_at_start: bool = False,
        regularizer: Penalty | None = None,
        near_classes: NearClasses | None = None,
    ) -> None:
        self.state, self.world = state, state.world
        self.model, self.head, self.branch = state.model, state.head, state.branch
        self.config, self.optim, self.schedule = train, optim, schedule
        self.loader, self.monitor, self.checkpoints = loader, monitor, checkpoints
        self.quarantine, self.regularizer = quarantine, regularizer
        self.evaluations: Mapping[str, Evaluate] = evaluations or {}
        self.evaluate_every, self.evaluate_at_start = evaluate_every, evaluate_at_start
        restores = train.on_nonfinite == "skip" or state.precision == "fp16"
        self.restorer = BatchNormRestorer(self.model) if restores else None
        self.ddp = data_parallel(self.model, self.world, train)
        ranks = self.world.size
        self.parts = [contiguous_part(train.global_batch, r, ranks) for r in range(ranks)]
        self.angles = AngleWatch(self.head, near_classes, monitor)
        self.watch = StepWatch(state.guard, state.spikes, forensics, monitor)
        self.to_device = SideCopies(self.world.device)
        self.evaluated_at = self.saved_at = -1
        self.window, self.whole = state.window, state.whole
        self.enter = self.window.entering(state.world.watch.enter)
        self.after_step: Callable[[], object] = lambda: None

    # -- the loop ------------------------------------------------------------------------------

    def train(self) -> bool:
        """Train to the last step; return False where all ranks were asked to stop, and saved."""
        total, state, best = self.config.steps, self.state, self.state.best
        self._set_mode()
        if state.step == 0 and self.evaluate_at_start and self._run_evaluation():
            self.save()
        batches = iter(self.loader) if state.step < total else iter(())
        settle(self.ddp, self._embed, self.world, self.config)
        while state.step < total and not best.gave_up:
            if self.world.watch.stops_at(state.step):
                self.save()
                self.checkpoints.wait()
                return False
            self.enter("data", state.step)
            batch = next(batches)
            self.enter("plan", state.step)
            self.quarantine.record(batch)
            self.train_step(batch)
            state.step += 1
            self.monitor.advance(state.step)
            self._after_step(total)
            self.after_step()
        if best.gave_up:
            self.monitor.say(f"stopped: {best.waited} evaluations in a row were no better")
        if best.step not in (None, state.step):
            self.resume(best.step)
            self.monitor.say(f"the run's model is that of step {best.step}: best {best.name}")
        # Also where there was nothing left to train: a run killed after its last checkpoint.
        if self.evaluated_at != state.step:
            self._run_evaluation()
        self.checkpoints.wait()
        return True

    def train_step(self, batch: Batch) -> None:
        """Make one optimizer step from this rank's part of the global batch."""
        assert batch.step == self.state.step
        learning_rate = set_learning_rate(
            self.state.optimizers,
            batch.step,
            base_lr=self.optim.lr,
            total_steps=self.config.steps,
            schedule=self.schedule,
        )
        images, labels = self.to_device(batch.images, batch.labels)
        if self.restorer is not None:
            self.restorer.remember()
        plan = self.head.plan_step(labels, batch.step, sizes=[hi - lo for lo, hi in self.parts])
        self.state.guidance.begin(batch, labels, plan.sizes)
        branches = self.branch is not None and self.branch.begin(batch)
        outputs = [
            self._forward_backward(images, labels, part, plan, branches)
            for part in range(self.config.accumulate)
        ]
        loss = torch.stack([o.loss.detach() for o in outputs]).sum()
        if branches:
            loss = loss + self._add_branch()
        penalty = self._add_penalty()
        if penalty is not None:
            loss = loss + penalty
        skip = self._update(loss, outputs, learning_rate)
        if self.restorer is not None:
            self.restorer.restore_if(skip)
        if self.branch is not None:
            self.branch.learn(outputs, skip)
        self.window.add(outputs, loss, penalty, skip, learning_rate)

    def _forward_backward(
        self, images: Tensor, labels: Tensor, part: int, plan: Any, branches: bool
    ) -> HeadOutput:
        parts = self.config.accumulate
        lo, hi = contiguous_part(len(labels), part, parts)
        per_rank = (contiguous_part(stop - start, part, parts) for start, stop in self.parts)
        sizes = [stop - start for start, stop in per_rank]
        last = part == parts - 1
        # DDP averages once a step, with the last micro-batch or with what branches off after it.
        quiet = self.ddp.no_sync() if branches or not last else contextlib.nullcontext()
        with quiet:
            self.enter("class logits", self.state.step)
            embeddings = self._embed(images[lo:hi])
            if branches and self.branch is not None:
                self.branch.keep(embeddings)
            output = self.head(embeddings, labels[lo:hi], plan=plan, sizes=sizes, with_mma=last)
            output = self.state.guidance.add(output, embeddings, slice(lo, hi), sizes)
            self.enter("gradient all-reduce", self.state.step)
            self.state.scaler.scale(output.loss).backward()
        return output

    def _embed(self, images: Tensor) -> Tensor:
        with torch.autocast(
            self.world.device.type,
            dtype=autocast_dtype(self.state.precision),
            enabled=self.state.precision in ("bf16", "fp16"),
        ):
            return self.ddp(self.model.preprocessing.apply(images))

    def _add_branch(self) -> Tensor:
        """Add the second branch's gradient, averaged by DDP with the step's; return its loss."""
        self.enter("second branch", self.state.step)
        assert self.branch is not None
        batch = self.branch.images()
        self.quarantine.record(batch)
        loss = self.branch.loss(self._embed(to_device(batch.images, self.world.device)))
        self.enter("gradient all-reduce", self.state.step)
        self.state.scaler.scale(loss).backward()
        return loss.detach()

    def _add_penalty(self) -> Tensor | None:
        """Add the regularizer's gradient, once a step whatever the micro-batches; return its value.

        After the loss's backward: activations are gone, so it adds nothing to the peak of memory,
        and DDP has averaged, so what is equal on all ranks is added as it is.
        """
        if self.regularizer is None:
            return None
        self.enter("penalty", self.state.step)
        penalty = self.regularizer(self.state.step)
        if penalty.requires_grad:  # otherwise every layer it covers is frozen
            self.state.scaler.scale(penalty).backward()
        return penalty.detach()

    def _update(self, loss: Tensor, outputs: list[HeadOutput], learning_rate: float) -> Tensor:
        """Clip, step unless something is not finite; return 1.0 () where the step was skipped."""
        self.enter("update", self.state.step)
        for optimizer in self.state.optimizers:
            self.state.scaler.unscale_(optimizer)
        squared = squared_gradient_norm(self.whole, self.head, None)
        scale = current_scale(self.state.scaler, squared)
        skip = self.watch.observe(self.state.step, outputs, loss, squared, scale, learning_rate)
        limit = self.optim.clip_norm
        if limit is not None:
            scale_gradients(self.whole, self.head, (limit / (squared.sqrt() + 1e-6)).clamp_max(1.0))
        self.checkpoints.before_update()
        for optimizer in self.state.optimizers:
            optimizer.grad_scale, optimizer.found_inf = None, skip  # type: ignore[attr-defined]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        update_scale(self.state.scaler, squared)
        return skip

    # -- what happens between steps ------------------------------------------------------------

    def _after_step(self, total: int) -> None:
        train, step = self.config, self.state.step
        ended = step == total
        if step % train.log_every == 0 or ended or self.window.is_first:
            self._log()
        # Before the checkpoint: a run resumed from it has then been scored at this step.
        scored = ended or (self.evaluate_every and step % self.evaluate_every == 0)
        better = scored and self._run_evaluation()
        if step % train.checkpoint_every == 0 or ended or better or self.state.best.gave_up:
            self.save()

    def _log(self) -> None:
        self.enter("log", self.state.step)
        self.watch.look(self.state.step)
        values = self.window.close(self.config.global_batch)
        rows = self.head.class_weights()
        degrees, nearest = self.head.mma.nearest(rows, self.state.step)
        values |= self.head.mma.summary(rows, degrees=degrees)
        values |= self.angles.predicted
        margin = self.head.margin_state.summary()
        values |= {f"margin_{name}": value for name, value in margin.items()}
        if self.branch is not None:
            values |= self.branch.summary()
        values["epoch"] = round(self.state.step / self.loader.steps.steps_per_epoch, 4)
        if self.state.precision == "fp16":
            values |= {
                "loss_scale": self.state.scaler.get_scale(),
                "overflows": self.state.guard.skipped(),
            }
        self.monitor.log(self.state.step, values)
        self.angles.look(self.state.step, values, degrees, nearest)

    def _run_evaluation(self) -> bool:
        """Call the evaluations, log their numbers; return whether this is the best model so far."""
        step = self.evaluated_at = self.state.step
        if not self.evaluations:
            return False
        self.enter("evaluation", step)
        self.watch.look(self.state.step)
        began = time.perf_counter()
        results = scores(self.model, self.state.average, self.evaluations, step)
        self._set_mode()
        self.window.skip_time(time.perf_counter() - began)
        for kind, numbers in results.items():
            self.monitor.write(step, numbers, prefix=kind)
        return self.state.best.observe(step, results)

    def save(self) -> None:
        """Begin to write a checkpoint of the current step, unless there is one."""
        if self.saved_at == self.state.step:
            return
        self.enter("checkpoint", self.state.step)
        self.watch.look(self.state.step)
        self.state.average_statistics()
        began = time.perf_counter()
        self.monitor.sync()
        self.state.save(self.checkpoints)
        self.saved_at = self.state.step
        self.window.skip_time(time.perf_counter() - began)

    def resume(self, step: int) -> None:
        """Continue from this run's checkpoint of ``step``."""
        self.state.restore(self.checkpoints, self.checkpoints.path(step))
        self.saved_at = step

    def _set_mode(self) -> None:
        set_training(self.model, self.optim.layers, all_statistics=self.config.freeze_batch_norm)
