"""Settings of the loop: optimizer, learning rate, steps, second branch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from arcface_plus.settings import NotNegative, Positive, PositiveNumber, Section, Share


class LayerRate(Section):
    """How fast some layers of the net learn."""

    pattern: str = Field(description="of names of layers or parameters, such as layer1.*")
    lr: float = Field(ge=0, description="multiplies optim.lr; 0 freezes, batch statistics too")


class OptimConfig(Section):
    """What moves the weights."""

    kind: Literal["sgd", "adamw", "lamb"] = Field(
        "sgd", description="lamb: for large batches (the extra timm)"
    )
    lr: float = Field(0.1, gt=0, description='of a global batch, or "0.1 per 512 images"')
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    betas: tuple[Share, Share] = Field(
        (0.9, 0.999), description="adamw, lamb: shares of the averages kept each step"
    )
    eps: float = Field(1e-8, gt=0, description="adamw, lamb: keeps the division off zero")
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty on what decay names")
    decay: Literal["mxnet", "all", "weights"] = Field(
        "mxnet", description="which parameters decay: weights and gains; all; weights only"
    )
    clip_norm: float | None = Field(None, gt=0, description="largest gradient norm, all parameters")
    nesterov: bool = Field(False, description="Nesterov's momentum")
    layers: tuple[LayerRate, ...] = Field(
        (), description="layers of the net that learn at another rate; the last that matches counts"
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> OptimConfig:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum; set optim.momentum above 0")
        if self.nesterov and self.kind != "sgd":
            raise ValueError(f"nesterov is for kind: sgd, not {self.kind}; set it to false")
        return self


class ScheduleConfig(Section):
    """The learning rate as a function of the optimizer step."""

    kind: Literal["milestones", "polynomial", "cosine"] = Field(
        "milestones", description="how the rate falls: by gamma at milestones, or along a curve"
    )
    milestones: tuple[int, ...] = Field((), description="steps")
    gamma: float = Field(0.1, gt=0, le=1, description="multiplies the rate at each milestone")
    warmup_steps: int = Field(0, ge=0, description="over which the rate rises from 0")
    power: float = Field(2.0, gt=0, description="polynomial: of the share of steps left")
    final_lr: float = Field(0.0, ge=0, description="polynomial, cosine: the last rate")

    @model_validator(mode="after")
    def _increasing(self) -> ScheduleConfig:
        increasing = list(self.milestones) == sorted(set(self.milestones))
        if not increasing or min(self.milestones, default=1) < 1:
            raise ValueError(f"milestones must be positive and increasing, got {self.milestones}")
        if self.kind != "milestones" and self.milestones:
            raise ValueError(f"milestones do nothing with kind: {self.kind}; remove them")
        return self


class EmbeddedConfig(Section):
    """Embeddings of the training images by another net, or the net that makes them."""

    model: Path | None = Field(None, description="run folder, weights file or ONNX file")
    preprocessing: dict[str, Any] | str | None = Field(
        None, description="of a file that does not state it: insightface, or all its fields"
    )
    embeddings: Path | None = Field(
        None,
        description="the .npy, .npz or .parquet that keeps its embeddings of the training images, "
        "as embed writes it; made if absent, several runs may share it (None: in the run folder)",
    )

    @model_validator(mode="after")
    def _something(self) -> EmbeddedConfig:
        if self.model is None and self.embeddings is None:
            raise ValueError("give a model, or the embeddings that one made")
        return self


class TeacherConfig(EmbeddedConfig):
    """Distillation: the net learns a teacher's embeddings too (docs/distillation.md)."""

    cosine: NotNegative = Field(1.0, description="weight of 1 − cos to the teacher's embedding")
    relational: NotNegative = Field(
        0.0, description="weight of the distances among embeddings against the teacher's (RKD)"
    )

    @model_validator(mode="after")
    def _teaches(self) -> TeacherConfig:
        if not self.cosine and not self.relational:
            raise ValueError("cosine and relational are both 0: the teacher would teach nothing")
        return self


class CompatibleConfig(EmbeddedConfig):
    """The new net's embeddings compare with the old one's (docs/distillation.md)."""

    weight: PositiveNumber = Field(
        1.0, description="of the margin loss against the class means of the old embeddings"
    )


def _embedded(value: Any) -> Any:
    """Return the section that a bare path stands for."""
    if not isinstance(value, str | Path):
        return value
    is_file = Path(value).suffix in (".npy", ".npz", ".parquet")
    return {"embeddings" if is_file else "model": value}


