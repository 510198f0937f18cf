"""MobileFaceNet: inverted residuals and a global depthwise convolution.

State dicts have the keys and shapes of insightface's arcface_torch ("mbf", "mbf_large"), so its
weights load. Source: Chen et al., MobileFaceNets, 2018; arcface_torch's channel counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from arcface_plus.models.autocast import autocast_disabled
from arcface_plus.models.embedding_model import (
    EmbeddingModel,
    check_blocks,
    check_count,
    check_flag,
    layout_of,
)
from arcface_plus.models.initialization import check_scheme, initialize
from arcface_plus.models.preprocessing import Preprocessing
from arcface_plus.models.recompute import run_recomputed

# name -> (blocks of the four stages, channels of the stem)
LAYOUTS: dict[str, tuple[tuple[int, int, int, int], int]] = {
    "mobilefacenet": ((1, 4, 6, 2), 128),
    "mobilefacenet_large": ((2, 8, 12, 4), 256),
}
LAST_CHANNELS = 512
DOWNSAMPLING = 16


class Layers(nn.Module):
    """Apply ``layers`` in order, under the name that arcface_torch's state dicts have for them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to what the layers make of it."""
        return self.layers(x)


class ConvBlock(Layers):
    """Apply a convolution and batch norm, and PReLU unless ``linear``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__(
            nn.Conv2d(
                inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False
            ),
            nn.BatchNorm2d(outputs),
            *([] if linear else [nn.PReLU(outputs)]),
        )


class InvertedResidual(Layers):
    """Expand by 1×1, filter depthwise by 3×3, project by 1×1; add the input where ``residual``."""

    def __init__(
        self, inputs: int, outputs: int, *, expanded: int, stride: int = 1, residual: bool = False
    ) -> None:
        super().__init__(
            ConvBlock(inputs, expanded),
            ConvBlock(expanded, expanded, kernel=3, stride=stride, padding=1, groups=expanded),
            ConvBlock(expanded, outputs, linear=True),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out = super().forward(x)
        return x + out if self.residual else out


def _stage(channels: int, *, blocks: int, expanded: int) -> Layers:
    """Return ``blocks`` inverted residuals of one shape."""
    return Layers(
        *(
            InvertedResidual(channels, channels, expanded=expanded, residual=True)
            for _ in range(blocks)
        )
    )


class GlobalDepthwiseHead(Layers):
    """Weigh the H × W positions of each channel, then FC without bias and batch norm."""

    def __init__(self, channels: int, embedding_dim: int, *, positions: int) -> None:
        super().__init__(
            ConvBlock(channels, channels, kernel=positions, groups=channels, linear=True),
            nn.Flatten(),
            nn.Linear(channels, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, positions, positions) to (N, embedding_dim)."""
        depthwise, flatten, fc, norm = self.layers
        assert isinstance(fc, nn.Linear)
        x = flatten(depthwise(x))
        with autocast_disabled(x):
            return norm(fc(x.to(fc.weight.dtype)))


class MobileFaceNet(EmbeddingModel):
    """Embed faces with MobileFaceNet as arcface_torch defines it.

    ``name``: a key of ``LAYOUTS``. ``size``: pixels, a multiple of 16. ``width``: channels of the
    stem, a multiple of 64 (arcface_torch's ``scale`` is width / 64); the later stages have twice as
    many, the expansions stay at 128, 256, 512. ``blocks``: of the four stages, the name's where
    None. ``fix_last_gain``: hold the gain of the last batch norm at 1, untrained (arcface_torch
    trains it here). The remaining options are those of ``IResNet``; there is no dropout.
    Raises ValueError for an option out of range.
    """

    def __init__(
        self,
        name: str = "mobilefacenet",
        *,
        embedding_dim: int = 512,
        size: int = 112,
        width: int | None = None,
        blocks: Sequence[int] | None = None,
        preprocessing: Preprocessing | None = None,
        init: str = "xavier",
        fix_last_gain: bool = True,
        checkpoint_gradients: bool = False,
    ) -> None:
        default_blocks, default_width = layout_of(name, LAYOUTS, "a MobileFaceNet")
        blocks = check_blocks(default_blocks if blocks is None else blocks)
        width = default_width if width is None else width
        check_scheme(init)
        super().__init__(
            name,
            embedding_dim=check_count("embedding_dim", embedding_dim),
            size=check_count("size", size, multiple_of=DOWNSAMPLING),
            preprocessing=preprocessing,
            options={
                "width": check_count("width", width, multiple_of=64),
                "blocks": blocks,
                "fix_last_gain": check_flag("fix_last_gain", fix_last_gain),
            },
        )
        self.checkpoint_gradients = check_flag("checkpoint_gradients", checkpoint_gradients)
        double = 2 * width
        self.layers = nn.ModuleList(
            [
                ConvBlock(3, width, kernel=3, stride=2, padding=1),
                ConvBlock(width, width, kernel=3, padding=1, groups=64)
                if blocks[0] == 1
                else _stage(width, blocks=blocks[0], expanded=128),
                InvertedResidual(width, width, expanded=128, stride=2),
                _stage(width, blocks=blocks[1], expanded=128),
                InvertedResidual(width, double, expanded=256, stride=2),
                _stage(double, blocks=blocks[2], expanded=256),
                InvertedResidual(double, double, expanded=512, stride=2),
                _stage(double, blocks=blocks[3], expanded=256),
            ]
        )
        self.conv_sep = ConvBlock(double, LAST_CHANNELS)
        self.features = GlobalDepthwiseHead(
            LAST_CHANNELS, embedding_dim, positions=size // DOWNSAMPLING
        )
        self.features.layers[-1].weight.requires_grad_(not fix_last_gain)
        initialize(self, scheme=init)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, size, size) to embeddings (N, embedding_dim)."""
        recompute = self.checkpoint_gradients and self.training and torch.is_grad_enabled()
        for layer in self.layers:
            x = run_recomputed(layer, x) if recompute else layer(x)
        return self.features(self.conv_sep(x))
