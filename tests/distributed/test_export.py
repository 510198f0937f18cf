from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from arcface_plus.data.collections import Collection
from arcface_plus.distributed import World
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions
from arcface_plus.evaluation.embedding.sets import read_embedding_set
from arcface_plus.export import embeddings as export
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.preprocessing import Preprocessing

COUNT = 23


class TinyNet(EmbeddingModel):
    def __init__(self) -> None:
        preprocessing = Preprocessing(size=8)
        super().__init__("tiny", embedding_dim=3, size=8, preprocessing=preprocessing, options=None)
        torch.manual_seed(0)
        self.fc = nn.Linear(192, 3)

    def forward(self, x):
        return self.fc(x.flatten(1))


class Faces(list):
    """Images, some of which cannot be read."""

    def __getitem__(self, index):
        if index in (4, 17):
            raise ValueError(f"image {index} is damaged")
        return super().__getitem__(index)


def export_here(rank: int, size: int, folder: str) -> list[str]:
    export.BLOCK = 4  # 6 blocks for 1, 2 or 3 ranks
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    keys = [f"p{i % 5}/{i}.jpg" for i in range(COUNT)]
    collection = Collection(Faces(images), keys, np.arange(COUNT) % 5)
    world = World(rank, size, torch.device("cpu"))
    output, options = Path(folder) / f"{size}.npz", EmbeddingOptions(batch_size=3)
    return export.export_embeddings(
        TinyNet().eval(), collection, output, world, options, skip_bad=True
    )


@pytest.mark.slow
def test_every_number_of_ranks_writes_the_same_bytes(run_ranks, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "BLOCK", export.BLOCK)  # restored here; ranks have their own
    skipped = export_here(0, 1, str(tmp_path))
    assert skipped == ["image 4 is damaged", "image 17 is damaged"]
    held = read_embedding_set(tmp_path / "1.npz")
    assert len(held) == COUNT - 2 and np.ptp(held.embeddings, axis=0).min() > 0.1
    for size in (2, 3):
        assert run_ranks(export_here, size, size, str(tmp_path)) == [skipped] * size
        written = (tmp_path / f"{size}.npz").read_bytes()
        assert written == (tmp_path / "1.npz").read_bytes()
        listed = (tmp_path / f"{size}.npz.skipped.txt").read_text().splitlines()
        assert listed == skipped


def test_one_ranks_failure_is_everyones(run_ranks, tmp_path):
    (tmp_path / "2.npz").write_bytes(b"")
    with pytest.raises(Exception, match="--overwrite"):
        run_ranks(export_here, 2, 2, str(tmp_path))
