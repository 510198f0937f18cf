"""Read and write the files that weights come in; nothing in them is run as code."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from arcface_plus.models.imports.ir_layout import under_our_names

State = dict[str, Tensor]

METADATA_KEY = "arcface_plus"
RUN_WEIGHTS = "model.safetensors"
LIGHTNING = ".ckpt"
PICKLED = (".pt", ".pth", LIGHTNING)
_LONGEST_TEXT = 2**13
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
    """Return the tensors of a .safetensors, .pt/.pth or .ckpt file, and our metadata if there.

    Those of AdaFace's and CVLface's nets get the names that ours have for them.
    Raises ValueError naming the file where it is damaged or holds anything but tensors.
    """
    state, metadata = (
        (_read_pickled(path), None) if path.suffix in PICKLED else _read_safetensors(path)
    )
    if metadata is None:
        try:
            state = under_our_names(state)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return state, metadata


def _read_safetensors(path: Path) -> tuple[State, str | None]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a readable safetensors file ({error}); fix: copy or save it again"
        ) from error
    return state, metadata.get(METADATA_KEY)


def read_head(path: Path) -> Tensor:
    """Return one rank's class weights (n, dim) of arcface_torch's classifier; ValueError if none.

    ``path``: its ``softmax_fc_gpu_N.pt`` or ``checkpoint_gpu_N.pt``.
    """
    content = _unpickled(path)
    if isinstance(content, Mapping):
        content = content.get("state_dict_softmax_fc", content)
    weight = content.get("weight") if isinstance(content, Mapping) else None
    if not isinstance(weight, Tensor) or not _is_plain(weight) or weight.ndim != 2:
        raise ValueError(f"{path} holds no class weights (a matrix called weight)")
    return weight


def _unpickled(path: Path) -> Any:
    _check_stream(path)
    try:
        with (
            _others_are_inert(path),
            _BoundedReads(io.FileIO(path)) as file,
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Of torch's text only the name: the rest advises to switch the protection off.
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"it refers to {name[1]}" if name else "it holds more than tensors or is damaged"
        raise ValueError(
            f"{path}: refused, {why}. Nothing in it was run; fix: save the state dict alone, "
            "torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # a damaged stream may provoke any error inside torch
        raise ValueError(
            f"{path}: not a readable torch file ({_first_line(error)}); fix: copy or save it again"
        ) from error


def _check_stream(path: Path) -> None:
    """Refuse what would cost torch more than the file's size in memory, or time without end.

    A zip whose members are packed, or lie over each other: torch allocates what they state to
    unpack to, while torch.save stores each once. And texts of ``_LONGEST_TEXT``: torch quotes a
    name that it refuses, and searches its message in quadratic time.
    """
    try:
        with _BoundedReads(io.FileIO(path)) as file:
            if file.peek(4)[:4] != b"PK\3\4":  # as torch tells: of before 1.6, or no torch file
                _check_texts(file, pickles=5)
                return
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(info.file_size for info in members)
            if size > path.stat().st_size:
                raise ValueError(f"refused, it unpacks to {size} bytes, more than it has")
            for info in members:
                if info.filename.endswith("data.pkl"):
                    _check_texts(io.BytesIO(archive.read(info)), pickles=1)
    except Exception as error:  # pickletools and zipfile may raise anything
        raise ValueError(
            f"{path}: not a readable torch file: {_first_line(error)}; fix: copy or save it again"
        ) from error


def _check_texts(file: io.BytesIO | io.BufferedReader, *, pickles: int) -> None:
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    for _ in range(pickles):
        if file.tell() == end:
            return
        for instruction, value, offset in pickletools.genops(file):
            if isinstance(value, str | bytes) and len(value) > _LONGEST_TEXT:
                raise ValueError(
                    f"refused, it has a text of {len(value)} characters at offset {offset} "
                    f"({instruction.name}), where names of tensors belong"
                )


def _read_pickled(path: Path) -> State:
    content = _unpickled(path)
    for inner in ("state_dict_backbone", "state_dict"):  # checkpoints of arcface_torch, Lightning
        if isinstance(content, Mapping) and isinstance(content.get(inner), Mapping):
            content = content[inner]
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


class _BoundedReads(io.BufferedReader):
    """A file that is never asked for more than it has: Python would allocate that first."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(left if size is None else min(size, left))


class _Inert(dict[Any, Any]):
    """What stands for an object of another program: takes all it is given and does nothing."""

    def __init__(self, *args: Any) -> None:
        super().__init__()


@contextmanager
def _others_are_inert(path: Path) -> Iterator[None]:
    """Let Lightning's checkpoints be read, which hold its own objects beside the tensors.

    None of them is made: ``_Inert`` takes the place of every name that torch does not know.
    """
    if path.suffix != LIGHTNING:
        yield
        return
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    with torch.serialization.safe_globals([(_Inert, name) for name in names]):
        yield


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
