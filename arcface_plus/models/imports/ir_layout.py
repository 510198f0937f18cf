"""The nets of AdaFace and CVLface: their weights under the names of ours.

IR nets: both call the blocks of all four stages ``body.N`` and count them through. What differs
from insightface's IResNet: the first block of the first stage has a shortcut without weights, and
the last batch norm neither gain nor shift. CVLface's ViT and its copy of insightface's IResNet have
our names behind a prefix.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from arcface_plus.models.face.iresnet import DEPTHS

State = dict[str, Tensor]

_STEM = "input_layer.0.weight"
_BLOCK = re.compile(r"body\.(\d+)\.(res_layer|shortcut_layer)\.([\w.]+)\.(\w+)")
_PARTS = {
    "res_layer": {
        "0": "bn1", "1": "conv1", "2": "bn2", "3": "prelu", "4": "conv2", "5": "bn3",
        "se_block.fc1": "se.fc1", "se_block.fc2": "se.fc2",
    },
    "shortcut_layer": {"0": "downsample.0", "1": "downsample.1"},
}  # fmt: skip
_ENDS = {
    "input_layer.0": "conv1",
    "input_layer.1": "bn1",
    "input_layer.2": "prelu",
    "output_layer.0": "bn2",
    "output_layer.3": "fc",
    "output_layer.4": "features",
}


def ir_prefix(state: State) -> str | None:
    """Return what stands before every name of an IR net in ``state``; None where it holds none.

    ``model.`` in AdaFace's training checkpoints, ``net.`` or ``model.net.`` in CVLface's files.
    """
    found = [key.removesuffix(_STEM) for key in state if key.endswith(_STEM)]
    return found[0] if len(found) == 1 else None


def as_iresnet(state: State, prefix: str) -> State:
    """Return the tensors of the IR net under ``prefix`` by the names that our IResNet gives them.

    Tensors outside ``prefix`` (a classifier) are left out. Raises ValueError for an IR net of
    another kind: with bottlenecks, or without a batch norm between convolution and PReLU
    (face.evoLVe).
    """
    own = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    places = _places(len({found[1] for key in own if (found := _BLOCK.match(key))}))
    names = {key: _renamed(key, places) for key in own}
    odd = [key for key, name in names.items() if name is None]
    if "body.0.res_layer.5.weight" not in own:
        odd.append("body.0.res_layer without a sixth layer")
    if odd:
        raise ValueError(
            f"{prefix}{odd[0]}: this IR net is of another kind; only those of plain blocks load "
            "(BN-Conv-BN-PReLU-Conv-BN: AdaFace's and CVLface's IR-18, 34, 50, 101, IR-SE too)"
        )
    renamed = {name: own[key] for key, name in names.items() if name is not None}
    if "features.running_mean" in renamed:  # without gain and shift is with gain 1 and shift 0
        renamed.setdefault("features.weight", torch.ones_like(renamed["features.running_mean"]))
        renamed.setdefault("features.bias", torch.zeros_like(renamed["features.running_mean"]))
    return renamed


def _places(count: int) -> list[str]:
    """Return ``layerS.B`` of each of ``count`` blocks in a row."""
    for depths in DEPTHS.values():
        if sum(depths) == count:
            return [f"layer{s}.{b}" for s, depth in enumerate(depths, 1) for b in range(depth)]
    known = ", ".join(f"{sum(depths)} ({name})" for name, depths in DEPTHS.items())
    raise ValueError(f"no IResNet has {count} blocks; known are {known}")


def _renamed(key: str, places: list[str]) -> str | None:
    layer, _, kind = key.rpartition(".")
    if layer in _ENDS:
        return f"{_ENDS[layer]}.{kind}"
    found = _BLOCK.fullmatch(key)
    if found is None or int(found[1]) >= len(places):
        return None
    part = _PARTS[found[2]].get(found[3])
    return None if part is None else f"{places[int(found[1])]}.{part}.{found[4]}"


def under_our_names(state: State) -> State:
    """Return the tensors of a net of AdaFace or CVLface by our names for them, others as they are.

    Raises ValueError as ``as_iresnet``.
    """
    prefix = ir_prefix(state)
    if prefix is not None:
        return as_iresnet(state, prefix)
    stems = ("patch_embed.proj.weight", "layer1.0.bn1.weight")
    found = [key.removesuffix(stem) for key in state for stem in stems if key.endswith(stem)]
    if len(found) == 1 and found[0]:
        state = {k[len(found[0]) :]: v for k, v in state.items() if k.startswith(found[0])}
    positions = state.get("pos_embed")
    if positions is not None and positions.ndim == 3 and "mask_token" not in state:
        # A ViT that was trained without masking has no token for what is masked: nothing reads it.
        return state | {"mask_token": torch.zeros_like(positions[:, :1])}
    return state
