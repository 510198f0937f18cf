"""What a name asks for: which files, in which order, and what is refused before any work."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch

from arcface_plus.export.card import Provenance
from arcface_plus.export.model import Request, check_request, export_model
from arcface_plus.export.statement import Statement
from arcface_plus.models import load_model

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

STATED = Statement("mit", "unknown")
SOURCE = Provenance("net")


def test_weights_alone(make_network, tmp_path):
    network = make_network("iresnet18")
    path = tmp_path / "net.safetensors"
    assert export_model(network, Request(path), SOURCE) == []
    loaded = load_model(path)
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), network(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "old.onnx"}, "old.onnx exists; give another --output, or --overwrite"),
        ({"name": "old"}, "config.json exists"),
        ({"name": "file"}, "file is a file; name a folder, or end in .onnx"),
        ({"name": "a.onx"}, "a.onx ends in .onx, but models are written as .onnx"),
        ({"name": "card", "statement": Statement()}, "give --license"),
        ({"name": "a.onnx", "precision": "int4"}, "one of fp32, fp16, int8"),
        ({"name": "a.onnx", "precision": "int8"}, "--calibrate IMAGES together"),
        ({"name": "a.pt2", "precision": "fp16"}, "--precision and --pairs are of ONNX"),
        ({"name": "a.safetensors", "scored": True}, "--precision and --pairs are of ONNX"),
        ({"name": "a.safetensors"}, "has no place for licences"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(make_network, tmp_path, changes, message):
    (tmp_path / "old").mkdir()
    for existing in ("old.onnx", "old/config.json", "file"):
        (tmp_path / existing).write_text("from before")
    changes = dict(changes)
    output, scored = tmp_path / changes.pop("name"), changes.pop("scored", False)
    request = replace(Request(output, statement=STATED), **changes)
    if scored:
        request = replace(request, statement=Statement())
    with pytest.raises(ValueError, match=message):
        check_request(request, make_network(), scored=scored)
    assert (tmp_path / "old.onnx").read_text() == "from before"


def test_a_folder_that_does_not_exist_is_named(make_network, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere of --output does not exist"):
        check_request(Request(tmp_path / "nowhere" / "a.onnx"), make_network(), scored=False)


def test_an_existing_file_is_replaced_where_that_is_asked_for(make_network, tmp_path):
    path = tmp_path / "a.onnx"
    path.write_text("from before")
    export_model(make_network(), Request(path, overwrite=True), SOURCE)
    assert load_model(path).embedding_dim == 16


def test_onnx_files_are_exported_as_onnx_alone(make_network, tmp_path):
    export_model(make_network(), Request(tmp_path / "a.onnx"), SOURCE)
    model = load_model(tmp_path / "a.onnx")
    for name in ("a.safetensors", "a.pt2", "card"):
        with pytest.raises(ValueError, match=r"a.onnx is an ONNX file and is exported as .onnx"):
            export_model(model, Request(tmp_path / name), SOURCE)


def test_a_missing_extra_is_named(make_network, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    absent = {"onnxscript"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in absent else find(n))
    with pytest.raises(ValueError, match=r'onnxscript; fix: pip install "arcface_plus\[onnx\]"'):
        check_request(Request(tmp_path / "a.onnx"), make_network(), scored=False)
    check_request(Request(tmp_path / "a.safetensors"), make_network(), scored=False)
