"""Settings of the classifier on top of the embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from arcface_plus.losses.head.centres import MOST_CENTRES
from arcface_plus.losses.margins.adacos import AdaCos
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.base import MarginLoss
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import UniFace
from arcface_plus.settings import Positive, Section


def _kind(value: Any) -> str | None:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


# By a function, because pydantic takes no plain field that a validator of all fields sees first.
AdaptiveLoss = Annotated[
    Annotated[MVSoftmax, Tag("mv_softmax")]
    | Annotated[CurricularFace, Tag("curricularface")]
    | Annotated[MagFace, Tag("magface")]
    | Annotated[AdaFace, Tag("adaface")]
    | Annotated[ElasticFace, Tag("elasticface")]
    | Annotated[UniFace, Tag("uniface")]
    | Annotated[AdaCos, Tag("adacos")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message="kind must be mv_softmax, curricularface, magface, adaface, "
        "elasticface, uniface or adacos",
    ),
]


class HeadConfig(Section):
    """The classifier on top of the embeddings, sharded over ranks by class."""

    logits: Literal["cosine", "linear"] = Field(
        "cosine", description="linear: plain softmax of w·x, without margin or scale"
    )
    bias: bool = Field(False, description="linear logits only: add a learned number a class")
    margin: Margin = Margin()
    adaptive: AdaptiveLoss | None = Field(
        None, description="a loss whose margin depends on the sample, in place of margin"
    )
    centres: int = Field(
        1,
        ge=1,
        le=MOST_CENTRES,
        description="rows a class, of which the nearest counts (sub-centre ArcFace: 3)",
    )
    init: Literal["random", "class_means"] = Field(
        "random", description="how classes begin; class_means: at the mean of their embeddings"
    )
    from_head: Path | None = Field(
        None,
        description="another head (a run folder, arcface_torch's head files), whose rows are kept "
        "for the people that persist",
    )
    from_names: str | None = Field(
        None,
        description="a file with the names of from_head's people, one a line, or the word labels: "
        "class c there is class c here",
    )
    mma_weight: float = Field(0.03, ge=0, description="λ of the MMA penalty; 0 is no penalty")
    mma_rows: int | None = Field(None, ge=1, description="estimate MMA from this many random rows")
    mma_refresh_every: Positive = Field(1, description="steps between searches for neighbours")
    sample_rate: float = Field(1.0, gt=0, le=1, description="Partial FC: share of classes a step")
    sample_dense: bool = Field(
        False,
        description="Partial FC: momentum, decay and MMA move rows out of the sample too "
        "(arcface_torch's way)",
    )
    filter_threshold: float | None = Field(
        None, gt=-1, lt=1, description="leave out other classes whose cosine exceeds this"
    )
    class_chunk: int | None = Field(
        None, ge=1, description="recompute logits in chunks of this many classes; saves memory"
    )

    @model_validator(mode="after")
    def _names_of_a_head(self) -> HeadConfig:
        if self.from_names is not None and self.from_head is None:
            raise ValueError("from_names is about from_head; set from_head, or remove it")
        return self

    @model_validator(mode="after")
    def _centres_fit(self) -> HeadConfig:
        if self.centres == 1:
            return self
        if self.logits == "linear":
            raise ValueError(
                f"centres is {self.centres}, but linear logits know one row a class; set logits to "
                "cosine, or centres to 1"
            )
        if self.init == "class_means" or self.from_head is not None:
            raise ValueError(
                f"centres is {self.centres}, but init class_means and from_head give each class "
                "one row; remove them, or set centres to 1"
            )
        return self

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
            if self.margin != Margin():
                raise ValueError("margin does nothing with linear logits; remove it")
        if self.adaptive is None:
            return self
        if self.margin != Margin():
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

    @property
    def margin_loss(self) -> MarginLoss | None:
        """What turns cosines into logits; None for linear logits."""
        if self.logits == "linear":
            return None
        return self.margin if self.adaptive is None else self.adaptive
