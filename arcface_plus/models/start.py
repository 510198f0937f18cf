"""The net that a run begins with, from a file: what of it fits, and what begins anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arcface_plus.models.build import build_from_options
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.imports.onnx_net import NAME as ONNX
from arcface_plus.models.imports.onnx_net import OnnxNet
from arcface_plus.models.preprocessing import Preprocessing
from arcface_plus.models.weight_files import weights_path
from arcface_plus.models.weights import read_net

_NAMES_SHOWN = 5


def start_from(
    path: Path, options: Mapping[str, Any], preprocessing: Mapping[str, Any], *, size: int
) -> EmbeddingModel:
    """Return the network that ``path`` (a run folder or weights file) starts, in training mode.

    It is the file's own architecture and preprocessing, but for what ``options`` (of
    ``build_model``) and ``preprocessing`` (fields of it) state, and for images of ``size`` pixels.
    Tensors of the same name and shape are taken; others begin anew, from torch's global generator.
    Its ``origin`` says what was taken.
    Raises ValueError naming ``path`` where less than half of the net fits, FileNotFoundError where
    it is not there.
    """
    path = weights_path(path)
    given = {**preprocessing, "size": size}
    if path.suffix == ".onnx":
        return _start_from_onnx(path, options, given)
    found = read_net(path)
    try:
        inputs = _preprocessing(found.preprocessing, given)
        own = found.options if options.get("name") in (None, found.options["name"]) else {}
        wanted = {**own, **options}
        name = wanted.pop("name")
        if name != ONNX:
            wanted["size"] = size
        elif found.preprocessing is not None and found.preprocessing.size != size:
            raise ValueError(
                f"its net takes {found.preprocessing.size} pixels, but data.size is {size}"
            )
        model = build_from_options(name, {**wanted, "preprocessing": inputs})
        model.origin = _take(model, found.state, path)
    except ValueError as error:
        raise ValueError(f"model.init {path}: {error}") from error
    return model


def _start_from_onnx(
    path: Path, options: Mapping[str, Any], given: Mapping[str, Any]
) -> EmbeddingModel:
    if options:
        raise ValueError(
            f"model.init {path} is an ONNX file, whose net is as it is: remove "
            f"{', '.join(f'model.{option}' for option in options)}"
        )
    complete = {"mean", "std"} <= given.keys()
    model = OnnxNet.from_file(path, Preprocessing(**given) if complete else None).train()
    model.preprocessing = _preprocessing(model.preprocessing, given)
    parameters = [p.numel() for p in model.parameters()]
    model.origin = (
        f"start: {path}, {len(parameters)} tensors ({sum(parameters):,} numbers), equal to "
        f"onnxruntime; input {_words(model.preprocessing)}"
    )
    return model


def _preprocessing(stored: Preprocessing | None, given: Mapping[str, Any]) -> Preprocessing:
    if stored is not None:
        return replace(stored, **given)
    if not {"mean", "std"} <= given.keys():
        raise ValueError(
            "it does not say how images must be normalised; fix: --model.mean 127.5 --model.std "
            "127.5 (insightface's PyTorch nets) or 128 (its MXNet nets)"
        )
    return Preprocessing(**given)


def _words(inputs: Preprocessing) -> str:
    return f"(x − {inputs.mean}) / {inputs.std} {inputs.channels.upper()}"


@torch.no_grad()
def _take(model: EmbeddingModel, state: Mapping[str, Tensor], path: Path) -> str:
    """Copy what fits of ``state`` into ``model`` and say what did not."""
    own = model.state_dict()
    taken = [key for key, value in own.items() if key in state and _fits(value, state[key])]
    other_shape = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and key not in set(taken)
    ]
    weights = [key for key in taken if own[key].is_floating_point()]
    numbers = sum(own[key].numel() for key in weights)
    whole = sum(value.numel() for value in own.values() if value.is_floating_point())
    lines = [
        f"start: {path}, {len(taken)} of the net's {len(own)} tensors ({numbers:,} of {whole:,} "
        f"numbers); input {_words(model.preprocessing)}"
    ]
    for what, keys in (
        ("not in the file, begin anew", [key for key in own if key not in state]),
        ("of another shape, begin anew", other_shape),
        ("in the file, of no use here", [key for key in state if key not in own]),
    ):
        if keys:
            lines.append(f"warning: {len(keys)} tensors {what}: {_some(keys)}")
    if 2 * numbers < whole:
        raise ValueError(
            f"only {numbers:,} of the {whole:,} numbers of the {model.name} are in it ("
            f"{'; '.join(lines[1:])}); leave model.name and its options unset to take the file's"
        )
    damaged = [key for key in weights if not bool(torch.isfinite(state[key].float()).all())]
    if damaged:
        raise ValueError(f"{_some(damaged)} holds numbers that are not finite")
    for key in taken:
        own[key].copy_(state[key])
    return "\n".join(lines)


def _fits(own: Tensor, found: Tensor) -> bool:
    return own.shape == found.shape and own.is_floating_point() == found.is_floating_point()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
