"""Settings of the training images: where they come from and how they may change."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from arcface_plus.settings import People, Positive, Probability, Section


class AugmentConfig(Section):
    """How a training image may change. Every draw depends on (seed, epoch, sample) alone."""

    pad_crop: int = Field(
        0, ge=0, description="add that many black pixels on each side, then crop at random"
    )
    flip: Probability = Field(0.5, description="probability of a horizontal flip")
    recipe: Literal["none", "adaface", "arcface_torch"] = Field(
        "none", description="what other face trainers do, with their settings; flip is apart"
    )
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
    path: Path | list[Path] | None = Field(
        None,
        description="train.rec, a folder, or a list of .rec files that are one set (digits, orl: "
        "none)",
    )
    holdout: float = Field(
        0.0, ge=0, lt=1, description="folder: share of each class kept for testing"
    )
    people: People | None = Field(None, description="orl: first and last person")
    num_classes: int | None = Field(None, ge=2, description="checked against the data where given")
    images_per_class: Positive = Field(8, description="synthetic: images of a class")
    size: int = Field(112, ge=16, le=1024, description="side of the square input, pixels")
    order: Literal["shuffled", "windowed"] = Field(
        "shuffled",
        description="windowed: files are read in sequence and images shuffled in windows, for sets "
        "larger than memory or on network disks",
    )
    window: int = Field(
        2**18, ge=1024, description="windowed: images of a window, of which memory holds two"
    )
    workers: int = Field(4, ge=0, description="decoding processes a rank")
    timeout: float = Field(
        600, ge=0, description="seconds to wait for a batch of the workers; 0: for ever"
    )
    on_bad_image: Literal["stop", "quarantine"] = Field(
        "stop",
        description="quarantine: list it, and take the next one of the order",
    )
    quarantine_limit: int = Field(
        1000, ge=0, description="more bad images on one rank than this stop the run"
    )
    augment: AugmentConfig = AugmentConfig()

    @model_validator(mode="after")
    def _needs(self) -> DataConfig:
        if self.source not in ("orl", "synthetic", "digits") and self.path is None:
            raise ValueError(f"source: {self.source} needs a path")
        if isinstance(self.path, list) and self.source != "records":
            raise ValueError(f"source: {self.source} needs one path, not a list")
        if self.path == []:
            raise ValueError("path is an empty list; name the record files of the set")
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
