"""IResNet: the residual networks of ArcFace, without squeeze-and-excitation unless asked for.

State dicts have the keys and shapes of insightface's arcface_torch, so its weights load.
Shapes: N images, C channels, H × W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.models.autocast import autocast_disabled
from arcface_plus.models.embedding_model import (
    EmbeddingModel,
    check_blocks,
    check_count,
    check_dropout,
    check_flag,
    last_norm,
    layout_of,
    stage,
)
from arcface_plus.models.initialization import check_scheme, initialize
from arcface_plus.models.preprocessing import Preprocessing
from arcface_plus.models.recompute import run_recomputed

DEPTHS: dict[str, tuple[int, int, int, int]] = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
    "iresnet2060": (3, 128, 896, 3),
}
REDUCTION = 16  # of squeeze-and-excitation
EPS = 1e-5
DOWNSAMPLING = 16  # four stages of stride 2


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class Shortcut(nn.Conv2d):
    """A strided 1×1 convolution that is safe on CPUs.

    oneDNN's gradient of such weights writes past its workspace for channels-last input of fewer
    than 16 channels (uxlfoundation/oneDNN issue 6035): wrong numbers, a hang or a crash. Picking
    the pixels first and convolving them without stride is the same function.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        if x.is_cuda or self.in_channels >= 16:
            return super().forward(x)
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight)


class EverySecondPixel(nn.Module):
    """The shortcut without weights that the IR nets of AdaFace and CVLface begin with."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H / 2, W / 2)."""
        return x[:, :, ::2, ::2]


class SqueezeExcitation(nn.Module):
    """Weigh channels by their means over the image (Hu et al., CVPR 2018), as in the IR-SE nets."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // REDUCTION)
        self.fc1 = _conv(channels, hidden, 1)
        self.fc2 = _conv(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(means))))


class Block(nn.Module):
    """Add BN-Conv-BN-PReLU-Conv(stride)-BN to a shortcut.

    The shortcut is a strided 1×1 convolution with BN where the shape changes. ``se``: weigh what is
    added by squeeze-and-excitation.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, se: bool = False) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, eps=EPS)
        self.conv1 = _conv(inputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs, eps=EPS)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = _conv(outputs, outputs, 3, stride)
        self.bn3 = nn.BatchNorm2d(outputs, eps=EPS)
        self.se: nn.Module = SqueezeExcitation(outputs) if se else nn.Identity()
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                Shortcut(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs, eps=EPS)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        out = self.se(self.bn3(self.conv2(out)))
        return out + (x if self.downsample is None else self.downsample(x))


class IResNet(EmbeddingModel):
    """Embed faces with a residual network and the head BN-Dropout-FC-BN ("E" in ArcFace).

    ``name``: a key of ``DEPTHS``. ``size``: pixels, a multiple of 16. ``width``: channels of the
    stem; the stages have 1, 2, 4 and 8 times as many (64 in the papers). ``dropout``: before the
    FC layer. ``init``: see ``initialize``. ``fix_last_gain``: hold the gain of the last batch norm
    at 1, untrained. ``checkpoint_gradients``: in training, recompute each block in backward.
    ``preprocessing``: (x - 127.5) / 128, RGB, where None. ``plain_shortcut``: the shortcut of the
    very first block has no weights, as in the IR nets of AdaFace and CVLface. ``blocks``: of the
    four stages, the name's where None. ``se``: squeeze-and-excitation in every block.
    Under autocast the FC layer and its batch norm run in the parameters' own precision.
    Raises ValueError for an option out of range. Source: Deng et al., ArcFace, CVPR 2019.
    """

    def __init__(
        self,
        name: str,
        *,
        embedding_dim: int = 512,
        dropout: float = 0.4,
        size: int = 112,
        width: int = 64,
        preprocessing: Preprocessing | None = None,
        init: str = "normal",
        fix_last_gain: bool = True,
        checkpoint_gradients: bool = False,
        plain_shortcut: bool = False,
        blocks: Sequence[int] | None = None,
        se: bool = False,
    ) -> None:
        own = check_blocks(layout_of(name, DEPTHS, "an IResNet"))
        depths = own if blocks is None else check_blocks(blocks)
        check_scheme(init)
        super().__init__(
            name,
            embedding_dim=check_count("embedding_dim", embedding_dim),
            size=check_count("size", size, multiple_of=DOWNSAMPLING),
            preprocessing=preprocessing,
            options={
                "dropout": check_dropout(dropout),
                "width": check_count("width", width),
                "fix_last_gain": check_flag("fix_last_gain", fix_last_gain),
                # Only where they differ: files of plain nets stay what they were.
                **({"plain_shortcut": True} if plain_shortcut else {}),
                **({"blocks": depths} if depths != own else {}),
                **({"se": True} if check_flag("se", se) else {}),
            },
        )
        self.checkpoint_gradients = check_flag("checkpoint_gradients", checkpoint_gradients)
        self.conv1 = _conv(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width, eps=EPS)
        self.prelu = nn.PReLU(width)
        block = partial(Block, se=se)
        self.layer1 = stage(block, width, width, blocks=depths[0], stride=2)
        self.layer2 = stage(block, width, 2 * width, blocks=depths[1], stride=2)
        self.layer3 = stage(block, 2 * width, 4 * width, blocks=depths[2], stride=2)
        self.layer4 = stage(block, 4 * width, 8 * width, blocks=depths[3], stride=2)
        if plain_shortcut:
            self.layer1[0].downsample = EverySecondPixel()
        self.bn2, self.dropout = nn.BatchNorm2d(8 * width, eps=EPS), nn.Dropout(dropout)
        self.fc = nn.Linear(8 * width * (size // DOWNSAMPLING) ** 2, embedding_dim)
        self.features = last_norm(embedding_dim, eps=EPS, fix_gain=fix_last_gain)
        initialize(self, scheme=init)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, size, size) to embeddings (N, embedding_dim)."""
        x = self.prelu(self.bn1(self.conv1(x)))
        recompute = self.checkpoint_gradients and self.training and torch.is_grad_enabled()
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer:
                x = run_recomputed(block, x) if recompute else block(x)
        # flatten goes by logical (C, H, W) order, so channels-last input meets the same weights.
        x = torch.flatten(self.bn2(x), 1)
        with autocast_disabled(x):
            x = self.dropout(x.to(self.fc.weight.dtype))
            return self.features(self.fc(x))
