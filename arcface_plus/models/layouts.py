"""Infer a network's options from the names and shapes of its weights alone."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from arcface_plus.models.face import iresnet, mobilefacenet, vit
from arcface_plus.models.weight_files import State


def infer_options(state: State) -> dict[str, Any]:
    """Return ``name`` and the options of the network whose state dict this is.

    Knows the layouts of insightface's arcface_torch: IResNet, MobileFaceNet and ViT.
    Raises ValueError naming the first keys where it is none of them.
    """
    if {"conv1.weight", "layer1.0.bn1.weight", "fc.weight", "features.weight"} <= state.keys():
        return _infer_iresnet(state)
    if {"layers.0.layers.0.weight", "conv_sep.layers.0.weight"} <= state.keys():
        return _infer_mobilefacenet(state)
    if {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "feature.3.weight"} <= state.keys():
        return _infer_vit(state)
    raise ValueError(
        "these weights are no ViT, and neither an IResNet nor a MobileFaceNet (first keys: "
        f"{', '.join(list(state)[:5]) or 'none'}); fix: pass an arcface_torch backbone "
        "(r18 to r200, r2060, mbf, mbf_large, vit_t to vit_h), an IR net or ViT of AdaFace or "
        "CVLface, or a file written by save_model"
    )


def _count_blocks(state: State, prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _shape(state: State, key: str, rank: int) -> tuple[int, ...]:
    if key not in state or state[key].ndim != rank:
        found = tuple(state[key].shape) if key in state else "nothing"
        raise ValueError(f"{key} must be a tensor of {rank} dimensions, found {found}")
    return tuple(state[key].shape)


def _all_ones(tensor: Tensor) -> bool:
    return bool((tensor == 1).all())


def _infer_iresnet(state: State) -> dict[str, Any]:
    found = tuple(_count_blocks(state, f"layer{stage}.") for stage in (1, 2, 3, 4))
    names = [name for name, blocks in iresnet.DEPTHS.items() if blocks == found]
    if not names:
        known = ", ".join(f"{name} {blocks}" for name, blocks in iresnet.DEPTHS.items())
        raise ValueError(f"no IResNet has {found} blocks in its four stages; known are {known}")
    width = _shape(state, "conv1.weight", 4)[0]
    embedding_dim, inputs = _shape(state, "fc.weight", 2)
    positions = math.isqrt(inputs // (8 * width))
    if positions < 1 or positions**2 * 8 * width != inputs:
        raise ValueError(
            f"fc.weight takes {inputs} inputs, which is no square number of positions × "
            f"{8 * width} channels; only square inputs are supported"
        )
    return {
        "name": names[0],
        "embedding_dim": embedding_dim,
        "size": positions * iresnet.DOWNSAMPLING,
        "width": width,
        "fix_last_gain": _all_ones(state["features.weight"]),
        "plain_shortcut": "layer1.0.downsample.0.weight" not in state,
        "se": "layer1.0.se.fc1.weight" in state,
    }


def _infer_mobilefacenet(state: State) -> dict[str, Any]:
    # A first stage of one block is a plain convolution, whose second child is a batch norm.
    plain_first = "layers.1.layers.1.weight" in state
    first = 1 if plain_first else _count_blocks(state, "layers.1.layers.")
    blocks = [first, *(_count_blocks(state, f"layers.{index}.layers.") for index in (3, 5, 7))]
    width = _shape(state, "layers.0.layers.0.weight", 4)[0]
    named = [name for name, layout in mobilefacenet.LAYOUTS.items() if layout[0] == tuple(blocks)]
    gain = "features.layers.3.weight"
    _shape(state, gain, 1)
    return {
        "name": named[0] if named else "mobilefacenet",
        "embedding_dim": _shape(state, "features.layers.2.weight", 2)[0],
        "size": _shape(state, "features.layers.0.layers.0.weight", 4)[2]
        * mobilefacenet.DOWNSAMPLING,
        "width": width,
        "blocks": blocks,
        "fix_last_gain": _all_ones(state[gain]),
    }


def _infer_vit(state: State) -> dict[str, Any]:
    width, _, patch, _ = _shape(state, "patch_embed.proj.weight", 4)
    found = (patch, _count_blocks(state, "blocks."), _shape(state, "blocks.0.mlp.fc1.weight", 2)[0])
    # The number of heads shows in no shape: a net of another kind than those known is refused.
    named = {
        name: layout
        for name, layout in vit.LAYOUTS.items()
        if found == (layout.patch, layout.depth, layout.mlp * width)
    }
    if not named:
        known = ", ".join(
            f"{name} ({layout.patch}, {layout.depth}, {layout.mlp})"
            for name, layout in vit.LAYOUTS.items()
        )
        raise ValueError(
            f"no ViT has patches of {patch} pixels, {found[1]} blocks and {found[2]} numbers of a "
            f"hidden token for {width} of a token; known are (patch, blocks, ratio) {known}"
        )
    same_width = [name for name, layout in named.items() if layout.width == width]
    return {
        "name": (same_width or list(named))[0],
        "embedding_dim": _shape(state, "feature.2.weight", 2)[0],
        "size": _vit_size(state, patch),
        "width": width,
        "fix_last_gain": _all_ones(state["feature.3.weight"]),
    }


def _vit_size(state: State, patch: int) -> int:
    """Return the pixels of the images: 112 where they give as many patches, else whole patches."""
    count = _shape(state, "pos_embed", 3)[1]
    side = math.isqrt(count)
    if side**2 != count:
        raise ValueError(f"pos_embed has {count} positions, but only square images are supported")
    return 112 if 112 // patch == side else side * patch
