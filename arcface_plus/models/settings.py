"""Settings of the embedding net."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from arcface_plus.models.initialization import SCHEMES
from arcface_plus.settings import Positive, Section

# Where no file gives them.
_OWN = {"name": "iresnet50", "fix_last_gain": True, "mean": 127.5, "std": 128.0}


class ModelConfig(Section):
    """The embedding net. With ``init`` a file, what is left unset is what the file says."""

    name: str | None = Field(
        None, description="iresnet50 unless init is a file; timm:NAME for a net of timm"
    )
    embedding_dim: Positive | None = Field(
        None, description="numbers of an embedding; None is the net's own (512 for face nets)"
    )
    dropout: float | None = Field(None, ge=0, lt=1, description="before the last layer")
    width: int | None = Field(None, ge=1, description="channels of the first stage")
    blocks: tuple[int, int, int, int] | None = Field(
        None, description="blocks of the four stages, for depths that have no name"
    )
    se: bool | None = Field(None, description="IResNet: squeeze-and-excitation in every block")
    drop_path: float | None = Field(
        None, ge=0, lt=1, description="ViT: chance that the last block passes an image by"
    )
    mask: float | None = Field(
        None, ge=0, lt=1, description="ViT: share of tokens that training leaves out"
    )
    init: str | None = Field(
        None,
        description="initial weights: normal or xavier draws them (None: the net's own way), "
        "anything else is a run folder or a weights file to start from (docs/fine_tuning.md)",
    )
    fix_last_gain: bool | None = Field(
        None, description="gain of the last BatchNorm1d stays 1; true unless init is a file"
    )
    checkpoint_gradients: bool = Field(False, description="recompute activations, save memory")
    mean: float | None = Field(
        None, description="subtracted from pixel levels 0…255; 127.5 unless init is a file"
    )
    std: float | None = Field(
        None, gt=0, description="divides them after that; 128 unless init is a file"
    )
    channels: Literal["rgb", "bgr"] | None = Field(None, description="rgb unless init is a file")

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("init") not in (None, *SCHEMES):
            return values
        return values | {key: own for key, own in _OWN.items() if values.get(key) is None}

    @property
    def start(self) -> Path | None:
        """The file or run folder that the net starts from; None where weights are drawn."""
        return None if self.init in (None, *SCHEMES) else Path(str(self.init))
