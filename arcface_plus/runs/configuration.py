"""The configuration of a whole run: the settings of its parts, and what concerns two at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from arcface_plus.data.settings import DataConfig
from arcface_plus.evaluation.settings import EvaluationConfig
from arcface_plus.losses.settings import HeadConfig
from arcface_plus.models.settings import ModelConfig
from arcface_plus.regularizers.settings import RegularizerConfig
from arcface_plus.runs.durations import FORMS, resolve
from arcface_plus.settings import Section, load_section
from arcface_plus.training.settings import BranchConfig, OptimConfig, ScheduleConfig, TrainConfig


class RunConfig(Section):
    """A whole run."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run's folder in output"
    )
    output: Path = Field(Path("runs"), description="where run folders lie")
    seed: int = Field(0, ge=0, lt=2**31, description="of order, augmentation, first weights")
    data: DataConfig
    model: ModelConfig = ModelConfig()
    head: HeadConfig = HeadConfig()
    regularizer: RegularizerConfig = RegularizerConfig()
    branch: BranchConfig = BranchConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def folder(self) -> Path:
        return self.output / self.name

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.schedule.warmup_steps >= self.train.steps:
            raise ValueError(
                f"schedule.warmup_steps ({self.schedule.warmup_steps}) must be fewer than "
                f"train.steps ({self.train.steps}); set --schedule.warmup_steps 0, or train longer"
            )
        self._check_best()
        self._check_compatible()
        if self.branch.enabled and self.branch.start_step >= self.train.steps:
            raise ValueError(
                f"branch.start_step ({self.branch.start_step}) must be below train.steps "
                f"({self.train.steps}): the branch would never start"
            )
        if self.regularizer.on_output and self.head.mma_weight > 0:
            raise ValueError(
                f"regularizer.layers {self.regularizer.layers} and head.mma_weight "
                f"({self.head.mma_weight}) both penalise the class weights; set head.mma_weight "
                "to 0, or regularizer.layers to hidden"
            )
        if self.head.init == "class_means" and self.model.start is None:
            raise ValueError(
                "head.init class_means puts classes where the net embeds them, but the net's "
                "weights are drawn at random; set model.init to a file, or head.init to random"
            )
        if self.train.ema is not None and self.evaluation.accuracy:
            raise ValueError(
                "train.ema averages the net, but evaluation.accuracy scores it with class weights "
                "that are not averaged; set train.ema to null, or evaluation.accuracy to false"
            )
        if self.optim.kind == "lamb" and self.head.bias:
            raise ValueError(
                "optim.kind lamb takes a layer's whole norm, but head.bias is split among ranks; "
                "set head.bias to false, or choose another kind"
            )
        if self.branch.enabled and self.head.centres > 1:
            raise ValueError(
                f"branch.enabled compares classes by one row each, but head.centres is "
                f"{self.head.centres}; set head.centres to 1, or branch.enabled to false"
            )
        if self.optim.nesterov and self.head.sample_rate < 1 and not self.head.sample_dense:
            raise ValueError(
                "optim.nesterov does not go with head.sample_rate below 1, whose rows are updated "
                "one by one; set optim.nesterov to false, or head.sample_dense to true"
            )
        return self

    def _check_best(self) -> None:
        best = self.train.best
        if best is None:
            return
        if best not in self.evaluation.comparable:
            measured = ", ".join(self.evaluation.comparable) or "nothing: give it evaluation.sets"
            raise ValueError(f"train.best is {best!r}, but this run measures {measured}")
        if not self.evaluation.every:
            raise ValueError(
                "train.best compares the evaluations of a run, but evaluation.every is 0, which is "
                "one at the end; set --evaluation.every"
            )

    def _check_compatible(self) -> None:
        if self.train.compatible_with is None:
            return
        margin = self.head.margin_loss
        if margin is None or margin.initial_state(2, 1.0) or margin.initial_learned(2, 1.0):
            raise ValueError(
                "train.compatible_with applies the head's margin to fixed class means too, so that "
                "it must be a margin of cosines that neither learns nor keeps averages, not "
                f"{'head.logits: linear' if margin is None else type(margin).__name__}"
            )

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML that loads to the same configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file (and its ``base``), apply ``--a.b value`` overrides, and validate.

    Durations in epochs become steps, for which the training data are opened; see ``durations``.
    See :func:`arcface_plus.settings.load_section` for overrides and errors.
    """

    def resolve_named(values: dict[str, Any]) -> None:
        try:
            resolve(values)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}: {error}") from error

    return load_section(RunConfig, path, overrides, resolve=resolve_named, forms=FORMS)
