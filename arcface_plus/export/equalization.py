"""Channels of equal range before depthwise convolutions, without which 8 bits lose small ones.

All channels of an activation share one 8-bit scale, and in mobile nets some are a thousand times
larger than others. A convolution, an activation with f(s x) = s f(x) for s > 0 (PReLU, ReLU) and a
depthwise convolution compute the same where channel c is divided by s_c in the first one and
multiplied by s_c in the last one; both have a scale a channel for their weights, so s_c is free.
Source: Nagel et al., Data-Free Quantization through Weight Equalization, ICCV 2019, section 4.1;
s_c is there from the weights, here what channel c reaches on the calibration images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_HOMOGENEOUS = ("PRelu", "Relu")
_SMALLEST = 1e-6  # of the largest channel: one that was never active has some range too
_BATCH = 16


def equalize_channels(model: ModelProto, inputs: Tensor) -> None:
    """Equalise the channels before every depthwise convolution of ``model``, in place.

    ``inputs``: (N, 3, size, size), real faces.
    """
    graph = model.graph
    chains = _chains(graph)
    ranges = largest_by_channel(model, [first.output[0] for first, _ in chains], inputs)
    for first, depthwise in chains:
        reached = ranges[first.output[0]]
        scale = np.maximum(reached, _SMALLEST * reached.max())
        if reached.max() > 0:
            for position in range(1, len(first.input)):  # weight and bias
                _multiply(graph, first, position, 1 / scale)
            _multiply(graph, depthwise, 1, scale)


def largest_by_channel(
    model: ModelProto, names: list[str], inputs: Tensor
) -> dict[str, np.ndarray]:
    """Return the largest magnitude (C,) in each channel of the tensors ``names`` on ``inputs``.

    A tensor of fewer than two axes has one channel.
    """
    from onnx import ValueInfoProto
    from onnxruntime import InferenceSession

    watched = type(model)()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(ValueInfoProto(name=name) for name in names)
    session = InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    largest: dict[str, np.ndarray] = {}
    for part in inputs.split(_BATCH) if names else ():
        outputs = session.run(names, {model.graph.input[0].name: part.contiguous().numpy()})
        for name, output in zip(names, outputs, strict=True):
            axes = tuple(axis for axis in range(output.ndim) if axis != 1)
            reached = np.atleast_1d(np.abs(output).max(axis=axes, initial=0))
            largest[name] = np.maximum(reached, largest.get(name, 0))
    return largest


def depthwise_convolutions(graph: GraphProto) -> list[NodeProto]:
    """Return the convolutions of ``graph`` in which every channel is filtered alone."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    return [node for node in graph.node if _is_depthwise(node, stored)]


def _chains(graph: GraphProto) -> list[tuple[NodeProto, NodeProto]]:
    """Return each convolution that one activation joins to one depthwise convolution, with it."""
    maker = {output: node for node in graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    read = [name for node in graph.node for name in node.input]
    read += [output.name for output in graph.output]
    found = []
    for node in depthwise_convolutions(graph):
        activation = maker.get(node.input[0])
        if activation is None or activation.op_type not in _HOMOGENEOUS:
            continue
        first = maker.get(activation.input[0])
        if first is None or first.op_type != "Conv" or not set(first.input[1:]) <= stored.keys():
            continue
        if all(read.count(each.output[0]) == 1 for each in (first, activation)):
            found.append((first, node))
    return found


def _is_depthwise(node: NodeProto, stored: dict) -> bool:
    if node.op_type != "Conv" or node.input[1] not in stored:
        return False
    groups = next((each.i for each in node.attribute if each.name == "group"), 1)
    outputs, inputs_of_group = stored[node.input[1]].dims[:2]
    return groups > 1 and groups == outputs and inputs_of_group == 1


def _multiply(graph: GraphProto, node: NodeProto, position: int, scale: np.ndarray) -> None:
    """Multiply the output channels of weight or bias ``position`` of ``node`` by ``scale``."""
    from onnx import numpy_helper

    before = next(each for each in graph.initializer if each.name == node.input[position])
    values = numpy_helper.to_array(before).astype(np.float64)
    values = values * scale.reshape(-1, *[1] * (values.ndim - 1))
    name = f"{before.name}.equalized_for_{node.output[0]}"
    graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    node.input[position] = name
    if not any(before.name in each.input for each in graph.node):
        graph.initializer.remove(before)
