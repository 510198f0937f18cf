"""Build a network from its name and options."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from typing import Any

from arcface_plus.models.classification import densenet, resnet, vgg, wide_resnet
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.face import iresnet, mobilefacenet, timm_net, vit
from arcface_plus.models.imports import onnx_net
from arcface_plus.models.preprocessing import Preprocessing

# Each class takes the name and keyword-only options.
MODELS: dict[str, type[EmbeddingModel]] = {
    **dict.fromkeys(iresnet.DEPTHS, iresnet.IResNet),
    **dict.fromkeys(mobilefacenet.LAYOUTS, mobilefacenet.MobileFaceNet),
    **dict.fromkeys(vit.LAYOUTS, vit.VisionTransformer),
    **dict.fromkeys(resnet.BLOCKS, resnet.ResNet),
    **dict.fromkeys(vgg.CONVOLUTIONS, vgg.Vgg),
    **dict.fromkeys(wide_resnet.LAYOUTS, wide_resnet.WideResNet),
    **dict.fromkeys(densenet.LAYOUTS, densenet.DenseNet),
}
# What a weights file may name besides: it brings its graph with it.
_FROM_FILES: dict[str, type[EmbeddingModel]] = {onnx_net.NAME: onnx_net.OnnxNet}


def build_model(
    name: str,
    *,
    embedding_dim: int | None = None,
    dropout: float | None = None,
    size: int | None = None,
    width: int | None = None,
    preprocessing: Preprocessing | None = None,
    init: str | None = None,
    fix_last_gain: bool = True,
    checkpoint_gradients: bool = False,
    blocks: Sequence[int] | None = None,
    se: bool | None = None,
    drop_path: float | None = None,
    mask: float | None = None,
) -> EmbeddingModel:
    """Build the network ``name`` with new weights, in training mode.

    ``name``: a key of ``MODELS``, or ``timm:NAME`` for a network of timm (the extra ``timm``).

    None leaves an option at the network's own default: 512 numbers of a 112 × 112 face, or what the
    last pooling of a classification net gives of its 32 × 32 image (see ``.embedding_dim``).
    ``init`` is "normal" or "xavier" for face nets; weights are drawn from torch's global generator.
    ``fix_last_gain=True`` and ``checkpoint_gradients=False`` ask nothing of a net that has no such
    gain or blocks. See the classes for the options.
    Raises ValueError for an unknown name, an option out of range, or one the network lacks.
    """
    asked = {
        "embedding_dim": embedding_dim,
        "dropout": dropout,
        "size": size,
        "width": width,
        "preprocessing": preprocessing,
        "init": init,
        "fix_last_gain": None if fix_last_gain is True else fix_last_gain,
        "checkpoint_gradients": None if checkpoint_gradients is False else checkpoint_gradients,
        "blocks": blocks,
        "se": None if se is False else se,
        "drop_path": drop_path,
        "mask": mask,
    }
    return build_from_options(
        name, {option: value for option, value in asked.items() if value is not None}
    )


def build_from_options(name: str, options: dict[str, Any]) -> EmbeddingModel:
    """Build ``name`` with exactly ``options``, as a weights file's metadata gives them.

    Raises ValueError as ``build_model`` does.
    """
    classes = MODELS | _FROM_FILES
    if str(name).startswith(timm_net.PREFIX):
        classes = {name: timm_net.TimmNet}
    if name not in classes:
        nearest = difflib.get_close_matches(str(name), MODELS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown model {name!r}; the nearest name is {nearest!r}, "
            f"known are {', '.join(MODELS)}, and timm:NAME for the networks of timm"
        )
    accepted = set(inspect.signature(classes[name]).parameters) - {"name"}
    if unknown := sorted(options.keys() - accepted):
        raise ValueError(
            f"{name} has no option {', '.join(unknown)}; leave it unset. "
            f"Its options are {', '.join(sorted(accepted))}"
        )
    return classes[name](name, **options)
