"""ResNet for 32 × 32 images: three stages of plain blocks and shortcuts without parameters.

Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, §4.2.
Shapes: N images, C channels, H × W pixels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.models.classification.net_parts import average_positions, check_features
from arcface_plus.models.embedding_model import (
    EmbeddingModel,
    check_count,
    layout_of,
    stage,
)
from arcface_plus.models.initialization import initialize
from arcface_plus.models.preprocessing import Preprocessing

# name -> blocks of each stage, n of the paper; the depth is 6n + 2.
BLOCKS = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9, "resnet110": 18}
DOWNSAMPLING = 4  # two of the three stages begin with stride 2


class Block(nn.Module):
    """Add Conv(stride)-BN-ReLU-Conv-BN to a shortcut, then ReLU.

    Where the shape changes the shortcut is "option A": every second pixel of every second row, with
    zeros for the channels that are new.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.new_channels:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(out + x)


class ResNet(EmbeddingModel):
    """Map images to the 64 averages that the classifier of a CIFAR ResNet reads.

    ``name``: a key of ``BLOCKS``. ``size``: pixels, a multiple of 4. ``width``: channels of the
    stem and the first stage (16 in the paper); the others have 2 and 4 times as many, and there are
    4 · width features, which ``embedding_dim`` must be where it is given. ``preprocessing``:
    (x - 127.5) / 128, RGB, where None.
    Initial weights: He normal by fan-in, the first of the two forms of the paper that is cited for
    it. Raises ValueError for an option out of range.
    """

    def __init__(
        self,
        name: str,
        *,
        embedding_dim: int | None = None,
        size: int = 32,
        width: int = 16,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        blocks = layout_of(name, BLOCKS, "a CIFAR ResNet")
        super().__init__(
            name,
            embedding_dim=check_features(name, embedding_dim, 4 * check_count("width", width)),
            size=check_count("size", size, multiple_of=DOWNSAMPLING),
            preprocessing=preprocessing,
            options={"width": width},
        )
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(Block, width, width, blocks=blocks, stride=1)
        self.layer2 = stage(Block, width, 2 * width, blocks=blocks, stride=2)
        self.layer3 = stage(Block, 2 * width, 4 * width, blocks=blocks, stride=2)
        initialize(self, scheme="he")

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, size, size) to features (N, embedding_dim)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return average_positions(self.layer3(self.layer2(self.layer1(x))), self.conv1)
