"""VGG with batch norm for small images: the convolutions of VGG-16 and VGG-19, then one average.

Source: Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015, configurations D and E,
with batch norm after each convolution. The three fully connected layers of the original, made for
224 × 224 pixels, give way to the one of the classifier, as is usual on CIFAR.
State dicts have the keys and shapes of torchvision's ``vgg16_bn().features``.
"""

from __future__ import annotations

from torch import Tensor, nn

from arcface_plus.models.classification.net_parts import average_positions, check_features
from arcface_plus.models.embedding_model import (
    EmbeddingModel,
    check_count,
    layout_of,
)
from arcface_plus.models.initialization import initialize
from arcface_plus.models.preprocessing import Preprocessing

# name -> convolutions of each of the five stages
CONVOLUTIONS: dict[str, tuple[int, ...]] = {
    "vgg16_bn": (2, 2, 3, 3, 3),
    "vgg19_bn": (2, 2, 4, 4, 4),
}
CHANNELS = (1, 2, 4, 8, 8)  # of the stages, in widths
DOWNSAMPLING = 32  # a pooling ends each of the five stages


def _features(convolutions: tuple[int, ...], width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 3
    for count, channels in zip(convolutions, CHANNELS, strict=True):
        for _ in range(count):
            outputs = channels * width
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class Vgg(EmbeddingModel):
    """Map images to the 512 numbers that the one linear layer of a CIFAR VGG reads.

    ``name``: a key of ``CONVOLUTIONS``. ``size``: pixels, a multiple of 32. At 32 the last pooling
    leaves one position; at 64 (TinyImageNet) the four are averaged, so that the classifier is of
    the same size. ``width``: channels of the first stage (64 in the paper); there are 8 · width
    features, which ``embedding_dim`` must be where it is given. ``preprocessing``:
    (x - 127.5) / 128, RGB, where None.
    Initial weights: He normal by fan-out, biases 0 (the paper's own scheme is for nets without
    batch norm). Raises ValueError for an option out of range.
    """

    def __init__(
        self,
        name: str,
        *,
        embedding_dim: int | None = None,
        size: int = 32,
        width: int = 64,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        convolutions = layout_of(name, CONVOLUTIONS, "a VGG")
        features = CHANNELS[-1] * check_count("width", width)
        super().__init__(
            name,
            embedding_dim=check_features(name, embedding_dim, features),
            size=check_count("size", size, multiple_of=DOWNSAMPLING),
            preprocessing=preprocessing,
            options={"width": width},
        )
        self.features = _features(convolutions, width)
        initialize(self, scheme="xavier")

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, size, size) to features (N, embedding_dim)."""
        return average_positions(self.features(x), self.stem)
