"""Any network of the library timm (the extra ``timm``), with ArcFace's head on top."""

from __future__ import annotations

import difflib
import importlib
import re
from typing import Any

import torch
from torch import Tensor, nn

from arcface_plus.models.autocast import autocast_disabled
from arcface_plus.models.embedding_model import (
    EmbeddingModel,
    check_count,
    check_dropout,
    check_flag,
    last_norm,
)
from arcface_plus.models.preprocessing import Preprocessing

PREFIX = "timm:"
# Without a colon or slash: timm takes hf-hub:… and local-dir:… for places to load code's data from,
# and a name may come from a weights file.
_NAME = re.compile(r"[A-Za-z0-9_.]+")
EPS = 1e-5


class TimmNet(EmbeddingModel):
    """Embed faces with timm's network ``name`` (after ``timm:``) and the head BN-Dropout-FC-BN.

    The network ends at its last feature map or tokens (``forward_features``), which the head reads
    whole, as ArcFace's "E" does: no pooling. Weights are drawn as timm draws them.
    ``size``: pixels. ``dropout``: before the FC. ``fix_last_gain``: hold the gain of the last batch
    norm at 1, untrained. Under autocast FC and batch norm run in the parameters' own precision.
    Raises ValueError for a name that timm lacks, a size that the network cannot take, other options
    out of range, or without timm.
    """

    def __init__(
        self,
        name: str,
        *,
        embedding_dim: int = 512,
        dropout: float = 0.4,
        size: int = 112,
        preprocessing: Preprocessing | None = None,
        fix_last_gain: bool = True,
    ) -> None:
        super().__init__(
            name,
            embedding_dim=check_count("embedding_dim", embedding_dim),
            size=check_count("size", size),
            preprocessing=preprocessing,
            options={
                "dropout": check_dropout(dropout),
                "fix_last_gain": check_flag("fix_last_gain", fix_last_gain),
            },
        )
        # On the CPU also where the rest is built on "meta": tables that no state dict holds, such
        # as the relative positions of a Swin, have their values from here alone.
        with torch.device("cpu"):
            self.net = _create(name.removeprefix(PREFIX), size)
            shape = _probe(self.net, name, size)
        # Tokens, and the maps of Swins.
        self.channels_last = len(shape) == 3 or shape[1] != self.net.num_features
        channels = shape[-1] if self.channels_last else shape[1]
        self.bn = nn.BatchNorm1d(channels, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(shape[1:].numel(), embedding_dim)
        self.features = last_norm(embedding_dim, eps=EPS, fix_gain=fix_last_gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, size, size) to embeddings (N, embedding_dim)."""
        x = self.net.forward_features(x)
        if self.channels_last:
            x = x.movedim(-1, 1)
        x = self.bn(x.flatten(2))
        with autocast_disabled(x):
            x = self.dropout(x.flatten(1).to(self.fc.weight.dtype))
            embedding: Tensor = self.features(self.fc(x))
            return embedding


def _create(name: str, size: int) -> Any:
    """Return timm's network ``name`` for ``size`` pixels, without its classifier and pooling."""
    try:
        timm = importlib.import_module("timm")  # an optional dependency
    except ModuleNotFoundError as error:
        raise ValueError(f'{PREFIX}{name} needs timm: pip install "arcface_plus[timm]"') from error
    if not _NAME.fullmatch(name) or not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.0)
        raise ValueError(
            f"timm has no network {name!r:.100}; the nearest names are {', '.join(nearest)}"
        )
    # Networks of free size have no such argument; those of a fixed one are built for ours.
    fixed = timm.models.get_pretrained_cfg(name.partition(".")[0]).fixed_input_size
    sized = {"img_size": size} if fixed else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, global_pool="", **sized)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{PREFIX}{name} cannot take {size} pixels ({error!s:.200})") from error


def _probe(net: Any, name: str, size: int) -> torch.Size:
    """Return the shape (1, …) of what ``net`` makes of one image of ``size`` pixels.

    What is for the classifier alone needs no gradient from here on: DDP would wait for it.
    """
    try:
        with torch.enable_grad():
            features = net.eval().forward_features(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} cannot take {size} pixels ({error!s:.200})") from error
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        raise ValueError(f"{name} gives no map of features or tokens; choose another network")
    parameters = list(net.parameters())
    with torch.enable_grad():
        gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
    net.train()
    return features.shape
