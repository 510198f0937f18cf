"""Settings of the embedding net."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from arcface_plus.settings import Positive, Section


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
