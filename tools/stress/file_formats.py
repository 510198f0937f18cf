"""Valid files of each format, and how our readers read them: what ``fuzz_files.py`` damages."""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import yaml

from arcface_plus.data.image_headers import MAX_PIXELS, image_size
from arcface_plus.data.images import encode_jpeg, read_image
from arcface_plus.data.pairs.sets import load_pairs, save_pairs_bin
from arcface_plus.data.records.check import find_record_problems
from arcface_plus.data.records.images import RecordImages
from arcface_plus.data.records.reader import RecordReader, RecordWriter
from arcface_plus.evaluation.embedding.files import read_embedded_pairs
from arcface_plus.evaluation.embedding.set_files import Contents, write_contents
from arcface_plus.evaluation.embedding.sets import read_embedding_set
from arcface_plus.models import Preprocessing, build_model, load_model, save_model
from arcface_plus.models.onnx_model import PREPROCESSING_KEY
from arcface_plus.runs.configuration import load_config

_SIDE = 24


class Sample(NamedTuple):
    """``content`` to damage, the ``file`` that ``pack`` makes of it, and those ``beside`` it.

    ``pack`` puts right what would hide the damage from all but the first check: sums, an archive.
    """

    file: str
    content: bytes
    beside: Mapping[str, bytes] = MappingProxyType({})
    pack: Callable[[bytes], bytes] = bytes


class Format(NamedTuple):
    """``samples(folder, marker)`` makes files; ``read(path)`` reads one, to a number of bytes.

    ``marker``: what code in a hostile sample would create. ``claimed``: the bytes that the content
    of a file states it decodes to, whether it can be read or not; ``largest``: the most of it.
    """

    samples: Callable[[Path, str], list[Sample]]
    read: Callable[[Path], int]
    claimed: Callable[[bytes], int] = lambda content: 0
    largest: int = 2**25


