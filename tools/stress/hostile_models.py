"""Valid files of embeddings, weights and settings, and how our readers read them."""

from __future__ import annotations

import io
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from samples import Format, Payload, Sample, repacked

from arcface_plus.evaluation.embedding.files import read_embedded_pairs
from arcface_plus.evaluation.embedding.set_files import Contents, write_contents
from arcface_plus.evaluation.embedding.sets import read_embedding_set
from arcface_plus.models import Preprocessing, build_model, load_model, save_model
from arcface_plus.models.onnx_model import PREPROCESSING_KEY
from arcface_plus.runs.configuration import load_config

# -- embeddings ----------------------------------------------------------------------------------


def _embedding_file(path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, 8)).astype(np.float32)
    keys = np.array([f"p{i // 2}/{i}.jpg" for i in range(6)])
    write_contents(path, Contents(keys, np.arange(6) // 2, [rows], 8, None, {}))


def _npzs(folder: Path, marker: str) -> list[Sample]:
    _embedding_file(folder / "a.npz")
    rows = np.random.default_rng(1).standard_normal((6, 8))
    sides = {"embeddings_a": rows[:3], "embeddings_b": rows[3:], "is_same": [True, False, True]}
    code = {**sides, "is_same": np.array([Payload(marker)] * 3, dtype=object)}
    contents = [(folder / "a.npz").read_bytes()]
    for save, arrays in ((np.savez, sides), (np.savez_compressed, sides), (np.savez, code)):
        save(buffer := io.BytesIO(), **arrays)
        contents.append(buffer.getvalue())
    found = [Sample("a.npz", content) for content in contents]
    for content in contents[:3]:  # and their members, in an archive that is whole
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found += [
                Sample("a.npz", archive.read(name), pack=partial(repacked, content, name))
                for name in archive.namelist()
            ]
    return found


def _read_npz(path: Path) -> int:
    """The arrays are those that NumPy reads."""
    try:
        pairs = read_embedded_pairs(path)
        arrays = {"embeddings_a": pairs.embeddings_a, "is_same": pairs.is_same}
    except ValueError:
        found = read_embedding_set(path)
        arrays = {"embedding": found.embeddings, "key": found.keys}
    with zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        for name, array in arrays.items():
            with archive.open(members[name]) as member:
                np.testing.assert_array_equal(array, np.lib.format.read_array(member))
    return sum(array.nbytes for array in arrays.values())


def _npys(folder: Path, marker: str) -> list[Sample]:
    _embedding_file(folder / "a.npy")
    matrix, rows = ((folder / name).read_bytes() for name in ("a.npy", "a.rows.npz"))
    np.save(buffer := io.BytesIO(), np.array([[Payload(marker)]] * 6, dtype=object))
    return [
        Sample("a.npy", matrix, {"a.rows.npz": rows}),
        Sample("a.npy", buffer.getvalue(), {"a.rows.npz": rows}),
    ]


def _read_set(path: Path) -> int:
    found = read_embedding_set(path)
    assert len(found.keys) == len(found.embeddings) == len(found.people("folder"))
    assert found.embeddings.dtype.kind == "f"
    if path.suffix == ".npy":
        np.testing.assert_array_equal(found.embeddings, np.load(path))
    return found.keys.nbytes + found.embeddings.nbytes + int(np.isnan(found.embeddings).sum())


def _parquets(folder: Path, marker: str) -> list[Sample]:
    import pyarrow
    from pyarrow import parquet

    _embedding_file(folder / "a.parquet")
    contents = [(folder / "a.parquet").read_bytes()]
    table = parquet.read_table(folder / "a.parquet")
    for compression in ("gzip", "zstd", "none"):
        parquet.write_table(table, buffer := pyarrow.BufferOutputStream(), compression=compression)
        contents.append(buffer.getvalue().to_pybytes())
    return [Sample("a.parquet", content) for content in contents]


# -- weights and settings ------------------------------------------------------------------------


def _tiny() -> Any:
    size = Preprocessing(size=16)
    return build_model("iresnet18", embedding_dim=4, width=4, size=16, preprocessing=size)


def _safetensors(folder: Path, marker: str) -> list[Sample]:
    save_model(_tiny(), folder / "a.safetensors")
    return [Sample("a.safetensors", (folder / "a.safetensors").read_bytes())]


def _torch_files(folder: Path, marker: str) -> list[Sample]:
    state = _tiny().state_dict()
    contents = []
    for content, zipped in ((state, True), (state, False), ({"a": Payload(marker)}, True)):
        torch.save(content, buffer := io.BytesIO(), _use_new_zipfile_serialization=zipped)
        contents.append(buffer.getvalue())
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(contents[0])) as stored,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
        pickled = stored.read("archive/data.pkl")
    contents.append(packed.getvalue())
    inside = Sample("a.pt", pickled, pack=partial(repacked, contents[0], "archive/data.pkl"))
    return [inside, *(Sample("a.pt", content) for content in contents)]


def _read_weights(path: Path) -> int:
    model = load_model(path)
    return sum(each.nbytes for each in model.state_dict().values())


def _onnxs(folder: Path, marker: str) -> list[Sample]:
    import onnx
    from onnx import helper, numpy_helper

    weight = np.random.default_rng(0).standard_normal((48, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", 1, ["N", 3, 4, 4]),
        helper.make_tensor_value_info("y", 1, ["N", 8]),
    ]
    graph = helper.make_graph(
        nodes, "net", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {PREPROCESSING_KEY: Preprocessing(size=4).to_json()})
    inside = model.SerializeToString()
    onnx.save(
        model, folder / "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0
    )
    outside, data = ((folder / name).read_bytes() for name in ("b.onnx", "b.data"))
    return [Sample("a.onnx", inside), Sample("a.onnx", outside, {"b.data": data})]


def _read_onnx(path: Path) -> int:
    model = load_model(path)
    size = model.preprocessing.size
    assert model(torch.zeros(1, 3, size, size)).shape[0] == 1
    return path.stat().st_size


def _configurations(folder: Path, marker: str) -> list[Sample]:
    root = Path(__file__).resolve().parents[2] / "configs"
    names = ("quickstart.yaml", "casia_r50_arcface.yaml", "margins/adaface.yaml")
    contents = [(root / name).read_bytes() for name in names]
    code = b"name: !!python/object/apply:os.mkdir [%s]\n" % marker.encode()
    aliases = b"a: &a {x: 1}\nb: &b {x: *a, y: *a}\nhead: {margin: *b, x: [*a, *b]}\n"
    base = (root / "casia_r50_arcface.yaml").read_bytes()
    beside = {"casia_r50_arcface.yaml": base}
    return [
        Sample("a.yaml", each.replace(b"../", b""), beside) for each in (*contents, code, aliases)
    ]


def _read_configuration(path: Path) -> int:
    """The name is what PyYAML reads, and the configuration comes back from its own text."""
    config = load_config(path)
    assert config.name == yaml.safe_load(path.read_text(encoding="utf-8")).get("name", config.name)
    return path.stat().st_size


FORMATS = {
    "npz": Format(_npzs, _read_npz),
    "npy": Format(_npys, _read_set),
    # pyarrow asks for what a page's header states, gigabytes of it, but does not touch them: so
    # its address space is not limited. The memory that it takes is measured all the same.
    "parquet": Format(_parquets, _read_set, largest=2**38),
    "safetensors": Format(_safetensors, _read_weights),
    "pt": Format(_torch_files, _read_weights),
    "onnx": Format(_onnxs, _read_onnx),
    "yaml": Format(_configurations, _read_configuration),
}
