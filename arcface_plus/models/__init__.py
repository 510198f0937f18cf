"""Face-embedding and classification networks: build one by name, load one from a file, save one.

Importing this package does not import torch: the functions arrive at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arcface_plus.models.build import build_model as build_model
    from arcface_plus.models.preprocessing import Preprocessing as Preprocessing
    from arcface_plus.models.weights import load_model as load_model
    from arcface_plus.models.weights import model_hash as model_hash
    from arcface_plus.models.weights import save_model as save_model

# name -> module and class; the class takes the name and keyword-only options.
MODELS: dict[str, tuple[str, str]] = {
    "iresnet18": ("arcface_plus.models.face.iresnet", "IResNet"),
    "iresnet34": ("arcface_plus.models.face.iresnet", "IResNet"),
    "iresnet50": ("arcface_plus.models.face.iresnet", "IResNet"),
    "iresnet100": ("arcface_plus.models.face.iresnet", "IResNet"),
    "iresnet200": ("arcface_plus.models.face.iresnet", "IResNet"),
    "mobilefacenet": ("arcface_plus.models.face.mobilefacenet", "MobileFaceNet"),
    "mobilefacenet_large": ("arcface_plus.models.face.mobilefacenet", "MobileFaceNet"),
    "resnet20": ("arcface_plus.models.classification.resnet", "ResNet"),
    "resnet32": ("arcface_plus.models.classification.resnet", "ResNet"),
    "resnet44": ("arcface_plus.models.classification.resnet", "ResNet"),
    "resnet56": ("arcface_plus.models.classification.resnet", "ResNet"),
    "resnet110": ("arcface_plus.models.classification.resnet", "ResNet"),
    "vgg16_bn": ("arcface_plus.models.classification.vgg", "Vgg"),
    "vgg19_bn": ("arcface_plus.models.classification.vgg", "Vgg"),
    "wrn_16_8": ("arcface_plus.models.classification.wide_resnet", "WideResNet"),
    "wrn_28_10": ("arcface_plus.models.classification.wide_resnet", "WideResNet"),
    "densenet_40_12": ("arcface_plus.models.classification.densenet", "DenseNet"),
}

_HOMES = {
    "Preprocessing": "preprocessing",
    "build_model": "build",
    "load_model": "weights",
    "model_hash": "weights",
    "save_model": "weights",
}

__all__ = ["MODELS", "Preprocessing", "build_model", "load_model", "model_hash", "save_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
