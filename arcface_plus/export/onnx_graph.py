"""ONNX graphs of embedding networks, in the form that clients of face models expect.

That form: one file; one input (batch, 3, size, size), RGB, (x - 127.5) / 127.5, and no node that
normalises it; one output (batch, embedding_dim). insightface's ArcFaceONNX assumes this input
unless the names of the first eight nodes begin with Sub or _minus and with Mul or _mul.
"""

from __future__ import annotations

import copy
import io
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from arcface_plus import __version__
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.onnx_model import OnnxModel
from arcface_plus.models.preprocessing import INSIGHTFACE, Preprocessing

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

OPSET = 18
BATCH = "batch"
_TAKEN_FOR_NORMALISATION = ("Sub", "_minus", "Mul", "_mul")


def client_preprocessing(preprocessing: Preprocessing) -> Preprocessing:
    """Return the preprocessing of every ONNX file that is written: insightface's, at this size."""
    return replace(INSIGHTFACE, size=preprocessing.size, flip_sum=preprocessing.flip_sum)


def build_graph(model: EmbeddingModel) -> ModelProto:
    """Return ``model`` as an ONNX model with a free batch that takes ``client_preprocessing``.

    Raises ValueError where its own preprocessing cannot be folded into its first convolution.
    """
    from onnx import checker

    _check_mean(model.preprocessing)
    graph_model = _read(model.path) if isinstance(model, OnnxModel) else _trace(model)
    fold_preprocessing(graph_model.graph, model.preprocessing)
    _tidy(graph_model, model.preprocessing.size)
    checker.check_model(graph_model)
    return graph_model


def fold_preprocessing(graph: GraphProto, preprocessing: Preprocessing) -> None:
    """Change the first convolution of ``graph`` so that it takes (x - 127.5) / 127.5, RGB.

    w * (x - 127.5) / std = (w * 127.5 / std) * (x - 127.5) / 127.5, and zeros that pad the border
    stay zeros; BGR is another order of w's input channels. Raises ValueError where the input does
    not go into one convolution alone.
    """
    from onnx import numpy_helper

    scale = INSIGHTFACE.std / preprocessing.std
    if scale == 1 and preprocessing.channels == INSIGHTFACE.channels:
        return
    stem = _stem(graph)
    if stem is None:
        raise ValueError(
            f"(x - 127.5) / {preprocessing.std:g} in {preprocessing.channels} cannot be folded: "
            "the input is not read by one convolution with stored weights alone; "
            "fix: export the network again from its training framework"
        )
    convolution, initializer = stem
    weight = numpy_helper.to_array(initializer).astype(np.float64) * scale
    if preprocessing.channels != INSIGHTFACE.channels:
        weight = weight[:, ::-1]
    folded = numpy_helper.from_array(
        np.ascontiguousarray(weight, dtype=np.float32), f"{initializer.name}.folded"
    )
    graph.initializer.append(folded)
    convolution.input[1] = folded.name
    if not any(initializer.name in node.input for node in graph.node):
        graph.initializer.remove(initializer)


def _check_mean(preprocessing: Preprocessing) -> None:
    """Raise ValueError for a mean that zeros at the border of an image would not stand for."""
    if preprocessing.mean != INSIGHTFACE.mean:
        raise ValueError(
            f"preprocessing.mean is {preprocessing.mean:g}, but only 127.5 can be folded into a "
            "convolution that pads its border; fix: write .safetensors or .pt2, which keep it"
        )


def _trace(model: EmbeddingModel) -> ModelProto:
    network = copy.deepcopy(model).to("cpu").eval()
    size = model.preprocessing.size
    with redirect_stdout(io.StringIO()):  # older exporters tell how many rules they applied
        exported = torch.onnx.export(
            network,
            (torch.zeros(2, 3, size, size),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            input_names=["input"],
            output_names=["embedding"],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert exported is not None  # a program, where dynamo is True
    return exported.model_proto


def _read(path: Path) -> ModelProto:
    import onnx

    model = onnx.load(path)
    quantised = {node.op_type for node in model.graph.node if "Quant" in node.op_type}
    halves = [i for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT16]
    if quantised or halves:
        raise ValueError(
            f"{path}: its weights are {'quantised' if quantised else 'fp16'} already; "
            "fix: export from the fp32 file"
        )
    return model


def _stem(graph: GraphProto) -> tuple | None:
    """Return the convolution that alone reads the input, and its weight; None without one."""
    # Older exporters ask the input for its batch size: a shape does not depend on the pixels.
    named = [node for node in graph.node if graph.input[0].name in node.input]
    readers = [node for node in named if node.op_type != "Shape"]
    if len(readers) != 1 or readers[0].op_type != "Conv":
        return None
    found = [weight for weight in graph.initializer if weight.name == readers[0].input[1]]
    return (readers[0], found[0]) if found else None


def _tidy(model: ModelProto, size: int) -> None:
    """Free the batch, fix the size, and remove what says where and how the file was made.

    torch's exporter leaves the source lines of every node, with their paths on this machine.
    """
    graph = model.graph
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
        del value.metadata_props[:]
    for dimension in graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_value = size
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        if node.name.startswith(_TAKEN_FOR_NORMALISATION):
            node.name = f"node_{node.name}"
    del graph.value_info[:]  # shapes of another batch, and more source lines
    del graph.metadata_props[:]
    graph.name, graph.doc_string, model.doc_string = "embedding_network", "", ""
    model.producer_name, model.producer_version = "arcface_plus", __version__
