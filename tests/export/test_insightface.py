"""Our ONNX files in insightface's own client, which lives in an environment of its own.

Its Python is named by ARCFACE_PLUS_INSIGHTFACE_PYTHON (default: .venv-insightface/bin/python).
Where it is absent the tests skip, unless ARCFACE_PLUS_REQUIRE_INSIGHTFACE=1.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.images import read_image
from arcface_plus.export.onnx_file import export_onnx
from arcface_plus.models import Preprocessing, load_model

PEER = Path(__file__).with_name("insightface_peer.py")
BAR = 0.99999

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def client(repository, tmp_path_factory):
    """Return a function that embeds RGB images (N, S, S, 3) with a file in insightface."""
    default = repository / ".venv-insightface" / "bin" / "python"
    python = Path(os.environ.get("ARCFACE_PLUS_INSIGHTFACE_PYTHON", default))
    if not python.exists():
        message = f"{python.name} of insightface's environment is absent; `make clients` creates it"
        if os.environ.get("ARCFACE_PLUS_REQUIRE_INSIGHTFACE") == "1":
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("insightface")

    def embed(path: Path, images: np.ndarray) -> np.ndarray:
        np.save(folder / "images.npy", images[..., ::-1])
        command = [python, PEER, path, folder / "images.npy", folder / "out.npy"]
        # Our own import path must not reach an interpreter with other packages.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [*map(str, command)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return np.load(folder / "out.npy")

    return embed


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.slow
def test_insightface_embeds_as_the_network_does(client, make_network, embed_by_hand, tmp_path):
    """The same embeddings, norms included, though it assumes / 127.5 and the network / 128."""
    network = make_network("iresnet18", width=8, size=112)
    coarse = np.random.default_rng(3).integers(0, 256, (50, 14, 14, 3), dtype=np.uint8)
    crops = coarse.repeat(8, axis=1).repeat(8, axis=2)
    ours = embed_by_hand(network, crops)
    theirs = client(export_onnx(network, tmp_path / "net.onnx"), crops)
    assert cosines(theirs, ours).min() >= BAR
    np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), np.linalg.norm(ours, axis=1), 1e-4)
    assert cosines(ours[1:], ours[:-1]).max() < 0.999  # the crops are told apart


@pytest.mark.slow
def test_insightface_embeds_real_crops_as_the_published_network_does(
    client, shared_data, embed_by_hand, tmp_path
):
    stated = Preprocessing(std=128.0)
    network = load_model(shared_data / "models" / "mobilefacenet_y1.onnx", preprocessing=stated)
    files = sorted((shared_data / "lfw" / "images").glob("*/*.jpg"))[::120]
    crops = np.stack([read_image(file) for file in files])
    assert len(crops) >= 50
    theirs = client(export_onnx(network, tmp_path / "y1.onnx"), crops)
    found = cosines(theirs, embed_by_hand(network, crops))
    assert found.min() >= BAR, found.min()
