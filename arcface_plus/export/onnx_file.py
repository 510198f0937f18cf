"""Write a network as one ONNX file, after onnxruntime has run it and agreed with the source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from arcface_plus.data.lazy_images import ImageSequence
from arcface_plus.export.onnx_graph import build_graph, client_preprocessing
from arcface_plus.export.precision import calibration_images, check_precision, to_half, to_int8
from arcface_plus.export.statement import Statement, file_facts
from arcface_plus.files import written_beside
from arcface_plus.models import model_hash
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.onnx_model import SOURCE_KEY, OnnxModel, Source, source_claim

if TYPE_CHECKING:
    from onnx import ModelProto

# The largest distance from the source's embedding, relative to its norm, that is still rounding.
# int8's is a check for a network that broke, not for accuracy: see --pairs.
BOUNDS = {"fp32": 1e-4, "fp16": 0.05, "int8": 0.7}
_BATCHES = (1, 2, 5)


def export_onnx(
    model: EmbeddingModel,
    path: str | Path,
    *,
    precision: str = "fp32",
    calibration: ImageSequence | None = None,
    resize: bool = False,
    statement: Statement = Statement(),
) -> Path:
    """Write ``model``, one of ours or an ONNX file's, as an ONNX file for any batch size.

    Its input is (batch, 3, size, size) float32, RGB, (x - 127.5) / 127.5, whatever the model's own
    preprocessing: the difference is folded into the first convolution. ``precision``: fp32, fp16,
    or int8 with ``calibration``, aligned faces (H, W, 3) uint8 RGB that show the range of every
    activation; ``resize`` scales those of another size. Preprocessing, architecture, version and
    ``statement`` are in the file's metadata; ``load_model`` needs no more. An fp32 file also says
    what it was written from, so that indexes and calibrations of that fit it. Needs the extra onnx.

    onnxruntime runs the file at batches of 1, 2 and 5 before it gets its name, and each embedding
    must lie within ``BOUNDS`` of the source's. Returns the path. Raises ValueError for what cannot
    be exported, or does not agree; nothing is written then.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: an ONNX file ends in .onnx; change the file's ending")
    check_precision(precision, calibrated=calibration is not None)
    stated = client_preprocessing(model.preprocessing)
    if calibration is None:
        images = torch.from_numpy(_noise(stated.size))
    else:
        images = torch.from_numpy(calibration_images(calibration, stated.size, resize=resize))
    try:
        graph_model = build_graph(model)
        if precision == "fp16":
            graph_model = to_half(graph_model, stated.apply(images))
        elif precision == "int8":
            graph_model = to_int8(graph_model, stated.apply(images))
    except ValueError as error:
        raise ValueError(f"{path}: {model.name} cannot be written as ONNX: {error}") from error
    facts = file_facts(model, stated, precision, statement)
    if precision == "fp32":
        facts[SOURCE_KEY] = source_claim(_source(model), graph_model.graph)
    _set_metadata(graph_model, facts)
    with written_beside(path) as beside:
        beside.write_bytes(graph_model.SerializeToString(deterministic=True))
        _check_agreement(model, OnnxModel(beside), images[: sum(_BATCHES)], precision, path)
    return path


def _noise(size: int) -> np.ndarray:
    shape = (sum(_BATCHES), size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _source(model: EmbeddingModel) -> Source:
    """Return what ``model`` is, or what it was written from."""
    known = model.source if isinstance(model, OnnxModel) else None
    return known or Source(model_hash(model), model.preprocessing.to_json())


def _set_metadata(model: ModelProto, facts: dict[str, str]) -> None:
    replaced = {SOURCE_KEY, *facts}  # the source's own, where it is an ONNX file
    for entry in [each for each in model.metadata_props if each.key in replaced]:
        model.metadata_props.remove(entry)
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)


def _check_agreement(
    source: EmbeddingModel, written: OnnxModel, images: Tensor, precision: str, path: Path
) -> None:
    """Raise ValueError where the embeddings of the file are not those of its source."""
    expected = _embed(source, images, [len(images)])
    try:
        found = _embed(written, images, _BATCHES)
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise ValueError(
            f"{path} was not written: onnxruntime cannot run it in batches of 1, 2 and 5 "
            f"({str(error).splitlines()[0]:.300}); fix: export the source with a free batch"
        ) from error
    apart = (found - expected).norm(dim=1) / expected.norm(dim=1)
    if not apart.max() <= BOUNDS[precision]:  # NaN is not
        raise ValueError(
            f"{path} was not written: onnxruntime's {precision} embeddings differ from those of "
            f"{source.name} by {apart.max():.2g} of their norm, where {BOUNDS[precision]:g} is "
            "allowed; fix: use a higher --precision, or report it with what arcface-plus info shows"
        )


def _embed(model: EmbeddingModel, images: Tensor, batches: Sequence[int]) -> Tensor:
    """Return the embeddings of ``images``, computed in batches of at most these sizes in turn."""
    inputs = model.preprocessing.apply(images)
    ends = np.cumsum(batches).clip(max=len(inputs))
    with torch.inference_mode():
        return torch.cat([model(part) for part in inputs.tensor_split(ends[:-1].tolist())])
