"""External data of ONNX files: in the file's folder, and nowhere else."""

from __future__ import annotations

import pytest

from arcface_plus.data.onnx_files import check_external_data, external_files

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")


def tensor(location: str):
    made = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=1)
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        made.external_data.add(key=key, value=value)
    return made


def model(place: str, location: str):
    """Return a model with an external tensor in one of the places where tensors may be."""
    helper = onnx.helper
    inner = helper.make_graph([], "inner", [], [], [tensor(location)])
    constant = helper.make_node("Constant", [], ["c"], value=tensor(location))
    nodes = {
        "constant": constant,
        "subgraph": helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
        "list": helper.make_node("Odd", [], ["z"], values=[tensor(location)], domain="odd"),
    }
    initializers = [tensor(location)] if place == "initializer" else []
    graph = helper.make_graph([nodes[place]] if place in nodes else [], "g", [], [], initializers)
    functions = []
    if place == "function":
        imports = [helper.make_opsetid("", 17)]
        functions = [helper.make_function("odd", "f", [], ["c"], [constant], imports)]
    return helper.make_model(graph, functions=functions, producer_name="test")


PLACES = ("initializer", "constant", "subgraph", "list", "function")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["../b", "/etc/passwd", "x/../../b", "link", "a\0b"])
def test_paths_that_leave_the_folder(tmp_path, place, location):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "b")
    (folder / "a.onnx").write_bytes(model(place, location).SerializeToString())
    assert location in external_files(folder / "a.onnx")
    with pytest.raises(ValueError, match=r"a\.onnx: it takes weights from .* outside its own"):
        check_external_data(folder / "a.onnx")


@pytest.mark.parametrize("place", PLACES)
def test_files_of_the_folder_are_allowed(tmp_path, place):
    path = tmp_path / "a.onnx"
    path.write_bytes(model(place, "sub/w.bin").SerializeToString())
    check_external_data(path)
    assert set(external_files(path)) == {"sub/w.bin"}


def test_the_processes_own_memory_is_outside(tmp_path):
    (tmp_path / "a.onnx").write_bytes(
        model("initializer", "*/_ORT_MEM_ADDR_/*").SerializeToString()
    )
    with pytest.raises(ValueError, match="outside its own folder"):
        check_external_data(tmp_path / "a.onnx")


def test_unknown_groups_hide_nothing(tmp_path):
    content = model("initializer", "../b").SerializeToString()
    group = b"\xfb\x3e" + b"\xfc\x3e"  # begin and end of field 1007, which protobuf skips
    (tmp_path / "a.onnx").write_bytes(group + content + group)
    assert onnx.load(tmp_path / "a.onnx", load_external_data=False).graph.initializer
    with pytest.raises(ValueError, match="outside"):
        check_external_data(tmp_path / "a.onnx")


@pytest.mark.parametrize("content", [b"", b"text", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 20])
def test_what_is_no_protobuf_is_refused(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.onnx is no ONNX file"):
        check_external_data(tmp_path / "a.onnx")
