"""The margin losses by name, and the one that a configuration asks for."""

from __future__ import annotations

from arcface_plus.config import HeadConfig
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.base import MarginLoss
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import UniFace

ADAPTIVE: dict[str, type[MarginLoss]] = {
    "mv_softmax": MVSoftmax,
    "curricularface": CurricularFace,
    "magface": MagFace,
    "adaface": AdaFace,
    "elasticface": ElasticFace,
    "uniface": UniFace,
}


def margin_of(config: HeadConfig) -> MarginLoss | None:
    """Return the margin loss of a head, None for linear logits.

    Raises ValueError where its settings do not go together.
    """
    if config.logits == "linear":
        return None
    if config.adaptive is None:
        return Margin(**config.margin.model_dump())
    settings = config.adaptive.model_dump(exclude={"kind"})
    try:
        return ADAPTIVE[config.adaptive.kind](**settings)
    except ValueError as error:
        raise ValueError(f"head.adaptive: {error}") from error
