"""Run an ONNX file as an embedding network."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arcface_plus.data.onnx_files import check_external_data
from arcface_plus.files import file_sha256
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.preprocessing import Preprocessing

PREPROCESSING_KEY = "arcface_plus.preprocessing"  # in the file's metadata_props, as to_json writes
SOURCE_KEY = "arcface_plus.source"  # likewise, as ``source_claim`` writes
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class Source(NamedTuple):
    """The network that an ONNX file was written from: ``model_hash``, preprocessing as JSON."""

    model_hash: str
    preprocessing: str


def source_claim(source: Source, graph: Any) -> str:
    """Return what a file with ``graph`` (an onnx GraphProto) says of the network it is made from,
    whose embeddings it gives but for rounding.
    """
    return json.dumps({**source._asdict(), "graph_sha256": _graph_hash(graph)}, sort_keys=True)


class OnnxModel(EmbeddingModel):
    """Embed faces with an ONNX file, by onnxruntime; inference only, no parameters.

    The file has one float32 input (N, 3, size, size), N free or 1, and one output
    (N, embedding_dim). ``preprocessing`` replaces the file's own, and is required where it has
    none. Raises ValueError naming the file and what does not fit, ModuleNotFoundError without
    onnxruntime.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, preprocessing: Preprocessing | None = None
    ) -> None:
        path = Path(path)
        session = _open_session(path)
        try:
            _check_signature(session)  # before it is asked what a net of another kind cannot answer
            metadata = session.get_modelmeta().custom_metadata_map
            stored, given = metadata.get(PREPROCESSING_KEY), preprocessing
            if preprocessing is None:
                if stored is None:
                    raise ValueError(
                        "it does not say how images must be normalised; fix: give --preprocessing "
                        "insightface (127.5, 127.5, rgb, size 112), or preprocessing= in Python"
                    )
                preprocessing = Preprocessing.from_json(stored)
            one_by_one, embedding_dim = _check_signature(session, preprocessing.size)
            super().__init__(
                path.stem,
                embedding_dim=embedding_dim,
                size=preprocessing.size,
                preprocessing=preprocessing,
                options=None,
            )
            self.path = path
            # With another preprocessing the file gives other embeddings than its source.
            self._claim = metadata.get(SOURCE_KEY) if given is None else None
            self._session = session
            self._one_by_one = one_by_one
            if not embedding_dim:  # the output's width is free in the file: ask the network
                size = preprocessing.size
                self.embedding_dim = self(torch.zeros(1, 3, size, size)).shape[1]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        self.file_hash = file_sha256(path)

    @functools.cached_property
    def source(self) -> Source | None:
        """The network whose embeddings this file gives; None where it says none, or has been
        changed since it said so (quantised, say), or the package onnx is not there to tell.
        """
        if self._claim is None or importlib.util.find_spec("onnx") is None:
            return None
        onnx = importlib.import_module("onnx")  # an optional dependency
        try:
            claim = json.loads(self._claim)
            source = Source(str(claim["model_hash"]), str(claim["preprocessing"]))
            intact = claim["graph_sha256"] == _graph_hash(onnx.load(self.path).graph)
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return source if intact else None

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, size, size) to (N, embedding_dim) on the same device."""
        batch = x.detach().to("cpu", torch.float32).contiguous()
        if len(batch) == 0:
            return batch.new_zeros(0, self.embedding_dim, device=x.device)
        parts = [batch[i : i + 1] for i in range(len(batch))] if self._one_by_one else [batch]
        name = self._session.get_inputs()[0].name
        outputs = [self._session.run(None, {name: part.numpy()})[0] for part in parts]
        rows = torch.cat([torch.from_numpy(output) for output in outputs])
        if rows.ndim != 2 or len(rows) != len(batch):
            raise ValueError(
                f"the network gave {tuple(rows.shape)} for {len(batch)} images, not one embedding "
                "each; fix: export it with a free batch dimension"
            )
        return rows.to(x.device)


def _graph_hash(graph: Any) -> str:
    return hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()


def _open_session(path: Path) -> Any:
    try:
        onnxruntime = importlib.import_module("onnxruntime")  # an optional dependency
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path}: running ONNX files needs onnxruntime; pip install 'arcface_plus[onnx]'"
        ) from error
    check_external_data(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    providers = [p for p in PROVIDERS if p in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise ValueError(
            f"{path}: onnxruntime cannot load it ({str(error).splitlines()[0]:.300}); "
            "fix: export or copy it again"
        ) from error


def _check_signature(session: Any, size: int | None = None) -> tuple[bool, int]:
    """Return whether images must go one by one, and the embedding width (0 where free).

    ``size`` of the images, None while it is not known. Raises ValueError for other networks.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "it is no embedding network, which has one input and one output: this has "
            f"{len(inputs)} and {len(outputs)}; fix: give a face-recognition net (a detector goes "
            "to --detector)"
        )
    shape = inputs[0].shape
    fixed = [
        given != wanted
        for given, wanted in zip(shape[1:], (3, size, size), strict=False)
        if isinstance(given, int) and wanted is not None
    ]
    if inputs[0].type != "tensor(float)" or len(shape) != 4 or any(fixed):
        wanted = "an embedding network takes float (N, 3, size, size); fix: give another file"
        if size is not None:
            wanted = f"preprocessing gives float (N, 3, {size}, {size}); fix: give one of its size"
        raise ValueError(f"its input is {inputs[0].type} {shape}, but {wanted}")
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ValueError(
            f"its batch is fixed at {shape[0]} images; fix: export it with a free batch dimension"
        )
    output = outputs[0].shape
    if len(output) != 2:
        raise ValueError(
            f"its output has shape {output}, not (N, embedding_dim); fix: give a face-recognition "
            "net"
        )
    return shape[0] == 1, output[1] if isinstance(output[1], int) else 0
