"""Valid images, records and pair sets, and how our readers read them."""

from __future__ import annotations

import math
import pickle
import zlib
from pathlib import Path

import cv2
import numpy as np
from samples import Format, Payload, Sample

from arcface_plus.data.image_headers import MAX_PIXELS, image_size
from arcface_plus.data.images import encode_jpeg, read_image
from arcface_plus.data.pairs.sets import load_pairs, save_pairs_bin
from arcface_plus.data.records.check import find_record_problems
from arcface_plus.data.records.images import RecordImages
from arcface_plus.data.records.reader import RecordReader, RecordWriter

_SIDE = 24


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
    contents.append(pickle.dumps((images, [Payload(marker), False]), 2))
    return [Sample("a.bin", content) for content in contents]


def _read_pairs(path: Path) -> int:
    pairs = load_pairs(path)
    assert pairs.index_a.shape == pairs.index_b.shape == pairs.is_same.shape
    return sum(pairs.images[row].nbytes for row in pairs.used_images())


FORMATS = {
    "jpeg": Format(_jpegs, _read_image, _claimed_pixels, 3 * MAX_PIXELS),
    "png": Format(_pngs, _read_image, _claimed_pixels, 3 * MAX_PIXELS),
    "bmp": Format(_bmps, _read_image, _claimed_pixels, 3 * MAX_PIXELS),
    "pnm": Format(_pnms, _read_image, _claimed_pixels, 3 * MAX_PIXELS),
    "rec": Format(_recs, _read_records),
    "idx": Format(_indices, _read_records),
    "bin": Format(_bins, _read_pairs),
}
