"""Photographs with faces, and detectors that need no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from arcface_plus.data.faces.face import Face
from arcface_plus.data.images import encode_jpeg, read_image
from arcface_plus.data.sources.orl import orl_folder

TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def face_at(x: float, y: float, size: float, score: float = 0.9) -> Face:
    """Return an upright face whose box of ``size`` pixels begins at x, y."""
    box = np.array([x, y, x + size, y + size])
    return Face(box, TEMPLATE / 112 * size + (x, y), score)


class FixedDetector:
    """Finds the same faces in every image, and remembers the images' shapes."""

    name, longest_side = "fixed", 400

    def __init__(self, *faces: Face) -> None:
        self.faces, self.shapes = list(faces), []

    def detect(self, image: np.ndarray) -> list[Face]:
        self.shapes.append(image.shape)
        return self.faces


@pytest.fixture
def fixed_detector() -> type[FixedDetector]:
    return FixedDetector


@pytest.fixture
def new_face() -> Callable[..., Face]:
    return face_at


@pytest.fixture(scope="session")
def orl() -> Callable[[int, int], np.ndarray]:
    """``orl(person, number)``: a real face that fills its 92×112 photograph; both from 1 on."""
    return lambda person, number: read_image(orl_folder() / f"s{person}" / f"{number}.pgm")


@pytest.fixture
def people(tmp_path: Path, orl) -> Path:
    """A folder of three people with three photographs each, larger than the faces."""
    rng = np.random.default_rng(0)
    for person in (1, 2, 3):
        folder = tmp_path / "people" / f"person {person}"
        folder.mkdir(parents=True)
        for number in (1, 2, 3):
            canvas = np.full((180 + 10 * number, 160 + 10 * person, 3), 90, dtype=np.uint8)
            y, x = rng.integers(20, 50, 2)
            canvas[y : y + 112, x : x + 92] = orl(person, number)
            (folder / f"{number}.jpg").write_bytes(encode_jpeg(canvas))
    return tmp_path / "people"


@pytest.fixture(scope="session")
def scrfd_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``scrfd_file(side=None)``: a random net with SCRFD's inputs and outputs, in a file.

    ``side``: of its input; None leaves it free.
    """

    def make(side: int | None = None) -> Path:
        path = tmp_path_factory.mktemp("scrfd") / "det.onnx"
        onnx.save(scrfd_net(np.random.default_rng(0), side), path)
        return path

    return make


def scrfd_net(rng: np.random.Generator, side: int | None) -> onnx.ModelProto:
    nodes, weights, outputs = [], [], []
    for part, wide in (("score", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            name = f"{part}_{stride}"
            kernel = rng.normal(0, 1.2 / stride, (2 * wide, 3, stride, stride)).astype(np.float32)
            bias = np.full(2 * wide, -2 if part == "score" else 2, dtype=np.float32)
            shape = np.array([-1, wide], dtype=np.int64)
            for label, value in (("k", kernel), ("b", bias), ("s", shape)):
                weights.append(numpy_helper.from_array(value, f"{name}_{label}"))
            nodes += [
                helper.make_node(
                    "Conv", ["input", f"{name}_k", f"{name}_b"], [f"{name}_c"], strides=[stride] * 2
                ),
                helper.make_node("Transpose", [f"{name}_c"], [f"{name}_t"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}_t", f"{name}_s"], [f"{name}_r"]),
                helper.make_node("Sigmoid" if part == "score" else "Abs", [f"{name}_r"], [name]),
            ]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, wide]))
    given = helper.make_tensor_value_info(
        "input", TensorProto.FLOAT, [1, 3, side or "height", side or "width"]
    )
    graph = helper.make_graph(nodes, "det", [given], outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
