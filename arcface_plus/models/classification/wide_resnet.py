"""Wide ResNet: few residual blocks with many channels, batch norm and ReLU before convolutions.

Source: Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016, Table 1.
Shapes: N images, C channels, H × W pixels.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.models.classification.net_parts import average_positions, check_features
from arcface_plus.models.embedding_model import (
    EmbeddingModel,
    check_count,
    check_dropout,
    layout_of,
    stage,
)
from arcface_plus.models.face.iresnet import Shortcut
from arcface_plus.models.initialization import initialize
from arcface_plus.models.preprocessing import Preprocessing

# name -> depth 6n + 4, and widening factor k
LAYOUTS = {"wrn_16_8": (16, 8), "wrn_28_10": (28, 10)}
DOWNSAMPLING = 4  # two of the three stages begin with stride 2


class Block(nn.Module):
    """Add BN-ReLU-Conv(stride)-BN-ReLU-Dropout-Conv to a shortcut.

    Where the shape changes the shortcut is a 1×1 convolution of what the first ReLU gives.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: Shortcut | None = None
        if inputs != outputs:
            self.shortcut = Shortcut(inputs, outputs, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        active = F.relu(self.bn1(x))
        out = self.dropout(F.relu(self.bn2(self.conv1(active))))
        out = self.conv2(out)
        return out + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(EmbeddingModel):
    """Map images to the averages that the classifier of a Wide ResNet reads.

    ``name``: a key of ``LAYOUTS``. ``size``: pixels, a multiple of 4. ``width``: channels of the
    stem (16 in the paper); the stages have k, 2k and 4k times as many, and there are 4k · width
    features (512 for WRN-16-8, 640 for WRN-28-10), which ``embedding_dim`` must be where it is
    given. ``dropout``: between the convolutions of a block. ``preprocessing``: (x - 127.5) / 128,
    RGB, where None.
    Initial weights: He normal by fan-out, as the authors' code. Raises ValueError for an option out
    of range.
    """

    def __init__(
        self,
        name: str,
        *,
        embedding_dim: int | None = None,
        dropout: float = 0.0,
        size: int = 32,
        width: int = 16,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        depth, widening = layout_of(name, LAYOUTS, "a Wide ResNet")
        first = widening * check_count("width", width)
        super().__init__(
            name,
            embedding_dim=check_features(name, embedding_dim, 4 * first),
            size=check_count("size", size, multiple_of=DOWNSAMPLING),
            preprocessing=preprocessing,
            options={"dropout": check_dropout(dropout), "width": width},
        )
        blocks = (depth - 4) // 6
        block = partial(Block, dropout=dropout)
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.layer1 = stage(block, width, first, blocks=blocks, stride=1)
        self.layer2 = stage(block, first, 2 * first, blocks=blocks, stride=2)
        self.layer3 = stage(block, 2 * first, 4 * first, blocks=blocks, stride=2)
        self.bn = nn.BatchNorm2d(4 * first)
        initialize(self, scheme="xavier")

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, size, size) to features (N, embedding_dim)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return average_positions(F.relu(self.bn(x)), self.conv1)
