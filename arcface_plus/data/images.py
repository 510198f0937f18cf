"""Decode and encode images: uint8, RGB, (height, width, 3) in memory."""

from __future__ import annotations

import base64
import re
import struct
from pathlib import Path

import cv2
import numpy as np

MAX_PIXELS = 2**26
MAX_SIDE = 2**15

_FIRST_BYTES = re.compile(
    rb"(?P<jpeg>\xff\xd8\xff)|(?P<png>\x89PNG\r\n\x1a\n)|(?P<bmp>BM)|(?P<pnm>P[1-6])"
)
_JPEG_END = b"\xff\xd9"
_PNM_HEAD = re.compile(rb"P([1-6])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")


def decode_image(data: bytes, *, where: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a JPEG, PNG, BMP or PNM image to (H, W, 3) uint8 RGB; grey becomes three channels.

    EXIF orientation is applied, as OpenCV and mxnet do. The size is read from the header and
    refused beyond ``max_pixels`` before a pixel is decoded. Raises ValueError naming ``where`` for
    unknown, oversized, corrupt or cut data.
    """
    try:
        height, width = image_size(data)
        if height * width > max_pixels or max(height, width) > MAX_SIDE:
            raise ValueError(
                f"{width}×{height} pixels exceed the limit of {max_pixels} (a side: {MAX_SIDE}); "
                "scale the image down"
            )
        # After the first scan: a thumbnail in the metadata has an end mark of its own. Without its
        # end, OpenCV fills a JPEG with grey; it refuses the other formats itself.
        if image_format(data) == "jpeg" and data.rfind(_JPEG_END, _jpeg_frame(data)[2]) < 0:
            raise ValueError(f"the jpeg data are cut off ({len(data)} bytes); replace the image")
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
        if pixels is None:
            raise ValueError("the image data are corrupt or cut off; replace the image")
    except (ValueError, cv2.error) as error:
        raise ValueError(f"{where}: {error}") from error
    return pixels


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file to (H, W, 3) uint8 RGB; errors name the path."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    return decode_image(path.read_bytes(), where=str(path))


def encode_jpeg(rgb: np.ndarray, quality: int = 95) -> bytes:
    """Encode (H, W, 3) uint8 RGB as a JPEG of ``quality`` in [1, 100], chroma halved (4:2:0)."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(
            f"encode_jpeg needs a uint8 array of shape (H, W, 3), got {rgb.dtype} {rgb.shape}"
        )
    if not 1 <= quality <= 100:
        raise ValueError(f"quality={quality} must be in [1, 100]; 95 is usual")
    bgr = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, f"OpenCV could not encode an image of shape {rgb.shape} as JPEG"
    return bytes(data)


def resized(image: np.ndarray, size: int, *, enlarge: int = cv2.INTER_CUBIC) -> np.ndarray:
    """Return ``image`` (H, W, 3) as (size, size, 3): areas where both sides shrink, else cubic.

    ``enlarge``: another of OpenCV's interpolations in place of cubic.
    """
    if image.shape[:2] == (size, size):
        return image
    method = cv2.INTER_AREA if min(image.shape[:2]) >= size else enlarge
    return np.asarray(cv2.resize(image, (size, size), interpolation=method))


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Return ``image`` (H, W, 3) with the longer side ``side`` pixels at most, its shape kept."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def jpeg_uri(rgb: np.ndarray, quality: int) -> str:
    """Return (H, W, 3) uint8 RGB as the address of an image inside a page."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(rgb, quality)).decode('ascii')}"


def image_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) from the header of a JPEG, PNG, BMP or PNM file, without decoding.

    Raises ValueError for other formats and for headers that are cut or state no pixels.
    """
    kind = image_format(data)
    if kind == "jpeg":
        height, width, _ = _jpeg_frame(data)
    elif kind == "png":
        _require_bytes(data, 24)
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    elif kind == "bmp":
        height, width = _bmp_size(data)
    else:
        match = _PNM_HEAD.match(data[:4096])
        if match is None:
            raise ValueError("the PNM header is cut or malformed; replace the image")
        width, height = int(match[2]), int(match[3])
    if height <= 0 or width <= 0:
        raise ValueError(f"the header states {width}×{height} pixels; replace the image")
    return height, width


def image_format(data: bytes) -> str:
    """Return "jpeg", "png", "bmp" or "pnm" by the first bytes; raise ValueError for others."""
    if (match := _FIRST_BYTES.match(data)) and match.lastgroup:
        return match.lastgroup
    raise ValueError(
        f"unknown image format (first bytes {data[:8].hex(' ') or 'none'}); "
        "JPEG, PNG, BMP and PNM (pgm, ppm) are read: convert the image"
    )


def _require_bytes(data: bytes, count: int) -> None:
    if len(data) < count:
        raise ValueError(f"the image is cut: {len(data)} bytes, {count} needed; replace it")


def _jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Return (height, width, offset of the first scan) by walking the JPEG's segments."""
    position, height, width = 2, 0, 0
    while True:
        _require_bytes(data, position + 4)
        if data[position] != 0xFF:
            raise ValueError(f"byte {position} of the JPEG is no marker; replace the image")
        marker = data[position + 1]
        if marker == 0xFF:  # Fill bytes may precede a marker.
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # These stand alone, without a length.
            position += 2
            continue
        # SOF0..SOF15 hold the size; C4, C8 and CC among them are other tables.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _require_bytes(data, position + 9)
            height, width = struct.unpack_from(">HH", data, position + 5)
        if marker in (0xD9, 0xDA):
            return height, width, position
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))


def _bmp_size(data: bytes) -> tuple[int, int]:
    _require_bytes(data, 26)
    if int.from_bytes(data[14:18], "little") == 12:  # The OS/2 header has 16-bit sizes.
        return int.from_bytes(data[20:22], "little"), int.from_bytes(data[18:20], "little")
    width = int.from_bytes(data[18:22], "little", signed=True)
    # A negative height means that rows come from top to bottom.
    return abs(int.from_bytes(data[22:26], "little", signed=True)), width
