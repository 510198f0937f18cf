"""Load, save and fingerprint a network's weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from arcface_plus.files import file_sha256, written_beside
from arcface_plus.models.build import build_from_options
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.layouts import infer_options
from arcface_plus.models.onnx_model import OnnxModel
from arcface_plus.models.preprocessing import INSIGHTFACE, Preprocessing
from arcface_plus.models.weight_files import (
    LIGHTNING,
    METADATA_KEY,
    PICKLED,
    State,
    read_tensors,
    weights_path,
)

FORMAT_VERSION = 1


def load_model(
    path: str | os.PathLike[str], *, preprocessing: Preprocessing | None = None
) -> EmbeddingModel:
    """Load a network in eval mode on the CPU.

    ``path``: a run folder (its model.safetensors), a .safetensors file, a .pt/.pth state dict in
    the layout of insightface's arcface_torch or of CVLface's IR nets, a .ckpt of AdaFace, or an
    .onnx file. ``preprocessing`` replaces what the file says, and is required where it says nothing
    (foreign .onnx and .safetensors; a foreign .pt/.pth is taken to want arcface_torch's
    (x - 127.5) / 127.5, RGB, and a .ckpt AdaFace's, the same in BGR).
    Nothing in the file is run as code. Raises FileNotFoundError, or ValueError naming the file and
    what does not fit.
    """
    path = weights_path(path)
    if path.suffix == ".onnx":
        return OnnxModel(path, preprocessing=preprocessing).eval()
    options, stored, state = read_net(path)
    try:
        chosen = preprocessing or stored
        if chosen is None:
            raise ValueError(
                "it does not say how images must be normalised; "
                "fix: give preprocessing, such as Preprocessing(mean=127.5, std=127.5)"
            )
        name = options.pop("name")
        with torch.device("meta"):  # nothing is allocated or drawn before the shapes are checked
            model = build_from_options(name, {**options, "preprocessing": chosen})
        _check_fit(model.state_dict(), state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    # All but what a network made itself on the CPU, such as tables that no state dict holds.
    model._apply(
        lambda tensor: torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor
    )
    model.load_state_dict(state)
    return model.eval()


class NetFile(NamedTuple):
    """What a weights file holds: the options of its net, ``name`` among them, and its tensors.

    ``preprocessing`` is None where the file says nothing of it.
    """

    options: dict[str, Any]
    preprocessing: Preprocessing | None
    state: State


def read_net(path: Path) -> NetFile:
    """Read a weights file other than ONNX; ValueError naming it where it is none."""
    state, metadata = read_tensors(path)
    try:
        if metadata is not None:
            return NetFile(*_parse_metadata(metadata), state)
        options = infer_options(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if path.suffix not in PICKLED:
        return NetFile(options, None, state)
    # AdaFace, whose checkpoints are Lightning's, trains on BGR.
    channels = "bgr" if path.suffix == LIGHTNING else "rgb"
    return NetFile(options, replace(INSIGHTFACE, size=options["size"], channels=channels), state)


def save_model(model: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write weights, architecture and preprocessing to one .safetensors file, atomically.

    Tensors are stored as contiguous float32. A reader sees the old file or the new one, never a
    part; equal models give equal bytes. Returns the path. Raises ValueError for a module that is
    not one of ours (wrapped in DDP, compiled, ONNX) or another suffix.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: weights are saved as .safetensors; change the file's ending")
    if not isinstance(model, EmbeddingModel) or model.architecture is None:
        raise ValueError(
            f"cannot save a {type(model).__name__}: only networks made by build_model know their "
            "architecture; fix: pass the unwrapped network (a wrapper's .module)"
        )
    description = {
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture,
        "preprocessing": json.loads(model.preprocessing.to_json()),
    }
    tensors: State = {key: _canonical(value) for key, value in model.state_dict().items()}
    content = safetensors.torch.save(
        tensors, {METADATA_KEY: json.dumps(description, sort_keys=True)}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside:
        beside.write_bytes(content)
    return path


def model_hash(model_or_path: nn.Module | str | os.PathLike[str]) -> str:
    """Return the sha256, in hex, of a network's weights: names, shapes and float32 values.

    A model, the file it is saved to and a re-saved file have the same hash, whatever the format of
    the weights file; for ONNX it is that of the file's bytes. Preprocessing is not part of it.
    Raises as ``load_model`` does.
    """
    if isinstance(model_or_path, OnnxModel):
        return model_or_path.file_hash
    if isinstance(model_or_path, nn.Module):
        return _hash_tensors(model_or_path.state_dict())
    path = weights_path(model_or_path)
    if path.suffix == ".onnx":
        return file_sha256(path)
    return _hash_tensors(read_tensors(path)[0])


def _parse_metadata(text: str) -> tuple[dict[str, Any], Preprocessing]:
    try:
        description = json.loads(text)
        version = description["format_version"]
        options = dict(description["architecture"])
        stored = Preprocessing.from_json(json.dumps(description["preprocessing"]))
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its {METADATA_KEY} metadata is damaged ({error!r})") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"format version {version!r} is not {FORMAT_VERSION}; fix: use the release it is from"
        )
    if not isinstance(options.get("name"), str):
        raise ValueError(f"its {METADATA_KEY} metadata names no architecture")
    return options, stored


def _check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise ValueError listing the first keys, shapes or values that do not fit."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    both = [key for key in expected if key in found]
    shapes = [
        f"{key} is {tuple(found[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in both
        if found[key].shape != expected[key].shape
    ]
    kinds = [
        f"{key} is {found[key].dtype}"
        for key in both
        if found[key].is_floating_point() != expected[key].is_floating_point()
    ]
    values = [
        key
        for key in both
        if found[key].is_floating_point()
        and not bool(torch.isfinite(found[key].to(torch.float32)).all())
    ]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
        "of another kind": kinds,
        "not finite": values,
    }
    listed = [
        f"{len(items)} tensors {what} (first: {'; '.join(items[:3])})"
        for what, items in problems.items()
        if items
    ]
    if listed:
        raise ValueError(
            f"the weights do not fit: {', '.join(listed)}; "
            "fix: use the file of the architecture it names, complete and unchanged"
        )


def _canonical(tensor: Tensor) -> Tensor:
    """Return an own contiguous CPU copy, as float32 where it is floating point."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    copy = tensor.detach().to("cpu", dtype, copy=True)
    return copy.contiguous(memory_format=torch.contiguous_format)


def _hash_tensors(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = _canonical(state[key])
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
