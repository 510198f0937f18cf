"""Read and write the files that weights come in; nothing in them is run as code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from torch import Tensor

State = dict[str, Tensor]

METADATA_KEY = "arcface_plus"
RUN_WEIGHTS = "model.safetensors"
PICKLED = (".pt", ".pth")
SUFFIXES = (".safetensors", *PICKLED, ".onnx")


def weights_path(path: str | os.PathLike[str]) -> Path:
    """Return the weights file that ``path``, a file or a run folder, means.

    Raises FileNotFoundError, or ValueError for a suffix that no weights have.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RUN_WEIGHTS
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; a run folder holds it once training has saved a model"
            )
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a run folder or a weights file")
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: weights files end in {', '.join(SUFFIXES)}, not {path.suffix or 'nothing'!r}"
        )
    return path


def read_tensors(path: Path) -> tuple[State, str | None]:
    """Return the tensors of a .safetensors or .pt/.pth file, and our metadata where it has any.

    Raises ValueError naming the file where it is damaged or holds anything but tensors.
    """
    if path.suffix in PICKLED:
        return _read_pickled(path), None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a readable safetensors file ({error}); fix: copy or save it again"
        ) from error
    return state, metadata.get(METADATA_KEY)


def _read_pickled(path: Path) -> State:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: refused, it holds more than tensors or is damaged; fix: save the state dict "
            f"alone, torch.save(model.state_dict(), ...) ({_first_line(error)})"
        ) from error
    except Exception as error:  # a damaged stream may provoke any error inside torch
        raise ValueError(
            f"{path}: not a readable torch file ({_first_line(error)}); fix: copy or save it again"
        ) from error
    if isinstance(content, Mapping) and "state_dict_backbone" in content:
        content = content["state_dict_backbone"]  # arcface_torch's training checkpoint
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: not a state dict of tensors; fix: save model.state_dict()")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not _is_plain(value):
            raise ValueError(
                f"{path}: {key!r:.100} is no plain tensor; fix: save model.state_dict() alone"
            )
    if all(key.startswith("module.") for key in content):  # saved from under DDP
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is dense, in memory, and no larger than the bytes behind it."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