class TrainConfig(Section):
    """The loop. Everything counts in optimizer steps and global batches."""

    steps: Positive = Field(38_000, description='optimizer steps, or "20 epochs"')
    global_batch: int = Field(440, ge=2, description="images an optimizer step, over all ranks")
    accumulate: Positive = Field(1, description="micro-batches an optimizer step")
    precision: Literal["auto", "bf16", "fp16", "tf32", "fp32"] = Field(
        "auto", description="of the convolutions; auto is bf16 where the device has it, else fp32"
    )
    channels_last: bool = Field(True, description="layout of images in memory; the faster one")
    freeze_batch_norm: bool = Field(False, description="use and keep the running statistics")
    sync_batch_norm: bool = Field(False, description="statistics of the global batch (CUDA only)")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = Field(
        False, description="torch.compile the net: minutes at the start, then faster steps on a GPU"
    )
    gradient_compression: Literal["none", "bf16"] = Field(
        "none", description="bf16: the net's gradients cross the network in half the bytes, rounded"
    )
    deterministic: bool = Field(
        False, description="on a GPU, operations that repeat to the bit; slower"
    )
    wandb: str | None = Field(
        None, description="project of Weights & Biases that is told the log too (the extra wandb)"
    )
    log_every: Positive = Field(50, description="steps")
    checkpoint_every: Positive = Field(1000, description="steps")
    timeout: float = Field(
        1800, gt=0, description="seconds that a rank may be behind the others before the run ends"
    )
    keep_checkpoints: Positive = Field(2, description="the newest that stay")
    keep_every: int | None = Field(
        None, ge=1, description="checkpoints of multiples of that many steps stay for good"
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="keep a running average of the weights, this share of it each step; it is the "
        "run's model, and the weights are scored beside it",
    )
    teacher: Annotated[TeacherConfig | None, BeforeValidator(_embedded)] = Field(
        None, description="a net to learn from besides: its path, or a section"
    )
    compatible_with: Annotated[CompatibleConfig | None, BeforeValidator(_embedded)] = Field(
        None, description="an old net whose gallery is to stay in use: its path, or a section"
    )
    best: str | None = Field(
        None,
        description="the run's model is that of the evaluation where this number is best, such as "
        "lfw/accuracy; otherwise the last one",
    )
    patience: int | None = Field(
        None, ge=1, description="stop after that many evaluations in a row without a better best"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="what a step does whose loss or gradient is not finite"
    )
    nonfinite_limit: int = Field(20, ge=0, description="skip: more skipped steps stop the run")

    @model_validator(mode="after")
    def _kept_ones_are_made(self) -> TrainConfig:
        if self.keep_every is not None and self.keep_every % self.checkpoint_every:
            raise ValueError(
                f"keep_every is {self.keep_every}, but must be a multiple of checkpoint_every "
                f"({self.checkpoint_every}): no checkpoint would be kept for good otherwise"
            )
        return self

    @model_validator(mode="after")
    def _patience_needs_best(self) -> TrainConfig:
        if self.patience is not None and self.best is None:
            raise ValueError("patience waits for a better train.best; name a number, or remove it")
        return self


class BranchConfig(Section):
    """A second pass over chosen images, for closeness and diversity (docs/closeness_diversity.md).

    Images are chosen by a score, the running mean of their cosine to their own class.
    """

    enabled: bool = Field(False, description="make the second pass of closeness and diversity")
    closeness_weight: float = Field(0.5, ge=0, description="λ1, of easy images of a class")
    diversity_weight: float = Field(
        2.0, ge=0, description="λ2, of hard images and similar other classes"
    )
    scale: float = Field(64.0, gt=0, description="s of the diversity loss")
    start_step: int = Field(0, ge=0, description="plain steps before the first pass")
    interval: Positive = Field(5, description="steps from one pass to the next")
    classes: Positive = Field(64, description="K: classes of the batch in a pass")
    easy: int = Field(7, ge=2, description="NE: easy images of a class")
    hard: Positive = Field(1, description="NH: hard images of a class")
    hard_classes: Positive = Field(500, description="NP: most similar other classes of a class")
    score_momentum: float = Field(0.9, ge=0, lt=1, description="share of an image's score kept")
    quantile: float = Field(0.2, gt=0, lt=1, description="share of all scores that are hard")
    quantile_sample: Positive = Field(
        100_000, description="scores that the quantile is estimated from, at most"
    )
    mining: Literal["threshold", "soft"] = Field(
        "threshold", description="soft: images drawn evenly, weighted by their scores"
    )
    softness: float = Field(0.05, gt=0, description="soft: width of the weights' step, in cosine")

    @model_validator(mode="after")
    def _does_something(self) -> BranchConfig:
        if self.enabled and not (self.closeness_weight or self.diversity_weight):
            raise ValueError(
                "closeness_weight and diversity_weight are both 0: the branch would cost time for "
                "nothing; set one of them, or enabled to false"
            )
        if self.hard_classes < self.classes:
            # Of NP ≥ K similar classes at most K − 1 are chosen themselves, so that one is left.
            raise ValueError(
                f"hard_classes ({self.hard_classes}) must be at least classes ({self.classes}): "
                "the classes of a pass are no hard classes of it, and others must be left"
            )
        return self
