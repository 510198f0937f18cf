"""ONNX files are run here by onnxruntime alone, as a client runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from arcface_plus.export.onnx_file import export_onnx
from arcface_plus.export.statement import Statement
from arcface_plus.models import Preprocessing, load_model, model_hash

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

LAYERS = {"Conv", "PRelu", "BatchNormalization", "Add", "Gemm"}
SHAPES = {"Shape", "Gather", "Concat", "Reshape"}  # of the flattening; older exporters need all
MACHINE_PATHS = re.compile(rb"/[\w/.+-]+\.py")


def as_a_client(path: Path, images: np.ndarray) -> np.ndarray:
    """Return embeddings as insightface computes them: (x - 127.5) / 127.5, RGB, NCHW."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = ((images.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
    (output,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(x)})
    return output


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest distance of two embeddings, relative to the expected one's norm."""
    assert found.shape == expected.shape and found.dtype == np.float32
    errors = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    return float(errors.max())


@pytest.fixture(scope="module")
def exported(make_network, tmp_path_factory) -> Path:
    """A network of the package's own preprocessing, (x - 127.5) / 128."""
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    stated = Statement(license="MIT", data_license="research only")
    return export_onnx(make_network(), path, statement=stated)


def changed(path: Path, target: Path, change) -> Path:
    """Write ``path`` again as ``target``, after ``change(file, its statement of the source)``."""
    file = onnx.load(path)
    (entry,) = [each for each in file.metadata_props if each.key == "arcface_plus.source"]
    change(file, entry)
    onnx.save(file, target)
    return target


def test_an_fp32_file_says_what_it_gives_the_embeddings_of(exported, make_network, tmp_path):
    network = make_network()
    source = load_model(exported).source
    assert source == (model_hash(network), network.preprocessing.to_json())
    again = export_onnx(load_model(exported), tmp_path / "again.onnx")
    assert load_model(again).source == source, "not the file between"
    half = export_onnx(load_model(exported), tmp_path / "half.onnx", precision="fp16")
    assert load_model(half).source is None
    stated = Preprocessing(size=32, mean=100)
    assert load_model(exported, preprocessing=stated).source is None


@pytest.mark.parametrize("claim", ["", "[]", "{}", '{"model_hash": 1}', "[" * 100_000])
def test_a_damaged_statement_of_the_source_is_none(exported, tmp_path, claim):
    def damage(file, entry):
        entry.value = claim

    assert load_model(changed(exported, tmp_path / "x.onnx", damage)).source is None


def test_a_changed_network_is_not_its_source_any_more(exported, tmp_path):
    def renamed(file, entry):
        file.graph.node[0].name += "x"

    def untouched(file, entry):
        file.metadata_props.add(key="note", value="of a user")

    assert load_model(changed(exported, tmp_path / "x.onnx", renamed)).source is None
    kept = load_model(changed(exported, tmp_path / "y.onnx", untouched))
    assert kept.source == load_model(exported).source is not None


def test_a_client_gets_the_networks_embeddings(exported, make_network, embed_by_hand, faces):
    expected = embed_by_hand(make_network(), faces)
    for batch in (1, 3, 40):
        assert distance(as_a_client(exported, faces[:batch]), expected[:batch]) < 1e-5
    # Without the fold, 128 for 127.5 would show; and faces differ.
    unfolded = make_network()
    unfolded.preprocessing = Preprocessing(std=127.5, size=32)
    assert distance(embed_by_hand(unfolded, faces), expected) > 1e-4
    assert distance(expected[1:], expected[:-1]) > 0.1


@pytest.mark.slow
def test_a_mobilefacenet(make_network, embed_by_hand, faces, tmp_path):
    network = make_network("mobilefacenet", width=64)
    path = export_onnx(network, tmp_path / "net.onnx")
    expected = embed_by_hand(network, faces)
    assert distance(as_a_client(path, faces), expected) < 1e-5
    assert {node.op_type for node in onnx.load(path).graph.node} <= {*LAYERS, *SHAPES}


def test_blue_first_networks_take_red_first(make_network, embed_by_hand, faces, tmp_path):
    network = make_network(std=100.0, channels="bgr")
    path = export_onnx(network, tmp_path / "bgr.onnx")
    expected = embed_by_hand(network, faces)
    assert distance(as_a_client(path, faces), expected) < 1e-5
    assert distance(as_a_client(path, faces[..., ::-1]), expected) > 1e-2