class _Payload:
    """What unpickling as code would run: it makes the marker."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.marker,)


def _face(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (_SIDE, _SIDE))


def _encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, image, list(options))[1])


# -- images --------------------------------------------------------------------------------------


def _jpegs(folder: Path, marker: str) -> list[Sample]:
    plain = encode_jpeg(_face(0))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = b"\xff\xd8\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    progressive = _encoded(".jpg", _face(1), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    grey = _encoded(".jpg", _face(2)[..., 0])
    restarts = _encoded(".jpg", _face(3), cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    return [Sample("a.jpg", each) for each in (plain, turned, progressive, grey, restarts)]


def _pngs(folder: Path, marker: str) -> list[Sample]:
    face = _face(0)
    deep = face.astype(np.uint16) * 257
    clear = np.dstack([face, face[..., :1]])
    bilevel = _encoded(".png", (face[..., 0] > 99).astype(np.uint8), cv2.IMWRITE_PNG_BILEVEL, 1)
    images = [face, face[..., 0], deep, clear]
    contents = [bilevel, *(_encoded(".png", image) for image in images)]
    return [Sample("a.png", each, pack=pack) for each in contents for pack in (bytes, _png_sums)]


def _png_sums(content: bytes) -> bytes:
    """Return a PNG with the check sum of every chunk that is whole."""
    changed, position = bytearray(content), 8
    while position + 12 <= len(changed):
        end = position + 8 + int.from_bytes(changed[position : position + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = zlib.crc32(changed[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return bytes(changed)


def _bmps(folder: Path, marker: str) -> list[Sample]:
    images = [_face(0), _face(1)[..., 0], np.dstack([_face(2), _face(2)[..., :1]])]
    return [Sample("a.bmp", _encoded(".bmp", image)) for image in images]


def _pnms(folder: Path, marker: str) -> list[Sample]:
    face = _face(0)
    texts = (b"P1\n# a\n3 2\n0 1 0\n1 0 1\n", b"P2 2 2 255 1 2 3 4\n", b"P3\n1 1 9\n1 2 3\n")
    raw = [_encoded(".ppm", face), _encoded(".pgm", face[..., 0]), _encoded(".pbm", face[..., 0])]
    deep = _encoded(".ppm", face.astype(np.uint16) * 257)
    return [Sample("a.pgm", each) for each in (*texts, *raw, deep)]


def _read_image(path: Path) -> int:
    image = read_image(path)
    height, width = image_size(path.read_bytes())
    assert image.dtype == np.uint8 and sorted(image.shape) == sorted((height, width, 3))
    return image.nbytes


def _claimed_pixels(content: bytes) -> int:
    try:
        pixels = math.prod(image_size(content))
    except ValueError:
        return 0
    return 3 * pixels if pixels <= MAX_PIXELS else 0


# -- records and pairs ---------------------------------------------------------------------------


def _record_files(folder: Path) -> list[dict[str, bytes]]:
    sets = []
    for layout in ("insightface", "plain"):
        with RecordWriter(folder / "train.rec", image_size=(_SIDE, _SIDE), layout=layout) as writer:
            for i in range(8):
                # A magic word among the bytes, so that some records have several parts.
                word = b"\x0a\x23\xd7\xce" * (i % 3)
                writer.write(encode_jpeg(_face(i)) + word, i // 3)
        names = ("train.rec", "train.idx", "property")
        sets.append({name: (folder / name).read_bytes() for name in names})
        for name in names:
            (folder / name).unlink()
    return sets


def _recs(folder: Path, marker: str) -> list[Sample]:
    found = []
    for files in _record_files(folder):
        content = files.pop("train.rec")
        found += [Sample("train.rec", content, files), Sample("train.rec", content)]
    return found


def _indices(folder: Path, marker: str) -> list[Sample]:
    return [
        Sample(name, content, {other: files[other] for other in files if other != name})
        for files in _record_files(folder)
        for name, content in files.items()
        if name != "train.rec"
    ]


def _read_records(path: Path) -> int:
    with RecordReader(path.with_name("train.rec")) as reader:
        find_record_problems(reader, decode="all")
        records = list(reader)
        images = RecordImages(reader)
        assert len(records) == len(images) == len(images.labels)
        images.names(), reader.identity_ranges
        return sum(len(record.data) for record in records)


def _bins(folder: Path, marker: str) -> list[Sample]:
    images = [encode_jpeg(_face(i)) for i in range(4)]
    save_pairs_bin(folder / "a.bin", images, [True, False])
    contents = [(folder / "a.bin").read_bytes()]
    arrays = [np.frombuffer(image, np.uint8) for image in images]
    contents += [pickle.dumps((arrays, np.array([True, False])), p) for p in (0, 2, 4, 5)]
    contents.append(pickle.dumps((images, [_Payload(marker), False]), 2))
    return [Sample("a.bin", content) for content in contents]


def _read_pairs(path: Path) -> int:
    pairs = load_pairs(path)
    assert pairs.index_a.shape == pairs.index_b.shape == pairs.is_same.shape
    return sum(pairs.images[row].nbytes for row in pairs.used_images())


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
    code = {**sides, "is_same": np.array([_Payload(marker)] * 3, dtype=object)}
    contents = [(folder / "a.npz").read_bytes()]
    for save, arrays in ((np.savez, sides), (np.savez_compressed, sides), (np.savez, code)):
        save(buffer := io.BytesIO(), **arrays)
        contents.append(buffer.getvalue())
    found = [Sample("a.npz", content) for content in contents]
    for content in contents[:3]:  # and their members, in an archive that is whole
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found += [
                Sample("a.npz", archive.read(name), pack=partial(_repacked, content, name))
                for name in archive.namelist()
            ]
    return found


def _repacked(archive: bytes, member: str, content: bytes) -> bytes:
    """Return a zip with ``content`` in the place of a member."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(packed, "w") as new:
        for info in old.infolist():
            new.writestr(info, content if info.filename == member else old.read(info))
    return packed.getvalue()


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
    np.save(buffer := io.BytesIO(), np.array([[_Payload(marker)]] * 6, dtype=object))
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
    for content, zipped in ((state, True), (state, False), ({"a": _Payload(marker)}, True)):
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
    inside = Sample("a.pt", pickled, pack=partial(_repacked, contents[0], "archive/data.pkl"))
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
    "jpeg": Format(_jpegs, _read_image, _claimed_pixels, 3 * MAX_PIXELS),
    "png": Format(_pngs, _read_image, _claimed_pixels, 3 * MAX_PIXELS),
    "bmp": Format(_bmps, _read_image, _claimed_pixels, 3 * MAX_PIXELS),
    "pnm": Format(_pnms, _read_image, _claimed_pixels, 3 * MAX_PIXELS),
    "rec": Format(_recs, _read_records),
    "idx": Format(_indices, _read_records),
    "bin": Format(_bins, _read_pairs),
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
