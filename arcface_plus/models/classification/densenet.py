"""DenseNet for 32 × 32 images: every layer reads what all layers of its block before it gave.

Source: Huang et al., Densely Connected Convolutional Networks, CVPR 2017, §3 and §4.2, the plain
variant: neither bottlenecks nor compression.
Shapes: N images, C channels, H × W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.models.classification.net_parts import average_positions, check_features
from arcface_plus.models.embedding_model import (
    EmbeddingModel,
    check_count,
    layout_of,
)
from arcface_plus.models.initialization import initialize
from arcface_plus.models.preprocessing import Preprocessing

# name -> depth 3n + 4 (n layers in each of three blocks), and growth rate k
LAYOUTS = {"densenet_40_12": (40, 12)}
STEM_CHANNELS = 16
DOWNSAMPLING = 4  # a pooling between any two blocks


class Layer(nn.Module):
    """Append the ``growth`` channels of BN-ReLU-Conv to the input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, inputs + growth, H, W)."""
        return torch.cat([x, self.conv(F.relu(self.bn(x)))], dim=1)


class Transition(nn.Module):
    """Halve the image by BN-ReLU-Conv(1×1)-AveragePool; the channels stay as many."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, channels, H / 2, W / 2)."""
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


def _block(inputs: int, *, layers: int, growth: int) -> nn.Sequential:
    return nn.Sequential(*(Layer(inputs + i * growth, growth) for i in range(layers)))


class DenseNet(EmbeddingModel):
    """Map images to the 448 averages that the classifier of DenseNet-40-12 reads.

    ``name``: a key of ``LAYOUTS``. ``size``: pixels, a multiple of 4. ``width``: the growth rate k,
    channels that a layer adds (12 in the name); the stem has 16 channels whatever it is, and there
    are 16 + 36 · width features, which ``embedding_dim`` must be where it is given.
    ``preprocessing``: (x - 127.5) / 128, RGB, where None.
    Initial weights: He normal by fan-out, as the authors' code. No dropout, as the paper has it for
    augmented images. Raises ValueError for an option out of range.
    """

    def __init__(
        self,
        name: str = "densenet_40_12",
        *,
        embedding_dim: int | None = None,
        size: int = 32,
        width: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        depth, growth = layout_of(name, LAYOUTS, "a DenseNet")
        growth = check_count("width", growth if width is None else width)
        layers = (depth - 4) // 3
        ends = [STEM_CHANNELS + block * layers * growth for block in range(4)]
        super().__init__(
            name,
            embedding_dim=check_features(name, embedding_dim, ends[3]),
            size=check_count("size", size, multiple_of=DOWNSAMPLING),
            preprocessing=preprocessing,
            options={"width": growth},
        )
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 3, padding=1, bias=False)
        self.block1 = _block(ends[0], layers=layers, growth=growth)
        self.transition1 = Transition(ends[1])
        self.block2 = _block(ends[1], layers=layers, growth=growth)
        self.transition2 = Transition(ends[2])
        self.block3 = _block(ends[2], layers=layers, growth=growth)
        self.bn = nn.BatchNorm2d(ends[3])
        initialize(self, scheme="xavier")

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, size, size) to features (N, embedding_dim)."""
        x = self.transition1(self.block1(self.conv1(x)))
        x = self.block3(self.transition2(self.block2(x)))
        return average_positions(F.relu(self.bn(x)), self.conv1)
