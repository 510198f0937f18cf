"""fp16 and static int8 versions of an ONNX model, by onnxruntime's own tools."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from arcface_plus.data.images import resized
from arcface_plus.data.lazy_images import ImageSequence, describe_image
from arcface_plus.export.equalization import (
    depthwise_convolutions,
    equalize_channels,
    largest_by_channel,
)

if TYPE_CHECKING:
    from onnx import ModelProto

PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION_IMAGES = 256
_PER_CHANNEL_OPSET = 13
_BATCH = 16
LARGEST_HALF = float(np.finfo(np.float16).max)


def to_half(model: ModelProto, inputs: Tensor) -> ModelProto:
    """Return ``model`` with weights and arithmetic in fp16; input and output stay float32.

    Raises ValueError where an activation on ``inputs`` would overflow. (That must be looked for:
    on a CPU without fp16 arithmetic onnxruntime computes in float32, and nothing overflows.)
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    names = [name for node in model.graph.node for name in node.output if name]
    largest = max(float(each.max()) for each in largest_by_channel(model, names, inputs).values())
    if largest > LARGEST_HALF:
        raise ValueError(
            f"an activation reaches {largest:.3g}, above fp16's largest number {LARGEST_HALF:g}; "
            "fix: export fp32 or int8"
        )
    return convert_float_to_float16(model, keep_io_types=True)


def to_int8(model: ModelProto, inputs: Tensor) -> ModelProto:
    """Return ``model`` with 8-bit convolutions and FC layers, as QuantizeLinear/DequantizeLinear.

    ``inputs``: (N, 3, size, size) float32, what the network sees of real faces; the range of an
    activation is what it takes on them. Weights have a scale for each output channel. Depthwise
    convolutions stay in float32: they are a few per cent of the work, and no faster in 8 bits.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if next(each.version for each in model.opset_import if not each.domain) < _PER_CHANNEL_OPSET:
        model = onnx.version_converter.convert_version(model, _PER_CHANNEL_OPSET)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        whole, prepared, quantised = (Path(folder) / f"{n}.onnx" for n in ("fp32", "pre", "int8"))
        onnx.save(model, whole)
        # Batch norms go into convolutions first, or their outputs would be rounded too.
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        equalize_channels(model, inputs)
        onnx.save(model, prepared)
        quantize_static(
            prepared,
            quantised,
            _Reader(model.graph.input[0].name, inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=[node.name for node in depthwise_convolutions(model.graph)],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return _without_unused_domains(onnx.load(quantised))


def _without_unused_domains(model: ModelProto) -> ModelProto:
    """Leave out the operator sets that onnxruntime lists and no node uses: others lack them."""
    used = {node.domain for node in model.graph.node} | {""}
    for unused in [each for each in model.opset_import if each.domain not in used]:
        model.opset_import.remove(unused)
    return model


def check_precision(precision: str, *, calibrated: bool) -> None:
    """Raise ValueError for an unknown precision, or int8 without images, or images without int8."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, but must be one of {', '.join(PRECISIONS)}.")
    if (precision == "int8") != calibrated:
        raise ValueError(
            "int8 is calibrated on real faces, and nothing else is: give --precision int8 and "
            "--calibrate IMAGES together, or neither."
        )


def calibration_images(images: ImageSequence, size: int, *, resize: bool) -> np.ndarray:
    """Return up to 256 of ``images``, evenly spread, (n, size, size, 3) uint8.

    Raises ValueError naming an image of another size, unless ``resize`` scales it.
    """
    count = min(CALIBRATION_IMAGES, len(images))
    chosen = []
    for index in np.linspace(0, len(images) - 1, count).round().astype(int).tolist():
        image = resized(images[index], size) if resize else images[index]
        if image.shape[:2] != (size, size):
            raise ValueError(
                f"{describe_image(images, index)} is {image.shape[1]} x {image.shape[0]} pixels, "
                f"but the model takes {size} x {size}; calibrate on faces that are aligned to that "
                "size, or have them scaled (--resize)."
            )
        chosen.append(image)
    return np.stack(chosen)


class _Reader:
    """Give the inputs one batch after another, as onnxruntime's CalibrationDataReader does."""

    def __init__(self, name: str, inputs: Tensor) -> None:
        self._batches = iter([{name: part.contiguous().numpy()} for part in inputs.split(_BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser: it warns about steps that were taken and on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
