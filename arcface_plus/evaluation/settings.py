"""Settings of what is scored during and after training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from arcface_plus.settings import People, Positive, Section


class PairSetConfig(Section):
    """A set of verification pairs: a .bin, a pairs.txt with its image root, or embedded faces."""

    path: Path | None = Field(None, description="a .bin or a list of pairs")
    root: Path | None = Field(None, description="image folder of a list (its own if absent)")
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
    sets: dict[str, Annotated[PairSetConfig, BeforeValidator(_pair_set)]] = Field({})
    every: int = Field(0, ge=0, description="steps between verifications; 0 is only at the end")
    at_start: bool = Field(False, description="also score the net before training")
    raw_pixels: bool = Field(False, description="also score plain pixels, the floor to beat")
    flip: bool = Field(True, description="embed f(x) + f(flip x)")
    folds: int = Field(10, ge=2, description="of the accuracy's protocol")
    batch_size: Positive = Field(64, description="images embedded at once")

    @property
    def comparable(self) -> list[str]:
        """The numbers that say which of two evaluations is better, as metrics.jsonl names them."""
        pairs = [f"{name}/{key}" for name in self.sets for key in ("accuracy", "auc", "eer")]
        return pairs + (["top1", "top5"] if self.accuracy else [])
