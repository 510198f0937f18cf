"""A small network whose batch norms do something, faces for it, and embeddings by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from arcface_plus.models import Preprocessing, build_model
from arcface_plus.models.embedding_model import EmbeddingModel

MakeNetwork = Callable[..., EmbeddingModel]


class TinyNetwork(EmbeddingModel):
    """A stem as in the face nets, with a zero border, and an FC layer: quick to trace."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__(
            "tiny",
            embedding_dim=16,
            size=preprocessing.size,
            preprocessing=preprocessing,
            options={},
        )
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.prelu = nn.PReLU(8)
        self.fc = nn.Linear(8 * (preprocessing.size // 2) ** 2, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.prelu(self.bn(self.conv(x))), 1))


@pytest.fixture(scope="session")
def make_network() -> MakeNetwork:
    """``make_network(std=127.5, channels="bgr")`` -> a small network for 32 pixels.

    Its first argument is a name of ``build_model``. Batch norms have the statistics of noise, so
    that embeddings differ between images as a trained network's do, and slopes differ by channel.
    """

    def make(name: str | None = None, width: int = 8, **preprocessing: object) -> EmbeddingModel:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            stated = Preprocessing(**{"size": 32, **preprocessing})
            model = TinyNetwork(stated)
            if name is not None:
                model = build_model(
                    name, embedding_dim=16, width=width, size=stated.size, preprocessing=stated
                )
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                    module.momentum = 1.0
                if isinstance(module, nn.PReLU):
                    module.weight.data.uniform_(0.1, 0.4)
            noise = torch.randint(0, 256, (16, stated.size, stated.size, 3), dtype=torch.uint8)
            with torch.no_grad():
                model.train()(stated.apply(noise))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def embed_by_hand() -> Callable[[EmbeddingModel, np.ndarray], np.ndarray]:
    """Return f(x) (N, D) of uint8 RGB images (N, S, S, 3), normalised without the library."""

    def embed(model: EmbeddingModel, images: np.ndarray) -> np.ndarray:
        stated = model.preprocessing
        pixels = images[..., ::-1] if stated.channels == "bgr" else images
        x = (pixels.astype(np.float64) - stated.mean) / stated.std
        with torch.inference_mode():
            inputs = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32).copy())
            return model(inputs).numpy()

    return embed


@pytest.fixture(scope="session")
def faces() -> np.ndarray:
    """Images (40, 32, 32, 3) uint8 with large areas, as photographs have."""
    coarse = np.random.default_rng(7).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)
