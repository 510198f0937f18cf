"""Options of every command that embeds images: how a model is read and run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from arcface_plus.evaluation.embedding.embed import EmbeddingOptions
    from arcface_plus.models import preprocessing
    from arcface_plus.models.embedding_model import EmbeddingModel

Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Sum f(x) + f(mirrored x) (as the model states)."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images embedded at once.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or fp16.")]
Resize = Annotated[bool, typer.Option(help="Scale images of another size.")]
Preprocessing = Annotated[
    str | None, typer.Option(help="For files that do not state it: insightface, or JSON.")
]


def embedding_options(
    model: EmbeddingModel,
    flip: bool | None,
    batch_size: int,
    device: torch.device,
    precision: str,
    resize: bool,
) -> EmbeddingOptions:
    """Return how ``model`` embeds; without ``flip``, as its preprocessing states."""
    from arcface_plus.evaluation.embedding.embed import EmbeddingOptions

    sum_flips = model.preprocessing.flip_sum if flip is None else flip
    return EmbeddingOptions(sum_flips, batch_size, device, precision, resize)


def parse_preprocessing(text: str | None) -> preprocessing.Preprocessing | None:
    """Return what ``--preprocessing`` means: ``insightface``, JSON, or nothing."""
    if text is None:
        return None
    from arcface_plus.models.preprocessing import stated

    return stated(text)
