"""ViT: the vision transformers of insightface's arcface_torch, and CVLface's with other patches.

State dicts have the keys and shapes of arcface_torch, so its weights load. What differs from the
ViT of Dosovitskiy et al. (ICLR 2021): no class token (all tokens go through two linear layers),
ReLU6, no bias of queries, keys and values, and tokens that are masked in training.
Shapes: N images, L tokens of D numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.models.autocast import autocast_disabled
from arcface_plus.models.embedding_model import (
    EmbeddingModel,
    check_count,
    check_flag,
    check_share,
    layout_of,
)
from arcface_plus.models.preprocessing import Preprocessing
from arcface_plus.models.recompute import run_recomputed


class Layout(NamedTuple):
    """What sets one ViT apart; ``mlp``: numbers of a hidden token, in units of the width."""

    width: int
    depth: int
    heads: int = 8
    patch: int = 9
    mlp: int = 4
    drop_path: float = 0.1
    mask: float = 0.1


LAYOUTS: dict[str, Layout] = {
    "vit_t": Layout(256, 12),
    "vit_s": Layout(512, 12),
    "vit_b": Layout(512, 24),
    "vit_l": Layout(768, 24, drop_path=0.05, mask=0.05),
    "vit_h": Layout(1024, 48, mask=0.0),
    # CVLface's small and base
    "vit_s8": Layout(512, 12, patch=8, mlp=5, mask=0.0),
    "vit_b8": Layout(512, 24, heads=16, patch=8, mlp=3, mask=0.0),
}
STD = 0.02  # of first weights
EPS = 2e-5  # of the last batch norms


class Attention(nn.Module):
    """Let every token read all tokens of its image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, L, D) to tokens (N, L, D)."""
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        out: Tensor = self.proj(read.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Change each token by two linear layers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, L, D) to tokens (N, L, D)."""
        out: Tensor = self.fc2(F.relu6(self.fc1(x)))
        return out


class Block(nn.Module):
    """Add attention, then an MLP, to the tokens; ``drop``: see ``drop_path``."""

    def __init__(self, layout: Layout, width: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.attn = Attention(width, layout.heads)
        self.mlp = Mlp(width, layout.mlp * width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, L, D) to tokens (N, L, D)."""
        drop = self.drop if self.training else 0.0
        x = x + drop_path(self.attn(self.norm1(x)), drop)
        return x + drop_path(self.mlp(self.norm2(x)), drop)


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Return ``x`` (N, …) with some images at 0 and the others larger, so that its mean stays.

    Stochastic depth (Huang et al., ECCV 2016).
    """
    if probability == 0:
        return x
    kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= probability
    return x * (kept / (1 - probability)).to(x.dtype)


class Patches(nn.Module):
    """Make a token of each square of ``patch`` pixels; pixels beyond the last whole one are lost.

    With 112 pixels and patches of 9, as arcface_torch has them, that is the last 4 of each side.
    """

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, size, size) to tokens (N, L, D)."""
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class VisionTransformer(EmbeddingModel):
    """Embed faces with a transformer and the head FC-BN-FC-BN over all its tokens.

    ``name``: a key of ``LAYOUTS``. ``size``: pixels. ``width``: D, a multiple of the heads.
    ``drop_path``: chance that the last block passes an image by, falling to 0 at the first.
    ``mask``: share of the tokens of an image that training leaves out of the blocks.
    ``fix_last_gain``: hold the gain of the last batch norm at 1, untrained (arcface_torch trains
    it). ``checkpoint_gradients``: in training, recompute each block in backward.
    Linear layers, positions and the mask token begin at N(0, 0.02²), biases at 0.
    Under autocast the last layers run in the parameters' own precision.
    Raises ValueError for an option out of range.
    """

    def __init__(
        self,
        name: str,
        *,
        embedding_dim: int = 512,
        size: int = 112,
        width: int | None = None,
        drop_path: float | None = None,
        mask: float | None = None,
        preprocessing: Preprocessing | None = None,
        fix_last_gain: bool = True,
        checkpoint_gradients: bool = False,
    ) -> None:
        layout = layout_of(name, LAYOUTS, "a ViT")
        width = check_count("width", width or layout.width, multiple_of=layout.heads)
        rate = check_share("drop_path", layout.drop_path if drop_path is None else drop_path)
        self_mask = check_share("mask", layout.mask if mask is None else mask)
        if check_count("size", size) < layout.patch:
            raise ValueError(f"size must be at least a patch of {name}, {layout.patch}, got {size}")
        super().__init__(
            name,
            embedding_dim=check_count("embedding_dim", embedding_dim),
            size=size,
            preprocessing=preprocessing,
            options={
                "width": width,
                "drop_path": rate,
                "mask": self_mask,
                "fix_last_gain": check_flag("fix_last_gain", fix_last_gain),
            },
        )
        self.mask, count = self_mask, (size // layout.patch) ** 2
        self.checkpoint_gradients = check_flag("checkpoint_gradients", checkpoint_gradients)
        self.patch_embed = Patches(width, layout.patch)
        self.pos_embed = nn.Parameter(torch.empty(1, count, width))
        # Without masking nothing reads it; it stays, as arcface_torch's weights have it.
        self.mask_token = nn.Parameter(torch.empty(1, 1, width), requires_grad=self_mask > 0)
        drops = [rate * block / (layout.depth - 1) for block in range(layout.depth)]
        self.blocks = nn.ModuleList(Block(layout, width, drop) for drop in drops)
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Sequential(
            nn.Linear(width * count, width, bias=False),
            nn.BatchNorm1d(width, eps=EPS),
            nn.Linear(width, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim, eps=EPS),
        )
        self.feature[3].weight.requires_grad_(not fix_last_gain)
        self._draw()

    def _draw(self) -> None:
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        for weight in (self.pos_embed, self.mask_token, *(layer.weight for layer in linear)):
            nn.init.trunc_normal_(weight, std=STD)
        for layer in linear:
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, size, size) to embeddings (N, embedding_dim)."""
        x = self.patch_embed(x) + self.pos_embed
        order = None
        if self.training and self.mask > 0:
            x, order = self._leave_out(x)
        recompute = self.checkpoint_gradients and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            x = run_recomputed(block, x, draws=True) if recompute else block(x)
        with autocast_disabled(x):
            x = self.norm(x.to(self.pos_embed.dtype))
            if order is not None:
                masks = self.mask_token.expand(len(x), order.shape[1] - x.shape[1], -1)
                x = torch.cat([x, masks], dim=1).take_along_dim(order[:, :, None], dim=1)
            embedding: Tensor = self.feature(x.flatten(1))
            return embedding

    def _leave_out(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens that are kept of each image, in random order, and where each token of
        the image (N, L) is then, the left out ones behind the kept ones.
        """
        count = x.shape[1]
        drawn = torch.rand(len(x), count, device=x.device).argsort(dim=1)
        kept = drawn[:, : int(count * (1 - self.mask))]
        return x.take_along_dim(kept[:, :, None], dim=1), drawn.argsort(dim=1)
