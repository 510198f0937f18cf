from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.lazy_images import EncodedImages
from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions, embed, pair_distances
from arcface_plus.evaluation.pairs.verification import verify, verify_distances
from arcface_plus.models.preprocessing import Preprocessing


class TinyNet(nn.Module):
    """A net with batch norm and dropout, whose output depends on left and right."""

    def __init__(self, size: int = 8, dim: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.name, self.embedding_dim = "tiny", dim
        self.preprocessing = Preprocessing(size=size)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(3 * size * size, dim)

    def forward(self, x):
        return self.fc(self.drop(self.norm(x)).flatten(1))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)


def naive(model, images, flip=True) -> np.ndarray:
    model.eval()
    rows = []
    with torch.no_grad():
        for image in images:
            x = (torch.tensor(np.array(image)).permute(2, 0, 1)[None].float() - 127.5) / 128
            y = model(x)
            rows.append((y + model(torch.flip(x, dims=[3])) if flip else y)[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("batch_size", [1, 4, 11, 64])
@pytest.mark.parametrize("flip", [True, False])
def test_equals_one_image_at_a_time(images, batch_size, flip):
    model = TinyNet()
    rows = embed(model, images, flip=flip, batch_size=batch_size)
    assert rows.shape == (11, 5) and rows.dtype == np.float32
    assert np.allclose(rows, naive(model, images, flip), atol=1e-5)
    assert np.array_equal(embed(model, list(images), flip=flip, batch_size=batch_size), rows)


def test_modes_come_back_part_by_part(images):
    model = TinyNet().train()
    model.norm.eval()  # frozen, while the rest trains
    before = model.norm.running_mean.clone()
    embed(model, images)
    assert model.training and model.drop.training and not model.norm.training
    assert torch.equal(model.norm.running_mean, before)
    with pytest.raises(ValueError, match="image 2"):
        embed(model, [*images[:2], images[0][:4]])
    assert model.training and not model.norm.training
    embed(model, images)
    loss = model(torch.zeros(2, 3, 8, 8)).sum()
    loss.backward()  # nothing of inference mode is left


def test_progress_counts_to_the_end(images):
    seen = []
    embed(TinyNet(), images, batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 11), (8, 11), (11, 11)]


class Counting:
    """Count how many images are held before the model has taken them."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.read, self.lock = images, 0, threading.Lock()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        with self.lock:
            self.read += 1
        return self.images[index]


def test_decoding_runs_ahead_by_a_bounded_number():
    images = Counting(np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8))
    ahead = []
    embed(
        TinyNet(),
        images,
        batch_size=5,
        progress=lambda done, total: ahead.append(images.read - done),
    )
    assert images.read == 100 and max(ahead) <= 10


def test_low_precision_is_near_and_float32(images):
    model = TinyNet()
    exact, low = embed(model, images), embed(model, images, precision="bf16")
    assert low.dtype == np.float32 and not np.array_equal(low, exact)
    assert np.allclose(low, exact, atol=0.1)


def test_resize_only_when_asked(images):
    large = np.kron(images, np.ones((1, 2, 2, 1), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"image 0 is 16 x 16 pixels, .* takes 8 x 8.*resize=True"):
        embed(TinyNet(), large)
    model = TinyNet()
    assert np.allclose(embed(model, large, resize=True), naive(model, images), atol=1e-5)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8)]
)
def test_other_forms_are_refused(images, image):
    with pytest.raises(ValueError, match=r"image 11 is .* must be uint8 RGB"):
        embed(TinyNet(), [*images, image])


def test_corrupt_image_is_named():
    images = EncodedImages([b"not a picture"], source="set.bin")
    with pytest.raises(ValueError, match=r"set\.bin, image 0"):
        embed(TinyNet(), images)


def test_non_finite_embedding_names_the_image(images):
    model = TinyNet()
    red = images.copy()
    red[:, :, :, 0] = np.minimum(red[:, :, :, 0], 250)
    red[7, 0, 0, 0] = 255
    model.forward = lambda x: torch.where(x[:, :1, 0, 0] > 0.99, torch.nan, 1.0).expand(-1, 5)
    with pytest.raises(ValueError, match=r"embedding of image 7 has NaN .*\(1 of 4"):
        embed(model, red, batch_size=4, flip=False)


def test_bad_arguments(images):
    with pytest.raises(ValueError, match="precision is 'fp8'"):
        embed(TinyNet(), images, precision="fp8")
    with pytest.raises(ValueError, match="batch_size is 0"):
        embed(TinyNet(), images, batch_size=0)
    with pytest.raises(ValueError, match="no images"):
        embed(TinyNet(), [])
    with pytest.raises(ValueError, match="Linear does not say what it makes of an image"):
        embed(nn.Linear(2, 2), images)


def test_pairs_are_scored_with_each_image_embedded_once(images):
    counting = Counting(images)
    index_a = np.array([0, 1, 2, 3, 9, 9, 1, 0])
    index_b = np.array([1, 2, 3, 9, 0, 1, 3, 0])
    same = np.arange(8) % 2 == 1
    pairs = PairSet(counting, same, index_a=index_a, index_b=index_b)
    model = TinyNet()
    result = verify_distances(pair_distances(model, pairs), same, 2)
    assert counting.read == 5  # 0, 1, 2, 3, 9
    rows = embed(model, images)
    expected = verify(rows[index_a], rows[index_b], same, 2)
    assert result.fold_accuracies == expected.fold_accuracies and result.auc == expected.auc


def test_messages_name_the_pair_sets_own_image():
    blobs = [b"a", b"b", b"c", b"d"]
    pairs = PairSet(
        EncodedImages(blobs, source="set.bin"),
        [True, False],
        index_a=np.array([2, 3]),
        index_b=np.array([3, 2]),
    )
    with pytest.raises(ValueError, match=r"set\.bin, image [23]"):
        pair_distances(TinyNet(), pairs, EmbeddingOptions(flip=False))


def test_wrong_size_names_the_pair_sets_own_image():
    blob = encode_jpeg(np.zeros((8, 16, 3), np.uint8))
    images = EncodedImages([blob] * 4, source="set.bin")
    pairs = PairSet(images, [True, False], index_a=np.array([2, 3]), index_b=np.array([3, 2]))
    with pytest.raises(ValueError, match=r"set\.bin, image 2 is 16 x 8"):
        pair_distances(TinyNet(), pairs)
