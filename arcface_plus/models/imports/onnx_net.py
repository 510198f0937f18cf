"""An ONNX file as a network with parameters, by onnx2torch: what a run can train.

Its architecture is the file's graph without the weights, compressed, so that weights saved by
``save_model`` load without the ONNX file. Batch norms that were folded into convolutions before the
file was written stay folded.
"""

from __future__ import annotations

import base64
import importlib
import math
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from arcface_plus.models.embedding_model import EmbeddingModel, check_count
from arcface_plus.models.onnx_model import OnnxModel
from arcface_plus.models.preprocessing import Preprocessing

NAME = "onnx"
TOLERANCE = 1e-5  # of the largest output, and at least absolute
_KEPT = 64  # numbers of an initializer that stays in the graph: shapes, limits, axes
_LARGEST_GRAPH = 1 << 26  # bytes
_MOST_WEIGHTS = 1 << 30


class OnnxNet(EmbeddingModel):
    """Embed faces with the graph of an ONNX file, trainable: convolutions, PReLU slopes, all.

    ``graph``: what ``from_file`` makes of a file; weights are 0 until a state dict is loaded.
    Raises ValueError where ``graph`` is damaged, or without onnx2torch.
    """

    def __init__(
        self,
        name: str,
        *,
        graph: str,
        embedding_dim: int,
        size: int,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__(
            name,
            embedding_dim=check_count("embedding_dim", embedding_dim),
            size=size,
            preprocessing=preprocessing,
            options={"graph": graph},
        )
        self.net = _converted(_with_zeros(graph))

    @classmethod
    def from_file(cls, path: Path, preprocessing: Preprocessing | None) -> OnnxNet:
        """Return the network in the ONNX file ``path``, checked against onnxruntime.

        Four random inputs must give the same embeddings to ``TOLERANCE``. Raises ValueError naming
        the file where they do not, or where it is no such network; ``preprocessing`` as in
        ``OnnxModel``.
        """
        _import("onnx2torch"), _import("onnxruntime")  # first, so that one extra is named for all
        reference = OnnxModel(path, preprocessing=preprocessing).eval()
        model = _import("onnx").load(str(path))
        try:
            trained = _converted(model)
            net = cls(
                NAME,
                graph=_without_weights(model),
                embedding_dim=reference.embedding_dim,
                size=reference.preprocessing.size,
                preprocessing=reference.preprocessing,
            ).eval()
            net.net.load_state_dict(trained.state_dict())
            _check_equal(net, reference)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return net

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, size, size) to embeddings (N, embedding_dim), float32."""
        embedding: Tensor = self.net(x)
        return embedding.float()


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)  # an optional dependency
    except ModuleNotFoundError as error:
        raise ValueError(
            f"training the net of an ONNX file needs {module}: "
            'pip install "arcface_plus[onnx2torch]"'
        ) from error


def _check_equal(net: OnnxNet, reference: OnnxModel) -> None:
    size = net.preprocessing.size
    x = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = net(x), reference(x)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"as a network to train it gives {tuple(ours.shape)} for 4 images, in onnxruntime "
            f"{tuple(theirs.shape)}; fix: export it with a free batch dimension"
        )
    apart = float((ours - theirs).abs().max())
    allowed = TOLERANCE * max(1.0, float(theirs.abs().max()))
    if not apart <= allowed:
        raise ValueError(
            f"as a network to train it differs from onnxruntime by {apart:.2g}, allowed is "
            f"{allowed:.2g}: onnx2torch does not convert one of its operators as it should"
        )


def _converted(model: Any) -> torch.fx.GraphModule:
    """Return an ONNX model as a module whose PReLU slopes are parameters too."""
    onnx2torch = _import("onnx2torch")
    try:
        with torch.device("cpu"):  # load_model builds on "meta", where constants have no values
            module: torch.fx.GraphModule = onnx2torch.convert(model)
    except Exception as error:  # its errors, and those of onnx, share no base class but Exception
        raise ValueError(
            f"onnx2torch cannot convert it ({type(error).__name__}: {error!s:.200})"
        ) from error
    for node in module.graph.nodes:
        if node.op == "call_module" and type(module.get_submodule(node.target)).__name__ == (
            "OnnxPReLU"
        ):
            _make_slopes_parameters(module, node)
    module.recompile()
    return module


def _make_slopes_parameters(module: torch.fx.GraphModule, node: torch.fx.Node) -> None:
    """Put torch's PReLU in the place of onnx2torch's, whose slopes are buffers."""
    x, slopes = node.args
    assert isinstance(slopes, torch.fx.Node) and isinstance(slopes.target, str)
    if slopes.op != "get_attr":
        return
    values: Tensor = module.get_buffer(slopes.target)
    if values.numel() != 1 and tuple(values.shape[1:]) != (1, 1):
        return  # a slope a position, which torch's does not have
    with torch.device("cpu"):
        prelu = nn.PReLU(values.numel())
    prelu.weight.data = values.detach().flatten().clone()
    module.add_submodule(str(node.target), prelu)
    node.args = (x,)
    if not slopes.users:
        holder, _, name = slopes.target.rpartition(".")
        delattr(module.get_submodule(holder), name)
        module.graph.erase_node(slopes)


def _without_weights(model: Any) -> str:
    """Return the graph of an ONNX model as text, the numbers of its large initializers left out."""
    skeleton = type(model)()
    skeleton.CopyFrom(model)
    for initializer in skeleton.graph.initializer:
        if _is_weight(initializer):
            initializer.ClearField("raw_data")
            initializer.ClearField("float_data")
    del skeleton.metadata_props[:]
    return base64.b64encode(zlib.compress(skeleton.SerializeToString(), 9)).decode("ascii")


def _is_weight(initializer: Any) -> bool:
    return initializer.data_type == _import("onnx").TensorProto.FLOAT and (
        math.prod(initializer.dims) > _KEPT
    )


def _with_zeros(graph: str) -> Any:
    """Return the ONNX model that ``_without_weights`` made ``graph`` of, with 0 for each weight."""
    onnx = _import("onnx")
    try:
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(base64.b64decode(graph, validate=True), _LARGEST_GRAPH)
        if not unpacking.eof:
            raise ValueError(f"it is cut off, or unpacks to more than {_LARGEST_GRAPH} bytes")
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # zlib's, base64's and protobuf's share no base class
        raise ValueError(f"its ONNX graph is damaged ({error!s:.200})") from error
    weights = [each for each in model.graph.initializer if _is_weight(each)]
    count = sum(math.prod(each.dims) for each in weights)
    if count > _MOST_WEIGHTS:
        raise ValueError(f"its ONNX graph asks for {count} weights; at most {_MOST_WEIGHTS} load")
    for each in weights:
        each.raw_data = bytes(4 * math.prod(each.dims))
    return model
