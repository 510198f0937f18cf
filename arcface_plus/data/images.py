"""Decode and encode images: uint8, RGB, (height, width, 3) in memory."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import cv2
import numpy as np

from arcface_plus.data.image_headers import MAX_BYTES, MAX_PIXELS, check_image_header


def decode_image(data: bytes, *, where: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a JPEG, PNG, BMP or PNM image to (H, W, 3) uint8 RGB; grey becomes three channels.

    EXIF orientation is applied, as OpenCV and mxnet do. What ``check_image_header`` refuses is
    refused before a pixel is decoded. Raises ValueError naming ``where`` for unknown, oversized,
    corrupt or cut data.
    """
    try:
        return decode_pixels(data, max_pixels)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def decode_pixels(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode as ``decode_image`` does; the ValueError leaves it to the caller to name the image."""
    check_image_header(data, max_pixels)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ValueError(str(error)) from error
    if pixels is None:
        raise ValueError("the image data are corrupt or cut off; replace the image")
    return pixels


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file to (H, W, 3) uint8 RGB; errors name the path."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    return decode_image(read_image_bytes(path), where=str(path))


def read_image_bytes(path: Path) -> bytes:
    """Return an image file's content; ValueError for more bytes than any image may have."""
    with path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
            raise ValueError(f"{path}: {size} bytes exceed the limit of {MAX_BYTES} for an image")
        return file.read(size)  # a larger number would be allocated at once


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
