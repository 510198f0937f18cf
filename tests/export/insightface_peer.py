"""The side of test_insightface.py that runs under insightface's own Python.

python insightface_peer.py MODEL.onnx IMAGES.npy OUT.npy   embed (N, S, S, 3) uint8 BGR images
"""

from __future__ import annotations

import sys

import numpy as np
from insightface.model_zoo import get_model


def main(model_path: str, images_path: str, out_path: str) -> None:
    model = get_model(model_path, providers=["CPUExecutionProvider"])
    assert type(model).__name__ == "ArcFaceONNX", f"insightface takes it for {type(model)}"
    images = np.load(images_path)
    np.save(out_path, np.concatenate([model.get_feat(image) for image in images]))


if __name__ == "__main__":
    main(*sys.argv[1:])
