"""Typed run configuration: a YAML file, dotted command-line overrides, validation.

Every section is frozen; derived values are properties and are never written back. An unknown key is
an error that names the nearest known key, the file and the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from arcface_plus.config_file import (
    Places,
    describe_error,
    override,
    parse_overrides,
    read_values,
    unknown_keys,
)


class Section(BaseModel):
    """Base of all sections: unknown keys are refused and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python counts True as 1: `steps: yes` would train one step.
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError("this setting is not a yes or no")
        return value


def _first_to_last(people: tuple[int, int]) -> tuple[int, int]:
    if people[0] > people[1]:
        raise ValueError("write the first person, then the last, for example [1, 30]")
    return people


Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
RegularizerKind = Literal[
    "mma", "cosine", "riesz", "log", "mhe", "orthogonal", "regularface", "smooth_mma"
]
People = Annotated[tuple[int, int], AfterValidator(_first_to_last)]


class AugmentConfig(Section):
    """How a training image may change. Every draw depends on (seed, epoch, sample) alone."""

    pad_crop: int = Field(
        0, ge=0, description="add that many black pixels on each side, then crop at random"
    )
    flip: Probability = Field(0.5, description="probability of a horizontal flip")
    auto_augment: Literal["none", "cifar10", "imagenet"] = Field(
        "none", description="AutoAugment's policy learned on that data; CIFAR-100 takes cifar10"
    )
    affine: Probability = Field(0.0, description="probability of the affine change below")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation, degrees either way")
    scale: float = Field(0.0, ge=0, lt=1, description="largest relative change of size")
    shift: float = Field(0.0, ge=0, lt=1, description="largest shift, as a fraction of the side")
    shear: float = Field(0.0, ge=0, lt=1, description="largest horizontal shear")
    brightness: float = Field(0.0, ge=0, lt=1, description="largest change, fraction of 255")
    contrast: float = Field(0.0, ge=0, lt=1, description="largest relative change about the mean")
    gamma: float = Field(0.0, ge=0, lt=1, description="exponent drawn from 1/(1+g) to 1+g")
    blur: Probability = Field(0.0, description="probability of a Gaussian blur, sigma 0.5 to 1.5")
    noise: float = Field(0.0, ge=0, description="largest standard deviation of noise, levels")
    low_resolution: Probability = Field(0.0, description="probability of shrinking and enlarging")
    erase: Probability = Field(0.0, description="probability of a grey rectangle")
    erase_area: tuple[float, float] = Field(
        (0.02, 0.2), description="smallest and largest share of the image it covers"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> AugmentConfig:
        if not 0 < self.erase_area[0] <= self.erase_area[1] <= 1:
            raise ValueError(
                f"erase_area must be 0 < smallest ≤ largest ≤ 1, got {self.erase_area}"
            )
        if not self.affine and (self.rotate or self.scale or self.shift or self.shear):
            raise ValueError(
                "rotate, scale, shift and shear do nothing while their probability, affine, is 0; "
                "set affine, or remove them"
            )
        return self


class DataConfig(Section):
    """Where training images come from."""

    source: Literal[
        "records", "folder", "orl", "synthetic", "cifar10", "cifar100", "tiny_imagenet", "digits"
    ]
    path: Path | None = Field(None, description="train.rec, or a folder (digits, orl: none)")
    holdout: float = Field(
        0.0, ge=0, lt=1, description="folder: share of each class kept for testing"
    )
    people: People | None = Field(None, description="orl: first and last person")
    num_classes: int | None = Field(None, ge=2, description="checked against the data where given")
    images_per_class: Positive = Field(8, description="synthetic: images of a class")
    size: int = Field(112, ge=16, le=1024, description="side of the square input, pixels")
    workers: int = Field(4, ge=0, description="decoding processes a rank")
    on_bad_image: Literal["stop", "quarantine"] = "stop"
    quarantine_limit: int = Field(
        1000, ge=0, description="more bad images on one rank than this stop the run"
    )
    augment: AugmentConfig = AugmentConfig()

    @model_validator(mode="after")
    def _needs(self) -> DataConfig:
        if self.source not in ("orl", "synthetic", "digits") and self.path is None:
            raise ValueError(f"source: {self.source} needs a path")
        if self.source == "digits" and self.path is not None:
            raise ValueError("source: digits comes with scikit-learn; remove path")
        if self.holdout and self.source != "folder":
            raise ValueError(f"holdout is for source: folder, not {self.source}; remove it")
        if self.augment.pad_crop >= self.size:
            raise ValueError(
                f"augment.pad_crop is {self.augment.pad_crop}, but must be below size "
                f"({self.size}): a crop could miss the image"
            )
        if self.source == "synthetic" and self.num_classes is None:
            raise ValueError("source: synthetic needs num_classes")
        if self.source == "orl" and self.people is None:
            raise ValueError("source: orl needs people, for example [1, 30]")
        return self


class ModelConfig(Section):
    """The embedding net."""

    name: str = "iresnet50"
    embedding_dim: Positive | None = Field(
        None, description="numbers of an embedding; None is the net's own (512 for face nets)"
    )
    dropout: float | None = Field(None, ge=0, lt=1, description="before the last layer")
    width: int | None = Field(None, ge=1, description="channels of the first stage")
    init: str | None = Field(None, description="initial weights; None is the net's own")
    fix_last_gain: bool = Field(True, description="gain of the last BatchNorm1d stays 1")
    checkpoint_gradients: bool = Field(False, description="recompute activations, save memory")
    mean: float = Field(127.5, description="subtracted from pixel levels 0…255")
    std: float = Field(128.0, gt=0, description="divides them after that")
    weights: Path | None = Field(None, description="start from these weights (.safetensors, .pt)")


class MarginConfig(Section):
    """s·(m0·cos(m1·θ + m2) − m3) for the target class."""

    m0: float = Field(1.0, gt=0)
    m1: float = Field(1.0, gt=0)
    m2: float = Field(0.5, ge=0)
    m3: float = Field(0.0, ge=0)
    s: float = Field(64.0, gt=0)
    extension: Literal["raw", "hard", "easy", "clamp", "piecewise"] = "hard"
    gradient: Literal["true", "straight_through"] = "true"
    wc_relu: bool = False


class MVSoftmaxConfig(Section):
    """MV-Softmax: negatives above the penalised target weigh more."""

    kind: Literal["mv_softmax"]
    base: Literal["am", "arc"] = Field("am", description="cosθ − m, or cos(θ + m)")
    m: float = Field(0.35, ge=0)
    t: float = Field(0.2, ge=0, description="how much hard negatives are raised")
    s: float = Field(32.0, gt=0)
    weighting: Literal["adaptive", "fixed"] = "adaptive"
    extension: Literal["raw", "hard", "easy", "clamp", "piecewise"] = "easy"


class CurricularFaceConfig(Section):
    """CurricularFace: hard negatives weigh more as own cosines grow."""

    kind: Literal["curricularface"]
    m: float = Field(0.5, ge=0)
    s: float = Field(64.0, gt=0)
    momentum: float = Field(0.99, ge=0, lt=1, description="share of t kept each step")
    extension: Literal["raw", "hard", "easy", "clamp", "piecewise"] = "hard"


class MagFaceConfig(Section):
    """MagFace: margin from l_m to u_m as the embedding's norm goes from l_a to u_a."""

    kind: Literal["magface"]
    l_a: float = Field(10.0, gt=0)
    u_a: float = Field(110.0, gt=0)
    l_m: float = Field(0.45, ge=0)
    u_m: float = Field(0.8, ge=0)
    s: float = Field(64.0, gt=0)
    penalty: float = Field(35.0, ge=0, description="λ_g of the mean of 1/a + a/u_a²")
    extension: Literal["raw", "hard", "easy", "clamp", "piecewise"] = "easy"


class AdaFaceConfig(Section):
    """AdaFace: margin by the norm of the embedding among those of recent batches."""

    kind: Literal["adaface"]
    m: float = Field(0.4, ge=0)
    h: float = Field(0.333, gt=0, description="share of a deviation that counts as 1")
    s: float = Field(64.0, gt=0)
    momentum: float = Field(0.99, ge=0, lt=1, description="share of mean and deviation kept")
    eps: float = Field(1e-3, gt=0)
    start_mean: float = Field(20.0, gt=0)
    start_deviation: float = Field(100.0, gt=0)


class ElasticFaceConfig(Section):
    """ElasticFace: a margin N(m, std²) drawn for every sample."""

    kind: Literal["elasticface"]
    base: Literal["arc", "cos"] = Field("arc", description="cos(θ + m), or cosθ − m")
    m: float = Field(0.5, ge=0)
    std: float = Field(0.05, ge=0)
    s: float = Field(64.0, gt=0)
    order: Literal["drawn", "rank", "argsort"] = Field(
        "drawn",
        description="rank: ElasticFace+, the lowest cosine has the largest margin; argsort: its "
        "published code",
    )
    extension: Literal["raw", "hard", "easy", "clamp", "piecewise"] = "raw"


class UniFaceConfig(Section):
    """UniFace: one learned threshold between own and other scores, instead of a softmax."""

    kind: Literal["uniface"]
    m: float = Field(0.4, ge=0)
    s: float = Field(64.0, gt=0)
    negatives: float = Field(1.0, gt=0, description="weight of the sum over other classes")
    rate: float | None = Field(
        None, gt=0, le=1, description="r of the first threshold ln(10·r·C); None is sample_rate"
    )


def _kind(value: Any) -> str | None:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


# By a function, because pydantic takes no plain field that a validator of all fields sees first.
AdaptiveConfig = Annotated[
    Annotated[MVSoftmaxConfig, Tag("mv_softmax")]
    | Annotated[CurricularFaceConfig, Tag("curricularface")]
    | Annotated[MagFaceConfig, Tag("magface")]
    | Annotated[AdaFaceConfig, Tag("adaface")]
    | Annotated[ElasticFaceConfig, Tag("elasticface")]
    | Annotated[UniFaceConfig, Tag("uniface")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message="kind must be mv_softmax, curricularface, magface, adaface, "
        "elasticface or uniface",
    ),
]


class HeadConfig(Section):
    """The classifier on top of the embeddings, sharded over ranks by class."""

    logits: Literal["cosine", "linear"] = Field(
        "cosine", description="linear: plain softmax of w·x, without margin or scale"
    )
    bias: bool = Field(False, description="linear logits only: add a learned number a class")
    margin: MarginConfig = MarginConfig()
    adaptive: AdaptiveConfig | None = Field(
        None, description="a loss whose margin depends on the sample, in place of margin"
    )
    mma_weight: float = Field(0.03, ge=0, description="λ of the MMA penalty; 0 is no penalty")
    mma_rows: int | None = Field(None, ge=1, description="estimate MMA from this many random rows")
    mma_refresh_every: Positive = Field(1, description="steps between searches for neighbours")
    sample_rate: float = Field(1.0, gt=0, le=1, description="Partial FC: share of classes a step")
    sample_dense: bool = Field(
        False, description="Partial FC: rows out of the sample decay and coast on (arcface_torch)"
    )
    filter_threshold: float | None = Field(
        None, gt=-1, lt=1, description="leave out other classes whose cosine exceeds this"
    )
    class_chunk: int | None = Field(
        None, ge=1, description="recompute logits in chunks of this many classes; saves memory"
    )

    @model_validator(mode="after")
    def _bias_fits(self) -> HeadConfig:
        if self.bias and self.logits != "linear":
            raise ValueError("bias is for linear logits; set logits to linear, or bias to false")
        if self.bias and self.sample_rate < 1:
            raise ValueError(
                "bias needs every class in every step; set sample_rate to 1, or bias to false"
            )
        return self

    @model_validator(mode="after")
    def _one_margin(self) -> HeadConfig:
        if self.logits == "linear":
            if self.adaptive is not None:
                raise ValueError(
                    f"adaptive.kind {self.adaptive.kind} is made of cosines, but logits is linear; "
                    "remove adaptive, or set logits to cosine"
                )
            if self.margin != MarginConfig():
                raise ValueError("margin does nothing with linear logits; remove it")
        if self.adaptive is None:
            return self
        if self.margin != MarginConfig():
            raise ValueError(
                f"adaptive.kind {self.adaptive.kind} takes the place of margin; remove one of the "
                "two (its own m and s are in adaptive)"
            )
        mines = self.adaptive.kind in ("mv_softmax", "curricularface")
        if mines and self.filter_threshold is not None:
            raise ValueError(
                f"filter_threshold leaves out the very classes that {self.adaptive.kind} gives "
                "more weight; set filter_threshold to null, or choose another kind"
            )
        return self


class OptimConfig(Section):
    """Stochastic gradient descent."""

    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    decay: Literal["mxnet", "all", "weights"] = Field(
        "mxnet", description="which parameters decay: weights and gains; all; weights only"
    )
    clip_norm: float | None = Field(None, gt=0, description="largest gradient norm, all parameters")
    nesterov: bool = Field(False, description="Nesterov's momentum")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> OptimConfig:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum; set optim.momentum above 0")
        return self


class RegularizerConfig(Section):
    """An angular penalty on the weights of the layers, eq. (13) of the MMA paper."""

    kind: RegularizerKind = "mma"
    weight: float = Field(0.0, ge=0, description="λ; 0 is no penalty")
    layers: str | tuple[str, ...] = Field(
        "all",
        description="hidden (the net), output (the class weights), all, or patterns of layer names",
    )
    exclude: tuple[str, ...] = Field((), description="patterns of layer names to leave out")
    s: float = Field(2.0, ge=0, description="riesz, mhe: exponent")
    fraction: float = Field(1.0, gt=0, le=1, description="mhe: share of the rows drawn a step")
    half_space: bool = Field(False, description="mhe: lines instead of directions")
    temperature: float = Field(0.1, gt=0, description="smooth_mma: width of the minimum, radians")

    @property
    def on_output(self) -> bool:
        """Whether the class weights are penalised."""
        return self.weight > 0 and self.layers in ("output", "all")

    @property
    def on_net(self) -> bool:
        """Whether layers of the net are penalised."""
        return self.weight > 0 and self.layers != "output"


class BranchConfig(Section):
    """A second pass over chosen images, for closeness and diversity (docs/closeness_diversity.md).

    Images are chosen by a score, the running mean of their cosine to their own class.
    """

    enabled: bool = False
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
    score_momentum: float = Field(0.9, ge=0, lt=1)
    quantile: float = Field(0.2, gt=0, lt=1, description="share of all scores that are hard")
    quantile_sample: Positive = Field(100_000, description="at most so many scores tell it")
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


class ScheduleConfig(Section):
    """The learning rate as a function of the optimizer step."""

    kind: Literal["milestones", "polynomial", "cosine"] = "milestones"
    milestones: tuple[int, ...] = ()
    gamma: float = Field(0.1, gt=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    power: float = Field(2.0, gt=0)
    final_lr: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _increasing(self) -> ScheduleConfig:
        increasing = list(self.milestones) == sorted(set(self.milestones))
        if not increasing or min(self.milestones, default=1) < 1:
            raise ValueError(f"milestones must be positive and increasing, got {self.milestones}")
        if self.kind != "milestones" and self.milestones:
            raise ValueError(f"milestones do nothing with kind: {self.kind}; remove them")
        return self


class TrainConfig(Section):
    """The loop. Everything counts in optimizer steps and global batches."""

    steps: Positive = 38_000
    global_batch: int = Field(440, ge=2, description="images an optimizer step, over all ranks")
    accumulate: Positive = Field(1, description="micro-batches an optimizer step")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="of the convolutions; auto is bf16 where the device has it, else fp32"
    )
    channels_last: bool = True
    freeze_batch_norm: bool = Field(False, description="use and keep the running statistics")
    sync_batch_norm: bool = Field(False, description="statistics of the global batch (CUDA only)")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: Positive = 50
    checkpoint_every: Positive = 1000
    keep_checkpoints: Positive = 2
    on_nonfinite: Literal["stop", "skip"] = "stop"
    nonfinite_limit: int = Field(20, ge=0, description="skip: more skipped steps stop the run")


class PairSetConfig(Section):
    """A set of verification pairs: a .bin, a pairs.txt with its image root, or embedded faces."""

    path: Path | None = None
    root: Path | None = None
    orl: People | None = Field(None, description="embedded faces: first and last person")

    @model_validator(mode="after")
    def _one_of(self) -> PairSetConfig:
        if (self.path is None) == (self.orl is None):
            raise ValueError("a pair set needs exactly one of path and orl")
        return self


def _pair_set(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | Path) else value


class EvaluationConfig(Section):
    """Verification, or accuracy on the data's test images, during and after training."""

    accuracy: bool = Field(
        False, description="top-1 and top-5 accuracy on the test images of the data"
    )
    average_last: Positive = Field(
        5, description="accuracy: report also the mean over that many last evaluations"
    )
    sets: dict[str, Annotated[PairSetConfig, BeforeValidator(_pair_set)]] = {}
    every: int = Field(0, ge=0, description="steps between verifications; 0 is only at the end")
    at_start: bool = Field(False, description="also score the untrained net")
    raw_pixels: bool = Field(False, description="also score plain pixels, the floor to beat")
    flip: bool = Field(True, description="embed f(x) + f(flip x)")
    folds: int = Field(10, ge=2)
    batch_size: Positive = 64


class RunConfig(Section):
    """A whole run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    output: Path = Path("runs")
    seed: int = Field(0, ge=0, lt=2**31)
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
        if self.optim.nesterov and self.head.sample_rate < 1 and not self.head.sample_dense:
            raise ValueError(
                "optim.nesterov does not go with head.sample_rate below 1, whose rows are updated "
                "one by one; set optim.nesterov to false, or head.sample_dense to true"
            )
        return self

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML that loads to the same configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


# ------------------------------------------------------------------------------------------------
# Loading


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, apply ``--a.b value`` overrides, and validate.

    ``overrides`` is a flat list of words as on a command line: ``["--optim.lr", "0.05"]`` or
    ``["--optim.lr=0.05"]``; values are read as YAML.

    Raises FileNotFoundError, or ValueError that lists every problem with its file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"configuration {path} does not exist; the shipped ones are in configs/."
        )
    places: Places = {}
    problems: list[str] = []
    values = read_values(path, places, problems)
    for key, value in parse_overrides(overrides):
        override(values, key, value, places)
    problems += unknown_keys(RunConfig, values, places)
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        # Unknown keys are in the list already, with a better message.
        wrong = [item for item in error.errors() if item["type"] != "extra_forbidden"]
        problems += [describe_error(item, places, path) for item in wrong]
    if problems:
        raise ValueError("\n".join(problems))
    return config