def test_our_own_reader_needs_no_preprocessing(exported, make_network, embed_by_hand, faces):
    model = load_model(exported)
    assert model.preprocessing == Preprocessing(std=127.5, size=32)
    assert distance(embed_by_hand(model, faces), embed_by_hand(make_network(), faces)) < 1e-5


def test_the_file_has_the_form_that_clients_expect(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    (given,), (result,) = model.graph.input, model.graph.output
    shape = [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim]
    assert shape == ["batch", 3, 32, 32]
    assert [d.dim_param or d.dim_value for d in result.type.tensor_type.shape.dim] == ["batch", 16]
    assert {node.op_type for node in model.graph.node} <= {*LAYERS, *SHAPES}
    assert next(n for n in model.graph.node if n.op_type not in SHAPES).op_type == "Conv"
    misleading = ("Sub", "_minus", "Mul", "_mul")
    assert not [n.name for n in model.graph.node if n.name.startswith(misleading)]
    assert {(each.domain, each.version) for each in model.opset_import} == {("", 18)}
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_the_file_says_what_it_is_and_not_where_it_was_made(exported):
    facts = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    assert json.loads(facts["arcface_plus.preprocessing"])["std"] == 127.5
    assert json.loads(facts["arcface_plus.architecture"])["name"] == "tiny"
    assert facts["arcface_plus.license"] == "MIT"
    assert facts["arcface_plus.data_license"] == "research only"
    assert "arcface_plus.data" not in facts and facts["arcface_plus.version"]
    assert not MACHINE_PATHS.findall(exported.read_bytes())


def test_the_same_network_gives_the_same_bytes(exported, make_network, tmp_path):
    stated = Statement(license="MIT", data_license="research only")
    again = export_onnx(make_network(), tmp_path / "again.onnx", statement=stated)
    assert again.read_bytes() == exported.read_bytes()


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [({"mean": 0.0, "std": 1.0}, "mean is 0, but only 127.5"), ({"mean": 127.0}, "mean is 127")],
)
def test_another_mean_is_refused_with_the_reason(make_network, tmp_path, preprocessing, message):
    path = tmp_path / "net.onnx"
    with pytest.raises(ValueError, match=rf"net.onnx: .*{message}.*fix: write .safetensors"):
        export_onnx(make_network(**preprocessing), path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_agree_is_not_written(make_network, tmp_path, monkeypatch):
    """What onnxruntime computes is compared: a fold with another scale is noticed."""
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the file from before")
    monkeypatch.setattr("arcface_plus.export.onnx_graph.fold_preprocessing", lambda *_: None)
    with pytest.raises(ValueError, match=r"was not written.*differ from those of tiny"):
        export_onnx(make_network(std=100.0), path)
    assert path.read_bytes() == b"the file from before" and len(list(tmp_path.iterdir())) == 1


def test_fp16_is_half_the_size_and_close(exported, make_network, embed_by_hand, faces, tmp_path):
    path = export_onnx(make_network(), tmp_path / "half.onnx", precision="fp16")
    assert path.stat().st_size < 0.6 * exported.stat().st_size
    expected = embed_by_hand(make_network(), faces)
    assert 1e-6 < distance(as_a_client(path, faces), expected) < 0.01


def test_activations_that_overflow_fp16_are_noticed(make_network, tmp_path):
    network = make_network()
    network.fc.weight.data.mul_(1e6)
    with pytest.raises(ValueError, match=r"an activation reaches .*e\+0.*65504"):
        export_onnx(network, tmp_path / "half.onnx", precision="fp16")
    assert not list(tmp_path.iterdir())
    assert export_onnx(network, tmp_path / "whole.onnx").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "one of fp32, fp16, int8"),
        ({"precision": "int8"}, "--precision int8 and --calibrate IMAGES together"),
        ({"calibration": [np.zeros((32, 32, 3), np.uint8)]}, "together, or neither"),
        (
            {"precision": "int8", "calibration": [np.zeros((48, 40, 3), np.uint8)]},
            r"image 0 is 40 x 48 pixels, but the model takes 32 x 32.*--resize",
        ),
    ],
)
def test_requests_that_do_not_go_together(make_network, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(make_network(), tmp_path / "net.onnx", **options)


def test_another_ending_is_refused(make_network, tmp_path):
    with pytest.raises(ValueError, match=r"ends in .onnx"):
        export_onnx(make_network(), tmp_path / "net.bin")
