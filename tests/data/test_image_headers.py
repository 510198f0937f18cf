"""Headers that state more pixels than the file can hold, or than decoding may take."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from arcface_plus.data import image_headers
from arcface_plus.data.image_headers import check_image_header, image_size
from arcface_plus.data.images import decode_image, read_image


def encoded(suffix: str, *options: int, shape=(40, 60, 3)) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return bytes(cv2.imencode(suffix, image, list(options))[1])


def jpeg_with_size(data: bytes, width: int, height: int) -> bytes:
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def png_with_size(data: bytes, width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + zlib.crc32(head).to_bytes(4, "big") + data[33:]


CLAIMS = {
    "jpeg": jpeg_with_size(encoded(".jpg"), 8000, 8000),
    "png": png_with_size(encoded(".png"), 8000, 8000),
    "bmp": (lambda d: d[:18] + struct.pack("<ii", 8000, -8000) + d[26:])(encoded(".bmp")),
    "pgm": b"P5 8000 8000 255\n" + bytes(100),
    "ppm": b"P6\n# c\n41 60\n255\n" + bytes(40 * 60 * 3),
    "deep pgm": b"P5 40 60 65535\n" + bytes(40 * 60),
    "pbm": b"P4 800 800\n" + bytes(100),
    "text": b"P2 800 800 255\n" + b"1 " * 100,
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_pixels_that_the_file_cannot_hold_are_refused_before_decoding(kind, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(ValueError, match=r"claim: .* take \d+ bytes at least, but .* it has \d+"):
        decode_image(CLAIMS[kind], where="claim")


def test_files_of_the_fewest_bytes_are_read():
    """One colour packs best: what is refused must be less than the best packing."""
    flat = np.zeros((4000, 4000, 3), np.uint8)
    for suffix, options in (
        (".png", [cv2.IMWRITE_PNG_COMPRESSION, 9]),
        (".jpg", [1, 1]),
        (".bmp", []),
    ):
        data = bytes(cv2.imencode(suffix, flat, options)[1])
        assert decode_image(data, where=suffix).shape == flat.shape
    bilevel = cv2.imencode(".png", flat[..., 0], [cv2.IMWRITE_PNG_BILEVEL, 1, 16, 9])[1]
    assert decode_image(bytes(bilevel), where="x").shape == flat.shape
    progressive = encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 1)
    assert decode_image(progressive, where="x").shape == (40, 60, 3)
    check_image_header(b"P1\n2 2\n0110")


@pytest.mark.parametrize("comment", [b"#x\r", b"#x\n", b"\n#x\r\n", b"# 9 9\n#\r"])
def test_a_comment_ends_where_opencv_ends_it(comment):
    data = b"P5 " + comment + b"3 2 255\n" + bytes(range(6))
    assert image_size(data) == cv2.imdecode(np.frombuffer(data, np.uint8), 0).shape == (2, 3)
    with pytest.raises(ValueError, match="3000×3000 pixels, which take 9000000 bytes"):
        decode_image(b"P5 #a\r3000 3000 255\n 4 4 255\n" + bytes(16), where="x")


def test_progressive_jpegs_have_a_lower_limit(monkeypatch):
    progressive = encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    monkeypatch.setattr(image_headers, "MAX_BUFFERED_PIXELS", 40 * 60 - 1)
    with pytest.raises(ValueError, match=r"limit of 2399 for a progressive JPEG; .* baseline"):
        decode_image(progressive, where="x")
    assert decode_image(encoded(".jpg"), where="x").shape == (40, 60, 3)
    # A baseline JPEG that has a scan a colour is decoded in the same way.
    data = encoded(".jpg")
    scan = data.find(b"\xff\xda")
    with pytest.raises(ValueError, match="progressive"):
        check_image_header(data[: scan + 4] + b"\1" + data[scan + 5 :])


def test_arithmetic_coding_is_refused():
    data = encoded(".jpg")
    at = data.find(b"\xff\xc0")
    with pytest.raises(ValueError, match="arithmetically"):
        image_size(data[: at + 1] + b"\xc9" + data[at + 2 :])


def test_png_chunks_lie_in_the_file():
    data = bytearray(encoded(".png"))
    at = data.find(b"IDAT") - 4
    data[at : at + 4] = (2**28).to_bytes(4, "big")
    with pytest.raises(ValueError, match="the image is cut"):
        decode_image(bytes(data), where="x")
    with pytest.raises(ValueError, match="IHDR"):
        image_size(bytes(data).replace(b"IHDR", b"IHDX"))


def test_files_longer_than_any_image_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        file.truncate(image_headers.MAX_BYTES + 1)  # a hole: nothing is written
    with pytest.raises(ValueError, match=r"a\.jpg: 536870913 bytes exceed the limit of 536870912"):
        read_image(path)
