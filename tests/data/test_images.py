"""Decoding: colours, formats, limits before decoding, cut and corrupt files."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcface_plus.data import images
from arcface_plus.data.image_headers import image_format, image_size
from arcface_plus.data.images import decode_image, encode_jpeg, read_image

FORMATS = {".jpg": "jpeg", ".png": "png", ".bmp": "bmp", ".ppm": "pnm"}


def picture(height=40, width=60):
    """A smooth colour picture: red grows downwards, blue to the right, green is constant."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, blue = rows * 255 // height, columns * 255 // width
    return np.stack([red, np.full_like(red, 90), blue], axis=2).astype(np.uint8)


def encoded(extension, rgb=None):
    rgb = picture() if rgb is None else rgb
    done, data = cv2.imencode(extension, rgb[..., ::-1] if rgb.ndim == 3 else rgb)
    assert done
    return bytes(data)


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82"


@pytest.mark.parametrize("extension", FORMATS)
def test_formats_give_rgb_in_their_own_size(extension):
    data = encoded(extension)
    assert image_format(data) == FORMATS[extension]
    assert image_size(data) == (40, 60)
    pixels = decode_image(data, where="x")
    assert (pixels.shape, pixels.dtype) == ((40, 60, 3), np.uint8)
    error = np.abs(pixels.astype(int) - picture()).max()
    assert error <= (12 if extension == ".jpg" else 0)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".pgm"])
def test_grey_becomes_three_equal_channels(extension):
    grey = picture()[..., 0]
    pixels = decode_image(encoded(extension, grey), where="x")
    assert pixels.shape == (40, 60, 3)
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0].astype(int) - grey).max() <= (4 if extension == ".jpg" else 0)


def test_alpha_and_sixteen_bits_come_out_as_three_bytes():
    rgba = np.concatenate([picture(), np.full((40, 60, 1), 7, np.uint8)], axis=2)
    done, data = cv2.imencode(".png", rgba[..., [2, 1, 0, 3]])
    assert done
    np.testing.assert_array_equal(decode_image(bytes(data), where="x"), picture())
    deep = picture()[..., ::-1].astype(np.uint16) * 257
    done, data = cv2.imencode(".png", deep)
    assert done
    np.testing.assert_array_equal(decode_image(bytes(data), where="x"), picture())


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], ["thumbnail"]])
def test_jpeg_variants_state_their_size(options):
    thumbnail = options == ["thumbnail"]
    done, data = cv2.imencode(".jpg", picture(), [] if thumbnail else options)
    assert done
    data = bytes(data)
    if thumbnail:
        small = encoded(".jpg", picture(8, 8))
        segment = b"\xff\xe1" + struct.pack(">H", len(small) + 2) + small
        data = data[:2] + b"\xff" + segment + data[2:]  # One fill byte as well.
    assert image_size(data) == (40, 60)
    assert decode_image(data, where="x").shape == (40, 60, 3)
    with pytest.raises(ValueError, match="x: the jpeg data are cut off"):
        decode_image(data[:-20], where="x")


@pytest.mark.parametrize(
    "data",
    [
        png_header(2**31 - 1, 2**31 - 1),
        png_header(8193, 8193),
        png_header(2**15 + 1, 1),
        b"P5 99999999 99999999 255\n",
        b"P6\n# a comment\n100000\n# another\n100000\n255\n",
        b"BM" + bytes(12) + struct.pack("<Iii", 40, 60000, -60000) + bytes(28),
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + bytes(9) + b"\xff\xda\0\x02\xff\xd9",
    ],
)
def test_too_many_pixels_are_refused_before_decoding(data, monkeypatch):
    monkeypatch.setattr(images.cv2, "imdecode", None)
    with pytest.raises(ValueError, match=r"big one: .*exceed the limit"):
        decode_image(data, where="big one")


def test_limit_is_the_callers():
    assert decode_image(encoded(".png"), where="x", max_pixels=2400).shape == (40, 60, 3)
    with pytest.raises(ValueError, match="60×40 pixels exceed the limit of 2399"):
        decode_image(encoded(".png"), where="x", max_pixels=2399)


@pytest.mark.parametrize("extension", FORMATS)
def test_every_cut_is_noticed(extension):
    data = encoded(extension)
    for length in [*range(64), *range(64, len(data) - 4, 97), len(data) - 12]:
        with pytest.raises(ValueError, match="cut one: "):
            decode_image(data[:length], where="cut one")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "unknown image format"),
        (b"GIF89a\1\0\1\0", "unknown image format"),
        (b"P5 x y", "PNM header"),
        (b"P5 0 4 255\n", "states 0×4 pixels"),
        (png_header(0, 5), "states 0×5 pixels"),
        (png_header(5, 5), "corrupt"),
        (b"\xff\xd8\xff\xd9\0\0", "states 0×0 pixels"),
        (b"\xff\xd8\xff\xe0\0\x02abcdef", "no marker"),
    ],
)
def test_broken_headers_name_the_place(data, message):
    with pytest.raises(ValueError, match=f"a.rec, record 3: .*{message}"):
        decode_image(data, where="a.rec, record 3")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_flipped_bytes_give_an_image_or_a_value_error(extension, flips):
    data = bytearray(encoded(extension))
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    try:
        pixels = decode_image(bytes(data), where="x", max_pixels=2**20)
    except ValueError as error:
        assert str(error).startswith("x: ")
    else:
        assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)
        assert pixels.shape[0] * pixels.shape[1] <= 2**20


@given(st.binary(max_size=80))
def test_random_bytes_give_value_errors(data):
    for magic in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"P5", b"P1 2 2\n"):
        try:
            decode_image(magic + data, where="x", max_pixels=2**20)
        except ValueError:
            continue


def test_read_image_names_the_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(".png"))
    np.testing.assert_array_equal(read_image(path), picture())
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.png: unknown image format"):
        read_image(path)
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        read_image(tmp_path / "b.png")


def test_encode_jpeg_keeps_colours_and_obeys_quality():
    high, low = encode_jpeg(picture(), quality=98), encode_jpeg(picture(), quality=20)
    assert len(low) < len(high)
    assert np.abs(decode_image(high, where="x").astype(int) - picture()).max() <= 8
    np.testing.assert_array_equal(
        decode_image(encode_jpeg(picture()[:, ::-1][:, ::-1]), where="x"),
        decode_image(encode_jpeg(picture()), where="x"),
    )


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), "u1"),
        np.zeros((4, 4, 4), "u1"),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), "u1"),
    ],
)
def test_encode_jpeg_refuses_other_arrays(pixels):
    with pytest.raises(ValueError, match=r"uint8 array of shape \(H, W, 3\)"):
        encode_jpeg(pixels)


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_encode_jpeg_refuses_impossible_quality(quality):
    with pytest.raises(ValueError, match=f"quality={quality}"):
        encode_jpeg(picture(), quality)


def test_real_photographs_have_the_size_their_headers_state(shared_data):
    paths = sorted((shared_data / "lfw" / "images").glob("*/*.jpg"))[::50]
    assert len(paths) > 100
    for path in paths:
        assert image_size(path.read_bytes()) == read_image(path).shape[:2] == (112, 112)
